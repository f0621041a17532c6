"""Common functions of the metrics: reading targets and labels, averaging over targets."""

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from skqos._errors import about, check_same_length
from skqos._ids import read_ids
from skqos._target_checks import as_target

MultiOutput = Literal["uniform_average", "raw_values"]


def combine_targets(
    results: NDArray[np.float64], multioutput: str, min_observed: int = 1
) -> float | NDArray[np.float64]:
    """Return the results of the targets, or the mean of those that are not NaN.

    Raises
    ------
    ValueError
        If `multioutput` is invalid, or a mean is requested and all results are NaN.
    """
    check_multioutput(multioutput)
    if multioutput == "raw_values":
        return results
    defined = results[~np.isnan(results)]
    if not defined.size:
        raise ValueError(
            f"y_true: no target has {min_observed} or more observed values, which the metric needs."
        )
    return float(defined.mean())


def check_multioutput(multioutput: Any) -> None:
    """Raise ValueError if `multioutput` is invalid."""
    if not isinstance(multioutput, str) or multioutput not in ("uniform_average", "raw_values"):
        raise ValueError(
            f"multioutput must be 'uniform_average' or 'raw_values'; got {multioutput!r}."
        )


def mean_observed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each column without NaN; NaN for a column that is all NaN."""
    n_observed = (~np.isnan(values)).sum(axis=0)
    means = np.full(values.shape[1], np.nan)
    return np.divide(np.nansum(values, axis=0), n_observed, out=means, where=n_observed > 0)


def check_targets(
    y_true: ArrayLike, y_pred: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Validate both and return them with one column per target."""
    y_true = as_target(y_true, "y_true", allow_nan=True)
    y_pred = as_target(y_pred, "y_pred", allow_nan=False)
    check_same_length(y_true=y_true, y_pred=y_pred)
    true_columns = y_true.reshape(len(y_true), -1)
    pred_columns = y_pred.reshape(len(y_pred), -1)
    if true_columns.shape != pred_columns.shape:
        raise ValueError(
            f"y_true and y_pred must have the same number of targets; got "
            f"{true_columns.shape[1]} and {pred_columns.shape[1]}."
        )
    return true_columns, pred_columns


def as_column(values: Any, name: str, *, allow_nan: bool) -> NDArray[np.float64]:
    """Return numbers of one target as float64 of shape (n_samples,); errors contain the name.

    Raises
    ------
    TypeError, ValueError
        As `as_target`; also if there are several columns.
    """
    array = as_target(values, name, allow_nan=allow_nan)
    if array.ndim == 2 and array.shape[1] != 1:
        raise ValueError(
            f"{name} must have one target and shape (n_samples,); got {array.shape}. Pass one "
            "column at a time."
        )
    return array.ravel()


# Group of the rows without a label.
UNKNOWN = "unknown"


def name_missing(labels: pd.Series) -> pd.Series:
    """Return labels as strings, with "unknown" for missing ones."""
    return labels.astype(object).map(str).where(labels.notna(), UNKNOWN)


def as_labels(values: Any, name: str, *, allow_missing: bool = False) -> NDArray[Any]:
    """Return labels of rows as an array of one kind, without conversion.

    With `allow_missing`, they are strings if some, but not all, are missing: see `name_missing`.

    Raises
    ------
    TypeError, ValueError
        If labels are not 1-D, missing, not sortable or of different kinds.
    """
    with about(name):
        labels = _as_series(values, name)
        if allow_missing and labels.isna().any() and labels.notna().any():
            labels = name_missing(labels)
        return read_ids(labels, name)


def _as_series(values: Any, name: str) -> pd.Series:
    if np.ma.is_masked(values):
        raise ValueError(f"{name} contains masked values; every row needs a label.")
    if isinstance(values, list | tuple):
        # As objects, because numpy would convert integers beside strings to strings.
        series = pd.Series(list(values), dtype=object)
    elif isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        series = pd.Series(values)
    else:
        array = np.asarray(values)
        if array.ndim != 1:
            raise ValueError(
                f"{name} must be array-like of shape (n_samples,), a label for each row; got "
                f"{array.ndim} dimension(s)."
            )
        series = pd.Series(array)
    if series.empty:
        raise ValueError(f"{name} is empty; it needs a label for each row.")
    return series
