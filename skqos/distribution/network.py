"""A network that predicts all quantiles of the error of a pair."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from skqos.distribution.quantiles import LEVELS
from skqos.members import MemberLinear

N_MEMBERS = 5
HIDDEN_DIM = 32
N_EPOCHS = 30
BATCH_SIZE = 256
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.01
# Minimum distance of the initial quantiles.
MIN_STEP = 1e-3
MIDDLE = len(LEVELS) // 2


class QuantileNetwork(nn.Module):
    """Quantiles of an error given features of the pair; each member is trained without one fold.

    The outputs of the network are the median and the transformed distances between neighbouring
    levels, so that the quantiles of a member never cross. Features outside the range of training
    are clipped to it.

    Parameters
    ----------
    features : Tensor of shape (n, n_features)
        Features of the training rows, which are standardised here.
    error : Tensor of shape (n,)
        Errors of the training rows, whose quantiles are the initial values.
    """

    def __init__(self, features: Tensor, error: Tensor) -> None:
        super().__init__()
        mean, scale = features.mean(0), features.std(0, correction=0)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(scale > 0, scale, 1.0))
        self.register_buffer("lowest", features.amin(0))
        self.register_buffer("highest", features.amax(0))
        unit = error.abs().mean()
        self.register_buffer("unit", torch.where(unit > 0, unit, 1.0))
        start = torch.quantile(error / self.unit, torch.as_tensor(LEVELS, dtype=error.dtype))
        steps = start.diff().clamp(min=MIN_STEP)
        self.register_buffer("median", start[MIDDLE])
        # The inverse of softplus.
        self.register_buffer("steps", steps + torch.log(-torch.expm1(-steps)))
        self.first = MemberLinear(N_MEMBERS, features.shape[1], HIDDEN_DIM)
        self.second = MemberLinear(N_MEMBERS, HIDDEN_DIM, HIDDEN_DIM)
        self.last = MemberLinear(N_MEMBERS, HIDDEN_DIM, len(LEVELS))
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            self.last.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Return the quantiles of each member, of shape (N_MEMBERS, n, n_levels)."""
        inside = features.clamp(self.lowest, self.highest)
        hidden = torch.relu(self.first((inside - self.mean) / self.scale))
        raw = self.last(torch.relu(self.second(hidden)))
        median = raw[..., MIDDLE : MIDDLE + 1] + self.median
        raw_steps = torch.cat([raw[..., :MIDDLE], raw[..., MIDDLE + 1 :]], dim=-1)
        steps = nn.functional.softplus(raw_steps + self.steps)
        up = steps[..., MIDDLE:].cumsum(-1)
        down = steps[..., :MIDDLE].flip(-1).cumsum(-1).flip(-1)
        return self.unit * torch.cat([median - down, median, median + up], dim=-1)

    @torch.inference_mode()
    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the average over the members, of shape (n, n_levels)."""
        return self(torch.as_tensor(features)).mean(0).numpy().astype(np.float64)

    @torch.inference_mode()
    def predict_out_of_fold(self, features: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Return the quantiles of each training row from the member that has not seen it."""
        quantiles = self(torch.as_tensor(features)).numpy().astype(np.float64)
        return quantiles[fold, np.arange(len(fold))]


def train_quantile_network(
    features: np.ndarray, error: np.ndarray, fold: np.ndarray, seed: int
) -> QuantileNetwork:
    """Minimise the pinball loss over all levels; each member is trained without its fold.

    Parameters
    ----------
    features : ndarray of float32 of shape (n, n_features)
        Features of the pairs.
    error : ndarray of float64 of shape (n,)
        Target minus prediction.
    fold : ndarray of int of shape (n,)
        Below `N_MEMBERS`.
    seed : int
        Seed of weights and batches.
    """
    # Imported here, because the module imports skorch, which prediction does not need.
    from skqos.training import seeded

    x = torch.as_tensor(features)
    y = torch.as_tensor(error, dtype=torch.float32)
    # Whether a member is trained on a row.
    sees = torch.as_tensor(fold[None, :] != np.arange(N_MEMBERS)[:, None]).float()
    with seeded(seed, torch.device("cpu")):
        network = QuantileNetwork(x, y)
        optimizer = torch.optim.AdamW(
            network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        n_batches = max(len(y) // BATCH_SIZE, 1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, total_steps=N_EPOCHS * n_batches
        )
        for _ in range(N_EPOCHS):
            for rows in torch.randperm(len(y)).tensor_split(n_batches):
                optimizer.zero_grad()
                _pinball_loss(network(x[rows]), y[rows], sees[:, rows], network.unit).backward()
                optimizer.step()
                schedule.step()
    return network.eval()


def _pinball_loss(quantiles: Tensor, error: Tensor, weight: Tensor, unit: Tensor) -> Tensor:
    """Average over levels and over the rows of each member; sum over members."""
    levels = torch.as_tensor(LEVELS, dtype=error.dtype)
    above = (error[:, None] - quantiles) / unit
    losses = torch.maximum(levels * above, (levels - 1) * above).mean(-1)
    return ((losses * weight).sum(1) / weight.sum(1).clamp(min=1)).sum()
