"""Scorers: what `cross_validate` and searches call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skqos.inputs import as_frame, check_names, read_id_column
from skqos.metrics._intervals import interval_quantiles, winkler_score


@dataclass(frozen=True)
class ChoiceScorer:
    """What `make_choice_scorer` returns."""

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
    """Make a scorer of a metric of choices, such as `choice_regret`, with other options.

    What `sklearn.metrics.make_scorer` does, for metrics that need the user of each row: the scorer
    reads it from column 0 of X, as the estimators here do.

    Parameters
    ----------
    score_func : callable
        Called as ``score_func(y, predictions, users, **kwargs)``: `choice_regret`,
        `near_best_share`, or one of the same signature.

    greater_is_better : bool, default=True
        Whether high results are good; otherwise the scorer negates them.

    **kwargs : dict
        Options of `score_func`, such as ``direction="maximize"`` for throughput. With `n_services`,
        give an int as `random_state`: then all candidates of a search choose among the same rows.

    Returns
    -------
    scorer : callable
        Called as ``scorer(estimator, X, y)``, returns a float, can be pickled. X is what the outer
        estimator takes: in a Pipeline what its first step gets. Its column 0 holds the users.

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
    """Scores intervals between two quantiles that ``predict(X, quantiles=...)`` returns."""

    confidence_level: float

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        intervals = estimator.predict(X, quantiles=interval_quantiles(self.confidence_level))
        return -float(winkler_score(y, intervals, confidence_level=self.confidence_level))
