"""Metrics of prediction intervals."""

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
    """Share of the observed values that are in their prediction interval.

    Intervals with a confidence level of 0.9 should contain 90 % of the values, overall and in each
    part of the data: a model may cover all fast pairs and only few slow ones. `groups` and `by`
    return the coverage of parts.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observed values in any unit; NaN where nothing was observed.

    intervals : array-like of shape (n_samples, 2) or (n_samples, n_targets, 2)
        Lower and upper end of each interval, in the unit of `y_true`. Intervals include their ends.

    groups : array-like of shape (n_samples,), default=None
        Label of each row, for example its user. The coverage is computed for each label. Rows
        without a label are the group "unknown"; the labels are then strings.

    by : array-like of shape (n_samples,), default=None
        Finite numbers, for example the predictions. The coverage is computed for `n_bands` bands of
        these numbers with about the same number of rows. Rows with equal numbers are in the same
        band.

    n_bands : int, default=10
        Number of bands. Used only with `by`. There are fewer bands if many numbers of `by` are
        equal.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" is the unweighted mean over the targets, without targets that have no
        observation. "raw_values" returns one value per target, NaN for a target without
        observation.

    Returns
    -------
    coverage : float, ndarray of shape (n_targets,), Series or DataFrame
        Coverage between 0.0 and 1.0. With `groups` or `by`, a Series, or with "raw_values" a
        DataFrame with one column per target. It has one row for each group with an observation. Its
        index holds the sorted labels, or the bands as intervals; the lowest band includes its left
        end.

    Raises
    ------
    ValueError
        If a value is infinite or beyond 1e300, `intervals` or `by` contains NaN, a lower end is
        above its upper end, shapes do not match, both `groups` and `by` are given, all labels
        are missing or labels are of several kinds, or there is no observation.

    See Also
    --------
    winkler_score : Also takes the width of intervals into account.
    skqos.inspection.IntervalCoverageDisplay : Plots the coverage.

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
    r"""Winkler score of prediction intervals: their width plus a penalty for missed values.

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
        Share of the values that the intervals should contain, in (0, 1).

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        As in `interval_coverage`.

    Returns
    -------
    score : float or ndarray of shape (n_targets,), dtype float64
        Non-negative, in the unit of `y_true`; lower is better, 0.0 is best.

    Raises
    ------
    ValueError
        As in `interval_coverage`, and if `confidence_level` is out of range.

    See Also
    --------
    interval_coverage : Share of the covered values.
    nan_pinball_loss : Loss of one quantile; the Winkler score is 2 / alpha times the sum of both.

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
    """Return the levels of the quantiles that bound an interval of a confidence level.

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
        If a value is not finite (except NaN in `y_true`), shapes do not match, or a lower end is
        above its upper end.
    """
    y = as_target(y_true, "y_true", allow_nan=True)
    ends = as_target(intervals, "intervals", allow_nan=False, allow_nd=True)
    check_same_length(y_true=y, intervals=ends)
    columns = y.reshape(len(y), -1)
    of_targets = ends[:, np.newaxis] if ends.ndim == 2 else ends
    if of_targets.shape != (*columns.shape, 2):
        raise ValueError(
            "intervals must contain a lower and an upper end for each value of y_true, in shape "
            f"{(*y.shape, 2)}; got {ends.shape}."
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
    """Return 1 if a value is in its interval, 0 if it is not, and NaN if there is no value."""
    return np.where(np.isnan(y), np.nan, (lower <= y) & (y <= upper))


def group_rows(
    groups: Any, by: Any, n_bands: int, n_rows: int
) -> tuple[NDArray[np.int64], pd.Index]:
    """Return the code of each row's group or band, and the groups or bands.

    Parameters
    ----------
    groups, by : array-like of shape (n_rows,) or None
        Labels, or numbers that are divided into bands; one of the two must be given.
    n_bands, n_rows : int
        Maximum number of bands, and number of rows.

    Returns
    -------
    codes : ndarray of int64 of shape (n_rows,)
        Positions in the index.
    index : Index
        Sorted labels, or the bands of `band_rows`. It has the name of the given Series.

    Raises
    ------
    TypeError, ValueError
        If both or none are given, if lengths differ, and as in `as_labels` and `as_column`.
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
    """Divide rows by a number into bands with about the same number of rows.

    Parameters
    ----------
    by : array-like of shape (n_samples,)
        Finite.
    n_bands : int
        Maximum number of bands.

    Returns
    -------
    codes : ndarray of int64 of shape (n_samples,)
        Band of each row; 0 is the lowest.
    bands : IntervalIndex of shape (n_found,)
        Bands, closed on the right; the lowest also includes its left end.

    Examples
    --------
    >>> from skqos.metrics._intervals import band_rows
    >>> codes, bands = band_rows([0.0, 1.0, 1.0, 5.0], n_bands=2)
    >>> codes, bands.right.tolist()
    (array([0, 0, 0, 1]), [1.0, 5.0])
    """
    values = as_column(by, "by", allow_nan=False)
    # The edges are values of rows, so that no band is empty.
    shares = np.arange(1, n_bands + 1) / n_bands
    highest = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    lowest = np.append(values.min(), highest[:-1])
    codes = np.searchsorted(highest, values, side="left")
    return codes, pd.IntervalIndex.from_arrays(lowest, highest, name="band")


def _label_rows(groups: Any) -> tuple[NDArray[np.int64], pd.Index]:
    """Return the code of each row's label, and the sorted labels; missing ones are "unknown"."""
    codes, labels = pd.factorize(as_labels(groups, "groups", allow_missing=True), sort=True)
    return codes.astype(np.int64), make_index(labels, name="group")


def _by_group(
    covers: NDArray[np.float64], codes: NDArray[np.int64], index: pd.Index, multioutput: str
) -> pd.Series | pd.DataFrame:
    """Average the observed rows of each group; groups without observation are omitted."""
    shares = pd.DataFrame(covers).groupby(codes).mean().dropna(how="all")
    if shares.empty:
        raise ValueError("y_true is NaN in every row; at least one observed value is needed.")
    shares.index = index[shares.index]
    if multioutput == "raw_values":
        return shares
    return shares.mean(axis=1).rename("coverage")
