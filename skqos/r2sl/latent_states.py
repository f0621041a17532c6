"""Latent states of regions, learnt from QoS by expectation maximisation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.special import gammaln
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted

from skqos._sklearn_compat import Interval, StrOptions, fit_context
from skqos._target_checks import as_weights
from skqos._weighted import weighted_quantile
from skqos.entities import plain_labels

# Number of iterations after which only the best start is continued.
TRIAL_ITERATIONS = 20


@dataclass(frozen=True)
class Records:
    """Measurements between regions, in the order of their pairs of regions.

    Attributes
    ----------
    qos : ndarray of float64 of shape (n,)
        Positive measurements.
    weights : ndarray of float64 of shape (n,)
        Weight of each measurement.
    n_per_pair : ndarray of int64 of shape (n_pairs,)
        Number of consecutive records of each pair of regions, at least one.
    pair_user, pair_service : ndarray of int64 of shape (n_pairs,)
        Regions of each pair with records.
    n_user_regions, n_service_regions : int
        Number of regions.
    """

    qos: np.ndarray
    weights: np.ndarray
    n_per_pair: np.ndarray
    pair_user: np.ndarray
    pair_service: np.ndarray
    n_user_regions: int
    n_service_regions: int

    @classmethod
    def arrange(
        cls, users: np.ndarray, services: np.ndarray, qos: np.ndarray, weights: np.ndarray
    ) -> Records:
        """Sort records by the codes of their regions; every code must occur."""
        n_services = int(services.max()) + 1
        cell = users * n_services + services
        cells, counts = np.unique(cell, return_counts=True)
        pair_user, pair_service = np.divmod(cells, n_services)
        order = np.argsort(cell, kind="stable")
        n_users = int(users.max()) + 1
        return cls(qos[order], weights[order], counts, pair_user, pair_service, n_users, n_services)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum(self.n_per_pair) - self.n_per_pair

    @cached_property
    def _row_ends(self) -> np.ndarray:
        # Pairs are sorted by rows.
        return np.searchsorted(self.pair_user, np.arange(self.n_user_regions + 1))

    @cached_property
    def total(self) -> float:
        """Weight of all records."""
        return float(self.weights.sum())

    @cached_property
    def mean_qos(self) -> float:
        """Weighted mean of the measurements."""
        return float(np.average(self.qos, weights=self.weights))

    @cached_property
    def qos_per_pair(self) -> np.ndarray:
        """Weighted sum of the measurements of each pair."""
        return self.per_pair(self.weights * self.qos)

    @cached_property
    def weight_per_pair(self) -> np.ndarray:
        """Weight of the records of each pair."""
        return self.per_pair(self.weights)

    @cached_property
    def weight_per_user_region(self) -> np.ndarray:
        """Weight of the records of each user region."""
        return self.per_user_region(self.weight_per_pair)

    @cached_property
    def weight_per_service_region(self) -> np.ndarray:
        """Weight of the records of each service region."""
        return self.per_service_region(self.weight_per_pair)

    def of_records(self, values: np.ndarray) -> np.ndarray:
        """Return the value of the pair for each record."""
        return np.repeat(values, self.n_per_pair)

    def per_pair(self, values: np.ndarray) -> np.ndarray:
        """Sum values of records over each pair."""
        return np.add.reduceat(values, self._starts)

    def matrix(self, values: np.ndarray) -> sparse.csr_array:
        """Arrange values of pairs as a matrix of user regions by service regions."""
        shape = (self.n_user_regions, self.n_service_regions)
        return sparse.csr_array((values, self.pair_service, self._row_ends), shape=shape)

    def per_user_region(self, values: np.ndarray) -> np.ndarray:
        """Sum values of pairs over each user region."""
        return np.bincount(self.pair_user, values, minlength=self.n_user_regions)

    def per_service_region(self, values: np.ndarray) -> np.ndarray:
        """Sum values of pairs over each service region."""
        return np.bincount(self.pair_service, values, minlength=self.n_service_regions)


@dataclass(frozen=True)
class Parameters:
    """Parameters that expectation maximisation estimates.

    Attributes
    ----------
    user_joint, service_joint : ndarray of shape (n_regions, m)
        Joint probability of state and region: frequency of the state times probability of the
        region in the state, Theta[j] beta[j, c].
    user_frequencies, service_frequencies : ndarray of shape (m,)
        Theta.
    user_level, service_level : ndarray of shape (n_regions,)
        W_u and W_s, whose product is the mean QoS of a pair with matching states.
    mismatch : float
        w, the factor of the mean if the states differ.
    """

    user_joint: np.ndarray
    service_joint: np.ndarray
    user_frequencies: np.ndarray
    service_frequencies: np.ndarray
    user_level: np.ndarray
    service_level: np.ndarray
    mismatch: float


class RegionalLatentStates(BaseEstimator):
    r"""Latent states of user and service regions, learnt from QoS (section 3.1 of R2SL).

    Regions are groups of users and services, for example cities, autonomous systems or countries.
    The model of a record, which is a measurement y between user region c and service region c', is
    as follows. A user state j and a service state k are drawn with frequencies :math:`\Theta`, each
    draws a region with probabilities :math:`\beta`, and

    .. math::
        y \sim \mathrm{Exponential}(\text{mean } W^u_c W^s_{c'} w^{[j \ne k]}), \quad w \ge 1,

    so that requests between regions with matching states are faster. The parameters with the
    highest posterior probability are computed by expectation maximisation [1]_. Responsibilities
    are computed in the log domain. With R, the responsibility of a record summed over
    :math:`j \ne k`, the rates are updated one after the other, each with the updated values of the
    others:

    .. math::
        W^u_c = \mathrm{mean}_{\text{records of } c}\; y (1 - R + R / w) / W^s_{c'}, \quad
        W^s_{c'} \text{ likewise}, \quad
        w = \max(1, \textstyle\sum R y / (W^u W^s) / \sum R),

    and the geometric mean of :math:`W^u` is 1. The log posterior never decreases.

    Parameters
    ----------
    n_states : int, default=5
        Number m of latent states of user regions, and of service regions.

    concentration : float, default=1.0
        Parameter alpha of the symmetric Dirichlet prior of the state frequencies, at least 1.

        Only with 1, the uniform prior, can a state be empty, so that more states never decrease the
        log posterior. The paper uses 5.

    rate : {"matched", "printed"}, default="matched"
        Model of the mean QoS. With "matched", it depends on whether the states of the two regions
        match. "printed" is the model as printed in the paper (eq. 3), in which the states do not
        depend on the QoS.

        "matched" is the model described above; see Notes for "printed".

    slow_quantile : float, default=0.9
        Threshold eta between fast and slow measurements, as a quantile of the QoS.

        As a quantile, it does not depend on the unit of the QoS. The ratio of the mean above it to
        the mean below it is the initial value of w. With ``rate="printed"``, w applies above it.

    shrinkage : float, default=0.0
        Strength of the shrinkage of the regions, as a number of records. P(state given region) and
        the logarithms of the levels, as `transform` and `log_levels` return them, are weighted
        averages: a region has the weight of its records, and the average of all records has this
        weight. It is not in the paper.

    n_restarts : int, default=2
        Number of random starts for each number of states up to m. As many further starts split a
        state of the best solution with one state less. After a few iterations, only the best start
        is continued.

    max_iter : int, default=300
        Maximum number of iterations.

    tol : float, default=1e-5
        Tolerance of the stopping criterion.

        The iterations stop when the log posterior increases by less than this value per record or,
        with `sample_weight`, per unit of weight.

    random_state : int, RandomState instance or None, default=None
        Controls the random numbers that `fit` draws. Pass an int for reproducible results across
        several calls.

        It determines the starts.

    Attributes
    ----------
    user_regions_, service_regions_ : Index of shape (n_regions,)
        The regions seen in `fit`.

    user_states_, service_states_ : ndarray of shape (n_regions, m)
        P(state given region).

    user_frequencies_, service_frequencies_ : ndarray of shape (m,)
        Theta, P(state).

    user_level_, service_level_ : ndarray of shape (n_regions,)
        W_u, without unit, and W_s, in the unit of the QoS.

    mismatch_ : float
        w.

    slow_threshold_ : float
        eta, in the unit of the QoS.

    log_posterior_ : ndarray of shape (`n_iter_` + 1,)
        Log posterior before the first iteration and after each iteration of the start that was
        chosen.

    n_iter_ : int
        Number of iterations that were run.

        They are those of the start that was chosen.

    Notes
    -----
    Only products of state probabilities are identified, and the order of states is random.

    The paper prints a mean of W_u W_s if y < eta and W_u W_s w otherwise. That is the same for
    all states j and k, so that it cancels when responsibilities are normalised:

    .. math::
        P(j, k \mid c, c', y) =
        \frac{\Theta^u_j \beta^u_{jc} \Theta^s_k \beta^s_{kc'} \Phi(y)}
             {\sum_{j'k'} \Theta^u_{j'} \beta^u_{j'c} \Theta^s_{k'} \beta^s_{k'c'} \Phi(y)}
        = P(j \mid c) P(k \mid c').

    The result does not depend on y: the expected counts are :math:`n_c P(j \mid c)` for any
    measurements, and the states remain as they were drawn, except for the effect of the prior.
    ``rate="printed"`` shows this.

    The prior of the frequencies counts once. The paper has it in the product over records (eq. 12
    and 18), so that it counts once per record.

    References
    ----------
    .. [1] Z. Wang, X. Zhang, M. Yan, "A Dual Latent State Learning Approach: Exploiting Regional
       Network Similarities for QoS Prediction", arXiv:2310.05988, 2023.

    Examples
    --------
    >>> from skqos.r2sl.latent_states import RegionalLatentStates
    >>> states = RegionalLatentStates(n_states=2, random_state=0)
    >>> states = states.fit(["north", "north", "south", "south"], ["a", "b"] * 2, [1, 9, 9, 1])
    >>> users, services = states.transform(["north", "nowhere"], ["b"])
    >>> users.shape, services.shape
    ((2, 2), (1, 2))
    """

    _parameter_constraints: dict = {
        "n_states": [Interval(Integral, 1, None, closed="left")],
        "concentration": [Interval(Real, 1, None, closed="left")],
        "rate": [StrOptions({"matched", "printed"})],
        "slow_quantile": [Interval(Real, 0, 1, closed="neither")],
        "shrinkage": [Interval(Real, 0, None, closed="left")],
        "n_restarts": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_states: int = 5,
        *,
        concentration: float = 1.0,
        rate: Literal["matched", "printed"] = "matched",
        slow_quantile: float = 0.9,
        shrinkage: float = 0.0,
        n_restarts: int = 2,
        max_iter: int = 300,
        tol: float = 1e-5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_states = n_states
        self.concentration = concentration
        self.rate = rate
        self.slow_quantile = slow_quantile
        self.shrinkage = shrinkage
        self.n_restarts = n_restarts
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        user_regions: ArrayLike,
        service_regions: ArrayLike,
        qos: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn the states of regions from records.

        Parameters
        ----------
        user_regions, service_regions : array-like of shape (n_records,)
            Region of each record's user and service: labels of any kind. A missing value is a
            region of its own.
        qos : array-like of shape (n_records,)
            Measurements, which must be positive.
        sample_weight : array-like of shape (n_records,), default=None
            Weight of each record, at least 0. A record of weight n counts as n equal records, and a
            record of weight 0 is ignored. If None, all records have weight 1.

        Returns
        -------
        self : object
            The fitted states.

        Raises
        ------
        ValueError
            If a value of `qos` is not positive and finite, a weight is negative, all are zero, or
            lengths differ.
        """
        qos, weights, kept = _read_qos(user_regions, service_regions, qos, sample_weight)
        (users, known_users), (services, known_services) = (
            pd.factorize(_labels(regions)[kept], use_na_sentinel=False)
            for regions in (user_regions, service_regions)
        )
        # The mean is the unit; its sum must not overflow.
        unit = qos.max() * np.average(qos / qos.max(), weights=weights)
        records = Records.arrange(users, services, qos / unit, weights)
        eta = weighted_quantile(records.qos, records.weights, self.slow_quantile)
        best, trace = self._maximise(records, eta)
        # Only now, so that an interrupted `fit` leaves the attributes of an earlier one unchanged.
        self.user_regions_, self.service_regions_ = known_users, known_services
        self._store(best, records, unit)
        self.slow_threshold_ = eta * unit
        self.log_posterior_ = np.array(trace) - records.total * np.log(unit)
        self.n_iter_ = len(trace) - 1
        return self

    def transform(
        self, user_regions: ArrayLike, service_regions: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return P(state given region) of the given regions.

        Parameters
        ----------
        user_regions, service_regions : array-like of shape (n_users,), (n_services,)
            Regions, which need not be from the same records. A region that `fit` did not see gets
            the frequencies of the states, which are the prior probabilities.

        Returns
        -------
        user_states, service_states : ndarray of shape (n_users, m), (n_services, m)
            Probabilities; rows sum to 1.
        """
        check_is_fitted(self)
        sides = (
            (user_regions, self.user_regions_, self.user_states_, self.user_frequencies_),
            (
                service_regions,
                self.service_regions_,
                self.service_states_,
                self.service_frequencies_,
            ),
        )
        return tuple(
            np.vstack([states, frequencies])[known.get_indexer(_labels(regions))]
            for regions, known, states, frequencies in sides
        )

    def log_levels(
        self, user_regions: ArrayLike, service_regions: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the logarithms of W_u and W_s of the given regions.

        Parameters
        ----------
        user_regions, service_regions : array-like of shape (n_users,), (n_services,)
            Regions, as in `transform`. A region that `fit` did not see gets the average over the
            records.

        Returns
        -------
        user_levels, service_levels : ndarray of shape (n_users,), (n_services,)
            Logarithms. The mean of the QoS of a pair is the product of both levels if the states
            match, and `mismatch_` times as large otherwise.
        """
        check_is_fitted(self)
        sides = (
            (user_regions, self.user_regions_, self.user_level_, self._user_weights),
            (service_regions, self.service_regions_, self.service_level_, self._service_weights),
        )
        return tuple(
            np.append(self._shrink(logs, average, weights), average)[
                known.get_indexer(_labels(regions))
            ]
            for regions, known, levels, weights in sides
            for logs in [np.log(levels)]
            for average in [np.average(logs, weights=weights)]
        )

    def states_by_side(self, name: str = "region") -> pd.DataFrame:
        """Return P(state given region) as a table of both sides.

        Parameters
        ----------
        name : str, default="region"
            Name of the index level of the regions.

        Returns
        -------
        DataFrame of shape (n_user_regions + n_service_regions, m)
            The index has the levels ``side``, with values "user" and "service", and `name`.
        """
        check_is_fitted(self)
        return pd.concat(
            {
                "user": pd.DataFrame(self.user_states_, index=self.user_regions_),
                "service": pd.DataFrame(self.service_states_, index=self.service_regions_),
            },
            names=["side", name],
        )

    def _maximise(self, records: Records, eta: float) -> tuple[Parameters, list[float]]:
        """Return the best parameters, and the log posterior before each iteration."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        neutral = _neutral_start(records)
        if self.rate == "printed":
            start = _random_start(neutral, self.n_states, records, eta, seed)
            return self._climb(start, records, eta, self.max_iter)
        best, trace = self._climb(neutral, records, eta, self.max_iter)
        for m in range(2, self.n_states + 1):
            best, trace = self._add_state(best, trace, m, records, eta, seed)
        return best, trace

    def _store(self, best: Parameters, records: Records, unit: float) -> None:
        """Set the fitted attributes of states and levels; `unit` is the unit of the records."""
        self._user_weights = records.weight_per_user_region
        self._service_weights = records.weight_per_service_region
        self.user_states_ = self._shrink(
            _given_region(best.user_joint), best.user_frequencies, self._user_weights
        )
        self.service_states_ = self._shrink(
            _given_region(best.service_joint), best.service_frequencies, self._service_weights
        )
        self.user_frequencies_ = best.user_frequencies
        self.service_frequencies_ = best.service_frequencies
        self.user_level_ = best.user_level
        self.service_level_ = best.service_level * unit
        self.mismatch_ = best.mismatch

    def _shrink(self, values: np.ndarray, average: Any, weights: np.ndarray) -> np.ndarray:
        """Average values of regions with those of all, by the weight of the records."""
        share = weights / (weights + self.shrinkage)
        share = share.reshape(-1, *[1] * (values.ndim - 1))
        return share * values + (1 - share) * average

    def _add_state(
        self,
        smaller: Parameters,
        trace: list[float],
        m: int,
        records: Records,
        eta: float,
        seed: int,
    ) -> tuple[Parameters, list[float]]:
        """Fit m states from random starts and from splits of the solution with m - 1 states."""
        rng = np.random.RandomState([seed, m])
        neutral = _neutral_start(records)
        random = [_random_start(neutral, m, records, eta, rng) for _ in range(self.n_restarts)]
        splits = [_split(smaller, rng) for _ in range(self.n_restarts)]
        runs = [self._climb_best(group, records, eta) for group in (random, splits)]
        best, longest = max(runs, key=lambda run: run[1][-1])
        # The smaller solution with an empty state is also a start. The uniform prior of m
        # frequencies has the density (m - 1)!; other priors exclude empty states.
        gained = 2 * np.log(m - 1)
        if self.concentration == 1 and longest[-1] < trace[-1] + gained:
            return _with_empty_state(smaller), [value + gained for value in trace]
        return best, longest

    def _climb_best(
        self, starts: list[Parameters], records: Records, eta: float
    ) -> tuple[Parameters, list[float]]:
        """Run all starts for some iterations, then continue with the best."""
        n_trial = min(TRIAL_ITERATIONS, self.max_iter)
        trials = [self._climb(start, records, eta, n_trial) for start in starts]
        trial, first = max(trials, key=lambda run: run[1][-1])
        best, rest = self._climb(trial, records, eta, self.max_iter - n_trial)
        return best, first[:-1] + rest

    def _climb(
        self, parameters: Parameters, records: Records, eta: float, max_iter: int
    ) -> tuple[Parameters, list[float]]:
        """Iterate until convergence; also return the log posterior before each iteration."""
        slow = records.qos >= eta if self.rate == "printed" else None
        trace: list[float] = []
        for _ in range(max_iter):
            updated, before = iterate(parameters, records, self.concentration, slow)
            trace.append(before)
            if len(trace) > 1 and trace[-1] - trace[-2] < self.tol * records.total:
                return parameters, trace
            parameters = updated
        _, last = iterate(parameters, records, self.concentration, slow)
        return parameters, [*trace, last]


def _labels(regions: ArrayLike) -> pd.Index:
    """Return regions as labels that are equal whatever the dtype of the array."""
    return plain_labels(pd.Series(pd.Index(regions, tupleize_cols=False)))


def _read_qos(
    user_regions: ArrayLike,
    service_regions: ArrayLike,
    qos: ArrayLike,
    sample_weight: ArrayLike | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check records; return QoS and weight of those with a weight, and their positions."""
    qos = column_or_1d(check_array(qos, ensure_2d=False, dtype=np.float64, input_name="qos"))
    if qos.min() <= 0:
        raise ValueError(
            f"qos must be positive for the exponential model; found {qos.min()}. Add an offset."
        )
    weights = np.ones(len(qos))
    if sample_weight is not None:
        weights = as_weights(sample_weight, "sample_weight")
    check_consistent_length(user_regions, service_regions, qos, weights)
    kept = np.flatnonzero(weights)
    return qos[kept], weights[kept], kept


def iterate(
    parameters: Parameters,
    records: Records,
    concentration: float,
    slow: np.ndarray | None = None,
) -> tuple[Parameters, float]:
    """One iteration of expectation maximisation.

    The responsibilities of a record depend only on whether its states match. Therefore records are
    summed over pairs of regions first, and states are processed for each pair.

    Parameters
    ----------
    parameters : Parameters
        Parameters before the iteration.
    records : Records
        Measurements.
    concentration : float
        Alpha of the Dirichlet prior.
    slow : ndarray of bool of shape (n,), default=None
        Records to which w applies whatever their states, for the printed rate. None selects the
        matched rate.

    Returns
    -------
    parameters : Parameters
        Parameters after the iteration.
    log_posterior : float
        Log posterior of the parameters before the iteration.
    """
    user, service = parameters.user_joint, parameters.service_joint
    differs = 1.0 - np.eye(user.shape[1])
    user_share = user[records.pair_user]
    matching = _row_products(user_share, service[records.pair_service])
    differing = _row_products(user_share, (service @ differs)[records.pair_service])
    mean = parameters.user_level[records.pair_user] * parameters.service_level[records.pair_service]
    w = parameters.mismatch
    with np.errstate(divide="ignore"):
        log_match, log_differ = np.log(matching / mean), np.log(differing / mean)
    ratio = records.qos / records.of_records(mean)
    if slow is None:
        # Log of the density times the probability of the states, for each record.
        fast_part = records.of_records(log_match) - ratio
        slow_part = records.of_records(log_differ - np.log(w)) - ratio / w
        log_density, mismatched = _mix(fast_part, slow_part)
        mismatched = records.weights * mismatched
        n_differ = records.per_pair(mismatched)
    else:
        log_density = records.of_records(np.logaddexp(log_match, log_differ))
        log_density = log_density - np.where(slow, ratio / w + np.log(w), ratio)
        mismatched = records.weights * slow
        # The density cancels, so responsibilities are the probabilities of the states.
        n_differ = records.weight_per_pair * differing / (matching + differing)
    log_posterior = (records.weights * log_density).sum() + sum(
        _log_dirichlet(frequencies, concentration)
        for frequencies in (parameters.user_frequencies, parameters.service_frequencies)
    )
    n_match = records.weight_per_pair - n_differ
    match = records.matrix(n_match / np.where(matching > 0, matching, 1.0))
    differ = records.matrix(n_differ / np.where(differing > 0, differing, 1.0))
    user_counts = user * (match @ service + differ @ (service @ differs))
    service_counts = service * (match.T @ user + differ.T @ (user @ differs))
    user_frequencies, user = _maximise_states(user_counts, user, concentration)
    service_frequencies, service = _maximise_states(service_counts, service, concentration)
    rates = _maximise_rates(parameters, records, mismatched)
    return (
        Parameters(user, service, user_frequencies, service_frequencies, *rates),
        float(log_posterior),
    )


def _mix(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add values given by their logs; also return the share of the second one in the sum."""
    difference = first - second
    smaller = np.exp(-np.abs(difference))
    both = 1.0 + smaller
    # Faster than logaddexp and equally exact, because `both` is between 1 and 2.
    return (
        np.maximum(first, second) + np.log(both),
        np.where(difference > 0, smaller, 1.0) / both,
    )


def _maximise_states(
    counts: np.ndarray, joint: np.ndarray, concentration: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequencies of states, and the joint probabilities of states and regions."""
    per_state = counts.sum(0)
    frequencies = per_state + concentration - 1
    frequencies = frequencies / frequencies.sum()
    # An empty state keeps its distribution of regions.
    counts = np.where(per_state > 0, counts, joint)
    totals = counts.sum(0)
    return frequencies, frequencies * counts / np.where(totals > 0, totals, 1.0)


def _maximise_rates(
    parameters: Parameters, records: Records, mismatched: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return W_u, W_s and w, each computed with the updated values of the others.

    `mismatched` is the weight of each record times the probability that its states differ.
    """
    differing = records.per_pair(records.qos * mismatched)
    reduced = records.qos_per_pair - differing + differing / parameters.mismatch
    of_service = parameters.service_level[records.pair_service]
    user_level = records.per_user_region(reduced / of_service) / records.weight_per_user_region
    of_user = user_level[records.pair_user]
    service_level = (
        records.per_service_region(reduced / of_user) / records.weight_per_service_region
    )
    n_differing = mismatched.sum()
    mismatch = parameters.mismatch
    if n_differing > 0:
        ratio = differing / (of_user * service_level[records.pair_service])
        mismatch = max(1.0, float(ratio.sum() / n_differing))
    unit = np.exp(np.log(user_level).mean())
    return user_level / unit, service_level * unit, mismatch


def _neutral_start(records: Records) -> Parameters:
    """Return parameters with one state and equal regions."""
    return Parameters(
        (records.weight_per_user_region / records.total)[:, None],
        (records.weight_per_service_region / records.total)[:, None],
        np.ones(1),
        np.ones(1),
        np.ones(records.n_user_regions),
        np.full(records.n_service_regions, records.mean_qos),
        1.0,
    )


def _random_start(
    neutral: Parameters, m: int, records: Records, eta: float, rng: Any
) -> Parameters:
    """Perturb the states of regions at random, because a symmetric start is a saddle point."""
    rng = check_random_state(rng)
    slow = records.qos >= eta
    w = 1.0
    if not slow.all():
        means = [
            np.average(records.qos[part], weights=records.weights[part]) for part in (slow, ~slow)
        ]
        w = max(w, means[0] / means[1])
    joints = [
        joint * rng.dirichlet(np.ones(m), size=len(joint))
        for joint in (neutral.user_joint, neutral.service_joint)
    ]
    # One of m pairs matches, so the mean over all pairs does not change.
    level = neutral.service_level / (1 / m + (1 - 1 / m) * w)
    return replace(_with_states(neutral, *joints), service_level=level, mismatch=w)


def _split(smaller: Parameters, rng: np.random.RandomState) -> Parameters:
    """Move a random share of one state, different for each region, to a new state."""
    state = rng.randint(len(smaller.user_frequencies))
    joints = []
    for joint in (smaller.user_joint, smaller.service_joint):
        share = rng.beta(0.5, 0.5, size=len(joint))
        moved = share * joint[:, state]
        left = joint.copy()
        left[:, state] -= moved
        joints.append(np.column_stack([left, moved]))
    return _with_states(smaller, *joints)


def _with_empty_state(smaller: Parameters) -> Parameters:
    joints = (smaller.user_joint, smaller.service_joint)
    return _with_states(smaller, *(np.pad(joint, ((0, 0), (0, 1))) for joint in joints))


def _with_states(parameters: Parameters, user: np.ndarray, service: np.ndarray) -> Parameters:
    return replace(
        parameters,
        user_joint=user,
        service_joint=service,
        user_frequencies=user.sum(0),
        service_frequencies=service.sum(0),
    )


def _given_region(joint: np.ndarray) -> np.ndarray:
    return joint / joint.sum(1, keepdims=True)


def _log_dirichlet(frequencies: np.ndarray, concentration: float) -> float:
    m = len(frequencies)
    constant = gammaln(m * concentration) - m * gammaln(concentration)
    if concentration == 1:
        return float(constant)
    return float(constant + (concentration - 1) * np.log(frequencies).sum())


def _row_products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", left, right)
