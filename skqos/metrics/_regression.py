"""Errors of predictions over the observed entries."""

from collections.abc import Callable
from functools import partial
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    mean_absolute_error,
    mean_pinball_loss,
    r2_score,
    root_mean_squared_error,
)

from skqos._arrays import power_of_two
from skqos._errors import check_same_length
from skqos._parameters import validated
from skqos._sklearn_compat import Interval
from skqos._target_checks import as_weights
from skqos.metrics._common import MultiOutput, check_targets, combine_targets


def nan_mean_absolute_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | NDArray[np.float64]:
    """Mean absolute error (MAE) over the observed entries.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observed values in any unit; NaN where nothing was observed.

    y_pred : array-like of shape (n_samples,) or (n_samples, n_targets)
        Finite predictions in the unit of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weight of each row, at least 0. A row of weight 0 counts as not observed.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" is the unweighted mean over the targets, without targets that have no
        observation. "raw_values" returns one error per target, NaN for a target without
        observation.

    Returns
    -------
    error : float or ndarray of shape (n_targets,), dtype float64
        Non-negative, in the unit of `y_true`; the best value is 0.0.

    Raises
    ------
    ValueError
        If `y_pred` contains NaN or infinity, `y_true` contains infinity, the shapes differ, a
        weight is negative or all are zero, `multioutput` is invalid, or no target has an
        observation.

    See Also
    --------
    nan_root_mean_squared_error : Gives large errors more weight.
    nan_normalized_mean_absolute_error : Has no unit, so that targets can be averaged.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.metrics import nan_mean_absolute_error
    >>> y_true = [[0.5, 10.0], [1.5, np.nan]]
    >>> y_pred = [[1.0, 14.0], [1.5, 99.0]]
    >>> nan_mean_absolute_error(y_true, y_pred, multioutput="raw_values")
    array([0.25, 4.  ])
    """
    errors = _per_target(mean_absolute_error, y_true, y_pred, sample_weight)
    return combine_targets(errors, multioutput)


def nan_root_mean_squared_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | NDArray[np.float64]:
    """Root of the mean squared error (RMSE) over the observed entries.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observed values in any unit; NaN where nothing was observed.

    y_pred : array-like of shape (n_samples,) or (n_samples, n_targets)
        Finite predictions in the unit of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weight of each row, at least 0. A row of weight 0 counts as not observed.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" is the unweighted mean of the roots of the targets, without targets that
        have no observation. "raw_values" returns one error per target, NaN for a target without
        observation.

    Returns
    -------
    error : float or ndarray of shape (n_targets,), dtype float64
        Non-negative, in the unit of `y_true`; the best value is 0.0.

    Raises
    ------
    ValueError
        As in `nan_mean_absolute_error`.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.metrics import nan_root_mean_squared_error
    >>> nan_root_mean_squared_error([1.0, 2.0, np.nan], [4.0, 6.0, 0.0])
    3.5355339059327378
    """
    errors = _per_target(_root_mean_squared_error, y_true, y_pred, sample_weight)
    return combine_targets(errors, multioutput)


def nan_normalized_mean_absolute_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | NDArray[np.float64]:
    r"""Normalised mean absolute error (NMAE) over the observed entries.

    It is the mean absolute error of a target divided by the mean magnitude of its observed values,

    .. math:: \mathrm{NMAE} = \frac{\sum_i |y_i - \hat y_i|}{\sum_i |y_i|},

    so that targets in seconds and in kbps can be averaged. The error of predicting zero is 1.0.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observed values in any unit; NaN where nothing was observed.

    y_pred : array-like of shape (n_samples,) or (n_samples, n_targets)
        Finite predictions in the unit of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weight of each row, at least 0. A row of weight 0 counts as not observed.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" is the unweighted mean over the targets, without targets that have no
        observation. "raw_values" returns one error per target, NaN for a target without
        observation.

    Returns
    -------
    error : float or ndarray of shape (n_targets,), dtype float64
        Non-negative and without unit; the best value is 0.0.

    Raises
    ------
    ValueError
        As in `nan_mean_absolute_error`, and if all observed values of a target are zero.

    Notes
    -----
    The QoS literature divides by the mean of the values, which are positive. For positive values,
    the mean magnitude is the same; it is also suitable for targets of any sign.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.metrics import nan_normalized_mean_absolute_error
    >>> nan_normalized_mean_absolute_error([1.0, 3.0, np.nan], [1.5, 2.5, 0.0])
    0.25
    """
    errors = _per_target(_normalized_mean_absolute_error, y_true, y_pred, sample_weight)
    return combine_targets(errors, multioutput)


def nan_r2_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | NDArray[np.float64]:
    """Coefficient of determination (R2) over the observed entries.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observed values in any unit; NaN where nothing was observed.

    y_pred : array-like of shape (n_samples,) or (n_samples, n_targets)
        Finite predictions in the unit of `y_true`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weight of each row, at least 0. A row of weight 0 counts as not observed.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" is the unweighted mean over the targets, without targets that have fewer
        than two observations, for which R2 is not defined. "raw_values" returns one score per
        target, NaN for such a target.

    Returns
    -------
    score : float or ndarray of shape (n_targets,), dtype float64
        The best value is 1.0. The mean of the observed values has 0.0, and R2 can be negative.

    Raises
    ------
    ValueError
        As in `nan_mean_absolute_error`.

    Notes
    -----
    A target with equal observed values has a score of 1.0 if it is predicted exactly and of 0.0
    otherwise, as in `sklearn.metrics.r2_score`.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.metrics import nan_r2_score
    >>> nan_r2_score([1.0, 2.0, 3.0, np.nan], [1.0, 2.0, 4.0, 9.0])
    0.5
    """
    scores = _per_target(finite_r2_score, y_true, y_pred, sample_weight, min_observed=2)
    return combine_targets(scores, multioutput, min_observed=2)


