"""The time of the day and of the week of a step, where time steps have dates."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos._times import TimeScale

NANOSECONDS_PER_DAY = 86_400 * 10**9
DAYS_PER_WEEK = 7
# Sines and cosines of a day, of half a day and of a third of it.
N_HARMONICS = 3
# Of fewer days, the time of the day, or the day of the week, tells one step from all others.
MIN_DAYS = 2
MIN_DAYS_FOR_WEEKDAYS = 14


class Calendar(nn.Module):
    """Describe steps by their time of the day and, where asked for, their day of the week.

    Parameters
    ----------
    step_length : int
        Length of a step in ns.
    first_weekday : int
        Day of the week in which step 0 begins, at midnight; 0 is Monday.
    with_weekdays : bool
        Whether days of the week are told apart.

    Attributes
    ----------
    out_dim : int
        Number of features.
    """

    def __init__(self, step_length: int, first_weekday: int, with_weekdays: bool) -> None:
        super().__init__()
        self.step_length = step_length
        self.first_weekday = first_weekday
        self.with_weekdays = with_weekdays
        self.out_dim = 2 * N_HARMONICS + DAYS_PER_WEEK * with_weekdays

    def forward(self, steps: Tensor) -> Tensor:
        """Describe steps of shape (n,); (1, n, out_dim), the same for all members."""
        elapsed = steps * self.step_length
        of_day = torch.remainder(elapsed, NANOSECONDS_PER_DAY).double() / NANOSECONDS_PER_DAY
        harmonics = torch.arange(1, N_HARMONICS + 1, device=steps.device)
        angles = (2 * torch.pi * of_day.unsqueeze(1) * harmonics).float()
        features = [angles.sin(), angles.cos()]
        if self.with_weekdays:
            days = torch.div(elapsed, NANOSECONDS_PER_DAY, rounding_mode="floor")
            weekdays = torch.remainder(days + self.first_weekday, DAYS_PER_WEEK)
            features.append(F.one_hot(weekdays, DAYS_PER_WEEK).float())
        return torch.cat(features, dim=1).unsqueeze(0)


def make_calendar(scale: TimeScale, steps: np.ndarray) -> Calendar | None:
    """Make the calendar of training steps, or none.

    Integers have no dates; neither has a course of a day been seen in less than two of them.

    Parameters
    ----------
    scale : TimeScale
        How times count in steps.
    steps : ndarray of int64 of shape (n_steps,)
        The measured steps, ascending.
    """
    if scale.step is None:
        return None
    n_days = (int(steps[-1]) - int(steps[0]) + 1) * scale.step.value / NANOSECONDS_PER_DAY
    if n_days < MIN_DAYS:
        return None
    return Calendar(
        scale.step.value, scale.origin.weekday(), with_weekdays=n_days >= MIN_DAYS_FOR_WEEKDAYS
    )
