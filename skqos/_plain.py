"""Objects as plain data and back: numbers, strings, lists, tuples, dicts and tensors, no code.

What pickle does, for a closed set of classes: an object is its class and its state. Reading makes
an object of a class of this package, or a layer of torch or geoopt, and hands it its state; nothing
else can be made, and no function can be called.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

PLAIN = (type(None), bool, int, float, str)
# Packages whose classes are taken: all of ours, of others layers and parameters only.
OWN_PACKAGE = "skqos"
LAYER_PACKAGES = ("torch.nn", "geoopt")
OTHER_CLASSES = ("sklearn.pipeline.Pipeline",)
MODULE_STATE = {"training", "_parameters", "_buffers", "_non_persistent_buffers_set", "_modules"}


def is_allowed(kind: type) -> bool:
    """Whether objects of a class may be stored and made."""
    package = kind.__module__
    if package.split(".")[0] == OWN_PACKAGE or _name(kind) in OTHER_CLASSES:
        return True
    is_layer = issubclass(kind, nn.Module | nn.Parameter)
    return is_layer and any(package.startswith(f"{layers}.") for layers in LAYER_PACKAGES)


def to_plain(value: Any, path: str) -> Any:
    """Turn an object into plain data.

    Parameters
    ----------
    value : object
        What to store.
    path : str
        How to name it in an error.

    Raises
    ------
    TypeError
        If it holds something that is no data, or of a class that is not allowed.
    """
    return _Writer().write(value, path)


def from_plain(plain: Any) -> Any:
    """Make the object that `to_plain` was given.

    Raises
    ------
    ValueError
        If that is not what `plain` is, or if it names a class that is not allowed.
    """
    return _Reader().read(plain)


class _Writer:
    """Writes one object; what occurs in it several times is stored once."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        # The state that an object hands out may be the only thing that refers to a part of it.
        self._alive: list[Any] = []

    def write(self, value: Any, path: str) -> Any:
        """Write anything."""
        kind = type(value)
        if kind in PLAIN:
            return value
        if kind in (list, tuple):
            return kind(self.write(part, f"{path}[{k}]") for k, part in enumerate(value))
        if isinstance(value, np.generic):
            return self.write(value.item(), path)
        for known, write in (
            (dict, self._dict),
            (set, self._set),
            (np.ndarray, self._array),
            (pd.Index, self._index),
            (pd.DataFrame, self._frame),
        ):
            if isinstance(value, known):
                return write(value, path)
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            return _tensor(value)
        return self._once(value, path)

    def _once(self, value: Any, path: str) -> dict[str, Any]:
        if not is_allowed(type(value)):
            raise TypeError(
                f"{path} is of type {_name(type(value))}, which cannot be stored without running "
                "code when it is read. Stored are numbers, strings, arrays, tables, and what "
                "belongs to skqos; set it to None, or use joblib."
            )
        if id(value) in self._numbers:
            return {"type": "same", "number": self._numbers[id(value)]}
        number = self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)
        write = self._parameter if isinstance(value, nn.Parameter) else self._object
        return {"number": number, "class": _name(type(value)), **write(value, path)}

    def _object(self, value: Any, path: str) -> dict[str, Any]:
        state = value.__getstate__() or {}
        if isinstance(value, nn.Module):
            # The rest of what torch keeps of any module are hooks, which are code.
            left_out = vars(nn.Module()).keys() - MODULE_STATE
            state = {name: part for name, part in state.items() if name not in left_out}
        return {
            "type": "object",
            "state": {name: self.write(part, f"{path}.{name}") for name, part in state.items()},
        }

    def _parameter(self, value: nn.Parameter, path: str) -> dict[str, Any]:
        return {
            "type": "parameter",
            "values": _tensor(value),
            "requires_grad": value.requires_grad,
            "state": {n: self.write(part, f"{path}.{n}") for n, part in vars(value).items()},
        }

    def _dict(self, value: dict, path: str) -> dict[str, Any]:
        items = [(self.write(k, path), self.write(v, f"{path}[{k!r}]")) for k, v in value.items()]
        return {"type": "dict", "items": items}

    def _set(self, value: set, path: str) -> dict[str, Any]:
        return {"type": "set", "items": [self.write(part, path) for part in value]}

    def _array(self, value: np.ndarray, path: str) -> dict[str, Any]:
        if value.dtype.kind in "bif":
            return {"type": "array", "values": torch.tensor(value)}
        items = [self.write(part, f"{path}[{k}]") for k, part in enumerate(value.ravel().tolist())]
        return {"type": "objects", "items": items, "shape": value.shape}

    def _index(self, value: pd.Index, path: str) -> dict[str, Any]:
        is_number = isinstance(value.dtype, np.dtype) and value.dtype.kind in "bif"
        values = value.to_numpy() if is_number else value.to_numpy(dtype=object)
        return {
            "type": "index",
            "values": self._array(values, path),
            "is_object": value.dtype == object,
            "name": self.write(value.name, path),
        }

    def _frame(self, value: pd.DataFrame, path: str) -> dict[str, Any]:
        return {
            "type": "frame",
            "index": self._index(value.index, path),
            "columns": self._index(value.columns, path),
            "items": [self._column(value.iloc[:, k], path) for k in range(value.shape[1])],
        }

    def _column(self, value: pd.Series, path: str) -> dict[str, Any]:
        if not isinstance(value.dtype, pd.CategoricalDtype):
            return self._index(pd.Index(value), f"{path}[{value.name!r}]")
        return {
            "type": "categorical",
            "codes": torch.tensor(value.cat.codes.to_numpy()),
            "categories": self._index(value.cat.categories, f"{path}[{value.name!r}]"),
            "ordered": bool(value.cat.ordered),
        }


