"""Processes that train one network together: each takes a part of the rows of every batch.

Every process computes the loss from the predictions of all rows, so that losses do not depend on
processes. Gradients are averaged. Only sums and broadcasts are communicated, which all backends
support.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

# Environment variables that launchers such as torchrun set, and `torch.distributed` reads.
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Timeout of a new process group; processes prepare their rows at different speeds.
TIMEOUT = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class Processes:
    """The processes of a fit, from the view of one of them.

    Parameters
    ----------
    rank : int, default=0
        Number of this process.
    size : int, default=1
        Number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def launched(cls) -> Processes:
        """Connect to the processes that were launched together with this one.

        Raises
        ------
        RuntimeError
            If the processes cannot be reached.
        """
        if not distributed.is_available():
            return cls()
        if not distributed.is_initialized():
            if not _is_launched():
                return cls()
            with _answers():
                distributed.init_process_group("gloo", timeout=TIMEOUT)
        return cls(distributed.get_rank(), distributed.get_world_size())

    def check_same(self, **values: Any) -> None:
        """Raise ValueError unless all processes have the same values."""
        seen: list[Any] = [None] * self.size
        with _answers():
            distributed.all_gather_object(seen, values)
        for name, value in values.items():
            others = [of_process[name] for of_process in seen]
            if any(other != value for other in others):
                raise ValueError(
                    f"The processes of one fit must be given the same X, y and parameters, and an "
                    f"int as random_state; {name} differs between them: {others}."
                )

    def start_equal(self, module: nn.Module) -> None:
        """Copy the initial weights and statistics of the first process to all processes."""
        with _answers():
            for values in module.state_dict().values():
                distributed.broadcast(values, src=0)

    def take(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the rows of this process in a batch; all have equal numbers, by repetition."""
        if self.size == 1:
            return rows
        n_rows = len(next(iter(rows.values())))
        n_own = -(-n_rows // self.size)
        device = next(iter(rows.values())).device
        own = (self.rank * n_own + torch.arange(n_own, device=device)) % n_rows
        return {name: values[own] for name, values in rows.items()}

    def gather(self, own: Tensor, n_rows: int, axis: int) -> Tensor:
        """Concatenate the predictions of all processes in the order of the rows.

        Parameters
        ----------
        own : Tensor
            Predictions of this process's rows.
        n_rows : int
            Number of rows of the batch.
        axis : int
            Axis of the rows.

        Returns
        -------
        Tensor
            Predictions of all rows. Gradients flow only to the part of this process and are
            multiplied by `size`, so that `average_gradients` returns those of the whole batch.
        """
        if self.size == 1:
            return own
        return _Gather.apply(own, self, axis).narrow(axis, 0, n_rows)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients by their averages over all processes."""
        if self.size == 1:
            return
        trained = [values for values in parameters if values.grad is not None]
        averages = self._averages([values.grad for values in trained])
        for values, average in zip(trained, averages, strict=True):
            values.grad = average

    def average_statistics(self, module: nn.Module) -> None:
        """Replace the statistics of batch normalisation by their averages over all processes."""
        if self.size == 1:
            return
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm1d)]
        statistics = [x for norm in norms for x in (norm.running_mean, norm.running_var)]
        for values, average in zip(statistics, self._averages(statistics), strict=True):
            values.copy_(average)

    def agree(self, value: float) -> float:
        """Return the value of the first process."""
        if self.size == 1:
            return value
        agreed = torch.tensor(value, dtype=torch.float64)
        with _answers():
            distributed.broadcast(agreed, src=0)
        return agreed.item()

    def add(self, values: Tensor) -> None:
        """Replace values by their sums over all processes, in place."""
        with _answers():
            distributed.all_reduce(values)

    def _averages(self, tensors: list[Tensor]) -> list[Tensor]:
        """Average tensors over all processes in one call; the results share memory."""
        if not tensors:
            return []
        flat = torch.cat([values.flatten() for values in tensors])
        self.add(flat)
        flat /= self.size
        parts = flat.split([values.numel() for values in tensors])
        return [part.view_as(values) for values, part in zip(tensors, parts, strict=True)]


class _Gather(torch.autograd.Function):
    """Concatenate tensors of equal shape, one of each process, along an axis."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, processes: Processes, axis: int) -> Tensor:
        """Sum tensors that are 0 outside the part of each process."""
        ctx.processes, ctx.axis, ctx.n_own = processes, axis, own.shape[axis]
        shape = list(own.shape)
        shape[axis] *= processes.size
        joined = own.new_zeros(shape)
        joined.narrow(axis, processes.rank * ctx.n_own, ctx.n_own).copy_(own)
        processes.add(joined)
        return joined

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the own part."""
        own = gradient.narrow(ctx.axis, ctx.processes.rank * ctx.n_own, ctx.n_own)
        return ctx.processes.size * own, None, None


def _is_launched() -> bool:
    """Return whether a launcher started this process together with others."""
    # Workers, as of joblib, inherit the variables of the process that they work for.
    is_worker = multiprocessing.parent_process() is not None
    has_variables = all(name in os.environ for name in VARIABLES)
    return has_variables and not is_worker and os.environ["WORLD_SIZE"] != "1"


def checksum(tensors: Iterable[Tensor]) -> int:
    """Return a number that identifies the values of tensors."""
    found = 0
    for values in tensors:
        found = zlib.crc32(values.cpu().contiguous().numpy(), found)
    return found


@contextmanager
def _answers() -> Iterator[None]:
    """Convert errors of calls to other processes to an error with an explanation."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise RuntimeError(
            "Another process of this fit has ended, or has not answered in time, so that the fit "
            f"cannot go on ({reason}). Start all processes again."
        ) from error
