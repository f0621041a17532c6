"""What share of values prediction intervals cover, and how wide they are for that."""

from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from skqos._errors import check_same_length
from skqos._ids import make_index
from skqos._parameters import validated
from skqos._sklearn_compat import Interval
from skqos._target_checks import as_target
from skqos.metrics._common import (
    MultiOutput,
    as_column,
    as_labels,
    check_multioutput,
    combine_targets,
    mean_observed,
)


@validated({"n_bands": [Interval(Integral, 1, None, closed="left")]})
def interval_coverage(
    y_true: ArrayLike,
    intervals: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    by: ArrayLike | None = None,
    n_bands: int = 10,
    multioutput: MultiOutput = "uniform_average",
) -> float | NDArray[np.float64] | pd.Series | pd.DataFrame:
    """Share of the observed values that lie in their prediction interval.

    Intervals of a confidence level of 0.9 should cover 0.9 of the values, and not only overall: a
    model may cover all fast pairs and hardly any slow one. `groups` and `by` tell the shares apart.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observed values in any unit; NaN where nothing was observed.

    intervals : array-like of shape (n_samples, 2) or (n_samples, n_targets, 2)
        Lower and upper end of each interval in the unit of `y_true`. The ends are part of it.

    groups : array-like of shape (n_samples,), default=None
        A label of each row, such as its user: one share for each label.

    by : array-like of shape (n_samples,), default=None
        Finite numbers, such as the predictions: one share for each of `n_bands` bands of them that
        hold about as many rows each. Rows with the same number are in the same band.

    n_bands : int, default=10
        Number of bands. There are fewer where many numbers of `by` are the same.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" averages the targets, each with weight 1, and leaves out a target without
        any observation. "raw_values" returns one share per target, NaN for such a target.

    Returns
    -------
    coverage : float, ndarray of shape (n_targets,), Series or DataFrame
        From 0.0 to 1.0. With `groups` or `by` a Series, or with "raw_values" a DataFrame with a
        column for each target, that has a row for each group with an observation. Its index holds
        the sorted labels, or the bands as intervals, of which the lowest includes its left end.

    Raises
    ------
    ValueError
        If a value is infinite or beyond 1e300, `intervals` or `by` hold NaN, a lower end is above
        its upper end, shapes do not go together, both `groups` and `by` are given, labels are
        missing or of several kinds, or nothing was observed.

    See Also
    --------
    winkler_score : Narrow intervals score better, if they cover.
    skqos.inspection.IntervalCoverageDisplay : Draws the shares.

    Examples
    --------
    >>> from skqos.metrics import interval_coverage
    >>> y_true = [1.0, 2.0, 3.0, 9.0]
    >>> intervals = [[0.5, 1.5], [1.5, 2.5], [2.0, 4.0], [5.0, 8.0]]
    >>> interval_coverage(y_true, intervals)
    0.75
    >>> interval_coverage(y_true, intervals, groups=["ann", "bob", "ann", "bob"]).to_dict()
    {'ann': 1.0, 'bob': 0.5}
    """
    check_multioutput(multioutput)
    covers = cover_rows(*check_intervals(y_true, intervals))
    if groups is None and by is None:
        return combine_targets(mean_observed(covers), multioutput)
    codes, index = group_rows(groups, by, n_bands, len(covers))
    return _by_group(covers, codes, index, multioutput)


@validated({"confidence_level": [Interval(Real, 0, 1, closed="neither")]})
def winkler_score(
    y_true: ArrayLike,
    intervals: ArrayLike,
    *,
    confidence_level: float = 0.9,
    multioutput: MultiOutput = "uniform_average",
) -> float | NDArray[np.float64]:
    r"""Winkler score of prediction intervals: their width, and a penalty for what they miss.

    The mean over the observed values of

    .. math:: (u - l) + \frac{2}{\alpha} \max(l - y, 0) + \frac{2}{\alpha} \max(y - u, 0)

    for an interval from l to u and :math:`\alpha = 1 -` `confidence_level`. The true quantiles,
    :math:`\alpha / 2` and :math:`1 - \alpha / 2`, have the best expected score [1]_.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observed values in any unit; NaN where nothing was observed.

    intervals : array-like of shape (n_samples, 2) or (n_samples, n_targets, 2)
        Lower and upper end of each interval in the unit of `y_true`.

    confidence_level : float, default=0.9
        The share of values that the intervals are to cover, in (0, 1).

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        As in `interval_coverage`.

    Returns
    -------
    score : float or ndarray of shape (n_targets,), dtype float64
        Non-negative, in the unit of `y_true`; lower is better, 0.0 is best.

    Raises
    ------
    ValueError
        As in `interval_coverage`, and if `confidence_level` is out of its range.

    See Also
    --------
    interval_coverage : The share of values covered.
    nan_pinball_loss : Of one quantile; the Winkler score is 2 / alpha times the sum of both.

    References
    ----------
    .. [1] T. Gneiting, A. E. Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation",
       Journal of the American Statistical Association 102(477), 2007.

    Examples
    --------
    >>> from skqos.metrics import winkler_score
    >>> winkler_score([1.0, 4.0], [[0.5, 1.5], [2.0, 3.0]], confidence_level=0.5)
    3.0
    """
    y, lower, upper = check_intervals(y_true, intervals)
    # NaN where nothing was observed.
    missed = np.maximum(lower - y, 0) + np.maximum(y - upper, 0)
    scores = upper - lower + 2 / (1 - confidence_level) * missed
    return combine_targets(mean_observed(scores), multioutput)


