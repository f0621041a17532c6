"""Vectors of new users and services, learnt from their first measurements.

An update trains all weights with small steps, so that the predictions of known pairs hardly change.
With such steps, the vector of a new id remains near its initial value, the average of the known
ids. Therefore an update first learns the new vectors alone, with all other weights fixed, as matrix
factorisation folds new rows in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from skqos.training import InteractionDataset

Codes = TypeVar("Codes", np.ndarray, Tensor)

N_STEPS = 200
BATCH_SIZE = 256
LEARNING_RATE = 0.02
# Weight of the squared distance of a new vector from its start, relative to the loss of one row.
# It is a Gaussian prior, which dominates for one measurement, but not for twenty.
PRIOR = 0.15


@runtime_checkable
class HasVectors(Protocol):
    """A module with a table of vectors, which has blocks of rows that grow at their ends."""

    def vector_blocks(self) -> tuple[nn.Parameter, Sequence[int]]:
        """Return the table, and the number of rows of each block."""


@runtime_checkable
class HasFixedParts(Protocol):
    """A module with parts that do not depend on the vectors of ids."""

    def fixed_parts(self) -> AbstractContextManager[None]:
        """Compute these parts once for all calls inside the block."""


class NewVectors(NamedTuple):
    """A table of vectors with new rows.

    Parameters
    ----------
    table : Parameter of shape (n_rows, width)
        Vectors of all members.
    rows : Tensor of int64 of shape (n_new,)
        Positions of the new rows.
    """

    table: nn.Parameter
    rows: Tensor


def has_vectors(module: nn.Module) -> bool:
    """Return whether a network has vectors of ids that are trained."""
    return any(part.vector_blocks()[0].requires_grad for part in _parts_with_vectors(module))


def find_new_vectors(before: nn.Module, after: nn.Module) -> list[NewVectors]:
    """Return the tables with rows that a network did not have before it was extended."""
    found = []
    parts = zip(_parts_with_vectors(before), _parts_with_vectors(after), strict=True)
    for old, new in parts:
        table, sizes = new.vector_blocks()
        ends = np.cumsum(sizes)
        rows = np.concatenate(
            [
                np.arange(end - n + known, end)
                for end, n, known in zip(ends, sizes, old.vector_blocks()[1], strict=True)
            ]
        )
        if table.requires_grad and len(rows):
            found.append(NewVectors(table, torch.as_tensor(rows)))
    return found


def _parts_with_vectors(module: nn.Module) -> list[HasVectors]:
    return [part for part in module.modules() if isinstance(part, HasVectors)]


def has_new_id(users: Codes, services: Codes, n_users: int, n_services: int) -> Codes:
    """Return for each row whether its user or service is new: codes follow those of known ids."""
    return (users >= n_users) | (services >= n_services)


def select_rows(rows: InteractionDataset, n_users: int, n_services: int) -> InteractionDataset:
    """Return the rows of new users or services."""
    is_new = has_new_id(rows.inputs["users"], rows.inputs["services"], n_users, n_services)
    selected = copy.copy(rows)
    selected.inputs, selected.target = rows[is_new]
    return selected


def learn_vectors(
    module: nn.Module,
    vectors: Sequence[NewVectors],
    rows: InteractionDataset,
    criterion: nn.Module,
    weight: float,
) -> None:
    """Learn new vectors in place, from the rows of their users and services.

    The prior is relative to a row of weight 1, so that the vectors of users and services with many
    rows move further.

    Parameters
    ----------
    module : Module
        The network, on the device of the rows. It stays in evaluation mode.
    vectors : sequence of NewVectors
        Vectors to learn.
    rows : InteractionDataset
        Rows of new users or services.
    criterion : Module
        Loss of predictions and targets.
    weight : float
        Total weight of the rows.
    """
    from skqos.losses import n_members_of
    from skqos.training import WEIGHT, ShuffledBatches

    batches = ShuffledBatches(rows, BATCH_SIZE)
    n_epochs = -(-N_STEPS // len(batches))
    n_steps = n_epochs * len(batches)
    module.eval()
    criterion.eval()
    with _only_trained(module, [table for table, _ in vectors]), _fixed_parts(module):
        # The optimiser receives only the new rows, because a table may have many others.
        free = [table.detach()[new] for table, new in vectors]
        starts = [vector.clone() for vector in free]
        optimizer = torch.optim.Adam(free, LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / n_steps, n_steps)
        for _ in range(n_epochs):
            for inputs, target in batches:
                weights = [inputs.pop(WEIGHT)] if WEIGHT in inputs else []
                prediction = module(**inputs)
                criterion(prediction, target, *weights).backward()
                prior = PRIOR / (n_members_of(prediction, target) * weight)
                for (table, new), vector, start in zip(vectors, free, starts, strict=True):
                    # The gradient of the loss, and that of prior * |vector - start|^2.
                    vector.grad = table.grad[new] + 2 * prior * (vector - start)
                    table.grad = None
                optimizer.step()
                schedule.step()
                for (table, new), vector in zip(vectors, free, strict=True):
                    table.detach()[new] = vector


def _fixed_parts(module: nn.Module) -> AbstractContextManager[None]:
    return module.fixed_parts() if isinstance(module, HasFixedParts) else nullcontext()


@contextmanager
def _only_trained(module: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let only some parameters have gradients inside the block."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
            parameter.grad = None
