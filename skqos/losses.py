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


def huber(error: Tensor, threshold: float = 1.0) -> Tensor:
    """Huber loss, elementwise."""
    return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=threshold)


def e_huber(error: Tensor, threshold: float = 0.5, tail_weight: float = 0.05) -> Tensor:
    r"""Huber loss with another slope beyond its threshold, elementwise.

    :math:`e^2 / 2` up to the threshold :math:`\varsigma`, beyond it
    :math:`\varsigma^2 / 2 + \psi \varsigma (|e| - \varsigma)`, so that it is continuous.
    """
    size = error.abs()
    tail = 0.5 * threshold**2 + tail_weight * threshold * (size - threshold)
    return torch.where(size < threshold, 0.5 * size.square(), tail)


def e_huber_printed(error: Tensor, threshold: float = 0.5, tail_weight: float = 0.05) -> Tensor:
    r"""E-Huber as R2SL prints it (eq. 27), elementwise; discontinuous.

    Beyond the threshold :math:`\psi (\varsigma |e| - \varsigma^2 / 2)`. With the paper's 0.5 and
    0.05 the loss falls from 0.125 to 0.00625 at the threshold: errors up to 5.25 cost less than
    one just below 0.5.
    """
    size = error.abs()
    tail = tail_weight * (threshold * size - 0.5 * threshold**2)
    return torch.where(size < threshold, 0.5 * size.square(), tail)


LOSSES = {
    "absolute_error": absolute_error,
    "squared_error": squared_error,
    "huber": huber,
    "e_huber": e_huber,
    "e_huber_printed": e_huber_printed,
}


class ObservedLoss(nn.Module):
    """Mean of an elementwise loss over the observed entries of the target.

    Parameters
    ----------
    loss : {"absolute_error", "squared_error", "huber", "e_huber", "e_huber_printed"}
        The elementwise loss.
    **constants : float
        Of that loss.
    """

    def __init__(self, loss: str, **constants: float) -> None:
        super().__init__()
        self.loss = loss
        self.constants = constants

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Average over targets that are not NaN; 0 if there is none."""
        observed = ~target.isnan()
        # where, not indexing: shapes stay fixed, and NaN never meets the gradient.
        error = prediction - torch.where(observed, target, prediction.detach())
        return LOSSES[self.loss](error, **self.constants).sum() / observed.sum().clamp(min=1)
