"""Prediction with a trained module: entities are encoded once, then pairs are scored."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from skqos.entities import EntityTable, Interactions

M = TypeVar("M", bound=nn.Module)

# Intermediate results of a batch of this size fit into the processor's cache.
PAIRS_PER_BATCH = 1024

# A tensor whose second last axis is that of the entities, or a list or tuple of such.
EncodedSide = Any


@dataclass(frozen=True)
class Encoded:
    """Users and services encoded by a module.

    Attributes
    ----------
    users, services : EncodedSide
        A tensor whose second last axis is that of the entities, or lists and tuples of such.
    averages : object
        Averages that replace missing inputs of new entities.
    """

    users: EncodedSide
    services: EncodedSide
    averages: Any = None


class PairModule(Protocol):
    """Interface of the networks of this package, in addition to ``forward``.

    ``forward(users, services[, times])`` is the training pass over codes of known entities.
    """

    def encode_known(self) -> Encoded:
        """Encode all known entities."""

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Encode new entities, given the result of `encode_known`."""

    def score(
        self, encoded: Encoded, users: Tensor, services: Tensor | slice, *times: Tensor
    ) -> Tensor:
        """Predict pairs from positions of encoded entities.

        Without times, a single user may be paired with all services, and consecutive services may
        be given by a slice.
        """


def resolve_device(device: str) -> torch.device:
    """Return the `device` parameter as a torch device; "auto" is a GPU if available.

    Raises
    ------
    ValueError
        If torch cannot compute on the device.
    """
    try:
        if not isinstance(device, str):
            raise TypeError(f"it is a {type(device).__name__}, not a str")
        if device == "auto":
            return _try_device("cuda" if torch.cuda.is_available() else "cpu")
        return _try_device(device)
    except Exception as error:  # each kind of device raises its own exceptions
        # torch appends its own call stack to some messages.
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device={device!r} cannot be used here ({reason}). Use 'auto', 'cpu' or a device "
            "that torch lists, such as 'cuda:0'."
        ) from error


@lru_cache
def _try_device(device: str) -> torch.device:
    """Test a computation on the device, because some devices can only store tensors."""
    ones = torch.ones(2, 2, device=device)
    if (ones @ ones).tolist() != [[2.0, 2.0], [2.0, 2.0]]:
        raise RuntimeError("it computes wrongly")
    return ones.device


