"""Training rows of `fit`, by time step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skqos._arrays import sorted_unique
from skqos.base import TrainingData
from skqos.tpmcf.features import StepCells, draw_folds
from skqos.tpmcf.target_steps import rows_at_steps

if TYPE_CHECKING:
    from skqos.training import InteractionDataset, ValidationDataset


@dataclass(frozen=True)
class StepRows:
    """Training rows, with the cell of each.

    Attributes
    ----------
    data : TrainingData
        The rows, and what was learned of them.
    times : ndarray of int64 of shape (n_steps,)
        Measured steps, ascending.
    cells : StepCells
        Mean of the rows of each cell.
    folds : ndarray of int64 of shape (n_cells,)
        Fold of each cell.
    inputs : dict of str to ndarray of shape (n_rows,)
        Arguments of the networks: codes of ``users``, ``services``, ``steps`` and ``folds``.
    targets : slice or ndarray of int64
        Rows that the encoder predicts in training.
    """

    data: TrainingData
    times: np.ndarray
    cells: StepCells
    folds: np.ndarray
    inputs: dict[str, np.ndarray]
    targets: Any

    @classmethod
    def arrange(
        cls, data: TrainingData, n_folds: int, target_steps: Sequence[Any] | str | None
    ) -> Self:
        """Collect the cells of the rows, and draw their folds.

        Raises
        ------
        ValueError
            If there is no row at the target steps.
        """
        targets: Any = slice(None)
        if target_steps is not None:
            targets = rows_at_steps(target_steps, data.times, data.time_scale)
        times = sorted_unique(data.times)
        steps = np.searchsorted(times, data.times)
        users, services = data.user_codes, data.service_codes
        cells, cell_of_row, _ = StepCells.from_rows(
            steps, users, services, data.target, data.weights, (len(times), *data.shape)
        )
        folds = draw_folds(len(cells), n_folds, np.random.RandomState(data.seed))
        inputs = {"users": users, "services": services, "steps": steps, "folds": folds[cell_of_row]}
        return cls(data, times, cells, folds, inputs, targets)

    def by_fold(self) -> InteractionDataset:
        """Return all rows, with a single fold in each batch."""
        from skqos.training import InteractionDataset

        data = self.data
        return InteractionDataset(self.inputs, data.target, data.weights, one_per_batch="folds")

    def target_rows(self, *, by_fold: bool = False) -> InteractionDataset:
        """Return the rows that the encoder predicts in training.

        Parameters
        ----------
        by_fold : bool, default=False
            Whether each batch has rows of a single fold.
        """
        from skqos.training import InteractionDataset

        inputs = {name: codes[self.targets] for name, codes in self.inputs.items()}
        target, weights = self.data.target[self.targets], self.data.weights[self.targets]
        return InteractionDataset(
            inputs, target, weights, one_per_batch="folds" if by_fold else None
        )

    def validation(self) -> ValidationDataset | None:
        """Return the validation rows, if there are any."""
        from skqos.training import ValidationDataset

        held_out = self.data.validation
        return None if held_out is None else ValidationDataset(*held_out)
