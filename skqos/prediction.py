"""Predicting with a trained module: every entity is encoded once, then the pairs meet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from skqos.entities import EntityTable, Interactions

# Small enough that a batch's intermediate rows stay in the processor's cache.
PAIRS_PER_BATCH = 2048


class PairModule(Protocol):
    """What every network of this package offers beside ``forward``.

    ``forward(users, services[, times])`` is the training pass over codes of known entities.
    """

    def encode(self, new_users: EntityTable, new_services: EntityTable) -> Any:
        """Represent all known entities, then the new ones, each once."""

    def score(self, encoded: Any, users: Tensor, services: Tensor, *times: Tensor) -> Tensor:
        """Predict pairs, given as positions into what `encode` returned."""


def resolve_device(device: str) -> torch.device:
    """Turn the `device` parameter into a torch device; "auto" is a GPU where there is one.

    Raises
    ------
    ValueError
        If torch cannot use that device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={device!r} cannot be used here ({error}). Use 'auto', 'cpu' or a device "
            "that torch lists, such as 'cuda:0'."
        ) from error
    return torch.device(device)


def copy_module(module: nn.Module) -> nn.Module:
    """Copy a network to the CPU, marks of its parameters such as ``no_weight_decay`` with it."""
    twin = copy.deepcopy(module).to("cpu")
    for original, copied in zip(module.parameters(), twin.parameters(), strict=True):
        # deepcopy makes a new parameter of the values alone.
        vars(copied).update(vars(original) | vars(copied))
    return twin


def predict_interactions(
    module: nn.Module,
    interactions: Interactions,
    device: torch.device,
    score: Callable[..., Tensor] | None = None,
) -> np.ndarray:
    """Score interactions in evaluation mode.

    Parameters
    ----------
    module : PairModule
        A trained network, already on `device`.
    interactions : Interactions
        n pairs, of known and new entities.
    device : torch.device
        Where to compute.
    score : callable, default=None
        A method of the module to use in place of its ``score``.

    Returns
    -------
    ndarray of float64 of shape (n, ...)
        Scores; those of ``score`` are predictions in units of the transformed target.
    """
    score = module.score if score is None else score
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            encoded = module.encode(interactions.new_users, interactions.new_services)
            parts = [score(encoded, *batch).cpu() for batch in _batches(interactions, device)]
    finally:
        module.train(was_training)
    return torch.cat(parts).numpy().astype(np.float64)


def _batches(interactions: Interactions, device: torch.device) -> Iterator[list[Tensor]]:
    columns = [interactions.users, interactions.services]
    if interactions.times is not None:
        columns.append(interactions.times)
    tensors = [torch.as_tensor(column, device=device) for column in columns]
    # No pairs make one empty batch, so that the result has its shape.
    for start in range(0, max(len(interactions), 1), PAIRS_PER_BATCH):
        yield [tensor[start : start + PAIRS_PER_BATCH] for tensor in tensors]
