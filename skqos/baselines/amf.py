"""Adaptive matrix factorisation (AMF) for streams of measurements, without torch.

J. Zhu, P. He, Z. Zheng, M. R. Lyu, "Online QoS Prediction for Runtime Service Adaptation via
Adaptive Matrix Factorization", IEEE Transactions on Parallel and Distributed Systems 28(10), 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from skqos._errors import check_same_length
from skqos._sklearn_compat import Interval, fit_context
from skqos.base import Measurements, TrainingRows
from skqos.baselines._common import BaselineRegressor
from skqos.factorization import interaction_matrix
from skqos.incremental import update_rng
from skqos.state import FittedAttribute, FittedState

__all__ = ["AMFRegressor"]

# Lower bound of normalised values, by which errors are divided.
LEAST_VALUE = 0.1
# Lower bound of the shifted values, relative to their mean.
LEAST_RATIO = 1e-3


@dataclass(frozen=True)
class BoxCoxScale:
    """Map from the unit of y to [LEAST_VALUE, 1] by a Box-Cox transform.

    Attributes
    ----------
    power : float
        Power of the transform; 0 is the logarithm.
    low : float
        Value that is subtracted first: 0, or the minimum if it is negative.
    mean : float
        Divisor of the differences.
    ends : tuple of float
        Minimum and maximum of the transformed values of `fit`.
    """

    power: float
    low: float
    mean: float
    ends: tuple[float, float]

    @classmethod
    def fit(cls, y: np.ndarray, power: float) -> Self:
        """Learn the ends from measured values."""
        low = min(float(y.min()), 0.0)
        mean = max(float((y - low).mean()), np.finfo(np.float64).tiny)
        scale = cls(power, low, mean, (0.0, 1.0))
        powers = scale._bend(y)
        least, largest = float(powers.min()), float(powers.max())
        return replace(scale, ends=(least, largest if largest > least else least + 1.0))

    def transform(self, y: np.ndarray) -> np.ndarray:
        """Map values to the interval, and clip those beyond its ends."""
        least, largest = self.ends
        places = np.clip((self._bend(y) - least) / (largest - least), 0.0, 1.0)
        return LEAST_VALUE + (1 - LEAST_VALUE) * places

    def inverse_transform(self, shares: np.ndarray) -> np.ndarray:
        """Map shares back to the unit of y."""
        least, largest = self.ends
        places = np.maximum((shares - LEAST_VALUE) / (1 - LEAST_VALUE), 0.0)
        powers = least + places * (largest - least)
        # log1p, because 1 + power * powers is rounded for a power near 0.
        logarithms = powers if self.power == 0 else np.log1p(self.power * powers) / self.power
        return self.low + self.mean * np.exp(logarithms)

    def _bend(self, y: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            ratios = (y - self.low) / self.mean
        logarithms = np.log(np.maximum(ratios, LEAST_RATIO))
        if self.power == 0:
            return logarithms
        return np.expm1(self.power * logarithms) / self.power


@dataclass(frozen=True)
class FactorSide:
    """Factors and errors of the users, or of the services.

    Attributes
    ----------
    factors : ndarray of shape (n, n_factors)
        Factors of each entity.
    errors : ndarray of shape (n,)
        Running mean of the relative errors of each entity's predictions.
    """

    factors: np.ndarray
    errors: np.ndarray

    def grown(self, n: int, rng: np.random.RandomState) -> FactorSide:
        """Append entities with random factors and large errors, which cause large first steps."""
        n_new = n - len(self.factors)
        further = rng.uniform(size=(n_new, self.factors.shape[1])) / self.factors.shape[1] ** 0.5
        return FactorSide(
            np.concatenate([self.factors, further]), np.concatenate([self.errors, np.ones(n_new)])
        )

    def with_average(self) -> np.ndarray:
        """Return the factors, followed by the average factors of an unknown entity."""
        return np.concatenate([self.factors, self.factors.mean(axis=0, keepdims=True)])


class AMFRegressor(BaselineRegressor):
    """Adaptive matrix factorisation (AMF) for streams of measurements.

    The product of a user's and a service's factors gives the QoS on a normalised scale, by a
    logistic function. Stochastic gradient descent minimises the squared relative errors. The step
    of each side is weighted by its error so far: a new user has large steps, and the services that
    it uses have small ones. `partial_fit` continues only with the measurements of the next time
    slot; earlier measurements have expired.

    Context columns of X, for example from a `ContextJoiner`, are accepted but not used. A time
    column is not used either.

    Parameters
    ----------
    n_factors : int, default=10
        Rank of the factorisation of the interaction matrix.

        d in the article.

    step_size : float, default=0.8
        Size of the gradient steps (eta).

    regularization : float, default=3e-4
        Weight of the squared factors.

        lambda in the article.

    error_rate : float, default=0.3
        Weight of the latest error in the running mean of a user's and a service's errors (beta),
        above 0 and at most 1.

    power : float, default=-0.007
        Power of the Box-Cox transform of y (alpha). The article uses -0.007 for response time and
        -0.05 for throughput.

    max_iter : int, default=50
        Maximum number of iterations.

        An iteration is one pass over the rows of a call.

    tol : float, default=1e-3
        Tolerance of the stopping criterion.

        The iterations stop when the mean relative error changes by at most this fraction in one
        iteration.

    random_state : int, RandomState instance or None, default=None
        Controls the random numbers that `fit` draws. Pass an int for reproducible results across
        several calls.

        It determines the initial factors and the order of the rows.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, n_factors)
        Factors of the users, in the order of ``users_.ids_``.
    service_factors_ : ndarray of shape (n_services, n_factors)
        Factors of the services, in the order of ``services_.ids_``.
    n_iter_ : int
        Number of iterations that were run.

        They are those of the latest call of `fit` or `partial_fit`.
    users_, services_ : EntityEncoder
        Encoders of the users and of the services. They hold the ids seen in `fit`.

        They also hold the ids of updates.
    n_features_in_ : int
        Number of columns of X seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X seen in `fit`. Defined only if all names are strings.

    See Also
    --------
    PMFRegressor : Matrix factorisation of all rows at once.

    Notes
    -----
    A step that would carry a prediction beyond the measured value ends at this value. In the
    article, steps have no such limit. Errors that are divided by small values then cause steps so
    large that the logistic function is constant, and nothing more is learnt.

    Rows are processed in blocks in which each user and each service occurs at most once. The steps
    of a block are computed together, with the same result as one after the other. Repeated
    measurements of a cell in a call are replaced by their mean, weighted by `sample_weight`, and
    every cell counts once. For an unknown user or service, the average factors are used.

    The article normalises values to the interval from 0 to 1, over the range of the data set. Here
    the interval begins at 0.1, because errors are divided by the values, and its ends are the
    smallest and the largest value in `fit`. Later values outside of the range are clipped.

    References
    ----------
    .. [1] J. Zhu, P. He, Z. Zheng, M. R. Lyu, "Online QoS Prediction for Runtime Service Adaptation
       via Adaptive Matrix Factorization", IEEE Transactions on Parallel and Distributed Systems
       28(10), 2017.

    Examples
    --------
    >>> from skqos.baselines import AMFRegressor
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.5, random_state=0)
    >>> model = AMFRegressor(random_state=0).fit(data.X[:200], data.y[:200])
    >>> model.partial_fit(data.X[200:], data.y[200:]).predict([[3, 7], [3, 1000]]).shape
    (2,)
    """

    n_iter_ = FittedAttribute[int]()
    _scale = FittedAttribute[Any]()
    _user_side = FittedAttribute[Any]()
    _service_side = FittedAttribute[Any]()
    _n_updates = FittedAttribute[int]()

    _parameter_constraints: dict = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither")],
        "regularization": [Interval(Real, 0, None, closed="left")],
        "error_rate": [Interval(Real, 0, 1, closed="right")],
        "power": [Interval(Real, None, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_factors: int = 10,
        step_size: float = 0.8,
        regularization: float = 3e-4,
        error_rate: float = 0.3,
        power: float = -0.007,
        max_iter: int = 50,
        tol: float = 1e-3,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_factors = n_factors
        self.step_size = step_size
        self.regularization = regularization
        self.error_rate = error_rate
        self.power = power
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Continue with further measurements; the first call fits the model.

        New users and services get random factors.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            At least one row, with columns as in `fit`.
        y : array-like of shape (n_samples,)
            Measured QoS in the unit and shape of `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, at least 0. A row of weight n counts as n equal rows, and a row of
            weight 0 is ignored. If None, all rows have weight 1.

        Returns
        -------
        self : object
            The updated estimator, or the result of `fit` if it was not fitted before.

        Raises
        ------
        ValueError
            If X, y or `sample_weight` is not as described. The model remains unchanged.
        FloatingPointError
            If training diverges. The model remains unchanged.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y, sample_weight)
        self._state = self._snapshot()._updated_by(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict the QoS of pairs, measured or not, known or not.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.

        Returns
        -------
        ndarray of float64 of shape (n_samples,)
            Predictions in the unit of y.

        Raises
        ------
        ValueError
            If X is not as described.
        NotFittedError
            If the estimator is not fitted.
        """
        fitted = self._snapshot()
        pairs = fitted._interactions(X)
        users, services = fitted._user_side, fitted._service_side
        products = np.einsum(
            "nk,nk->n",
            users.with_average()[np.minimum(pairs.users, len(users.factors))],
            services.with_average()[np.minimum(pairs.services, len(services.factors))],
        )
        return fitted._scale.inverse_transform(_logistic(products))

    @property
    def user_factors_(self) -> np.ndarray:
        """Factors of the users."""
        return self._user_side.factors

    @property
    def service_factors_(self) -> np.ndarray:
        """Factors of the services."""
        return self._service_side.factors

    def _fit_rows(self, rows: TrainingRows) -> dict[str, Any]:
        nothing = FactorSide(np.empty((0, self.n_factors)), np.empty(0))
        rng = check_random_state(self.random_state)
        return {**self._learn_rows(rows, None, (nothing, nothing), rng), "_n_updates": 0}

    def _updated_by(self, X: Any, y: Any, sample_weight: Any) -> FittedState:
        """Return the updated state; to be called on a snapshot."""
        # scikit-learn skips these checks in `partial_fit` of a fitted estimator.
        self._validate_params()
        y = self._check_target(y)
        columns = self._read_again(X)
        check_same_length(X=columns.users, y=y)
        measured = Measurements.weighted(columns, y, sample_weight)
        rows = self._further_rows(measured, measured.y)
        sides = self._user_side, self._service_side
        rng = update_rng(self.random_state, self._n_updates)
        learnt = self._learn_rows(rows, self._scale, sides, rng)
        return replace(
            self._state,
            users_=rows.users,
            services_=rows.services,
            attributes={**learnt, "_n_updates": self._n_updates + 1},
        )

    def _learn_rows(
        self,
        rows: TrainingRows,
        scale: BoxCoxScale | None,
        sides: tuple[FactorSide, FactorSide],
        rng: np.random.RandomState,
    ) -> dict[str, Any]:
        """Take gradient steps over the cells of rows until convergence.

        Without a scale, it is learnt from the rows.
        """
        cells = interaction_matrix(
            rows.user_codes, rows.service_codes, rows.target, rows.shape, rows.weights
        ).tocoo()
        scale = scale or BoxCoxScale.fit(cells.data, self.power)
        values = scale.transform(cells.data)
        users, services = (side.grown(n, rng) for side, n in zip(sides, rows.shape, strict=True))
        errors: list[float] = []
        while len(errors) < self.max_iter:
            order = rng.permutation(len(values))
            errors.append(0.0)
            # Numbers out of range are reported once, below.
            with np.errstate(over="ignore", invalid="ignore"):
                for block in blocks_without_repeats(cells.row[order], cells.col[order]):
                    chosen = order[block]
                    errors[-1] += self._step(
                        users, services, cells.row[chosen], cells.col[chosen], values[chosen]
                    )
            self._check_finite(users, services, len(errors))
            if len(errors) > 1 and abs(errors[-2] - errors[-1]) <= self.tol * errors[-2]:
                break
        return {
            "_scale": scale,
            "_user_side": users,
            "_service_side": services,
            "n_iter_": len(errors),
        }

    def _check_finite(self, users: FactorSide, services: FactorSide, iteration: int) -> None:
        """Raise FloatingPointError if the steps left the range of numbers."""
        if not all(np.isfinite(side.factors).all() for side in (users, services)):
            raise FloatingPointError(
                f"Training diverged in iteration {iteration}: factors are not finite. Try a "
                f"smaller step_size (now {self.step_size}) or regularization (now "
                f"{self.regularization})."
            )

    def _step(
        self,
        users: FactorSide,
        services: FactorSide,
        user_codes: np.ndarray,
        service_codes: np.ndarray,
        values: np.ndarray,
    ) -> float:
        """Take gradient steps in place for cells without common entities; return summed errors."""
        u, s = users.factors[user_codes], services.factors[service_codes]
        products = np.einsum("nk,nk->n", u, s)
        found = _logistic(products)
        error = np.abs(found - values) / values
        e_u, e_s = users.errors[user_codes], services.errors[service_codes]
        share = e_u / np.maximum(e_u + e_s, np.finfo(np.float64).tiny)
        slope = (found - values) * found * (1 - found) / values**2
        change = self.step_size * slope * (share * _square(s) + (1 - share) * _square(u))
        # A larger step would pass the measured value, and may end where slopes are 0.
        slope *= _share_up_to(np.abs(_logit(values) - products), np.abs(change))
        for side, codes, own, other, weight in (
            (users, user_codes, u, s, share),
            (services, service_codes, s, u, 1 - share),
        ):
            gradient = (weight * slope)[:, None] * other + self.regularization * own
            side.factors[codes] = own - self.step_size * gradient
            rate = self.error_rate * weight
            side.errors[codes] = rate * error + (1 - rate) * side.errors[codes]
        return float(error.sum())


