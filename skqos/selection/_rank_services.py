"""Rank services for users by what a fitted model predicts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skqos._parameters import validated
from skqos._pipelines import last_step
from skqos._sklearn_compat import Interval
from skqos.base import PairRegressor
from skqos.exceptions import NoServiceWarning
from skqos.selection._candidates import Candidates, read_side
from skqos.selection._criteria import Criteria
from skqos.selection._ranking import Ranking, has_intervals

MAX_USERS_SHOWN = 5
Direction = Literal["minimize", "maximize"]


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
    r"""Rank the best services for each user by what a fitted model predicts.

    Services are ordered by the prediction of the model, that is by the typical QoS of the pair, or
    by a quantile. The distribution, where the model tells one, says how sure that is: an interval
    for each service, and the probability to meet a limit. Services for which that is too low are
    left out.

    Parameters
    ----------
    model : estimator or Pipeline
        A fitted regressor over rows of user, service and perhaps time, or a Pipeline that ends in
        one. Estimators of this package have intervals if they were fitted with
        ``intervals=True``, others within a `skqos.intervals.IntervalRegressor`.

    users : id, array-like of ids, or DataFrame
        Whom to rank for. A table has the id as index and context in its columns, as
        `skqos.preprocessing.ContextJoiner` takes it: a user that training did not see is then
        predicted by that context. Context that a joiner in the Pipeline finds is replaced by it.

    services : id, array-like of ids, or DataFrame, default=None
        What to choose from, likewise. None takes all services that the model was fitted on.

    n : int or None, default=5
        How many services to return for each user, at most. None returns all.

    direction : {"minimize", "maximize"} or sequence of them, default="minimize"
        Whether less or more of the target is better; one for each target where there are several.

    limit : float or sequence of float and None, default=None
        Value that a service is to meet, in the unit of y: at most `limit` where the target is
        minimised, at least where it is maximised. One for each target where there are several,
        None for those without a limit. The model must have intervals.

    min_probability : float, default=None
        Services that meet a limit with less than this probability are left out; with several
        limits, each has to be met with this probability. None leaves none out.

    quantile : float, default=None
        Level of the quantile that services are ordered by in place of the prediction; where more is
        better it is that of level ``1 - quantile``. Above 0.5 the order is cautious: services that
        time out now and then come later. The model must have intervals.

    tie_tolerance : float, default=0.0
        The best service that has no rank yet takes the next one, and shares it with all that are
        worse by at most this much in what they are ordered by: the prediction, in the unit of y, or
        with several targets the score.

    weights : array-like of shape (n_targets,), default=None
        Weight of each target in the score, relative to the others. None weighs all alike.

    pareto_only : bool, default=False
        Whether to rank only services of the user's Pareto front.

    confidence_level : float or None, default=0.9
        Share of the measurements that is to lie between ``lower`` and ``upper``; at most 0.98 for
        the intervals of this package. None leaves them out, which saves time.

    time : int or time stamp, default=None
        The time, for models that were fitted with times; of their kind, and read as `predict`
        reads it.

    target_names : sequence of str, default=None
        Names for the columns of several targets; "0", "1" and so on by default.

    Returns
    -------
    DataFrame
        One row for each user and ranked service: users in the given order, then by rank; services
        of the same prediction in the given order. A user for whom no service is left has no row.
        Columns:

        - ``user``, ``rank``, ``service``: the rank starts at 1, and is one more than the number of
          the user's services that are ranked better.
        - ``score``: with several targets, the weighted mean of all on a common scale; more is
          better.
        - ``prediction``, in the unit of y.
        - ``lower``, ``upper``: ends of the two-sided interval; only if the model has intervals.
        - ``probability`` of meeting the limit; only with `limit`.
        - ``pareto``: with several targets, whether no other candidate of the user is at least as
          good in all targets and better in one, by what they are ordered by.
        - ``user_known``, ``service_known``: whether training saw the id; only for estimators of
          this package.

        With several targets, ``prediction``, ``lower``, ``upper`` and ``probability`` are followed
        by the name of the target, as in ``prediction_0``; the probability is NaN for a target
        without a limit.

    Raises
    ------
    ValueError
        If an argument is not as described, ids are of another kind than in `fit`, or the model has
        no intervals and a `limit` or a `quantile` is given.
    TypeError
        If `services` is None and the model does not tell its services.
    NotFittedError
        If the model is not fitted.

    Warns
    -----
    NoServiceWarning
        If no service of a user meets the limits with `min_probability`.

    See Also
    --------
    skqos.metrics.choice_regret : How good the services are that a model chooses.

    Notes
    -----
    With several targets, the prediction (or quantile) :math:`\hat y_t` of a target is put on the
    scale of the user's candidates, :math:`(\hat y_t - m_t) / r_t` with the median :math:`m_t` and
    the interquartile range :math:`r_t` of theirs, as `sklearn.preprocessing.RobustScaler` does;
    where the range is 0, it is that of all candidates. The sign is turned where less is better, so
    that 0 is a typical service and more is better. Scale and Pareto front are those of all
    candidates of the user, whether or not they meet a limit.

    Probabilities are computed for services in the order of the ranking, until `n` of a user meet
    the limit. Users are processed in blocks of 262,144 pairs, which bounds the memory.

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
    estimator = last_step(model)
    if isinstance(estimator, PairRegressor):
        estimator = estimator._snapshot()
    criteria = Criteria.read(direction, limit, weights, min_probability)
    if criteria.has_limit and not has_intervals(estimator):
        raise ValueError(
            f"limit={limit!r} asks for the probability to meet it, which this "
            f"{type(estimator).__name__} does not tell: fit it with intervals=True, or within a "
            "skqos.intervals.IntervalRegressor, or leave limit and min_probability out."
        )
    if quantile is not None and not has_intervals(estimator):
        raise ValueError(
            f"quantile={quantile} asks for an order by quantiles, which this "
            f"{type(estimator).__name__} does not predict: fit it with intervals=True, or within a "
            "skqos.intervals.IntervalRegressor, or leave quantile out."
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
        target_names=target_names,
    )
    table = pd.concat([ranking.rank(candidates, block) for block in candidates.blocks()])
    _warn_of_users_without(candidates.users.ids, table["user"], limit, min_probability)
    return table.reset_index(drop=True)


def _known_services(estimator: Any) -> pd.Index:
    known = getattr(estimator, "services_", None)
    ids = getattr(known, "ids_", None)
    if ids is None:
        raise TypeError(
            f"services is None, but {type(estimator).__name__} does not tell which services it was "
            "fitted on; give their ids."
        )
    return ids


def _warn_of_users_without(
    ids: np.ndarray, ranked: pd.Series, limit: Any, min_probability: float | None
) -> None:
    """Tell for whom no service is left."""
    without = ids[~np.isin(np.arange(len(ids)), ranked.index)]
    if not len(without):
        return
    shown = ", ".join(repr(value) for value in without[:MAX_USERS_SHOWN].tolist())
    more = ", ..." if len(without) > MAX_USERS_SHOWN else ""
    warnings.warn(
        f"{len(without):,} of {len(ids):,} users have no service that meets limit={limit} with a "
        f"probability of at least {min_probability}, and have no rows: {shown}{more}.",
        NoServiceWarning,
        # Past the checks of parameters.
        stacklevel=5,
    )
