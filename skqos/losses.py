"""Losses on the scale of the transformed target, blind to what was not observed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def absolute_error(error: Tensor) -> Tensor:
    """Absolute error, elementwise."""
    return error.abs()


def squared_error(error: Tensor) -> Tensor:
    """Half the squared error, elementwise."""
    return 0.5 * error.square()


def huber(error: Tensor) -> Tensor:
    """Huber loss with its threshold at 1, elementwise."""
    return F.huber_loss(error, torch.zeros_like(error), reduction="none")


LOSSES = {"absolute_error": absolute_error, "squared_error": squared_error, "huber": huber}


class ObservedLoss(nn.Module):
    """Mean of an elementwise loss over the observed entries of the target.

    Parameters
    ----------
    loss : {"absolute_error", "squared_error", "huber"}
        The elementwise loss.
    """

    def __init__(self, loss: str) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Average over targets that are not NaN; 0 if there is none."""
        observed = ~target.isnan()
        # where, not indexing: shapes stay fixed, and NaN never meets the gradient.
        error = prediction - torch.where(observed, target, prediction.detach())
        return LOSSES[self.loss](error).sum() / observed.sum().clamp(min=1)
