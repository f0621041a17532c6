"""The last step of a Pipeline or a search, and its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline


def best_of(estimator: Any) -> Any:
    """Return the best estimator of a fitted search, and any other estimator as it is.

    Raises
    ------
    ValueError
        If the search was fitted with ``refit=False``, so that it has no best estimator.
    """
    if hasattr(estimator, "cv_results_") and not hasattr(estimator, "best_estimator_"):
        raise ValueError(
            f"This {type(estimator).__name__} was fitted with refit={estimator.refit!r} and has no "
            "best_estimator_. Fit it with refit=True, or fit an estimator with one of the "
            "parameters in cv_results_."
        )
    return getattr(estimator, "best_estimator_", estimator)


def last_step(estimator: Any) -> Any:
    """Return the last step of a Pipeline or of a search over one; any other estimator as it is."""
    estimator = best_of(estimator)
    return last_step(estimator[-1]) if isinstance(estimator, Pipeline) else estimator


def regressor_of(estimator: Any) -> Any:
    """Return the last step of the regressor inside an `IntervalRegressor`, or of the estimator."""
    return last_step(getattr(estimator, "estimator_", estimator))


def target_names_of(estimator: Any) -> np.ndarray | None:
    """Return the names of the targets of a fitted estimator, if y of `fit` had names."""
    return getattr(regressor_of(estimator), "target_names_in_", None)


def transform_input(estimator: Any, X: Any) -> Any:
    """Transform X by all steps before the last one."""
    estimator = best_of(estimator)
    if not isinstance(estimator, Pipeline):
        return X
    if len(estimator) > 1:
        X = estimator[:-1].transform(X)
    return transform_input(estimator[-1], X)