def interval_quantiles(confidence_level: float) -> list[float]:
    """Return the two quantiles between which an interval of a confidence level lies.

    Examples
    --------
    >>> from skqos.metrics._intervals import interval_quantiles
    >>> interval_quantiles(0.9)
    [0.05, 0.95]
    """
    # 0.05, not 0.04999999999999999.
    tail = round((1 - confidence_level) / 2, 12)
    return [tail, 1 - tail]


def check_intervals(
    y_true: ArrayLike, intervals: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Validate both; return the values and the ends of the intervals, a column per target.

    Raises
    ------
    ValueError
        If a value is not finite (NaN may be in `y_true`), shapes do not go together, or a lower end
        is above its upper end.
    """
    y = as_target(y_true, "y_true", allow_nan=True)
    ends = as_target(intervals, "intervals", allow_nan=False, allow_nd=True)
    check_same_length(y_true=y, intervals=ends)
    columns = y.reshape(len(y), -1)
    of_targets = ends[:, np.newaxis] if ends.ndim == 2 else ends
    if of_targets.shape != (*columns.shape, 2):
        raise ValueError(
            "intervals must hold a lower and an upper end for each value of y_true, which makes "
            f"the shape {(*y.shape, 2)}; got {ends.shape}."
        )
    lower, upper = of_targets[..., 0], of_targets[..., 1]
    _check_order(lower, upper)
    return columns, lower, upper


def _check_order(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
    crossed = (lower > upper).any(axis=1)
    if crossed.any():
        row = int(crossed.argmax())
        target = int((lower[row] > upper[row]).argmax())
        raise ValueError(
            f"intervals: the lower end of row {row}, {lower[row, target]}, is above the upper end, "
            f"{upper[row, target]}; give the lower end first."
        )


def cover_rows(
    y: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return 1 where a value is in its interval, 0 where it is not, NaN where there is none."""
    return np.where(np.isnan(y), np.nan, (lower <= y) & (y <= upper))


def group_rows(
    groups: Any, by: Any, n_bands: int, n_rows: int
) -> tuple[NDArray[np.int64], pd.Index]:
    """Return the number of each row's group, or band of a number, and what these are.

    Parameters
    ----------
    groups, by : array-like of shape (n_rows,) or None
        Labels, or numbers to divide into bands: one of the two.
    n_bands, n_rows : int
        Number of bands at most, and of rows.

    Returns
    -------
    codes : ndarray of int64 of shape (n_rows,)
        Positions in the index.
    index : Index
        The labels in their order, or bands as of `band_rows`; named as the Series that was given.

    Raises
    ------
    TypeError, ValueError
        If both or none are given, lengths differ, or as in `as_labels` and `as_column`.
    """
    if (groups is None) == (by is None):
        raise ValueError("Give either groups or by.")
    if by is None:
        codes, index = _label_rows(groups)
        check_same_length(y_true=range(n_rows), groups=codes)
    else:
        codes, index = band_rows(by, n_bands)
        check_same_length(y_true=range(n_rows), by=codes)
    name = getattr(groups if by is None else by, "name", None)
    return codes, index if name is None else index.rename(str(name))


def band_rows(by: Any, n_bands: int) -> tuple[NDArray[np.int64], pd.IntervalIndex]:
    """Put rows into bands of a number that hold about as many rows each.

    Parameters
    ----------
    by : array-like of shape (n_samples,)
        Finite.
    n_bands : int
        At most so many.

    Returns
    -------
    codes : ndarray of int64 of shape (n_samples,)
        The band of each row, from the lowest.
    bands : IntervalIndex of shape (n_found,)
        Closed on the right; the lowest includes its left end, too.

    Examples
    --------
    >>> from skqos.metrics._intervals import band_rows
    >>> codes, bands = band_rows([0.0, 1.0, 1.0, 5.0], n_bands=2)
    >>> codes, bands.right.tolist()
    (array([0, 0, 0, 1]), [1.0, 5.0])
    """
    values = as_column(by, "by", allow_nan=False)
    # Values of rows: no band is empty.
    shares = np.arange(1, n_bands + 1) / n_bands
    highest = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    lowest = np.append(values.min(), highest[:-1])
    codes = np.searchsorted(highest, values, side="left")
    return codes, pd.IntervalIndex.from_arrays(lowest, highest, name="band")


def _label_rows(groups: Any) -> tuple[NDArray[np.int64], pd.Index]:
    """Return the number of each row's label, in the order of labels, and the labels."""
    codes, labels = pd.factorize(as_labels(groups, "groups"), sort=True)
    return codes.astype(np.int64), make_index(labels, name="group")


def _by_group(
    covers: NDArray[np.float64], codes: NDArray[np.int64], index: pd.Index, multioutput: str
) -> pd.Series | pd.DataFrame:
    """Average the observed rows of each group; groups without one are left out."""
    shares = pd.DataFrame(covers).groupby(codes).mean().dropna(how="all")
    if shares.empty:
        raise ValueError("y_true is NaN in every row: there is nothing to cover.")
    shares.index = index[shares.index]
    if multioutput == "raw_values":
        return shares
    return shares.mean(axis=1).rename("coverage")
