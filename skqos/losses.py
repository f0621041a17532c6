"""Losses on the scale of the transformed target, over the observed entries."""

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
    r"""Huber loss with a different slope beyond its threshold, elementwise.

    :math:`e^2 / 2` up to the threshold :math:`\varsigma`, beyond it
    :math:`\varsigma^2 / 2 + \psi \varsigma (|e| - \varsigma)`, so that it is continuous.
    """
    size = error.abs()
    tail = 0.5 * threshold**2 + tail_weight * threshold * (size - threshold)
    return torch.where(size < threshold, 0.5 * size.square(), tail)


def e_huber_printed(error: Tensor, threshold: float = 0.5, tail_weight: float = 0.05) -> Tensor:
    r"""E-Huber loss as printed in the R2SL paper (eq. 27), elementwise; discontinuous.

    It is :math:`\psi (\varsigma |e| - \varsigma^2 / 2)` beyond the threshold. With the values 0.5
    and 0.05 of the paper, the loss drops from 0.125 to 0.00625 at the threshold, so that errors up
    to 5.25 cost less than one just below 0.5.
    """
    size = error.abs()
    tail = tail_weight * (threshold * size - 0.5 * threshold**2)
    return torch.where(size < threshold, 0.5 * size.square(), tail)


def cauchy(error: Tensor, scale: float = 1.0) -> Tensor:
    r"""Cauchy loss :math:`\log(1 + (e / \gamma)^2)`, elementwise (TPMCF, eq. 9 and 10)."""
    return torch.log1p((error / scale).square())


LOSSES = {
    "absolute_error": absolute_error,
    "cauchy": cauchy,
    "squared_error": squared_error,
    "huber": huber,
    "e_huber": e_huber,
    "e_huber_printed": e_huber_printed,
}


# Lower bound of sums of weights, by which losses are divided.
TINY = 1e-12


def n_members_of(prediction: Tensor, target: Tensor) -> int:
    """Return the number of members, which are the first axis of predictions but not of targets."""
    return len(prediction) if prediction.ndim > target.ndim else 1


