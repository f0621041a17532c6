"""Features of users and services at every time step, from the cells measured there (eq. 5 and 6).

Everything is sparse and of all steps at once: the interaction matrices of the steps stand on the
diagonal of one matrix, whose rows are the users of step 0, of step 1 and so on, and whose columns
are the services likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import sparse
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from skqos._arrays import sorted_unique
from skqos.factorization import interaction_matrix, truncated_svd

FAMILIES = ("statistics", "factors", "similarity")
STATISTICS = ("minimum", "maximum", "median", "mean", "standard deviation")
# Features whose deviation is smaller, relative to their size, are constant but for rounding.
MIN_DEVIATION = 1e-6
# Of a standardised feature: without a fold's cells it may be of another order than with all.
LARGEST = 1e6
# Directions whose singular value is smaller, relative to the largest, are noise.
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
    ) -> tuple[StepCells, np.ndarray]:
        """Collect the cells of training rows; also return the cell of each row."""
        keys = np.ravel_multi_index((steps, users, services), shape)
        distinct = sorted_unique(keys)
        cell_of_row = np.searchsorted(distinct, keys)
        means = np.bincount(cell_of_row, weights * values) / np.bincount(cell_of_row, weights)
        return cls(*np.unravel_index(distinct, shape), means, shape), cell_of_row

    def __len__(self) -> int:
        return len(self.values)

    def take(self, kept: np.ndarray) -> StepCells:
        """Return the given cells as measurements of the same steps and entities."""
        return StepCells(
            self.steps[kept], self.users[kept], self.services[kept], self.values[kept], self.shape
        )

    @property
    def step_users(self) -> np.ndarray:
        """Each cell's row in the block-diagonal matrix."""
        return self.steps * self.shape[1] + self.users

    @property
    def step_services(self) -> np.ndarray:
        """Each cell's column in the block-diagonal matrix."""
        return self.steps * self.shape[2] + self.services

    @cached_property
    def blocks(self) -> sparse.csr_array:
        """The matrices of all steps on one diagonal; zeros stand for what was not measured."""
        n_steps, n_users, n_services = self.shape
        entries = self.values, (self.step_users, self.step_services)
        return sparse.csr_array(entries, shape=(n_steps * n_users, n_steps * n_services))

    def observed(self) -> Sides:
        """Tell which users and which services were measured in which step."""
        sides = []
        for rows, n in zip((self.step_users, self.step_services), self.shape[1:], strict=True):
            is_observed = np.zeros(self.shape[0] * n, dtype=bool)
            is_observed[rows] = True
            sides.append(is_observed.reshape(self.shape[0], n))
        return tuple(sides)


class Family(Protocol):
    """A family of features: what it has to learn, it learns from all training cells."""

    def fit(self, cells: StepCells) -> Family:
        """Learn a basis that all steps share."""

    def transform(self, cells: StepCells) -> Sides:
        """Describe each user and service at each step by the given cells alone."""


class Statistics:
    """Minimum, maximum, median, mean and standard deviation of what was measured (F_S).

    An entity without a measurement in a step takes the average of its other steps.
    """

    def fit(self, cells: StepCells) -> Statistics:  # noqa: ARG002  (part of the protocol)
        """Learn nothing."""
        return self

    def transform(self, cells: StepCells) -> Sides:
        """Five statistics of each user and service at each step."""
        n_steps = cells.shape[0]
        sides = []
        for groups, n, observed in zip(
            (cells.step_users, cells.step_services),
            cells.shape[1:],
            cells.observed(),
            strict=True,
        ):
            statistics = group_statistics(groups, cells.values, n_steps * n)
            sides.append(fill_unobserved(statistics.reshape(n_steps, n, -1), observed))
        return tuple(sides)


