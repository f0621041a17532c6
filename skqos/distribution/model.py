"""The distribution of measurements around predictions.

A second training holds out rows. A network learns quantiles of their errors given the pair
(`network`), which are corrected by band (`bands`) and converted to quantiles of y (`quantiles`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from skqos.distribution.bands import GROUPS, BandCorrections, group_of
from skqos.distribution.difficulty import EntityErrors, describe_pairs
from skqos.distribution.quantiles import interpolate, probability_below
from skqos.targets import TargetTransform

if TYPE_CHECKING:
    from skqos.distribution.network import QuantileNetwork

# Shares of the pairs, and of the users and services with all their pairs, that the second training
# holds out.
PAIR_SHARE = 0.2
ENTITY_SHARE = 0.1
# With fewer pairs, rows are held out individually.
MIN_PAIRS = 5
# More calibration rows would need more time and memory, with little benefit.
MAX_CALIBRATION_ROWS = 30_000
# Number of the latest rows that the calibration keeps of each kind of pair, unless it had more.
MIN_KEPT_ROWS = 1000
# Number of pairs whose quantiles are computed at once.
BLOCK = 2**16


@dataclass(frozen=True)
class Pairs:
    """Encoded rows and their predictions.

    Attributes
    ----------
    users, services : ndarray of int64 of shape (n,)
        Codes; from the number of known entities on, the entity is new.
    prediction : ndarray of float64 of shape (n, n_targets)
        Predictions in units of the transformed target.
    """

    users: np.ndarray
    services: np.ndarray
    prediction: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: np.ndarray | slice) -> Pairs:
        """Return the given rows."""
        return Pairs(self.users[rows], self.services[rows], self.prediction[rows])


@dataclass(frozen=True)
class Calibration:
    """Errors of held-out rows, relative to their expected quantiles.

    Attributes
    ----------
    prediction : ndarray of float64 of shape (n,)
        Predictions in units of the transformed target.
    group : ndarray of int8 of shape (n,)
        Kind of each pair.
    excess : ndarray of float32 of shape (n, n_levels)
        Target minus each quantile.
    """

    prediction: np.ndarray
    group: np.ndarray
    excess: np.ndarray

    @classmethod
    def of_rows(
        cls, prediction: np.ndarray, group: np.ndarray, error: np.ndarray, expected: np.ndarray
    ) -> Self:
        """Create a calibration from errors and their expected quantiles, of shape (n, n_levels)."""
        return cls(prediction, group, (error[:, None] - expected).astype(np.float32))

    def joined(self, later: Calibration) -> Calibration:
        """Append rows; if there are too many of a kind of pair, the earliest ones are dropped."""
        group = np.concatenate([self.group, later.group])
        kept = []
        for kind in GROUPS:
            rows = np.flatnonzero(group == kind)
            n_kept = max(int((self.group == kind).sum()), MIN_KEPT_ROWS)
            kept.append(rows[-n_kept:])
        rows = np.sort(np.concatenate(kept))
        return Calibration(
            np.concatenate([self.prediction, later.prediction])[rows],
            group[rows],
            np.concatenate([self.excess, later.excess])[rows],
        )

    def corrections(self) -> BandCorrections:
        """Learn corrections with which the quantiles cover these rows."""
        return BandCorrections.fit(self.prediction, self.group, self.excess)


@dataclass(frozen=True)
class ErrorDistribution:
    """The distribution of one target around its prediction, in units of the transformed target.

    Attributes
    ----------
    users, services : EntityErrors
        Training rows of each user and of each service.
    network : QuantileNetwork
        Quantiles of the error of a pair.
    calibration : Calibration
        Held-out rows.
    bands : BandCorrections
        Corrections learnt from the calibration.
    """

    users: EntityErrors
    services: EntityErrors
    network: QuantileNetwork
    calibration: Calibration
    bands: BandCorrections

    def quantiles(
        self, users: np.ndarray, services: np.ndarray, prediction: np.ndarray
    ) -> np.ndarray:
        """Return quantiles of the transformed target at all levels, of shape (n, n_levels)."""
        expected = self._expected(users, services, prediction)
        corrected = expected + self.bands.of(prediction, self._group(users, services))
        # Corrected quantiles of neighbouring levels may cross.
        return prediction[:, None] + np.sort(corrected, axis=1)

    def with_rows(
        self, seen_as: Pairs, target: int, z: np.ndarray, shape: tuple[int, int], now: Pairs
    ) -> ErrorDistribution:
        """Add the rows of an update: `seen_as` before it, `now` after it."""
        observed = np.flatnonzero(~np.isnan(z))
        if not len(observed):
            return self
        z, seen_as, now = z[observed], seen_as.take(observed), now.take(observed)
        prediction = seen_as.prediction[:, target]
        expected = self._expected(seen_as.users, seen_as.services, prediction)
        calibration = self.calibration.joined(
            Calibration.of_rows(
                prediction, self._group(seen_as.users, seen_as.services), z - prediction, expected
            )
        )
        users, services = _errors_of(now, target, z, shape)
        return replace(
            self,
            users=self.users + users,
            services=self.services + services,
            calibration=calibration,
            bands=calibration.corrections(),
        )

    def _expected(
        self, users: np.ndarray, services: np.ndarray, prediction: np.ndarray
    ) -> np.ndarray:
        features = describe_pairs(self.users, self.services, users, services, prediction)
        return self.network.predict(features)

    def _group(self, users: np.ndarray, services: np.ndarray) -> np.ndarray:
        return group_of(self.users.are_unknown(users), self.services.are_unknown(services))


@dataclass(frozen=True)
class Intervals:
    """The distribution of y around the predictions of a fitted estimator.

    Attributes
    ----------
    transform : TargetTransform
        Transform of the estimator.
    lowest : ndarray of float64 of shape (n_targets,)
        Lower bound of quantiles: 0 for a target without negative values, otherwise minus infinity.
    targets : list of ErrorDistribution
        Distribution of each target.
    """

    transform: TargetTransform
    lowest: np.ndarray
    targets: list[ErrorDistribution]

    def quantiles(self, pairs: Pairs, levels: np.ndarray) -> np.ndarray:
        """Return quantiles of y, of shape (n, n_targets, n_levels), not decreasing."""
        found = np.empty((len(pairs), len(self.targets), len(levels)))
        for rows in _blocks(len(pairs)):
            found[rows] = interpolate(self._all_quantiles(pairs.take(rows)), levels)
        return found

    def probability(self, pairs: Pairs, limits: np.ndarray) -> np.ndarray:
        """Return P(y <= limit), of shape (n, n_targets)."""
        found = np.empty((len(pairs), len(self.targets)))
        for rows in _blocks(len(pairs)):
            found[rows] = probability_below(self._all_quantiles(pairs.take(rows)), limits)
        return found

    def with_rows(self, seen_as: Pairs, y: np.ndarray, shape: tuple[int, int], now: Pairs) -> Self:
        """Add the rows of an update.

        Parameters
        ----------
        seen_as : Pairs
            Rows as encoded and predicted before the update.
        y : ndarray of shape (n, n_targets)
            Their targets; NaN where not observed.
        shape : tuple of int
            Number of users and of services after the update.
        now : Pairs
            Rows as encoded by the updated estimator.
        """
        z = self.transform.transform(y)
        targets = [
            distribution.with_rows(seen_as, k, z[:, k], shape, now)
            for k, distribution in enumerate(self.targets)
        ]
        # Comparisons with NaN are False.
        negative = (y < 0).any(axis=0)
        return replace(self, targets=targets, lowest=np.where(negative, -np.inf, self.lowest))

    def _all_quantiles(self, pairs: Pairs) -> np.ndarray:
        z = np.stack(
            [
                distribution.quantiles(pairs.users, pairs.services, pairs.prediction[:, k])
                for k, distribution in enumerate(self.targets)
            ],
            axis=2,
        )
        y = self.transform.inverse_transform(z.reshape(-1, len(self.targets)))
        return np.maximum(y.reshape(z.shape), self.lowest).transpose(0, 2, 1)


def learn_intervals(
    pairs: Pairs,
    y: np.ndarray,
    times: np.ndarray | None,
    shape: tuple[int, int],
    transform: TargetTransform,
    fit_and_predict: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> Intervals:
    """Learn the distribution of measurements around predictions.

    Parameters
    ----------
    pairs : Pairs
        All rows as encoded and predicted by the fitted estimator. Entities of validation rows may
        be new.
    y : ndarray of shape (n, n_targets)
        Their targets; NaN where not observed.
    times : ndarray of int64 of shape (n,) or None
        Their time steps.
    shape : tuple of int
        Number of known users and services.
    transform : TargetTransform
        Transform of the estimator.
    fit_and_predict : callable
        Function that trains on rows, given by position, and returns predictions of all rows, like
        y.
    seed : int
        Seed of the random numbers.

    Raises
    ------
    ValueError
        If there are too few rows to hold some out.
    """
    rng = np.random.RandomState([seed, len(y)])
    left_out = leave_out(pairs.users, pairs.services, times, rng)
    _check_enough(pairs, y, left_out)
    second = fit_and_predict(np.flatnonzero(~left_out)).reshape(y.shape)
    second_pairs = replace(pairs, prediction=transform.transform(second))
    z = transform.transform(y)
    targets = [
        _learn_target(pairs, second_pairs, z[:, k], k, shape, left_out, rng)
        for k in range(y.shape[1])
    ]
    never_negative = np.nanmin(y, axis=0) >= 0
    return Intervals(transform, np.where(never_negative, 0.0, -np.inf), targets)


def _check_enough(pairs: Pairs, y: np.ndarray, left_out: np.ndarray) -> None:
    """Raise ValueError unless both parts have enough rows."""
    entities = [len(np.unique(codes[~left_out])) for codes in (pairs.users, pairs.services)]
    observed = ~np.isnan(y)
    enough = min(entities) > 1 and observed[~left_out].any(axis=0).all()
    if not (enough and observed[left_out].any(axis=0).all()):
        raise ValueError(
            f"Intervals need a second training that holds out {left_out.sum()} rows of "
            f"n_samples={len(y)}: one of the two parts would have too few users, services or "
            "observations of a target. Give more rows, or fit without intervals."
        )


def _learn_target(
    pairs: Pairs,
    second: Pairs,
    z: np.ndarray,
    target: int,
    shape: tuple[int, int],
    left_out: np.ndarray,
    rng: np.random.RandomState,
) -> ErrorDistribution:
    from skqos.distribution.network import N_MEMBERS, train_quantile_network

    observed = ~np.isnan(z)
    trained = np.flatnonzero(observed & ~left_out)
    held = rng.permutation(np.flatnonzero(observed & left_out))[:MAX_CALIBRATION_ROWS]
    users, services = _errors_of(second.take(trained), target, z[trained], shape)
    seen = second.take(held)
    prediction = seen.prediction[:, target]
    features = describe_pairs(users, services, seen.users, seen.services, prediction)
    fold = rng.permutation(np.arange(len(held)) % N_MEMBERS)
    error = z[held] - prediction
    network = train_quantile_network(features, error, fold, rng.randint(np.iinfo(np.int32).max))
    calibration = Calibration.of_rows(
        prediction,
        group_of(users.are_unknown(seen.users), services.are_unknown(seen.services)),
        error,
        network.predict_out_of_fold(features, fold),
    )
    users, services = _errors_of(pairs.take(observed), target, z[observed], shape)
    return ErrorDistribution(users, services, network, calibration, calibration.corrections())


def _errors_of(
    pairs: Pairs, target: int, z: np.ndarray, shape: tuple[int, int]
) -> tuple[EntityErrors, EntityErrors]:
    """Sum up the rows of each known user and each known service."""
    sides = []
    for codes, n_entities in zip((pairs.users, pairs.services), shape, strict=True):
        known = codes < n_entities
        prediction = pairs.prediction[known, target]
        sides.append(EntityErrors.of_rows(codes[known], z[known], prediction, n_entities))
    return sides[0], sides[1]


def leave_out(
    users: np.ndarray, services: np.ndarray, times: np.ndarray | None, rng: np.random.RandomState
) -> np.ndarray:
    """Choose the rows that a second training holds out: some pairs, users and services.

    Rows of a pair (and time) are held out together, unless there are very few pairs.

    Parameters
    ----------
    users, services : ndarray of int64 of shape (n,)
        Codes.
    times : ndarray of int64 of shape (n,) or None
        Time steps.
    rng : RandomState
        Source of randomness.

    Returns
    -------
    ndarray of bool of shape (n,)
    """
    parts = [users, services] if times is None else [users, services, times]
    _, cells = np.unique(np.stack(parts), axis=1, return_inverse=True)
    cells = cells.ravel()
    if cells.max() + 1 < MIN_PAIRS:
        cells = np.arange(len(users))
    left_out = _draw(cells, PAIR_SHARE, rng)[cells]
    for codes in (users, services):
        left_out |= _draw(codes, ENTITY_SHARE, rng)[codes]
    return left_out


def _draw(codes: np.ndarray, share: float, rng: np.random.RandomState) -> np.ndarray:
    """Draw a share of the codes, so that at least two remain."""
    n = codes.max() + 1
    drawn = np.zeros(n, dtype=bool)
    drawn[rng.permutation(n)[: max(min(round(share * n), n - 2), 0)]] = True
    return drawn


def _blocks(n_rows: int) -> Iterator[slice]:
    for start in range(0, n_rows, BLOCK):
        yield slice(start, start + BLOCK)
