"""Scores of predictions of the test rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skqos.benchmarks._split import Split
from skqos.benchmarks.fits import QUANTILES
from skqos.metrics import (
    choice_regret,
    interval_coverage,
    nan_mean_absolute_error,
    nan_normalized_mean_absolute_error,
    nan_root_mean_squared_error,
    near_best_share,
    outlier_mask,
    winkler_score,
)

N_CHOICES = 10
ERRORS = ("mae", "rmse", "nmae")
FILTERED = ("mae_filtered", "rmse_filtered")
CHOICES = ("regret", "near_best")
INTERVALS = ("coverage", "winkler")


def flag_outliers(split: Split) -> NDArray[np.bool_]:
    """Mark the test cells that the filtered protocol excludes by their values."""
    values = np.concatenate([split.y, split.y_test])
    mask = outlier_mask(values, contamination=0.1, max_samples="all", random_state=42)
    return mask[len(split.y) :]


def score_errors(
    values: NDArray[np.float64],
    prediction: NDArray[np.float64],
    kept: Mapping[str, NDArray[np.bool_]],
) -> dict[str, float]:
    """Return errors on all test cells, and on the cells that each named protocol keeps."""
    scores = {}
    for name, cells in {"": slice(None), **kept}.items():
        scores[f"mae{name}"] = nan_mean_absolute_error(values[cells], prediction[cells])
        scores[f"rmse{name}"] = nan_root_mean_squared_error(values[cells], prediction[cells])
    return scores


def score(
    split: Split,
    prediction: NDArray[np.float64],
    intervals: NDArray[np.float64] | None = None,
    kept: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Score predictions of the test rows of a split.

    Parameters
    ----------
    split : Split
        Split with test values.

    prediction : ndarray of shape (n_test,)
        Predictions of the test rows.

    intervals : ndarray of shape (n_test, 2), default=None
        90 % intervals of the test rows.

    kept : ndarray of bool of shape (n_test,), default=None
        Test cells that the filtered protocol keeps.

    Returns
    -------
    dict of str to float
        ``mae``, ``rmse``, ``nmae``, ``mae_filtered``, ``rmse_filtered``, ``regret``,
        ``near_best``, ``coverage`` and ``winkler``, NaN for scores that cannot be computed.
    """
    scores = dict.fromkeys([*ERRORS, *FILTERED, *CHOICES, *INTERVALS], np.nan)
    scores |= score_errors(split.y_test, prediction, {} if kept is None else {"_filtered": kept})
    scores["nmae"] = nan_normalized_mean_absolute_error(split.y_test, prediction)
    scores |= score_choices(split, prediction)
    if intervals is not None:
        level = QUANTILES[1] - QUANTILES[0]
        scores["coverage"] = interval_coverage(split.y_test, intervals)
        scores["winkler"] = winkler_score(split.y_test, intervals, confidence_level=level)
    return scores


def score_choices(split: Split, prediction: NDArray[np.float64]) -> dict[str, float]:
    """Score choices among ten services of a user; NaN if no user has enough rows."""
    users = np.asarray(split.X_test)[:, 0]
    if pd.Series(users).value_counts().max() < N_CHOICES:
        return dict.fromkeys(CHOICES, np.nan)
    choice = (split.y_test, prediction, users)
    options = {"direction": split.direction, "n_services": N_CHOICES, "random_state": 0}
    regret = choice_regret(*choice, **options)
    near = near_best_share(*choice, absolute=split.margin, **options)
    return {"regret": regret, "near_best": near}
