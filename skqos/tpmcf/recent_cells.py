"""Cells of the last time steps, which a fitted estimator keeps for updates."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from skqos._arrays import sorted_unique
from skqos.base import TrainingRows
from skqos.tpmcf.features import StepCells


@dataclass(frozen=True)
class RecentCells:
    """Measured cells (step, user, service), preferably of the last steps.

    The features of a step can be recomputed if all its cells are kept. If there are too many cells,
    those of the earliest steps are dropped, and a random part of the cells of one step.

    Attributes
    ----------
    times : ndarray of int64 of shape (n,)
        Numbers of the time steps.
    user_codes, service_codes : ndarray of int32 of shape (n,)
        Codes of the entities.
    target : ndarray of float32 of shape (n,)
        Weighted mean of the transformed measurements.
    weights : ndarray of float32 of shape (n,)
        Sums of the weights of the rows of each cell.
    priority : ndarray of float32 of shape (n,)
        Random numbers below 1. If a step is not kept completely, its cells with the smallest
        numbers are kept.
    whole : ndarray of int64 of shape (n_whole,)
        Time steps of which all cells are kept, ascending.
    """

    times: np.ndarray
    user_codes: np.ndarray
    service_codes: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    priority: np.ndarray
    whole: np.ndarray

    @classmethod
    def of_rows(cls, rows: TrainingRows, rng: np.random.RandomState) -> Self:
        """Collect the cells of training rows, with the weighted mean of repeated ones."""
        times = sorted_unique(rows.times)
        cells, weights = StepCells.from_rows(
            np.searchsorted(times, rows.times),
            rows.user_codes,
            rows.service_codes,
            rows.target,
            rows.weights,
            (len(times), *rows.shape),
        )[::2]
        return cls(
            times[cells.steps],
            cells.users.astype(np.int32),
            cells.services.astype(np.int32),
            cells.values.astype(np.float32),
            weights.astype(np.float32),
            rng.random_sample(len(cells)).astype(np.float32),
            times,
        )

    def __len__(self) -> int:
        return len(self.target)

    def take(self, kept: np.ndarray) -> Self:
        """Return an object with the given cells."""
        columns = {field.name: getattr(self, field.name)[kept] for field in fields(self)[:6]}
        return replace(self, **columns)

    def limited(self, size: int) -> Self:
        """Return at most `size` cells of the last steps, in their order."""
        if len(self) <= size:
            return self
        # ~t descends as -t does, which overflows for the smallest integer.
        order = np.lexsort((self.priority, ~self.times))
        first_dropped = self.times[order[size]]
        kept = self.take(np.sort(order[:size]))
        return replace(kept, whole=self.whole[self.whole > first_dropped])

    def joined(self, later: Self, known_times: np.ndarray) -> Self:
        """Append cells; a repeated measurement replaces the earlier one.

        Parameters
        ----------
        later : RecentCells
            All cells of an update.
        known_times : ndarray of int64 of shape (n_steps,)
            All steps that were measured before, ascending. Later cells of these steps are
            incomplete.
        """
        earlier = self.take(~_contains(later, self))
        is_new = ~np.isin(later.whole, known_times)
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in (earlier, later)])
            for field in fields(self)[:6]
        }
        whole = np.union1d(self.whole, later.whole[is_new])
        return type(self)(**columns, whole=whole)

    def at(self, times: np.ndarray, shape: tuple[int, int]) -> tuple[StepCells, np.ndarray]:
        """Return the cells of some steps, in the order of step, user and service.

        Parameters
        ----------
        times : ndarray of int64 of shape (n_steps,)
            Numbers of the steps, ascending.
        shape : tuple of int
            Number of users and of services.

        Returns
        -------
        cells : StepCells
            Cells whose steps are positions in `times`.
        positions : ndarray of int64 of shape (n_cells,)
            Positions of these cells.
        """
        here = np.flatnonzero(np.isin(self.times, times))
        order = np.lexsort((self.service_codes[here], self.user_codes[here], self.times[here]))
        positions = here[order]
        cells = StepCells(
            np.searchsorted(times, self.times[positions]),
            self.user_codes[positions].astype(np.int64),
            self.service_codes[positions].astype(np.int64),
            self.target[positions].astype(np.float64),
            (len(times), *shape),
        )
        return cells, positions


def _contains(cells: RecentCells, others: RecentCells) -> np.ndarray:
    """Return which of the other cells are among the cells; bool of shape (n_others,)."""
    n_users = 1 + max(part.user_codes.max(initial=0) for part in (cells, others))
    n_services = 1 + max(part.service_codes.max(initial=0) for part in (cells, others))
    shape = len(cells.whole), int(n_users), int(n_services)
    steps = np.minimum(np.searchsorted(cells.whole, others.times), len(cells.whole) - 1)
    keys = [
        np.ravel_multi_index((at, part.user_codes, part.service_codes), shape)
        for part, at in ((cells, np.searchsorted(cells.whole, cells.times)), (others, steps))
    ]
    return np.isin(keys[1], keys[0]) & (cells.whole[steps] == others.times)
