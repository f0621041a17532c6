"""The last step of a Pipeline, and its input."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline


def last_step(estimator: Any) -> Any:
    """Return the last step of a Pipeline, or any other object unchanged."""
    return estimator[-1] if isinstance(estimator, Pipeline) else estimator


def transform_input(estimator: Any, X: Any) -> Any:
    """Transform X by all steps of a Pipeline except the last."""
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        return estimator[:-1].transform(X)
    return X
