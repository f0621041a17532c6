"""Features of the time of day and the day of the week of time steps with dates."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos._times import TimeScale

NANOSECONDS_PER_DAY = 86_400 * 10**9
DAYS_PER_WEEK = 7
# Sines and cosines with periods of a day, half a day and a third of a day.
N_HARMONICS = 3
# With fewer days, the time of day (or the day of the week) would identify single steps.
MIN_DAYS = 2
MIN_DAYS_FOR_WEEKDAYS = 14


class Calendar(nn.Module):
    """Features of steps: time of day and, optionally, day of the week.

    Parameters
    ----------
    step_length : int
        Length of a step in ns.
    first_weekday : int
        Day of the week of step 0, which starts at midnight; 0 is Monday.
    with_weekdays : bool
        Whether there are features of the day of the week.

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
        """Return features of steps, (n,), as (1, n, out_dim), shared by all members."""
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
    """Create the calendar of training steps, or return None.

    There is none for integers, which have no dates, and for less than two days of data.

    Parameters
    ----------
    scale : TimeScale
        Conversion of times to steps.
    steps : ndarray of int64 of shape (n_steps,)
        Measured steps, ascending.
    """
    if scale.step is None:
        return None
    n_days = (int(steps[-1]) - int(steps[0]) + 1) * scale.step.value / NANOSECONDS_PER_DAY
    if n_days < MIN_DAYS:
        return None
    return Calendar(
        scale.step.value, scale.origin.weekday(), with_weekdays=n_days >= MIN_DAYS_FOR_WEEKDAYS
    )
