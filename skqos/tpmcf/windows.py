"""Windows: which measured steps the sequence of a target step contains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Steps of the sequences of n target steps, as positions of measured steps.

    Attributes
    ----------
    steps : Tensor of int64 of shape (n, window)
        Steps in order of time: those up to `ends`, placed by their distance from it, and later
        ones, placed by their distance from the first of them; 0 for padding.
    present : Tensor of bool of shape (n, window)
        False for padding: before the first step, after the last one, and for steps without
        measurement. The step `ends` is always present.
    ends : Tensor of int64 of shape (n,)
        Last step that is not later than the target step.
    own : Tensor of int64 of shape (n,)
        The target step, or UNMEASURED if it has no measurement.
    horizons : Tensor of int64 of shape (n,)
        Distance from `ends` to the target step, at most the largest that training draws.
    distances : Tensor of int64 of shape (n,)
        Distance from the target step to the first later one, likewise; 0 if there is none.
    targets : Tensor of int64 of shape (n,)
        The target steps, as times.
    """

    steps: Tensor
    present: Tensor
    ends: Tensor
    own: Tensor
    horizons: Tensor
    distances: Tensor
    targets: Tensor


def lay_windows(times: np.ndarray, window: int) -> tuple[Tensor, Tensor]:
    """Return the measured steps in the window that ends at each of them.

    A window spans `window` consecutive times. The memory is proportional to the number of measured
    steps, not to the time between them.

    Parameters
    ----------
    times : ndarray of int64 of shape (n_steps,)
        The measured steps, ascending.
    window : int
        Length of a window.

    Returns
    -------
    steps : Tensor of int64 of shape (n_steps, window)
        Positions in `times`; 0 without measurement.
    present : Tensor of bool of shape (n_steps, window)
        Whether there is a measurement.
    """
    wanted = times[:, None] + np.arange(1 - window, 1)
    # The smallest integers wrap around to steps that are not before them.
    return _find_steps(times, wanted, wanted <= times[:, None])


def lay_later_steps(times: np.ndarray, n_later: int) -> tuple[Tensor, Tensor]:
    """Return the measured steps of the windows that begin at each of them, and of an empty one.

    Parameters
    ----------
    times : ndarray of int64 of shape (n_steps,)
        The measured steps, ascending.
    n_later : int
        Length of a window.

    Returns
    -------
    steps : Tensor of int64 of shape (n_steps + 1, n_later)
        Positions in `times`; 0 without measurement.
    present : Tensor of bool of shape (n_steps + 1, n_later)
        Whether there is a measurement. The last row is empty.
    """
    wanted = times[:, None] + np.arange(n_later)
    steps, present = _find_steps(times, wanted, wanted >= times[:, None])
    nothing = torch.zeros(1, n_later, dtype=torch.int64)
    return torch.cat([steps, nothing]), torch.cat([present, nothing.bool()])


def _find_steps(times: np.ndarray, wanted: np.ndarray, valid: np.ndarray) -> tuple[Tensor, Tensor]:
    steps = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
    present = (times[steps] == wanted) & valid
    return torch.tensor(np.where(present, steps, 0)), torch.tensor(present)


def longest_horizon(times: np.ndarray, limit: int) -> int:
    """Return the longest horizon that is drawn in training: at most half of the time measured.

    Each horizon then occurs with several steps. For a horizon that occurs with few steps, the
    network would learn the level of these steps.

    Parameters
    ----------
    times : ndarray of int64 of shape (n_steps,)
        The measured steps, ascending.
    limit : int
        Upper limit, at least 1.
    """
    return min(limit, max((int(times[-1]) - int(times[0]) + 1) // 2, 1))


def interpolate_horizons(longest: int) -> Tensor:
    """Write each horizon as a mean of the nearest of 0, 1, 2, 4, 8 and so on.

    Parameters
    ----------
    longest : int
        The longest horizon.

    Returns
    -------
    Tensor of shape (longest + 1, n_knots)
        Shares of the knots in each horizon; the last knot is the longest horizon or beyond it.
    """
    horizons = np.arange(longest + 1)
    # 0 for horizon 0, 1 for 1, 2 for 2, 3 for 4.
    place = np.where(horizons > 0, 1 + np.log2(np.maximum(horizons, 1)), 0.0)
    knots = np.arange(int(np.ceil(place[-1])) + 1)
    shares = np.maximum(1 - np.abs(place[:, None] - knots), 0)
    return torch.tensor(shares, dtype=torch.float32)
