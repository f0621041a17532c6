"""Metrics of choices: users take the service with the best prediction."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from skqos._errors import check_same_length
from skqos._parameters import validated
from skqos._sklearn_compat import Interval, StrOptions
from skqos._types import Direction
from skqos.metrics._common import as_column, as_labels

CHOICE_OPTIONS: dict[str, list[Any]] = {
    "direction": [StrOptions(set(get_args(Direction)))],
    "n_services": [Interval(Integral, 2, None, closed="left"), None],
    "n_draws": [Interval(Integral, 1, None, closed="left")],
    "random_state": ["random_state"],
}
MARGINS: dict[str, list[Any]] = {
    "relative": [Interval(Real, 0, None, closed="left")],
    "absolute": [Interval(Real, 0, None, closed="left")],
}


@validated(CHOICE_OPTIONS)
def choice_regret(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    users: ArrayLike,
    *,
    direction: Direction = "minimize",
    n_services: int | None = None,
    n_draws: int = 60,
    random_state: int | np.random.RandomState | None = None,
) -> float:
    """Mean loss of users who choose the service with the best prediction.

    Each user chooses among its own rows. The regret of a user is the observed value of the row with
    the best prediction minus the best observed value (for "maximize" the negative of this
    difference). The metric is the mean over users. Errors that are equal for all rows of a user do
    not change the choice and cause no regret.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Observed values in any unit. Rows with NaN, where nothing was observed, cannot be chosen.

    y_pred : array-like of shape (n_samples,)
        Finite predictions.

    users : array-like of shape (n_samples,)
        The user of each row: labels of one kind, such as all integers or all strings.

    direction : {"minimize", "maximize"}, default="minimize"
        Whether low values are good, as for response time, or high values, as for throughput.

    n_services : int, default=None
        Number of rows among which a user chooses, at least 2. If None, each user chooses once among
        all its observed rows. Otherwise each user chooses `n_draws` times among this number of
        rows, drawn without replacement. Users with fewer observed rows, or with a single one, are
        ignored.

    n_draws : int, default=60
        Number of choices of each user. Used only with `n_services`.

    random_state : int, RandomState instance or None, default=None
        Controls the drawing of rows. Used only with `n_services`. Pass an int for reproducible
        results across several calls.

    Returns
    -------
    regret : float
        Non-negative, in the unit of `y_true`; the best value is 0.0.

    Raises
    ------
    ValueError
        If a value is infinite or beyond 1e300, `y_pred` contains NaN, there are several columns,
        lengths differ, `users` has missing values or values of several kinds, no user has enough
        observed rows, or a parameter is out of range.

    See Also
    --------
    near_best_share : Share of users whose choice is close to the best one.

    Notes
    -----
    Rows with the same best prediction are chosen equally often, so the mean of their regrets
    counts. A constant prediction is a random choice. Without `n_services`, the result does not
    depend on the order of rows; with it, the drawn rows do.

    Examples
    --------
    Ann chooses the service with 3 s and Bob the one with 1 s. Their regrets are 2 s and 0 s:

    >>> from skqos.metrics import choice_regret
    >>> users = ["ann", "ann", "bob", "bob"]
    >>> choice_regret([1.0, 3.0, 1.0, 2.0], [0.9, 0.8, 1.1, 2.0], users)
    1.0
    """
    picks = _pick(y_true, y_pred, users, direction, n_services, n_draws, random_state)
    return float(np.average(picks.cost - picks.best, weights=picks.weight))


@validated({**CHOICE_OPTIONS, **MARGINS})
def near_best_share(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    users: ArrayLike,
    *,
    relative: float = 0.1,
    absolute: float = 0.0,
    direction: Direction = "minimize",
    n_services: int | None = None,
    n_draws: int = 60,
    random_state: int | np.random.RandomState | None = None,
) -> float:
    """Share of users for whom the service with the best prediction is close to the best one.

    Each user chooses among its own rows, as in `choice_regret`. A choice is near the best if its
    observed value differs from the best one by at most `relative` times the magnitude of the best
    one, or by at most `absolute`.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Observed values in any unit. Rows with NaN, where nothing was observed, cannot be chosen.

    y_pred : array-like of shape (n_samples,)
        Finite predictions.

    users : array-like of shape (n_samples,)
        The user of each row: labels of one kind, such as all integers or all strings.

    relative : float, default=0.1
        Margin as a fraction of the best observed value, at least 0.

    absolute : float, default=0.0
        Margin in the unit of `y_true`, at least 0. The larger of the two margins is used.

    direction : {"minimize", "maximize"}, default="minimize"
        Whether low values are good, as for response time, or high values, as for throughput.

    n_services, n_draws, random_state
        As in `choice_regret`.

    Returns
    -------
    share : float
        Share between 0.0 and 1.0; the best value is 1.0.

    Raises
    ------
    ValueError
        As in `choice_regret`.

    See Also
    --------
    choice_regret : Mean loss of the choices.

    Notes
    -----
    Rows with the same best prediction are chosen equally often, so the share of them that is near
    the best counts.

    Examples
    --------
    >>> from skqos.metrics import near_best_share
    >>> users = ["ann", "ann", "bob", "bob"]
    >>> near_best_share([1.0, 3.0, 1.0, 2.0], [0.9, 0.8, 1.1, 2.0], users)
    0.5
    """
    picks = _pick(y_true, y_pred, users, direction, n_services, n_draws, random_state)
    with np.errstate(over="ignore"):
        margin = np.maximum(relative * np.abs(picks.best), absolute)
    # Rounding errors of the difference and of the product do not count.
    slack = 1e-12 * np.maximum(np.abs(picks.cost), np.abs(picks.best))
    is_near = picks.cost - picks.best <= margin + slack
    return float(np.average(is_near, weights=picks.weight))


@dataclass(frozen=True)
class _Picks:
    """The chosen rows, including ties.

    Attributes
    ----------
    cost : ndarray of shape (n_picks,)
        Observed value, negated if high values are good.
    best : ndarray of shape (n_picks,)
        Lowest cost among the candidates.
    weight : ndarray of shape (n_picks,)
        1 divided by the number of tied rows.
    """

    cost: NDArray[np.float64]
    best: NDArray[np.float64]
    weight: NDArray[np.float64]


def _pick(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    users: ArrayLike,
    direction: str,
    n_services: int | None,
    n_draws: int,
    random_state: Any,
) -> _Picks:
    """Check the input and let each user choose."""
    y_true = as_column(y_true, "y_true", allow_nan=True)
    y_pred = as_column(y_pred, "y_pred", allow_nan=False)
    users = as_labels(users, "users")
    check_same_length(y_true=y_true, y_pred=y_pred, users=users)
    rows, sizes = _rows_by_user(users, ~np.isnan(y_true), n_services or 2)
    if n_services is not None:
        rows, sizes = _draw(rows, sizes, n_services, n_draws, check_random_state(random_state))
    sign = 1.0 if direction == "minimize" else -1.0
    return _lowest(sign * y_pred[rows], sign * y_true[rows], sizes)


def _rows_by_user(
    users: NDArray[Any], observed: NDArray[np.bool_], min_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the observed rows sorted by user, and the number of rows of each user."""
    codes = pd.factorize(users, sort=True)[0]
    rows = np.flatnonzero(observed)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    sizes = np.bincount(codes[rows])
    enough = sizes >= min_rows
    if not enough.any():
        raise ValueError(
            f"users: no user has {min_rows} or more rows with an observed y_true; the maximum is "
            f"{sizes.max(initial=0)}."
        )
    return rows[np.repeat(enough, sizes)], sizes[enough]


