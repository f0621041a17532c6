"""Scorers for `cross_validate` and searches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skqos.inputs import as_frame, check_names, read_id_column
from skqos.metrics._intervals import interval_quantiles, winkler_score


@dataclass(frozen=True)
class ChoiceScorer:
    """Scorer that `make_choice_scorer` returns."""

    score_func: Callable[..., float]
    sign: int
    kwargs: dict[str, Any]

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        frame = as_frame(X, 1, estimator)
        check_names(frame.columns, 2)
        users = read_id_column(frame, 0)
        return self.sign * self.score_func(y, estimator.predict(X), users, **self.kwargs)


def make_choice_scorer(
    score_func: Callable[..., float], *, greater_is_better: bool = True, **kwargs: Any
) -> Callable[[Any, Any, Any], float]:
    """Make a scorer from a metric of choices, such as `choice_regret`.

    It corresponds to `sklearn.metrics.make_scorer`, for metrics that need the user of each row. The
    scorer reads the users from column 0 of X.

    Parameters
    ----------
    score_func : callable
        Called as ``score_func(y, predictions, users, **kwargs)``: `choice_regret`,
        `near_best_share`, or one of the same signature.

    greater_is_better : bool, default=True
        Whether high values of the metric are good. If False, the scorer negates them.

    **kwargs : dict
        Options of `score_func`, for example ``direction="maximize"`` for throughput. With
        `n_services`, pass an int as `random_state`, so that all candidates of a search choose among
        the same rows.

    Returns
    -------
    scorer : callable
        Scorer with the signature ``scorer(estimator, X, y)``, which returns a float and can be
        pickled. X is the input of the outermost estimator, for example of a Pipeline. Its column 0
        must hold the users.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from skqos.baselines import MedianRegressor
    >>> from skqos.datasets import make_qos
    >>> from skqos.metrics import choice_regret, make_choice_scorer
    >>> data = make_qos(30, 40, density=0.5, random_state=0)
    >>> scorer = make_choice_scorer(
    ...     choice_regret, greater_is_better=False, n_services=5, random_state=0
    ... )
    >>> scores = cross_val_score(MedianRegressor(), data.X, data.y, scoring=scorer, cv=3)
    >>> scores.shape, bool((scores <= 0).all())
    ((3,), True)
    """
    return ChoiceScorer(score_func, 1 if greater_is_better else -1, kwargs)


@dataclass(frozen=True)
class WinklerScorer:
    """Scorer of intervals between two quantiles of ``predict(X, quantiles=...)``."""

    confidence_level: float

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        intervals = estimator.predict(X, quantiles=interval_quantiles(self.confidence_level))
        return -float(winkler_score(y, intervals, confidence_level=self.confidence_level))
