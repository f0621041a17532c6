"""Updates of TPMCF: further cells are added, and the features of their steps are recomputed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from skqos.base import TrainingRows
from skqos.tpmcf.features import StepCells, draw_folds
from skqos.tpmcf.recent_cells import RecentCells
from skqos.tpmcf.step_features import StepFeatures

if TYPE_CHECKING:
    from skqos.tpmcf.gcmf import GCMF, TensorSides
    from skqos.tpmcf.module import TPMCFModule


@dataclass(frozen=True)
class StepUpdate:
    """Further rows of an update, with the cells and features of their steps.

    Attributes
    ----------
    cells : RecentCells
        Earlier cells that were not measured again, followed by the further ones.
    n_earlier : int
        Number of earlier cells.
    features : StepFeatures
        Features that include the further cells and entities.
    times : ndarray of int64 of shape (n_steps,)
        All measured steps, ascending.
    touched : ndarray of int64 of shape (n_touched,)
        Steps with further cells of which all cells are known: new steps, and steps of late
        measurements.
    shape : tuple of int
        Number of users and of services.
    folds : ndarray of int64 of shape (n_cells,)
        Fold of each cell.
    """

    cells: RecentCells
    n_earlier: int
    features: StepFeatures
    times: np.ndarray
    touched: np.ndarray
    shape: tuple[int, int]
    folds: np.ndarray

    @classmethod
    def of_rows(
        cls,
        rows: TrainingRows,
        features: StepFeatures,
        earlier: RecentCells,
        known_times: np.ndarray,
        rng: np.random.RandomState,
    ) -> Self:
        """Add rows to the kept cells, and extend the features."""
        later = RecentCells.of_rows(rows, rng)
        cells = earlier.joined(later, known_times)
        touched = np.intersect1d(later.whole, cells.whole)
        before, after = (part.at(touched, rows.shape)[0] for part in (earlier, cells))
        return cls(
            cells,
            len(cells) - len(later),
            features.extend(before, after),
            np.union1d(known_times, later.whole),
            touched,
            rows.shape,
            draw_folds(len(cells), features.n_folds, rng),
        )

    def further(self) -> np.ndarray:
        """Return the positions of the further cells."""
        return np.arange(self.n_earlier, len(self.cells))

    def further_cells(self) -> StepCells:
        """Return the further cells, over all steps and entities."""
        further = self.further()
        inputs = self.inputs(further)
        return StepCells(
            inputs["steps"],
            inputs["users"],
            inputs["services"],
            self.cells.target[further].astype(np.float64),
            (len(self.times), *self.shape),
        )

    def replayable(self) -> np.ndarray:
        """Return the positions of the earlier cells of steps of which all cells are kept.

        Other steps have no features without a fold, so that their cells would be trained on
        features of their own values.
        """
        return np.flatnonzero(np.isin(self.cells.times[: self.n_earlier], self.cells.whole))

    def replayed(self, n_cells: int, rng: np.random.RandomState) -> np.ndarray:
        """Draw positions of earlier cells from the last steps that contain enough of them."""
        times, cells = self.cells.times, self.replayable()
        if len(cells) > n_cells:
            first = np.sort(times[cells])[len(cells) - max(n_cells, 1)]
            return rng.permutation(cells[times[cells] >= first])[:n_cells]
        return cells

    def describable(self, cells: np.ndarray) -> np.ndarray:
        """Return the steps of which all cells are known."""
        return np.intersect1d(self.cells.times[cells], self.cells.whole)

    def describe(self, times: np.ndarray) -> TensorSides:
        """Return the features of steps without the cells of each fold.

        They have the shape (n_members or 1, n_folds, n_steps, n, width).
        """
        cells, positions = self.cells.at(times, self.shape)
        return self.features.of_steps(times, cells, self.folds[positions])

    def place(self, module: TPMCFModule | GCMF, times: np.ndarray, features: TensorSides) -> None:
        """Set steps, entities, further cells, and the features of touched steps in a network.

        Parameters
        ----------
        module : TPMCFModule or GCMF
            Network, which is modified.
        times : ndarray of int64 of shape (n_described,)
            Steps with features, including the touched ones.
        features : sequence of Tensor of shape (n_members or 1, n_folds, n_described, n, width)
            Result of `describe` for these steps.
        """
        from skqos.tpmcf.module import TPMCFModule

        touched = np.isin(times, self.touched)
        averages = [side.mean(1)[:, touched] for side in features]
        known_times = module.times.numpy()
        module.place(self.times, self.positions(self.touched), averages)
        if isinstance(module, TPMCFModule):
            module.remember(self.further_cells(), known_times)

    def positions(self, times: np.ndarray) -> np.ndarray:
        """Return the positions of steps among all steps."""
        return np.searchsorted(self.times, times)

    def inputs(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arguments of the network's ``forward`` for cells."""
        return {
            "users": self.cells.user_codes[cells].astype(np.int64),
            "services": self.cells.service_codes[cells].astype(np.int64),
            "steps": self.positions(self.cells.times[cells]),
            "folds": self.folds[cells],
        }
