"""A Pipeline taken apart: its last step, and what that step is given."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline


def last_step(estimator: Any) -> Any:
    """Return the last step of a Pipeline, and anything else as it is."""
    return estimator[-1] if isinstance(estimator, Pipeline) else estimator


def transform_input(estimator: Any, X: Any) -> Any:
    """Take X through all steps of a Pipeline but the last."""
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        return estimator[:-1].transform(X)
    return X