def _observed_error(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return a mask of observed entries, and their errors; 0 for others."""
    observed = ~target.isnan()
    # `where` instead of indexing keeps shapes fixed and NaN out of the gradient.
    return observed, prediction - torch.where(observed, target, prediction.detach())


def _entry_weights(observed: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Return the weights of the entries of the target; 0 if not observed."""
    if sample_weight is None:
        return observed.float()
    return observed * sample_weight.view(-1, *[1] * (observed.ndim - 1))


class ObservedLoss(nn.Module):
    """Mean of an elementwise loss over the observed entries of the target.

    Parameters
    ----------
    loss : {"absolute_error", "cauchy", "squared_error", "huber", "e_huber", "e_huber_printed"}
        The elementwise loss.
    **constants : float
        Constants of the loss.
    """

    def __init__(self, loss: str, **constants: float) -> None:
        super().__init__()
        self.loss = loss
        self.constants = constants

    def forward(
        self, prediction: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Average over members and observed targets; 0 without observation.

        Parameters
        ----------
        prediction : Tensor of shape (n, ...) or (n_members, n, ...)
            Predictions, with or without an axis of members.
        target : Tensor of shape (n, ...)
            Targets; NaN where not observed.
        sample_weight : Tensor of shape (n,), default=None
            Weights of the rows; None is 1 for all.
        """
        observed, error = _observed_error(prediction, target)
        weight = _entry_weights(observed, sample_weight)
        losses = (LOSSES[self.loss](error, **self.constants) * weight).sum()
        return losses / (weight.sum() * n_members_of(prediction, target)).clamp(min=TINY)


DWA_TEMPERATURE = 2.0


class JointLoss(nn.Module):
    """Weighted mean over tasks of an elementwise loss over each task's observed entries.

    The weights sum to the number of tasks, except for "uncertainty", where they are learnt. In
    evaluation mode all tasks have the same weight.

    Parameters
    ----------
    loss : str
        The elementwise loss, one of ``LOSSES``.
    n_tasks : int
        Number of targets P.
    weighting : {"ema", "dwa", "uncertainty", "equal"}
        - "ema": inverse to the loss, smoothed over steps by an exponential moving average that
          starts from the first loss (SHARP-QoS).
        - "dwa": dynamic weight average, a softmax over the ratios of the last two epochs' losses
          (Liu, Johns, Davison, CVPR 2019).
        - "uncertainty": exp(-s) L + s with s learnt, the likelihood of Laplace noise (after
          Kendall, Gal, Cipolla, CVPR 2018).
        - "equal": 1.
    ema_decay : float
        Weight beta of the previous average in the new one.
    """

    def __init__(self, loss: str, n_tasks: int, weighting: str, ema_decay: float) -> None:
        super().__init__()
        self.loss = loss
        self.n_tasks = n_tasks
        self.weighting = weighting
        self.ema_decay = ema_decay
        self.register_buffer("weights", torch.ones(n_tasks))
        # Smoothed losses; 0 until the first observation of a task.
        self.register_buffer("smoothed", torch.zeros(n_tasks))
        self.register_buffer("loss_sums", torch.zeros(n_tasks, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(n_tasks, dtype=torch.float64))
        self.epoch_losses: list[Tensor] = []
        if weighting == "uncertainty":
            self.log_scale = nn.Parameter(torch.zeros(n_tasks))
            self.log_scale.no_weight_decay = True

    def forward(
        self, prediction: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Average over members and observed targets (n, n_tasks); 0 without observation.

        Parameters are those of `ObservedLoss.forward`.
        """
        observed, error = _observed_error(prediction, target)
        weight = _entry_weights(observed, sample_weight)
        counts = weight.sum(0)
        entries = (LOSSES[self.loss](error) * weight).flatten(0, -2)
        n_members = n_members_of(prediction, target)
        losses = entries.sum(0) / (counts * n_members).clamp(min=TINY)
        if not self.training:
            return losses.sum() / (counts > 0).sum().clamp(min=1)
        with torch.no_grad():
            self._update(losses, counts)
        if self.weighting == "uncertainty":
            seen = counts > 0
            scaled = torch.exp(-self.log_scale) * losses + seen * self.log_scale
            return scaled.sum() / self.n_tasks
        return (self.weights * losses).sum() / self.n_tasks

    def end_epoch(self) -> dict[str, float]:
        """End an epoch; return the loss and the weight of each task."""
        losses = self.loss_sums / self.counts.clamp(min=TINY)
        self.loss_sums.zero_()
        self.counts.zero_()
        record = {f"train_loss_{k}": value for k, value in enumerate(losses.tolist())}
        record |= {f"task_weight_{k}": value for k, value in enumerate(self.weights.tolist())}
        self.epoch_losses = [*self.epoch_losses[-1:], losses]
        if self.weighting == "dwa" and len(self.epoch_losses) == 2:
            before, last = self.epoch_losses
            ratios = torch.where(before > 0, last / before, 1).nan_to_num()
            self.weights.copy_(self.n_tasks * torch.softmax(ratios / DWA_TEMPERATURE, dim=0))
        return record

    def _update(self, losses: Tensor, counts: Tensor) -> None:
        """Update the smoothed losses and the weights of the tasks."""
        self.loss_sums += losses * counts
        self.counts += counts
        if self.weighting == "uncertainty":
            self.weights.copy_(torch.exp(-self.log_scale))
        if self.weighting != "ema":
            return
        fresh = self.ema_decay * self.smoothed + (1 - self.ema_decay) * losses
        fresh = torch.where(self.smoothed > 0, fresh, losses)
        self.smoothed.copy_(torch.where(counts > 0, fresh, self.smoothed))
        # A task without observation does not affect the weights of the others.
        known = self.smoothed > 0
        inverse = torch.where(known, 1 / self.smoothed.clamp(min=1e-12), 0)
        share = inverse / inverse.sum().clamp(min=1e-12)
        self.weights.copy_(torch.where(known, known.sum() * share, 1))
