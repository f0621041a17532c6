"""Predicting with a trained module: every entity is encoded once, then the pairs meet."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from skqos.entities import EntityTable, Interactions

M = TypeVar("M", bound=nn.Module)

# Small enough that a batch's intermediate rows stay in the processor's cache.
PAIRS_PER_BATCH = 2048

# A tensor whose last axis but one is that of the entities, or a list or tuple of sides.
Side = Any


@dataclass(frozen=True)
class Encoded:
    """Users and services as a module represents them.

    Attributes
    ----------
    users, services : Side
        A tensor whose last axis but one is that of the entities, or lists and tuples of such.
    averages : object
        What the module gives to newcomers in place of what they lack.
    """

    users: Side
    services: Side
    averages: Any = None


class PairModule(Protocol):
    """What every network of this package offers beside ``forward``.

    ``forward(users, services[, times])`` is the training pass over codes of known entities.
    """

    def encode_known(self) -> Encoded:
        """Represent all known entities, each once."""

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Represent newcomers alone, given what `encode_known` returned."""

    def score(
        self, encoded: Encoded, users: Tensor, services: Tensor | slice, *times: Tensor
    ) -> Tensor:
        """Predict pairs, given as positions into what was encoded.

        Without times, a single user may stand for that of all services, and a slice for services
        that follow one another.
        """


def resolve_device(device: str) -> torch.device:
    """Turn the `device` parameter into a torch device; "auto" is a GPU where there is one.

    Raises
    ------
    ValueError
        If torch cannot compute on that device here.
    """
    try:
        if not isinstance(device, str):
            raise TypeError(f"it is a {type(device).__name__}, not a str")
        if device == "auto":
            return _try_device("cuda" if torch.cuda.is_available() else "cpu")
        return _try_device(device)
    except Exception as error:  # each kind of device fails in its own way
        # torch appends its own call stack to some messages.
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device={device!r} cannot be used here ({reason}). Use 'auto', 'cpu' or a device "
            "that torch lists, such as 'cuda:0'."
        ) from error


@lru_cache
def _try_device(device: str) -> torch.device:
    """Compute something there and read it: some devices only take tensors."""
    ones = torch.ones(2, 2, device=device)
    if (ones @ ones).tolist() != [[2.0, 2.0], [2.0, 2.0]]:
        raise RuntimeError("it computes wrongly")
    return ones.device


def copy_module(module: M, device: torch.device | str = "cpu") -> M:
    """Copy a network to a device, marks of its parameters such as ``no_weight_decay`` with it."""
    twin = copy.deepcopy(module).to(device)
    for original, copied in zip(module.parameters(), twin.parameters(), strict=True):
        # deepcopy makes a new parameter of the values alone.
        vars(copied).update(vars(original) | vars(copied))
    return twin


@dataclass(frozen=True)
class _Ready:
    """A module in evaluation mode on a device, its known entities encoded."""

    # What the weights were then.
    stamp: list[Any]
    module: PairModule
    known: Encoded


class Predictor:
    """A trained module that predicts on any device without being moved or changed.

    A copy per device (none for the device where the module is) and the encodings of the known
    entities are kept until the weights change. Threads may share it.

    Parameters
    ----------
    module : PairModule
        Any changes of its weights in place are noticed, but for those through ``.data``.
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
            n pairs, of known and new entities.
        device : torch.device
            Where to compute.
        method : str, default="score"
            The method of the module that scores.

        Returns
        -------
        ndarray of float64 of shape (n, ...)
            Scores; those of ``score`` are predictions in units of the transformed target.

        Raises
        ------
        ValueError
            If the device cannot compute what the module needs.
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
            # Another thread may have been first.
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
    """Tell weights apart from what they are after a change, in a few microseconds."""
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

    As `Predictor.predict` does, but nothing is kept.
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

    All scores are written into one array: kept apart, the small result of each batch would pin
    the memory of its large intermediates.
    """
    score = getattr(module, method)
    with torch.inference_mode():
        encoded, columns = _meet(module, known, interactions)
        tensors = [torch.as_tensor(column, device=device) for column in columns]
        scores = None
        for rows in _batches(len(interactions)):
            batch = score(encoded, *_columns_of(tensors, columns, rows))
            if scores is None:
                scores = np.empty((len(interactions), *batch.shape[1:]))
            scores[rows] = batch.cpu().numpy()
            del batch
    return scores


