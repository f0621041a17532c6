"""Other measurements of the predicted pairs, which the network uses beside features of nodes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from skqos.tpmcf.features import StepCells, deviation_or_one

# A value and whether there is one; a mean and a count.
HISTORY_DIM = 2
# Code of an entity without measurements, and position of a target step without them.
UNMEASURED = -1


class PairHistory(nn.Module):
    """The measured cells of each pair, with running sums and counts over time.

    Values are standardised by the mean and the standard deviation of the cells of `fit`. Memory is
    proportional to the number of cells: they are sorted by user, service and step, and found by
    binary search.

    Parameters
    ----------
    cells : StepCells
        The training cells.
    """

    def __init__(self, cells: StepCells) -> None:
        super().__init__()
        for name in ("keys", "values", "sums", "counts"):
            self.register_buffer(name, None)
        self.location = float(cells.values.mean())
        self.scale = float(deviation_or_one(cells.values))
        self.shape = cells.shape
        self._set(pair_keys(cells), self._standardise(cells.values))

    def extend(self, cells: StepCells, known_steps: np.ndarray) -> None:
        """Add cells; a repeated measurement replaces the earlier one.

        Parameters
        ----------
        cells : StepCells
            Further cells. Their shape includes all steps and entities.
        known_steps : ndarray of int64 of shape (n_known_steps,)
            Positions of the steps so far among all steps.
        """
        n_steps, _, n_services = self.shape
        pairs, steps = np.divmod(self.keys.numpy(), n_steps)
        users, services = np.divmod(pairs, n_services)
        values = self.values.numpy()
        earlier = StepCells(known_steps[steps], users, services, values, cells.shape)
        self.shape = cells.shape
        keys = np.concatenate([pair_keys(part) for part in (cells, earlier)])
        self._set(keys, np.concatenate([self._standardise(cells.values), values]))

    def forward(
        self,
        users: Tensor,
        services: Tensor,
        steps: Tensor,
        visible: Tensor,
        own: Tensor,
        n_known: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Look up the measurements of pairs.

        Parameters
        ----------
        users, services : Tensor of int64 of shape (n,)
            Codes; UNMEASURED for an entity without measurements.
        steps : Tensor of int64 of shape (n, window)
            Positions of steps.
        visible : Tensor of bool of shape (n, window)
            False for steps whose cell is hidden.
        own : Tensor of int64 of shape (n,)
            Position of the target step, whose cell is not summarised, or UNMEASURED.
        n_known : Tensor of int64 of shape (n,)
            Number of steps, from the first one on, whose cells are summarised.

        Returns
        -------
        cells : Tensor of shape (1, n, window, HISTORY_DIM)
            Value, and 1 if there is one. Both are 0 for a cell without measurement.
        summary : Tensor of shape (1, n, HISTORY_DIM)
            Mean of the summarised values, and logarithm of 1 plus their number.
        """
        n_steps, _, n_services = self.shape
        is_known = (users != UNMEASURED) & (services != UNMEASURED)
        first = torch.where(is_known, (users * n_services + services) * n_steps, -n_steps)
        columns = torch.cat([steps, own.unsqueeze(1), n_known.unsqueeze(1)], dim=1)
        wanted = first.unsqueeze(1) + columns
        found = find_sorted(self.keys, wanted)
        at, last = found[:, :-1].clamp(max=len(self.keys) - 1), (found[:, -1] - 1).clamp(min=0)
        is_summarised = (own != UNMEASURED) & (own < n_known)
        counted = torch.cat([visible, is_summarised.unsqueeze(1)], dim=1)
        has_value = (counted & (self.keys[at] == wanted[:, :-1])).float()
        values = has_value * self.values[at]
        has_any = (self.keys[last] >= first) & (self.keys[last] < wanted[:, -1])
        count = has_any * self.counts[last] - has_value[:, -1]
        mean = (has_any * self.sums[last] - values[:, -1]) / count.clamp(min=1)
        cells = torch.stack([values[:, :-1], has_value[:, :-1]], dim=2)
        return cells.unsqueeze(0), torch.stack([mean, count.log1p()], dim=1).unsqueeze(0)

    def _standardise(self, values: np.ndarray) -> np.ndarray:
        return (values - self.location) / self.scale

    def _set(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Sort cells, of which the first one of equal keys counts, and compute running sums."""
        keys, first_of_key = np.unique(keys, return_index=True)
        values = values[first_of_key].astype(np.float64)
        is_first = np.diff(keys // self.shape[0], prepend=-1) != 0
        first = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
        sums = np.cumsum(values)
        of_pair = sums - (sums - values)[first]
        self.keys = torch.tensor(keys)
        self.values, self.sums, self.counts = (
            torch.tensor(column, dtype=torch.float32)
            for column in (values, of_pair, np.arange(1, len(keys) + 1) - first)
        )


def pair_keys(cells: StepCells) -> np.ndarray:
    """Return numbers that sort cells by user, service and step."""
    n_steps, _, n_services = cells.shape
    return (cells.users * n_services + cells.services) * n_steps + cells.steps


def find_sorted(values: Tensor, wanted: Tensor) -> Tensor:
    """Return the number of sorted values below each wanted one, as `torch.searchsorted`."""
    if not torch.compiler.is_compiling():
        return torch.searchsorted(values, wanted)
    # ONNX has no search in sorted values.
    found = torch.zeros_like(wanted)
    for bit in reversed(range(len(values).bit_length())):
        further = found + 2**bit
        at = (further - 1).clamp(max=len(values) - 1)
        found = torch.where((further <= len(values)) & (values[at] < wanted), further, found)
    return found