class _Reader:
    """Reads what a writer wrote."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def read(self, plain: Any) -> Any:
        """Read anything."""
        if type(plain) in PLAIN or isinstance(plain, Tensor):
            return plain
        if type(plain) in (list, tuple):
            return type(plain)(self.read(part) for part in plain)
        readers: dict[str, Callable[[dict], Any]] = {
            "same": lambda node: self._made[node["number"]],
            "object": self._object,
            "parameter": self._parameter,
            "dict": lambda node: {self.read(k): self.read(v) for k, v in node["items"]},
            "set": lambda node: {self.read(part) for part in node["items"]},
            "array": lambda node: node["values"].numpy().copy(),
            "objects": self._objects,
            "index": self._index,
            "frame": self._frame,
            "categorical": self._categorical,
        }
        try:
            return readers[plain["type"]](plain)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is not what was stored: {error!r}") from error

    def _object(self, node: dict) -> Any:
        kind = _find_class(node["class"])
        value = self._made[node["number"]] = kind.__new__(kind)
        state = {name: self.read(part) for name, part in node["state"].items()}
        if isinstance(value, nn.Module):
            nn.Module.__init__(value)
        if hasattr(value, "__setstate__"):
            value.__setstate__(state)
        else:
            vars(value).update(state)
        return value

    def _parameter(self, node: dict) -> nn.Parameter:
        kind = _find_class(node["class"])
        value = Tensor._make_subclass(kind, node["values"], node["requires_grad"])
        vars(value).update({name: self.read(part) for name, part in node["state"].items()})
        self._made[node["number"]] = value
        return value

    def _objects(self, node: dict) -> np.ndarray:
        values = np.empty(len(node["items"]), dtype=object)
        for k, part in enumerate(node["items"]):
            values[k] = self.read(part)
        return values.reshape(node["shape"])

    def _index(self, node: dict) -> pd.Index:
        # Strings that were not objects get the type for strings of the pandas that is here.
        dtype = object if node["is_object"] else None
        return pd.Index(self.read(node["values"]), dtype=dtype, name=self.read(node["name"]))

    def _frame(self, node: dict) -> pd.DataFrame:
        index = self.read(node["index"])
        columns = {
            k: pd.Series(self.read(part), index=index) for k, part in enumerate(node["items"])
        }
        return pd.DataFrame(columns, index=index).set_axis(self.read(node["columns"]), axis=1)

    def _categorical(self, node: dict) -> pd.Categorical:
        dtype = pd.CategoricalDtype(self.read(node["categories"]), ordered=node["ordered"])
        return pd.Categorical.from_codes(node["codes"].numpy(), dtype=dtype)


def _tensor(value: Tensor) -> Tensor:
    # A copy: a view would bring all of what it is a view of along.
    return value.detach().cpu().clone()


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _find_class(name: str) -> type:
    """Find a class by name, if it is allowed; only allowed packages are imported."""
    package, _, class_name = name.rpartition(".")
    known = (f"{OWN_PACKAGE}.", *(f"{layers}." for layers in LAYER_PACKAGES))
    if package.startswith(known) or name in OTHER_CLASSES:
        with contextlib.suppress(ImportError):
            kind = getattr(importlib.import_module(package), class_name, None)
            if isinstance(kind, type) and _name(kind) == name and is_allowed(kind):
                return kind
    raise ValueError(f"it names the class {name!r}, of which no objects are made here")
