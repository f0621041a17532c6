"""How good the services are that users get who take the one that is predicted best."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from skqos._errors import check_same_length
from skqos._parameters import validated
from skqos._sklearn_compat import Interval, StrOptions
from skqos.metrics._common import as_column, as_labels

Direction = Literal["minimize", "maximize"]

CHOICE_OPTIONS: dict[str, list[Any]] = {
    "direction": [StrOptions({"minimize", "maximize"})],
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
    """Mean loss of users who take the service that is predicted best, over the best one.

    Each user chooses among its own rows. The regret is the observed value of the row with the best
    prediction less the best observed value of these rows (for "maximize" the other way round),
    averaged over users. It measures what predictions are for: a model whose errors are all alike
    within a user has none.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Observed values in any unit. Rows with NaN, where nothing was observed, cannot be chosen.

    y_pred : array-like of shape (n_samples,)
        Finite predictions.

    users : array-like of shape (n_samples,)
        The user of each row: labels of one kind, such as all integers or all strings.

    direction : {"minimize", "maximize"}, default="minimize"
        Whether low values are good, as response times, or high ones, as throughput.

    n_services : int, default=None
        Among how many rows a user chooses, at least 2. None takes all observed rows of the user at
        once. Otherwise each user chooses `n_draws` times among so many, which are drawn without
        replacement. Users with fewer observed rows, or a single one, do not count.

    n_draws : int, default=60
        How often each user chooses, if `n_services` is given.

    random_state : int, RandomState instance or None, default=None
        Draws the rows, if `n_services` is given. Pass an int for the same draws at every call.

    Returns
    -------
    regret : float
        Non-negative, in the unit of `y_true`; 0.0 is best.

    Raises
    ------
    ValueError
        If a value is infinite or beyond 1e300, `y_pred` holds NaN, there are several columns,
        lengths differ, `users` are missing or of several kinds, no user has enough observed rows to
        choose among, or a parameter is out of its range.

    See Also
    --------
    near_best_share : How often the choice is about as good as the best.

    Notes
    -----
    Rows that tie for the best prediction are chosen equally often: the mean of their regrets
    counts. The order of rows does not matter, and a constant prediction chooses at random.

    Examples
    --------
    Ann takes the service of 3 s, Bob that of 1 s, which are 2 s and 0 s from their best:

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
    """Share of users for whom the service that is predicted best is about as good as the best.

    Each user chooses among its own rows, as in `choice_regret`. A choice is near the best if its
    observed value is within `relative` times the size of the best observed value, or within
    `absolute`.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Observed values in any unit. Rows with NaN, where nothing was observed, cannot be chosen.

    y_pred : array-like of shape (n_samples,)
        Finite predictions.

    users : array-like of shape (n_samples,)
        The user of each row: labels of one kind, such as all integers or all strings.

    relative : float, default=0.1
        Margin as a share of the best observed value, not negative.

    absolute : float, default=0.0
        Margin in the unit of `y_true`, not negative. The wider of the two margins counts.

    direction : {"minimize", "maximize"}, default="minimize"
        Whether low values are good, as response times, or high ones, as throughput.

    n_services, n_draws, random_state
        As in `choice_regret`.

    Returns
    -------
    share : float
        From 0.0 to 1.0, which is best.

    Raises
    ------
    ValueError
        As in `choice_regret`.

    See Also
    --------
    choice_regret : How much is lost.

    Notes
    -----
    Rows that tie for the best prediction are chosen equally often: the share of them that is near
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
    return float(np.average(picks.cost - picks.best <= margin, weights=picks.weight))


@dataclass(frozen=True)
class _Picks:
    """The rows that are chosen, those that tie for it included.

    Attributes
    ----------
    cost : ndarray of shape (n_picks,)
        Observed value, negated where high values are good.
    best : ndarray of shape (n_picks,)
        Lowest cost that could have been chosen instead.
    weight : ndarray of shape (n_picks,)
        One over the number of rows that tie.
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
    """Return the observed rows, user by user, and how many each user has; at least `min_rows`."""
    codes = pd.factorize(users, sort=True)[0]
    rows = np.flatnonzero(observed)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    sizes = np.bincount(codes[rows])
    enough = sizes >= min_rows
    if not enough.any():
        raise ValueError(
            f"users: none has {min_rows} rows or more with an observed y_true to choose among; the "
            f"most is {sizes.max(initial=0)}."
        )
    return rows[np.repeat(enough, sizes)], sizes[enough]


def _draw(
    rows: NDArray[np.int64],
    sizes: NDArray[np.int64],
    n_drawn: int,
    n_draws: int,
    rng: np.random.RandomState,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw rows of each user `n_draws` times; return them and the sizes, as of so many users."""
    first = np.repeat(np.cumsum(sizes) - sizes, n_draws)
    sizes = np.repeat(sizes, n_draws)
    drawn = np.empty((len(sizes), n_drawn), dtype=np.int64)
    # Floyd's sampling, for all users at once: each set of rows is equally likely.
    for k in range(n_drawn):
        last = sizes - n_drawn + k
        candidate = rng.randint(0, last + 1, dtype=np.int64)
        is_taken = (drawn[:, :k] == candidate[:, np.newaxis]).any(axis=1)
        drawn[:, k] = np.where(is_taken, last, candidate)
    return rows[(first[:, np.newaxis] + drawn).ravel()], np.full(len(sizes), n_drawn)


def _lowest(
    predicted: NDArray[np.float64], cost: NDArray[np.float64], sizes: NDArray[np.int64]
) -> _Picks:
    """Pick the rows of the lowest prediction of each group; groups follow one another."""
    starts = np.cumsum(sizes) - sizes
    is_picked = predicted == np.repeat(np.minimum.reduceat(predicted, starts), sizes)
    n_tied = np.add.reduceat(is_picked.astype(np.int64), starts)
    best = np.minimum.reduceat(cost, starts)
    return _Picks(
        cost=cost[is_picked],
        best=np.repeat(best, n_tied),
        weight=np.repeat(1 / n_tied, n_tied),
    )
