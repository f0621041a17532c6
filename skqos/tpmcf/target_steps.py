"""Training rows at given time steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from skqos._errors import about
from skqos._times import TimeScale, read_times


def rows_at_steps(
    target_steps: Sequence[Any] | str, steps: np.ndarray, scale: TimeScale
) -> np.ndarray:
    """Return the training rows at target steps.

    Parameters
    ----------
    target_steps : sequence of int or of time stamps, or "last"
        Steps, by number or by any time stamp in them, or the last step.
    steps : ndarray of int64 of shape (n,)
        Steps of the training rows.
    scale : TimeScale
        Conversion of time stamps to steps.

    Returns
    -------
    ndarray of int64
        Positions of rows.

    Raises
    ------
    ValueError
        If there is no row at these steps, or `target_steps` are no times.
    """
    rows = np.flatnonzero(np.isin(steps, _numbers(target_steps, steps, scale)))
    if len(rows) == 0:
        first, last = map(scale.name_of, (int(steps.min()), int(steps.max())))
        raise ValueError(
            f"target_steps={target_steps!r}: no training row is at one of these steps; the steps "
            f"of X are from {first} to {last}."
        )
    return rows


def _numbers(target_steps: Sequence[Any] | str, steps: np.ndarray, scale: TimeScale) -> Any:
    if isinstance(target_steps, str):
        return steps.max()
    if len(target_steps) == 0:
        return []
    with about("target_steps"):
        times = read_times(pd.Series(list(target_steps)), "target_steps")
        return scale.steps_of(times, "target_steps")