@contextmanager
def recorded_gradients() -> Iterator[None]:
    """Record gradients inside the block, also where the caller switched them off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def copy_module(module: M, device: torch.device | str = "cpu") -> M:
    """Copy a network to a device, with attributes of its parameters such as ``no_weight_decay``."""
    twin = copy.deepcopy(module).to(device)
    for original, copied in zip(module.parameters(), twin.parameters(), strict=True):
        # deepcopy copies only the values of a parameter.
        vars(copied).update(vars(original) | vars(copied))
    return twin


@dataclass(frozen=True)
class _Ready:
    """A module in evaluation mode on a device, with encoded known entities."""

    # State of the weights at the time of encoding.
    stamp: list[Any]
    module: PairModule
    known: Encoded


class Predictor:
    """Prediction with a trained module on any device, without moving or changing it.

    A copy for each device (except the device of the module) and the encodings of the known entities
    are cached until the weights change. It can be used by several threads.

    Parameters
    ----------
    module : PairModule
        Trained module. In-place changes of its weights are detected, except for those through
        ``.data``.
    """

    def __init__(self, module: PairModule) -> None:
        self._module = module
        self._ready: dict[torch.device, _Ready] = {}
        self._lock = threading.Lock()

    def predict(
        self, interactions: Interactions, device: torch.device, method: str = "score"
    ) -> np.ndarray:
        """Score interactions in evaluation mode.

        Parameters
        ----------
        interactions : Interactions
            n pairs of known and new entities.
        device : torch.device
            Device of the computation.
        method : str, default="score"
            Method of the module.

        Returns
        -------
        ndarray of float64 of shape (n, ...)
            Results; those of ``score`` are predictions in units of the transformed target.

        Raises
        ------
        ValueError
            If the device does not support an operation of the module.
        """
        try:
            ready = self._on(device)
            return score_pairs(ready.module, ready.known, interactions, device, method)
        except RuntimeError as error:
            if device.type == "cpu":
                raise
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"device={str(device)!r} cannot compute this network ({reason}). Use 'cpu'."
            ) from error

    def _on(self, device: torch.device) -> _Ready:
        stamp = _stamp(self._module)
        ready = self._ready.get(device)
        if ready is not None and ready.stamp == stamp:
            return ready
        with self._lock:
            # Another thread may have been faster.
            ready = self._ready.get(device)
            if ready is None or ready.stamp != stamp:
                ready = self._make_ready(device, stamp)
                current = {k: r for k, r in self._ready.items() if r.stamp == stamp}
                self._ready = {**current, device: ready}
        return ready

    def _make_ready(self, device: torch.device, stamp: list[Any]) -> _Ready:
        module = self._module
        tensors = [*module.parameters(), *module.buffers()]
        is_there = all(tensor.device == device for tensor in tensors)
        if not is_there or any(part.training for part in module.modules()):
            module = copy_module(module, device).eval()
        with torch.inference_mode():
            return _Ready(stamp, module, module.encode_known())


def _stamp(module: nn.Module) -> list[Any]:
    """Return a stamp of the weights, which changes with them; takes a few microseconds."""
    found, parts = [], [module]
    while parts:
        part = parts.pop()
        found.append(part.training)
        for tensors in (part._parameters, part._buffers):
            for tensor in tensors.values():
                if tensor is not None:
                    version = 0 if tensor.is_inference() else tensor._version
                    found.append((tensor.data_ptr(), version))
        parts += [child for child in part._modules.values() if child is not None]
    return found


def predict_interactions(
    module: PairModule, interactions: Interactions, device: torch.device, method: str = "score"
) -> np.ndarray:
    """Score interactions with a module that is on the device, in evaluation mode.

    Like `Predictor.predict`, but without caching.
    """
    with torch.inference_mode():
        known = module.encode_known()
    return score_pairs(module, known, interactions, device, method)


def score_pairs(
    module: PairModule,
    known: Encoded,
    interactions: Interactions,
    device: torch.device,
    method: str = "score",
) -> np.ndarray:
    """Score interactions with a module whose known entities are encoded.

    All scores are written into one array; separate results of batches would keep the memory of
    large intermediate tensors.
    """
    score = getattr(module, method)
    scores = None
    with torch.inference_mode():
        for rows, encoded, columns in _parts(module, known, interactions):
            tensors = [torch.as_tensor(column, device=device) for column in columns]
            for batch in _batches(len(rows)):
                found = score(encoded, *_columns_of(tensors, columns, batch))
                if scores is None:
                    scores = np.empty((len(interactions), *found.shape[1:]))
                scores[rows[batch]] = found.cpu().numpy()
                del found
    return scores


def _parts(
    module: PairModule, known: Encoded, interactions: Interactions
) -> Iterator[tuple[np.ndarray, Encoded, list[np.ndarray]]]:
    """Yield rows, encoded entities, and the positions (and times) of the rows among them.

    The pairs of known entities need no copy of what is encoded; new entities are in another part.
    """
    of_known = interactions.users < _n_entities(known.users)
    of_known &= interactions.services < _n_entities(known.services)
    rows = np.flatnonzero(of_known)
    if len(rows) or not len(interactions):
        yield rows, known, _columns(interactions, rows)
    if len(rows) < len(interactions):
        rows = np.flatnonzero(~of_known)
        yield rows, *_meet(module, known, interactions, rows)


def _columns(interactions: Interactions, rows: np.ndarray) -> list[np.ndarray]:
    columns = interactions.users, interactions.services, interactions.times
    return [column[rows] for column in columns if column is not None]


def _columns_of(
    tensors: list[Tensor], columns: list[np.ndarray], rows: slice
) -> list[Tensor | slice]:
    """Select the rows of a batch; the services of one user share its row."""
    batch = [tensor[rows] for tensor in tensors]
    if len(tensors) == 2:
        users, services = (column[rows] for column in columns)
        if len(users) > 1 and (users == users[0]).all():
            batch[0] = batch[0][:1]
            batch[1] = _run(services) or batch[1]
    return batch


def _run(positions: np.ndarray) -> slice | None:
    """Return positions as a slice if they are consecutive."""
    first, n = int(positions[0]), len(positions)
    if positions[-1] != first + n - 1 or not (positions == np.arange(first, first + n)).all():
        return None
    return slice(first, first + n)


def take(of_entities: Tensor, positions: Tensor | slice) -> Tensor:
    """Select rows (axis 1) of encoded entities; a slice is not copied."""
    if isinstance(positions, slice):
        return of_entities[:, positions]
    return of_entities.index_select(1, positions)


def encode(module: PairModule, new_users: EntityTable, new_services: EntityTable) -> Encoded:
    """Encode all known entities and the new ones."""
    known = module.encode_known()
    new = module.encode_new(known, new_users, new_services)
    return Encoded(_append(known.users, new.users), _append(known.services, new.services))


def _meet(
    module: PairModule, known: Encoded, interactions: Interactions, rows: np.ndarray
) -> tuple[Encoded, list[np.ndarray]]:
    """Encode the entities of some rows; return their positions, and times if any."""
    users, services, *times = _columns(interactions, rows)
    new_users, new_services = interactions.new_users, interactions.new_services
    new = module.encode_new(known, new_users, new_services)
    of_users, users = _join(known.users, new.users, users)
    of_services, services = _join(known.services, new.services, services)
    return Encoded(of_users, of_services, known.averages), [users, services, *times]


def _join(
    known: EncodedSide, new: EncodedSide, positions: np.ndarray
) -> tuple[EncodedSide, np.ndarray]:
    """Append new entities to the requested known ones."""
    n_known = _n_entities(known)
    is_known = positions < n_known
    wanted, places = np.unique(positions[is_known], return_inverse=True)
    found = positions + (len(wanted) - n_known)
    found[is_known] = places
    return _append(_take(known, wanted), new), found


def _n_entities(side: EncodedSide) -> int:
    return side.shape[-2] if isinstance(side, Tensor) else _n_entities(side[0])


def _take(side: EncodedSide, rows: np.ndarray) -> EncodedSide:
    if isinstance(side, Tensor):
        return side.index_select(-2, torch.as_tensor(rows, device=side.device))
    return type(side)(_take(part, rows) for part in side)


def _append(side: EncodedSide, new: EncodedSide) -> EncodedSide:
    if isinstance(side, Tensor):
        return torch.cat([side, new], dim=-2)
    return type(side)(_append(*parts) for parts in zip(side, new, strict=True))


def _batches(n_rows: int) -> Iterator[slice]:
    # Without pairs there is one empty batch, so that the result has the right shape.
    for start in range(0, max(n_rows, 1), PAIRS_PER_BATCH):
        yield slice(start, min(start + PAIRS_PER_BATCH, n_rows))