def _draw(
    rows: NDArray[np.int64],
    sizes: NDArray[np.int64],
    n_drawn: int,
    n_draws: int,
    rng: np.random.RandomState,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw rows of each user `n_draws` times; return them and the group sizes."""
    first = np.repeat(np.cumsum(sizes) - sizes, n_draws)
    sizes = np.repeat(sizes, n_draws)
    drawn = np.empty((len(sizes), n_drawn), dtype=np.int64)
    # Floyd's sampling for all users at once; each set of rows is equally likely.
    for k in range(n_drawn):
        last = sizes - n_drawn + k
        candidate = rng.randint(0, last + 1, dtype=np.int64)
        is_taken = (drawn[:, :k] == candidate[:, np.newaxis]).any(axis=1)
        drawn[:, k] = np.where(is_taken, last, candidate)
    return rows[(first[:, np.newaxis] + drawn).ravel()], np.full(len(sizes), n_drawn)


def _lowest(
    predicted: NDArray[np.float64], cost: NDArray[np.float64], sizes: NDArray[np.int64]
) -> _Picks:
    """Return the rows with the lowest prediction of each group; groups are contiguous."""
    starts = np.cumsum(sizes) - sizes
    is_picked = predicted == np.repeat(np.minimum.reduceat(predicted, starts), sizes)
    n_tied = np.add.reduceat(is_picked.astype(np.int64), starts)
    best = np.minimum.reduceat(cost, starts)
    return _Picks(
        cost=cost[is_picked],
        best=np.repeat(best, n_tied),
        weight=np.repeat(1 / n_tied, n_tied),
    )
