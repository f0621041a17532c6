"""Features of users and services at every time step, from the cells measured there (eq. 5 and 6).

All steps are processed at once with sparse matrices. The interaction matrices of the steps are the
diagonal blocks of one matrix. Its rows are the users of step 0, of step 1 and so on, and its
columns the services in the same way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
from scipy import sparse
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from skqos._arrays import sorted_unique
from skqos.factorization import interaction_matrix, truncated_svd

FAMILIES = ("statistics", "factors", "similarity")
STATISTICS = ("minimum", "maximum", "median", "mean", "standard deviation")
# Relative deviation below which a feature is constant, except for rounding.
MIN_DEVIATION = 1e-6
# Deviation within a group, relative to its values, that is a rounding error of their mean.
ROUNDING = 1e-12
# Bound of standardised features, which may be extreme without the cells of a fold.
LARGEST = 1e6
# Relative singular value below which a direction is noise.
MIN_SINGULAR_VALUE = 1e-3

# One array per side: (n_steps, n_users, width) and (n_steps, n_services, width).
Sides = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class StepCells:
    """The distinct cells (step, user, service) that were measured.

    Attributes
    ----------
    steps, users, services : ndarray of int64 of shape (n_cells,)
        Codes.
    values : ndarray of float64 of shape (n_cells,)
        Weighted mean of the measurements of each cell, on the scale of the transformed target.
    shape : tuple of int
        Number of steps, of users and of services.
    """

    steps: np.ndarray
    users: np.ndarray
    services: np.ndarray
    values: np.ndarray
    shape: tuple[int, int, int]

    @classmethod
    def from_rows(
        cls,
        steps: np.ndarray,
        users: np.ndarray,
        services: np.ndarray,
        values: np.ndarray,
        weights: np.ndarray,
        shape: tuple[int, int, int],
    ) -> tuple[StepCells, np.ndarray, np.ndarray]:
        """Collect the cells of training rows.

        Returns
        -------
        cells : StepCells
        cell_of_row : ndarray of int64 of shape (n_rows,)
        weights : ndarray of float64 of shape (n_cells,)
            Sum of the weights of each cell's rows.
        """
        keys = np.ravel_multi_index((steps, users, services), shape)
        distinct = sorted_unique(keys)
        cell_of_row = np.searchsorted(distinct, keys)
        sums = np.bincount(cell_of_row, weights)
        means = np.bincount(cell_of_row, weights * values) / sums
        return cls(*np.unravel_index(distinct, shape), means, shape), cell_of_row, sums

    def __len__(self) -> int:
        return len(self.values)

    def take(self, kept: np.ndarray) -> StepCells:
        """Return the given cells, with the same steps and entities."""
        return StepCells(
            self.steps[kept], self.users[kept], self.services[kept], self.values[kept], self.shape
        )

    @property
    def step_users(self) -> np.ndarray:
        """Row of each cell in the block-diagonal matrix."""
        return self.steps * self.shape[1] + self.users

    @property
    def step_services(self) -> np.ndarray:
        """Column of each cell in the block-diagonal matrix."""
        return self.steps * self.shape[2] + self.services

    @cached_property
    def blocks(self) -> sparse.csr_array:
        """Block-diagonal matrix of all steps; cells without measurement are 0."""
        n_steps, n_users, n_services = self.shape
        entries = self.values, (self.step_users, self.step_services)
        return sparse.csr_array(entries, shape=(n_steps * n_users, n_steps * n_services))


class Family(Protocol):
    """A family of features, which is learnt from all training cells."""

    def fit(self, cells: StepCells) -> Family:
        """Learn a common basis of all steps."""

    def extend(self, cells: StepCells) -> Family:
        """Return a family that also contains the further entities of these cells."""

    def transform(self, cells: StepCells) -> Sides:
        """Return features of each user and service at each step, from the given cells only.

        NaN stands for features that cannot be computed from them.
        """


class Statistics:
    """Minimum, maximum, median, mean and standard deviation of the measurements (F_S).

    They are NaN for an entity without a measurement in a step.
    """

    def fit(self, cells: StepCells) -> Statistics:  # noqa: ARG002  (part of the protocol)
        """Learn nothing."""
        return self

    def extend(self, cells: StepCells) -> Statistics:  # noqa: ARG002  (part of the protocol)
        """Return itself: statistics have no basis."""
        return self

    def transform(self, cells: StepCells) -> Sides:
        """Return five statistics of each user and service at each step."""
        n_steps = cells.shape[0]
        return tuple(
            group_statistics(groups, cells.values, n_steps * n).reshape(n_steps, n, len(STATISTICS))
            for groups, n in zip(
                (cells.step_users, cells.step_services), cells.shape[1:], strict=True
            )
        )


def group_statistics(groups: np.ndarray, values: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the minimum, maximum, median, mean and standard deviation of each group.

    Parameters
    ----------
    groups : ndarray of int64 of shape (n,)
        Group of each value.
    values : ndarray of float64 of shape (n,)
        Values.
    n_groups : int
        Number of groups.

    Returns
    -------
    ndarray of float64 of shape (n_groups, 5)
        NaN for groups without a value.
    """
    order = np.lexsort((values, groups))
    ordered = values[order]
    counts = np.bincount(groups, minlength=n_groups)
    filled = np.flatnonzero(counts)
    n = counts[filled]
    first = np.cumsum(n) - n
    mean = np.add.reduceat(ordered, first) / n
    deviation = ordered - np.repeat(mean, n)
    spread = np.sqrt(np.add.reduceat(deviation**2, first) / n)
    largest = np.maximum(np.abs(ordered[first]), np.abs(ordered[first + n - 1]))
    statistics = np.full((n_groups, len(STATISTICS)), np.nan)
    statistics[filled] = np.column_stack(
        [
            ordered[first],
            ordered[first + n - 1],
            (ordered[first + (n - 1) // 2] + ordered[first + n // 2]) / 2,
            mean,
            np.where(spread > ROUNDING * largest, spread, 0.0),
        ]
    )
    return statistics


@dataclass(frozen=True)
class KnownSteps:
    """Sums of an entity's features over the steps in which they are known.

    Attributes
    ----------
    sums : ndarray of float64 of shape (n, width)
        Sums over those steps.
    counts : ndarray of int64 of shape (n, width)
        Number of those steps.
    """

    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """Add up features of shape (n_steps, n, width); NaN is unknown."""
        return cls(np.nansum(values, axis=0), np.isfinite(values).sum(axis=0))

    def __add__(self, other: KnownSteps) -> KnownSteps:
        return KnownSteps(self.sums + other.sums, self.counts + other.counts)

    def __sub__(self, other: KnownSteps) -> KnownSteps:
        return KnownSteps(self.sums - other.sums, self.counts - other.counts)

    def grown(self, n: int) -> KnownSteps:
        """Append entities without known features."""
        margins = (0, n - len(self.sums)), (0, 0)
        return KnownSteps(np.pad(self.sums, margins), np.pad(self.counts, margins))

    def averages(self) -> np.ndarray:
        """Return the average of each entity, or of the others if it has none, or 0."""
        means = self.sums / np.maximum(self.counts, 1)
        known = self.counts > 0
        overall = means.sum(axis=0, where=known) / np.maximum(known.sum(axis=0), 1)
        return np.where(known, means, overall)


def fill_unknown(values: np.ndarray, elsewhere: KnownSteps | None = None) -> np.ndarray:
    """Replace missing features of an entity at a step by the average of its other steps.

    Parameters
    ----------
    values : ndarray of float of shape (n_steps, n, width)
        Features of one side; NaN is unknown.
    elsewhere : KnownSteps, default=None
        Known features at further steps.

    Returns
    -------
    ndarray of the shape of `values`
        Without NaN.
    """
    known = KnownSteps.of(values)
    known = known if elsewhere is None else known + elsewhere
    return np.where(np.isnan(values), known.averages(), values)


class MatrixFactors:
    """Factors of the interaction matrix of each step, in a basis that all steps share (F_Q).

    The paper factorises each step separately, so that the same coordinate has a different meaning
    at each step. Here U S V^T approximates the matrix of the means over all steps. The factors of
    the matrix Q of a step are Q V S^(-1/2) for users and Q^T U S^(-1/2) for services; for the means
    they are U S^(1/2) and V S^(1/2). Directions with a singular value near 0 are set to 0, because
    the division would amplify them for other matrices.

    Parameters
    ----------
    n_factors : int
        Rank (f_q).
    random_state : int
        Seed of the decomposition.
    """

    def __init__(self, n_factors: int, random_state: int) -> None:
        self.n_factors = n_factors
        self.random_state = random_state

    def fit(self, cells: StepCells) -> MatrixFactors:
        """Factorise the matrix of the means over steps."""
        means = interaction_matrix(cells.users, cells.services, cells.values, cells.shape[1:])
        factors = truncated_svd(means, self.n_factors, self.random_state)
        # The columns of U S^(1/2) have the squared norm S.
        singular = (factors[0] ** 2).sum(axis=0)
        # The inverse of a number below the smallest normal one may be infinite.
        least = max(MIN_SINGULAR_VALUE * singular.max(initial=0.0), np.finfo(np.float64).tiny)
        is_kept = singular > least
        self.inverse_ = np.divide(1, singular, out=np.zeros_like(singular), where=is_kept)
        self.bases_ = [side * self.inverse_ for side in factors]
        return self

    def extend(self, cells: StepCells) -> MatrixFactors:
        """Append the least-squares factors of the means of further entities.

        The factors of the other side, which are orthogonal, do not change.
        """
        means = interaction_matrix(cells.users, cells.services, cells.values, cells.shape[1:])
        extended = copy.copy(self)
        extended.bases_ = []
        sides = (means, *self.bases_), (means.T, *self.bases_[::-1])
        for matrix, own, other in sides:
            further = sparse.csr_array(matrix)[len(own) :, : len(other)]
            extended.bases_.append(np.concatenate([own, (further @ other) * self.inverse_]))
        return extended

    def transform(self, cells: StepCells) -> Sides:
        """Factors of each user and service at each step."""
        of_users, of_services = (np.tile(basis, (cells.shape[0], 1)) for basis in self.bases_)
        return _split_steps(cells, cells.blocks @ of_services, cells.blocks.T @ of_users)


class SimilarityFactors:
    """Rows of cosine similarity, compressed by a truncated factor (F_C).

    The similarity of two users at a step is the cosine of their zero-filled rows at this step. The
    row of similarities of a user to all users is projected on the first left singular vectors of
    the concatenated normalised rows of all steps. Services are processed in the same way. The
    similarities themselves are not stored: the projection is R (R^T P), with the normalised rows R
    of a step.

    Parameters
    ----------
    dim : int
        Width (f_c); at most the number of users or of services, whichever is smaller.
    random_state : int
        Seed of the decomposition.
    """

    def __init__(self, dim: int, random_state: int) -> None:
        self.dim = dim
        self.random_state = random_state

    def fit(self, cells: StepCells) -> SimilarityFactors:
        """Compute the projections of both sides."""
        self.projections_ = []
        # Both sides have the same width, because they share graph-convolution weights.
        rank = min(self.dim, *cells.shape[1:])
        for rows, n in zip(normalised_rows(cells), cells.shape[1:], strict=True):
            # Block (t, t) is moved to block (0, t): entities by all their measurements.
            entries = rows.tocoo()
            wide = sparse.csr_array(
                (entries.data, (entries.row % n, entries.col)), shape=(n, rows.shape[1])
            )
            left, _, _ = randomized_svd(wide, rank, random_state=self.random_state)
            self.projections_.append(left)
        return self

    def extend(self, cells: StepCells) -> SimilarityFactors:
        """Pad the projections with zeros: similarities to further entities are not used."""
        extended = copy.copy(self)
        extended.projections_ = [
            np.pad(projection, ((0, n - len(projection)), (0, 0)))
            for projection, n in zip(self.projections_, cells.shape[1:], strict=True)
        ]
        return extended

    def transform(self, cells: StepCells) -> Sides:
        """Compressed similarities of each user and service at each step."""
        compressed = (
            rows @ (rows.T @ np.tile(projection, (cells.shape[0], 1)))
            for rows, projection in zip(normalised_rows(cells), self.projections_, strict=True)
        )
        return _split_steps(cells, *compressed)


def normalised_rows(cells: StepCells) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Return the measurements of users and services at each step, scaled to length 1."""
    by_service = sparse.csr_array(cells.blocks.T)
    if not len(cells):
        return cells.blocks, by_service
    return tuple(normalize(rows) for rows in (cells.blocks, by_service))


def _split_steps(cells: StepCells, *sides: np.ndarray) -> Sides:
    """Move the steps to the first axis."""
    n_steps, *sizes = cells.shape
    return tuple(
        side.reshape(n_steps, n, side.shape[1]) for n, side in zip(sizes, sides, strict=True)
    )


def make_family(
    name: str,
    *,
    n_factors: int,
    similarity_dim: int,
    similarity: str,
    autoencoder_epochs: int,
    seed: int,
) -> Family:
    """Create one of `FAMILIES`, with the parameters of `TPMCFRegressor`."""
    if name == "statistics":
        return Statistics()
    if name == "factors":
        return MatrixFactors(n_factors, seed)
    if similarity == "factors":
        return SimilarityFactors(similarity_dim, seed)
    # It needs torch.
    from skqos.tpmcf.autoencoder import SimilarityAutoencoder

    return SimilarityAutoencoder(similarity_dim, autoencoder_epochs)


class NodeFeatures:
    """The initial features of the nodes: concatenated and standardised families (F_0).

    An entity without a measurement in a step gets the average of its other steps if a family has no
    value for it.

    Parameters
    ----------
    families : sequence of Family
        At least one.

    Attributes
    ----------
    scales_ : list of tuple of ndarray
        Mean and standard deviation of each feature over all nodes and steps, one pair per side.
    known_ : list of KnownSteps
        Known features of the entities at all steps, one object per side.
    """

    def __init__(self, families: Sequence[Family]) -> None:
        self.families = families

    def fit(self, cells: StepCells) -> NodeFeatures:
        """Learn bases and scales from all training cells."""
        for family in self.families:
            family.fit(cells)
        described = self._describe(cells)
        self.known_ = [KnownSteps.of(values) for values in described]
        self.scales_ = [_scale(fill_unknown(values)) for values in described]
        return self

    def extend(self, before: StepCells, after: StepCells) -> NodeFeatures:
        """Return features that include further entities and measurements of some steps.

        Scales and bases do not change.

        Parameters
        ----------
        before, after : StepCells
            The cells of the steps, without and with the further ones, over the same steps and all
            entities.
        """
        extended = copy.copy(self)
        extended.families = [family.extend(after) for family in self.families]
        extended.known_ = [
            known.grown(new.shape[1]) - KnownSteps.of(old) + KnownSteps.of(new)
            for known, old, new in zip(
                self.known_, extended._describe(before), extended._describe(after), strict=True
            )
        ]
        return extended

    def elsewhere(self, cells: StepCells) -> list[KnownSteps]:
        """Return the known features at all steps except those of the given cells."""
        return [
            known - KnownSteps.of(values)
            for known, values in zip(self.known_, self._describe(cells), strict=True)
        ]

    def transform(self, cells: StepCells, elsewhere: list[KnownSteps] | None = None) -> Sides:
        """Return float32 features of each user and service at each step, from the given cells.

        Parameters
        ----------
        cells : StepCells
            The cells of some steps.
        elsewhere : list of KnownSteps, default=None
            Known features at further steps, one object per side.
        """
        return tuple(
            np.clip((fill_unknown(values, of_side) - mean) / deviation, -LARGEST, LARGEST).astype(
                np.float32
            )
            for values, of_side, (mean, deviation) in zip(
                self._describe(cells), elsewhere or (None, None), self.scales_, strict=True
            )
        )

    def _describe(self, cells: StepCells) -> Sides:
        """Concatenate the families; NaN for missing features of an entity at a step."""
        parts = [family.transform(cells) for family in self.families]
        return tuple(np.concatenate(side, axis=2) for side in zip(*parts, strict=True))


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(axis=(0, 1)), deviation_or_one(values, (0, 1))


def deviation_or_one(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Return standard deviations, and 1 for values that are constant, except for rounding."""
    deviation, largest = values.std(axis=axis), np.abs(values).max(axis=axis)
    return np.where(deviation > MIN_DEVIATION * largest, deviation, 1.0)


def draw_folds(n_cells: int, n_folds: int | None, rng: np.random.RandomState) -> np.ndarray:
    """Assign cells to folds of equal size; without folds, all cells are in fold 0."""
    if n_folds is None:
        return np.zeros(n_cells, dtype=np.int64)
    return rng.permutation(n_cells) % n_folds


def without_folds(
    describe: Callable[[StepCells], Sides], cells: StepCells, folds: np.ndarray, n_folds: int | None
) -> Sides:
    """Compute features of the nodes without the cells of each fold.

    A training pair is predicted from features that do not contain its own value. In the paper, the
    features contain it (`n_folds` is None), and there is a single table of features from all cells.

    Parameters
    ----------
    describe : callable
        Function from cells to features.
    cells : StepCells
        The training cells.
    folds : ndarray of int64 of shape (n_cells,)
        Fold of each cell.
    n_folds : int or None
        Number of folds.

    Returns
    -------
    users, services : ndarray of shape (n_tables, n_steps, n, width)
        Features; a training cell uses the table of its fold.
    """
    if n_folds is None:
        descriptions = [describe(cells)]
    else:
        kept = (np.flatnonzero(folds != fold) for fold in range(n_folds))
        descriptions = [describe(cells.take(rows)) for rows in kept]
    return tuple(np.stack(side) for side in zip(*descriptions, strict=True))