def group_statistics(groups: np.ndarray, values: np.ndarray, n_groups: int) -> np.ndarray:
    """Minimum, maximum, median, mean and standard deviation of each group.

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
        0 for groups without a value.
    """
    order = np.lexsort((values, groups))
    ordered = values[order]
    counts = np.bincount(groups, minlength=n_groups)
    filled = np.flatnonzero(counts)
    n = counts[filled]
    first = np.cumsum(n) - n
    mean = np.add.reduceat(ordered, first) / n
    deviation = ordered - np.repeat(mean, n)
    statistics = np.zeros((n_groups, len(STATISTICS)))
    statistics[filled] = np.column_stack(
        [
            ordered[first],
            ordered[first + n - 1],
            (ordered[first + (n - 1) // 2] + ordered[first + n // 2]) / 2,
            mean,
            np.sqrt(np.add.reduceat(deviation**2, first) / n),
        ]
    )
    return statistics


def fill_unobserved(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Replace what an entity lacks in a step by the average of its other steps.

    Parameters
    ----------
    values : ndarray of float of shape (n_steps, n, width)
        Features of one side.
    observed : ndarray of bool of shape (n_steps, n)
        Whether they rest on a measurement.

    Returns
    -------
    ndarray of the shape of `values`
        An entity that was never measured takes the average entity, or 0 where nothing was.
    """
    weights = observed[:, :, None]
    count = observed.sum(axis=0)[:, None]
    sums = (values * weights).sum(axis=0)
    means = sums / np.maximum(count, 1)
    overall = means.sum(axis=0) / max(np.count_nonzero(count), 1)
    return np.where(weights, values, np.where(count > 0, means, overall))


class MatrixFactors:
    """Factors of the interaction matrix of each step, in a basis that all steps share (F_Q).

    The paper factors each step alone, so that the same coordinate means something else in every
    step. Here U S V^T approximates the matrix of the means over all steps, and the factors of a
    step's matrix Q are Q V S^(-1/2) of users and Q^T U S^(-1/2) of services: those of the means
    are U S^(1/2) and V S^(1/2). Directions with next to no singular value are left at 0: the
    division would blow them up as soon as Q is not the matrix that they come from.

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
        """Factor the matrix of the means over steps."""
        means = interaction_matrix(cells.users, cells.services, cells.values, cells.shape[1:])
        factors = truncated_svd(means, self.n_factors, self.random_state)
        # The columns of U S^(1/2) have the squared norm S.
        singular = (factors[0] ** 2).sum(axis=0)
        # The inverse of less than the smallest normal number may be infinite.
        least = max(MIN_SINGULAR_VALUE * singular.max(initial=0.0), np.finfo(np.float64).tiny)
        is_kept = singular > least
        inverse = np.divide(1, singular, out=np.zeros_like(singular), where=is_kept)
        self.bases_ = [side * inverse for side in factors]
        return self

    def transform(self, cells: StepCells) -> Sides:
        """Factors of each user and service at each step."""
        n_steps = cells.shape[0]
        of_users, of_services = (np.tile(basis, (n_steps, 1)) for basis in self.bases_)
        return _split_steps(cells.blocks @ of_services, cells.blocks.T @ of_users, n_steps)


class SimilarityFactors:
    """Rows of cosine similarity, compressed by a truncated factor (F_C).

    The similarity of two users in a step is the cosine of their zero-filled rows in that step. Its
    row holds the similarities to all users; it is projected on the first left singular vectors of
    the normalised rows of all steps, laid side by side. Services likewise. The similarities
    themselves are never formed: with the normalised rows R of a step, R (R^T P) is.

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
        """Find the projections of both sides."""
        self.projections_ = []
        # Both sides go through the same weights of the graph convolution.
        rank = min(self.dim, *cells.shape[1:])
        for rows, n in zip(normalised_rows(cells), cells.shape[1:], strict=True):
            # Block (t, t) moves to block (0, t): entities by everything they were measured with.
            entries = rows.tocoo()
            wide = sparse.csr_array(
                (entries.data, (entries.row % n, entries.col)), shape=(n, rows.shape[1])
            )
            left, _, _ = randomized_svd(wide, rank, random_state=self.random_state)
            self.projections_.append(left)
        return self

    def transform(self, cells: StepCells) -> Sides:
        """Compressed similarities of each user and service at each step."""
        n_steps = cells.shape[0]
        compressed = (
            rows @ (rows.T @ np.tile(projection, (n_steps, 1)))
            for rows, projection in zip(normalised_rows(cells), self.projections_, strict=True)
        )
        return _split_steps(*compressed, n_steps)


def normalised_rows(cells: StepCells) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Users' and services' measurements of each step, scaled to length 1."""
    by_service = sparse.csr_array(cells.blocks.T)
    return tuple(normalize(rows) for rows in (cells.blocks, by_service))


def _split_steps(of_users: np.ndarray, of_services: np.ndarray, n_steps: int) -> Sides:
    return of_users.reshape(n_steps, -1, of_users.shape[1]), of_services.reshape(
        n_steps, -1, of_services.shape[1]
    )


class NodeFeatures:
    """The initial features of the nodes: the families, side by side and standardised (F_0).

    Parameters
    ----------
    families : sequence of Family
        At least one.

    Attributes
    ----------
    scales_ : list of tuple of ndarray
        Mean and standard deviation of each feature over all nodes and steps, one pair a side.
    """

    def __init__(self, families: Sequence[Family]) -> None:
        self.families = families

    def fit(self, cells: StepCells) -> NodeFeatures:
        """Learn bases and scales from all training cells."""
        for family in self.families:
            family.fit(cells)
        self.scales_ = [_scale(values) for values in self._lay_side_by_side(cells)]
        return self

    def transform(self, cells: StepCells) -> Sides:
        """Features of each user and service at each step, of float32, by the given cells."""
        return tuple(
            np.clip((values - mean) / deviation, -LARGEST, LARGEST).astype(np.float32)
            for values, (mean, deviation) in zip(
                self._lay_side_by_side(cells), self.scales_, strict=True
            )
        )

    def _lay_side_by_side(self, cells: StepCells) -> Sides:
        parts = [family.transform(cells) for family in self.families]
        return tuple(np.concatenate(side, axis=2) for side in zip(*parts, strict=True))


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
    largest = np.abs(values).max(axis=(0, 1))
    return mean, np.where(deviation > MIN_DEVIATION * largest, deviation, 1.0)


def draw_folds(n_cells: int, n_folds: int | None, rng: np.random.RandomState) -> np.ndarray:
    """Deal cells out to folds of equal size; without folds, all cells are of fold 0."""
    if n_folds is None:
        return np.zeros(n_cells, dtype=np.int64)
    return rng.permutation(n_cells) % n_folds


def without_folds(
    describe: Callable[[StepCells], Sides], cells: StepCells, folds: np.ndarray, n_folds: int | None
) -> Sides:
    """Describe the nodes once without each fold's cells.

    A training pair is to be predicted from features that its own value is no part of. The paper's
    features contain it (`n_folds` is None): then one description by all cells is all there is.

    Parameters
    ----------
    describe : callable
        From cells to features.
    cells : StepCells
        The training cells.
    folds : ndarray of int64 of shape (n_cells,)
        Fold of each cell.
    n_folds : int or None
        Number of folds.

    Returns
    -------
    users, services : ndarray of shape (n_tables, n_steps, n, width)
        Their features; of a training cell, those in the table of its fold apply.
    """
    if n_folds is None:
        descriptions = [describe(cells)]
    else:
        kept = (np.flatnonzero(folds != fold) for fold in range(n_folds))
        descriptions = [describe(cells.take(rows)) for rows in kept]
    return tuple(np.stack(side) for side in zip(*descriptions, strict=True))