def _logistic(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _logit(shares: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(shares) - np.log1p(-shares)


def _square(factors: np.ndarray) -> np.ndarray:
    return np.einsum("nk,nk->n", factors, factors)


def _share_up_to(limit: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return the share of each change that does not exceed its limit."""
    return np.divide(limit, change, out=np.ones_like(change), where=change > limit)


def blocks_without_repeats(users: np.ndarray, services: np.ndarray) -> Iterator[np.ndarray]:
    """Divide rows into blocks in which no user and no service is repeated.

    Parameters
    ----------
    users, services : ndarray of int of shape (n,)
        Codes.

    Yields
    ------
    ndarray of int64
        Positions of rows; each row is in one block.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.baselines.amf import blocks_without_repeats
    >>> users, services = np.array([0, 0, 1, 2]), np.array([5, 6, 5, 7])
    >>> [block.tolist() for block in blocks_without_repeats(users, services)]
    [[0, 3], [2], [1]]
    """
    codes = pd.DataFrame({"user": users, "service": services})
    codes["turn"] = codes.groupby("user").cumcount()
    codes["clash"] = codes.groupby(["turn", "service"]).cumcount()
    order = np.lexsort((codes["clash"], codes["turn"]))
    keys = codes[["turn", "clash"]].to_numpy()[order]
    is_first = (np.diff(keys, axis=0, prepend=-1) != 0).any(axis=1)
    yield from np.split(order, np.flatnonzero(is_first)[1:])