@validated({"quantile": [Interval(Real, 0, 1, closed="neither")]})
def nan_pinball_loss(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    quantile: float,
    sample_weight: ArrayLike | None = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | NDArray[np.float64]:
    r"""Pinball loss of a predicted quantile over the observed entries.

    The mean of

    .. math:: \max(\tau (y - \hat y), (\tau - 1) (y - \hat y))

    for the quantile :math:`\tau`. Its expectation is minimal at the true quantile. At 0.5, it is
    half the mean absolute error.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observed values in any unit; NaN where nothing was observed.

    y_pred : array-like of shape (n_samples,) or (n_samples, n_targets)
        Finite predictions of the quantile in the unit of `y_true`.

    quantile : float
        Level of the quantile in `y_pred`, in (0, 1).

    sample_weight : array-like of shape (n_samples,), default=None
        Weight of each row, at least 0. A row of weight 0 counts as not observed.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        "uniform_average" is the unweighted mean over the targets, without targets that have no
        observation. "raw_values" returns one loss per target, NaN for a target without
        observation.

    Returns
    -------
    loss : float or ndarray of shape (n_targets,), dtype float64
        Non-negative, in the unit of `y_true`; the best value is 0.0.

    Raises
    ------
    ValueError
        As in `nan_mean_absolute_error`, and if `quantile` is out of range.

    See Also
    --------
    winkler_score : Score of an interval between two quantiles.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.metrics import nan_pinball_loss
    >>> nan_pinball_loss([1.0, 3.0, np.nan], [2.0, 2.0, 2.0], quantile=0.9)
    0.5
    """
    losses = _per_target(partial(mean_pinball_loss, alpha=quantile), y_true, y_pred, sample_weight)
    return combine_targets(losses, multioutput)


def _normalized_mean_absolute_error(
    y_true: NDArray[np.float64],
    y_pred: NDArray[np.float64],
    sample_weight: NDArray[np.float64] | None,
) -> float:
    magnitude = np.average(np.abs(y_true), weights=sample_weight)
    with np.errstate(all="ignore"):
        error = mean_absolute_error(y_true, y_pred, sample_weight=sample_weight) / magnitude
    if not np.isfinite(error):
        raise ValueError(
            "y_true: all observed values of a target are zero or nearly zero, so its error cannot "
            "be normalised. Use nan_mean_absolute_error instead."
        )
    return error


def _root_mean_squared_error(
    y_true: NDArray[np.float64],
    y_pred: NDArray[np.float64],
    sample_weight: NDArray[np.float64] | None,
) -> float:
    # Squares of large values would be infinite, and squares of small ones 0.
    unit = power_of_two(y_true, y_pred)
    return unit * root_mean_squared_error(y_true / unit, y_pred / unit, sample_weight=sample_weight)


def finite_r2_score(
    y_true: NDArray[np.float64],
    y_pred: NDArray[np.float64],
    sample_weight: NDArray[np.float64] | None = None,
) -> float:
    """Return R2 as `sklearn.metrics.r2_score`, without overflow for large or small values.

    Parameters
    ----------
    y_true, y_pred : ndarray of float64 of shape (n_samples,)
        Finite.
    sample_weight : ndarray of float64 of shape (n_samples,), default=None
        With a positive sum.

    Returns
    -------
    float
        At least the lowest float64. NaN, with a warning, for less than two samples.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.metrics import finite_r2_score
    >>> y = np.array([1e-300, 1e299, 3e299])
    >>> finite_r2_score(y, y)
    1.0
    """
    if len(y_true) < 2:
        return r2_score(y_true, y_pred, sample_weight=sample_weight)
    counted = slice(None) if sample_weight is None else sample_weight > 0
    if np.ptp(y_true[counted]) == 0:
        # The mean of equal values may be rounded.
        return float((y_true[counted] == y_pred[counted]).all())
    unit = power_of_two(y_true)
    errors = y_true - y_pred
    spread = y_true - unit * np.average(y_true / unit, weights=sample_weight)
    units = power_of_two(errors), power_of_two(spread)
    squares = [
        np.average((part / unit) ** 2, weights=sample_weight)
        for part, unit in zip((errors, spread), units, strict=True)
    ]
    if squares[1] == 0:
        # Weights may be so small that the squares vanish.
        return float(squares[0] == 0)
    with np.errstate(over="ignore"):
        ratio = np.float64(squares[0] / squares[1]) * (units[0] / units[1]) * (units[0] / units[1])
    return float(max(1 - ratio, np.finfo(np.float64).min))


def _per_target(
    metric: Callable[..., float],
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sample_weight: ArrayLike | None,
    min_observed: int = 1,
) -> NDArray[np.float64]:
    """Apply a metric to the observed entries of each target; NaN if there are too few."""
    true_columns, pred_columns = check_targets(y_true, y_pred)
    results = np.full(true_columns.shape[1], np.nan)
    counted, weights = np.ones(len(true_columns), dtype=bool), None
    if sample_weight is not None:
        weights = as_weights(sample_weight, "sample_weight")
        check_same_length(y_true=true_columns, sample_weight=weights)
        counted = weights > 0
    for target, (true, pred) in enumerate(zip(true_columns.T, pred_columns.T, strict=True)):
        rows = counted & ~np.isnan(true)
        if rows.sum() >= min_observed:
            weights_of_rows = None if weights is None else weights[rows]
            results[target] = metric(true[rows], pred[rows], sample_weight=weights_of_rows)
    return results
