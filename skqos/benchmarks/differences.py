"""Differences of the errors of two models on the same cells, with confidence intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skqos.benchmarks._split import Split

# Quantile of the normal distribution for 95 %.
Z = 1.96


class Difference(NamedTuple):
    """Errors of a model relative to those of another model, minus 1.

    Parameters
    ----------
    mae : float
        Relative difference of the MAE.

    half_width : float
        Half of the width of its 95 % confidence interval.

    rmse : float
        Relative difference of the RMSE.

    by_seed : ndarray of shape (n_seeds,)
        Relative difference of the MAE for each seed.
    """

    mae: float
    half_width: float
    rmse: float
    by_seed: NDArray[np.float64]


def sum_by_user(split: Split, prediction: NDArray[np.float64]) -> pd.DataFrame:
    """Return the sums of the errors of each test user.

    Parameters
    ----------
    split : Split
        Split with test values.

    prediction : ndarray of shape (n_test,)
        Predictions of the test rows.

    Returns
    -------
    DataFrame
        One row for each user with the columns ``user``, ``n`` (number of cells), ``absolute`` and
        ``squared`` (sums of the errors).
    """
    errors = prediction - split.y_test
    table = pd.DataFrame(
        {
            "user": np.asarray(split.X_test)[:, 0],
            "n": 1,
            "absolute": np.abs(errors),
            "squared": errors**2,
        }
    )
    return table.groupby("user", as_index=False).sum()


def compare(errors: pd.DataFrame, reference: pd.DataFrame) -> Difference:
    """Compare two models on the same cells.

    The interval is that of a ratio of means, by linearisation and the normal distribution. Cells
    are paired: the variance is that of the difference of the two errors of a cell. It has two
    parts, which are added. Cells of one user are dependent, so users are the independent units of
    the first. The second is the variance of the difference between seeds, and needs at least two.

    Parameters
    ----------
    errors, reference : DataFrame
        Errors of the model and of the model it is compared with, on the same cells and for the same
        seeds: the columns of `sum_by_user` and ``seed``. Folds are in further rows.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos.benchmarks.differences import compare
    >>> reference = pd.DataFrame(
    ...     {"seed": 0, "user": [0, 1], "n": 1, "absolute": [1.0, 3.0], "squared": [1.0, 9.0]}
    ... )
    >>> found = compare(reference.assign(absolute=[1.0, 2.0]), reference)
    >>> round(found.mae, 3), round(found.half_width, 3)
    (-0.25, 0.245)
    """
    own, other = (
        part.groupby(["user", "seed"])[["absolute", "squared"]].sum().unstack(fill_value=0.0)
        for part in (errors, reference)
    )
    absolute, of_reference = own["absolute"].to_numpy(), other["absolute"].to_numpy()
    by_seed = absolute.sum(axis=0) / of_reference.sum(axis=0) - 1
    ratio, variance = _ratio_of_sums(absolute.mean(axis=1), of_reference.mean(axis=1))
    if len(by_seed) > 1:
        variance += by_seed.var(ddof=1) / len(by_seed)
    rmse = [np.sqrt(part["squared"].sum()).mean() for part in (own, other)]
    half_width = Z * float(np.sqrt(variance))
    return Difference(ratio - 1, half_width, float(rmse[0] / rmse[1]) - 1, by_seed)


def _ratio_of_sums(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the ratio of the sums over independent units, and its variance."""
    ratio = numerators.sum() / denominators.sum()
    residuals = (numerators - ratio * denominators) / denominators.sum()
    n = len(residuals)
    return float(ratio), float((residuals**2).sum() * n / (n - 1))
