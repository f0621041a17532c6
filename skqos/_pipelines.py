"""The last step of a Pipeline or a search, and its input."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline


def best_of(estimator: Any) -> Any:
    """Return the best estimator of a fitted search, and any other estimator as it is."""
    return getattr(estimator, "best_estimator_", estimator)


def last_step(estimator: Any) -> Any:
    """Return the last step of a Pipeline or of a search over one; any other estimator as it is."""
    estimator = best_of(estimator)
    return last_step(estimator[-1]) if isinstance(estimator, Pipeline) else estimator


def transform_input(estimator: Any, X: Any) -> Any:
    """Take X through all steps ahead of the last one."""
    estimator = best_of(estimator)
    if not isinstance(estimator, Pipeline):
        return X
    if len(estimator) > 1:
        X = estimator[:-1].transform(X)
    return transform_input(estimator[-1], X)
