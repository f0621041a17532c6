"""Rank services for users by the predictions of a fitted model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skqos._parameters import validated
from skqos._pipelines import best_of, last_step, target_names_of
from skqos._sklearn_compat import Interval
from skqos._target_checks import in_target_order
from skqos._types import Direction
from skqos._warnings import warn_user
from skqos.base import PairRegressor
from skqos.exceptions import NoServiceWarning
from skqos.selection._candidates import Candidates, read_side
from skqos.selection._criteria import Criteria
from skqos.selection._ranking import Ranking, has_intervals

MAX_USERS_SHOWN = 5


@validated(
    {
        "n": [Interval(Integral, 1, None, closed="left"), None],
        "min_probability": [Interval(Real, 0, 1, closed="both"), None],
        "quantile": [Interval(Real, 0, 1, closed="neither"), None],
        "tie_tolerance": [Interval(Real, 0, None, closed="left")],
        "pareto_only": ["boolean"],
        "confidence_level": [Interval(Real, 0, 1, closed="neither"), None],
    }
)
def rank_services(
    model: Any,
    users: Any,
    services: Any = None,
    *,
    n: int | None = 5,
    direction: Direction | Sequence[Direction] = "minimize",
    limit: float | Sequence[float | None] | None = None,
    min_probability: float | None = None,
    quantile: float | None = None,
    tie_tolerance: float = 0.0,
    weights: ArrayLike | None = None,
    pareto_only: bool = False,
    confidence_level: float | None = 0.9,
    time: Any = None,
    target_names: Sequence[str] | None = None,
) -> pd.DataFrame:
    r"""Rank the best services for each user by the predictions of a fitted model.

    Services are ordered by the prediction of the model, which is the typical QoS of the pair, or by
    a quantile. If the model predicts intervals, the result also contains an interval for each
    service and the probability of meeting a limit, and services with a low probability can be
    excluded.

    Parameters
    ----------
    model : estimator, Pipeline or search
        Fitted regressor over rows of user, service and, optionally, time, a Pipeline that ends
        with one, or a fitted search over one. Estimators of this package predict intervals if they
        were fitted with ``intervals=True``; other regressors can be wrapped in a
        `skqos.intervals.IntervalRegressor`.

    users : id, array-like of ids, or DataFrame
        Users for whom services are ranked. A table has the ids as index and the context as columns,
        as in `skqos.preprocessing.ContextJoiner`. A user that training did not see is predicted by
        this context. It replaces the context that a joiner in the Pipeline finds.

    services : id, array-like of ids, or DataFrame, default=None
        Candidate services, in the same form. If None, all services of the training data are
        candidates.

    n : int or None, default=5
        Maximum number of services for each user. If None, all are returned.

    direction : {"minimize", "maximize"} or sequence of them, default="minimize"
        Whether low or high values of the target are good; for several targets, one value for all or
        one for each. A Series or dict has the names of the targets as labels.

    limit : float or sequence of float and None, default=None
        Limit that a service should meet, in the unit of y: an upper limit if the target is
        minimised, and a lower limit if it is maximised. For several targets, one value for each,
        with None for targets without limit. A dict has the names of the targets as keys; a Series
        has them as labels, but cannot hold None. The model must predict intervals.

    min_probability : float, default=None
        Minimum probability of meeting the limit. Services with a lower probability are excluded;
        with several limits, each must be met with this probability. If None, no service is
        excluded. Requires `limit`.

    quantile : float, default=None
        Level of the quantile by which services are ordered, in place of the prediction; from 0.01
        to 0.99 for the intervals of this package. If high values are good, the level
        ``1 - quantile`` is used. Values above 0.5 are cautious: services with occasional time-outs
        have a lower rank. The model must predict intervals.

    tie_tolerance : float, default=0.0
        Services share a rank if they are worse than the best service of this rank by at most this
        value. It refers to the prediction or quantile in the unit of y or, for several targets, to
        the score.

    weights : array-like of shape (n_targets,), default=None
        Relative weight of each target in the score. If None, all targets have the same weight.
        A Series or dict has the names of the targets as labels.

    pareto_only : bool, default=False
        Whether to rank only the services of the user's Pareto front.

    confidence_level : float or None, default=0.9
        Share of the measurements that should be between ``lower`` and ``upper``; at most 0.98 for
        the intervals of this package. If None, no intervals are computed, which is faster.

    time : int or time stamp, default=None
        Time of the predictions. Required if the model was fitted with times, in the same form as in
        `predict`.

    target_names : sequence of str, default=None
        Names of several targets, which are used in the column names. If None, they are those of the
        columns of y in `fit`, if it was a DataFrame, or "0", "1" and so on.

    Returns
    -------
    DataFrame
        One row for each user and ranked service. Users are in the given order, and the services of
        a user are sorted by rank; services with equal predictions are in the given order. A user
        without a remaining service has no row. The columns are:

        - ``user``, ``rank``, ``service``: ranks start at 1; a rank is one more than the number of
          the user's services with a better rank.
        - ``score``: for several targets, their weighted mean on a common scale; high values are
          good.
        - ``prediction``: prediction in the unit of y.
        - ``lower``, ``upper``: ends of the two-sided interval, if the model predicts intervals.
        - ``probability``: probability of meeting the limit, if `limit` is given.
        - ``pareto``: for several targets, whether the service is on the Pareto front, which means
          that no other candidate of the user is at least as good in all targets and better in one.
        - ``user_known``, ``service_known``: whether the id is in the training data, for estimators
          of this package.

        For several targets, the names ``prediction``, ``lower``, ``upper`` and ``probability`` are
        followed by the name of the target, for example ``prediction_0``. The probability is NaN for
        a target without limit.

    Raises
    ------
    ValueError
        If an argument is not as described, ids are of another kind than in `fit`, or `limit` or
        `quantile` is given and the model predicts no intervals.
    TypeError
        If `services` is None and the model has no list of its services.
    NotFittedError
        If the model is not fitted.

    Warns
    -----
    NoServiceWarning
        If no service of a user meets the limits with `min_probability`.

    See Also
    --------
    skqos.metrics.choice_regret : Mean loss of choosing by the predictions.

    Notes
    -----
    For several targets, the prediction (or quantile) :math:`\hat y_t` of a target is scaled to
    :math:`(\hat y_t - m_t) / r_t`, where :math:`m_t` is the median and :math:`r_t` the
    interquartile range over the candidates of the user, as in `sklearn.preprocessing.RobustScaler`.
    If the interquartile range is 0, the full range is used. The sign is reversed if low values are
    good, so that a typical service has a score of 0 and high scores are good. The scale and the
    Pareto front are computed from all candidates of the user, whether or not they meet a limit.

    Probabilities are computed in the order of the ranking, until `n` services of a user meet the
    limit. Users are processed in blocks of 262,144 pairs, which limits the memory.

    Examples
    --------
    >>> from skqos import SAMoERegressor
    >>> from skqos.datasets import make_qos
    >>> from skqos.selection import rank_services
    >>> data = make_qos(20, 30, density=0.3, random_state=0)
    >>> model = SAMoERegressor(max_epochs=1, random_state=0).fit(data.X, data.y)
    >>> ranking = rank_services(model, users=[3, 17], n=2)
    >>> ranking[["user", "rank"]].values.tolist()
    [[3, 1], [3, 2], [17, 1], [17, 2]]
    """
    check_is_fitted(model)
    model = best_of(model)
    estimator = last_step(model)
    if isinstance(estimator, PairRegressor):
        estimator = estimator._snapshot()
    targets = _fitted_target_names(estimator) if target_names is None else target_names
    direction, limit, weights = (
        in_target_order(values, name, targets)
        for name, values in (("direction", direction), ("limit", limit), ("weights", weights))
    )
    criteria = Criteria.read(direction, limit, weights, min_probability)
    if criteria.has_limit and not has_intervals(estimator):
        raise ValueError(
            f"limit={limit!r} needs the probability of meeting it, which this "
            f"{type(estimator).__name__} does not predict. Fit it with intervals=True or in a "
            "skqos.intervals.IntervalRegressor, or leave limit and min_probability out."
        )
    if quantile is not None and not has_intervals(estimator):
        raise ValueError(
            f"quantile={quantile} needs quantiles, which this {type(estimator).__name__} does not "
            "predict. Fit it with intervals=True or in a skqos.intervals.IntervalRegressor, or "
            "leave quantile out."
        )
    candidates = Candidates(
        model,
        read_side(users, "user"),
        read_side(_known_services(estimator) if services is None else services, "service"),
        time,
    )
    ranking = Ranking(
        estimator=estimator,
        criteria=criteria,
        n=min(n or len(candidates.services), len(candidates.services)),
        quantile=quantile,
        tie_tolerance=tie_tolerance,
        pareto_only=pareto_only,
        confidence_level=confidence_level if has_intervals(estimator) else None,
        target_names=_names_of_targets(estimator) if target_names is None else target_names,
    )
    table = pd.concat([ranking.rank(candidates, block) for block in candidates.blocks()])
    _warn_of_users_without(candidates.users.ids, table["user"], limit, min_probability)
    return table.reset_index(drop=True)


def _names_of_targets(estimator: Any) -> list[str] | None:
    """Return the names of several targets, if the estimator was fitted to a DataFrame y."""
    names = list(_fitted_target_names(estimator) or ())
    return names if len(set(names)) == len(names) > 1 else None


def _fitted_target_names(estimator: Any) -> Iterable[str] | None:
    names = target_names_of(estimator)
    return None if names is None else list(names)


def _known_services(estimator: Any) -> pd.Index:
    known = getattr(estimator, "services_", None)
    ids = getattr(known, "ids_", None)
    if ids is None:
        raise TypeError(
            f"services is None, but {type(estimator).__name__} has no list of the services it was "
            "fitted on; give their ids."
        )
    return ids


def _warn_of_users_without(
    ids: np.ndarray, ranked: pd.Series, limit: Any, min_probability: float | None
) -> None:
    """Warn of users without a remaining service."""
    without = ids[~np.isin(np.arange(len(ids)), ranked.index)]
    if not len(without):
        return
    shown = ", ".join(repr(value) for value in without[:MAX_USERS_SHOWN].tolist())
    more = ", ..." if len(without) > MAX_USERS_SHOWN else ""
    warn_user(
        f"{len(without):,} of {len(ids):,} users have no service that meets limit={limit} with a "
        f"probability of at least {min_probability}, and have no rows: {shown}{more}.",
        NoServiceWarning,
    )