def _columns_of(
    tensors: list[Tensor], columns: list[np.ndarray], rows: slice
) -> list[Tensor | slice]:
    """Take the rows of a batch; services of one user share what is taken of it."""
    batch = [tensor[rows] for tensor in tensors]
    if len(tensors) == 2:
        users, services = (column[rows] for column in columns)
        if len(users) > 1 and (users == users[0]).all():
            batch[0] = batch[0][:1]
            batch[1] = _run(services) or batch[1]
    return batch


def _run(positions: np.ndarray) -> slice | None:
    """Return the slice that the positions are, if they follow one another."""
    first, n = int(positions[0]), len(positions)
    if positions[-1] != first + n - 1 or not (positions == np.arange(first, first + n)).all():
        return None
    return slice(first, first + n)


def take(of_entities: Tensor, positions: Tensor | slice) -> Tensor:
    """Take the rows (axis 1) at positions into what was encoded; a slice copies nothing."""
    if isinstance(positions, slice):
        return of_entities[:, positions]
    return of_entities.index_select(1, positions)


def encode(module: PairModule, new_users: EntityTable, new_services: EntityTable) -> Encoded:
    """Represent all known entities and then the new ones."""
    known = module.encode_known()
    new = module.encode_new(known, new_users, new_services)
    return Encoded(_append(known.users, new.users), _append(known.services, new.services))


def _meet(
    module: PairModule, known: Encoded, interactions: Interactions
) -> tuple[Encoded, list[np.ndarray]]:
    """Represent what the interactions need, and find them there; times with them, if any."""
    users, services = interactions.users, interactions.services
    new_users, new_services = interactions.new_users, interactions.new_services
    encoded = known
    if len(new_users) or len(new_services):
        new = module.encode_new(known, new_users, new_services)
        of_users, users = _join(known.users, new.users, users, len(new_users))
        of_services, services = _join(known.services, new.services, services, len(new_services))
        encoded = Encoded(of_users, of_services, known.averages)
    times = [] if interactions.times is None else [interactions.times]
    return encoded, [users, services, *times]


def _join(known: Side, new: Side, positions: np.ndarray, n_new: int) -> tuple[Side, np.ndarray]:
    """Put newcomers behind those known entities that are asked for."""
    if n_new == 0:
        return known, positions
    n_known = _n_entities(known)
    is_known = positions < n_known
    wanted, places = np.unique(positions[is_known], return_inverse=True)
    found = positions + (len(wanted) - n_known)
    found[is_known] = places
    return _append(_take(known, wanted), new), found


def _n_entities(side: Side) -> int:
    return side.shape[-2] if isinstance(side, Tensor) else _n_entities(side[0])


def _take(side: Side, rows: np.ndarray) -> Side:
    if isinstance(side, Tensor):
        return side.index_select(-2, torch.as_tensor(rows, device=side.device))
    return type(side)(_take(part, rows) for part in side)


def _append(side: Side, new: Side) -> Side:
    if isinstance(side, Tensor):
        return torch.cat([side, new], dim=-2)
    return type(side)(_append(*parts) for parts in zip(side, new, strict=True))


def _batches(n_rows: int) -> Iterator[slice]:
    # No pairs make one empty batch, so that the result has its shape.
    for start in range(0, max(n_rows, 1), PAIRS_PER_BATCH):
        yield slice(start, min(start + PAIRS_PER_BATCH, n_rows))
