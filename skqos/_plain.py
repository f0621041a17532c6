"""Conversion of objects to plain data (numbers, strings, lists, tuples, dicts, tensors) and back.

It corresponds to pickle, but only for the classes listed in `skqos._loadable`. Reading creates an
object and sets its attributes, whose names are checked. It calls no function that the file selects,
and no method of an object except `check_loaded`, which a class of this package may define to raise
ValueError for a state with which compiled code would access memory out of bounds.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from skqos import _loadable as loadable
from skqos import _plain_arrays as arrays
from skqos._archive import DTYPES

PLAIN = (type(None), bool, int, float, str)
# More than any model has, and small enough for the stack.
MAX_DEPTH = 60
# Attributes of any torch module; some of them contain code.
MODULE_INTERNALS = frozenset(vars(nn.Module()))
# Attributes that parameters may have.
MARKS = ("no_weight_decay", "is_curvature", "is_on_ball")
# Versions, which are stored in the header of a file.
VERSIONS = ("_skqos_version", "_sklearn_version")


def to_plain(value: Any, path: str) -> Any:
    """Convert an object to plain data.

    Parameters
    ----------
    value : object
        Object to convert.
    path : str
        Name in errors.

    Raises
    ------
    TypeError
        If it contains objects that are not data, or of classes that are not on the list.
    """
    return _Writer().write(value, path)


def from_plain(plain: Any) -> Any:
    """Create the object that `to_plain` converted.

    Raises
    ------
    Exception
        Any exception, if `plain` is not a result of `to_plain`, or contains a class that is not on
        the list.
    """
    return _Reader().read(plain)


class _Writer:
    """Conversion of one object; repeated parts are stored once."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        # The state may hold the only reference to a part.
        self._alive: list[Any] = []
        self._depth = 0

    def write(self, value: Any, path: str) -> Any:
        """Write a value of any supported class."""
        if self._depth == MAX_DEPTH:
            raise TypeError(f"{path:.200} is nested too deep, or contains itself.")
        self._depth += 1
        try:
            return self._write(value, path)
        finally:
            self._depth -= 1

    def _write(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind in PLAIN:
            return value
        if kind in (list, tuple):
            return kind(self.write(part, f"{path}[{k}]") for k, part in enumerate(value))
        if kind in arrays.LABEL_NAMES:
            return arrays.write_label(value)
        if isinstance(value, np.generic):
            return {"type": "scalar", "values": self.write(np.asarray(value), path)}
        if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
            return arrays.write_array(np.asarray(value), path, self.write)
        for known, write in (
            (pd.Index, arrays.write_index),
            (pd.Series, arrays.write_series),
            (pd.DataFrame, arrays.write_frame),
        ):
            if isinstance(value, known):
                return write(value, path, self.write)
        if arrays.is_polars(value):
            return arrays.write_polars(value, path, self.write)
        if isinstance(value, dict):
            return self._dict(value, path)
        if isinstance(value, set):
            return {"type": "set", "items": [self.write(part, path) for part in value]}
        if kind is Tensor:
            return _tensor(value, path)
        return self._once(value, path)

    def _dict(self, value: dict, path: str) -> dict[str, Any]:
        items = [(self.write(k, path), self.write(v, f"{path}[{k!r}]")) for k, v in value.items()]
        return {"type": "dict", "items": items}

    def _once(self, value: Any, path: str) -> dict[str, Any]:
        name = loadable.class_name(type(value))
        if name not in loadable.LISTED:
            raise TypeError(_refusal(value, path))
        if id(value) in self._numbers:
            return {"type": "same", "number": self._numbers[id(value)]}
        number = self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)
        return {"number": number, "class": name, **self._writer(value, name)(value, path)}

    def _writer(self, value: Any, name: str) -> Callable[[Any, str], dict[str, Any]]:
        if isinstance(value, nn.Parameter):
            return self._parameter
        if isinstance(value, nn.Module):
            return self._module
        if name != loadable.PIPELINE:
            loadable.check_own_class(type(value))
        return self._object

    def _object(self, value: Any, path: str) -> dict[str, Any]:
        if dataclasses.is_dataclass(value):
            # Values that are computed from fields are not stored.
            state = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        else:
            state = value.__getstate__() or {}
            state = {name: part for name, part in state.items() if name not in VERSIONS}
        try:
            _check_state(type(value), state)
        except ValueError as error:
            raise TypeError(f"{path} cannot be stored: {error}.") from error
        return {"type": "object", "state": self._parts(state, path)}

    def _module(self, value: nn.Module, path: str) -> dict[str, Any]:
        name = loadable.class_name(type(value))
        state = value.__getstate__() if loadable.is_ours(name) else vars(value)
        if loadable.is_ours(name):
            loadable.check_own_class(type(value))
            attributes = {n: part for n, part in state.items() if n not in MODULE_INTERNALS}
        else:
            attributes = {n: _layer_argument(value, n) for n in loadable.LAYERS.get(name, ())}
        return {
            "type": "module",
            "training": state["training"],
            "parameters": self._parts(state["_parameters"], path),
            "buffers": self._parts(state["_buffers"], path),
            "modules": self._parts(state["_modules"], path),
            "not_persistent": sorted(state["_non_persistent_buffers_set"]),
            "attributes": self._parts(attributes, path),
        }

    def _parameter(self, value: nn.Parameter, path: str) -> dict[str, Any]:
        marks = vars(value)
        if not marks.keys() <= set(MARKS):
            raise TypeError(f"{path} has the attributes {sorted(marks)}; known are {list(MARKS)}.")
        return {
            "type": "parameter",
            "values": _tensor(value, path),
            "requires_grad": value.requires_grad,
            "marks": self._parts(marks, path),
        }

    def _parts(self, parts: dict[str, Any], path: str) -> dict[str, Any]:
        return {name: self.write(part, f"{path}.{name}") for name, part in parts.items()}


class _Reader:
    """Conversion of the result of a writer to an object."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}
        self._depth = 0
        self._readers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "same": lambda node: self._made[node["number"]],
            "object": self._numbered(self._object),
            "module": self._numbered(self._module),
            "parameter": self._numbered(self._parameter),
            "dict": lambda node: {self.read(k): self.read(v) for k, v in node["items"]},
            "set": lambda node: {self.read(part) for part in node["items"]},
            "label": arrays.read_label,
            "scalar": self._scalar,
            "array": arrays.read_array,
            "objects": lambda node: arrays.read_objects(node, self.read),
            "index": lambda node: arrays.read_index(node, self.read),
            "levels": lambda node: arrays.read_index(node, self.read),
            "series": lambda node: arrays.read_series(node, self.read),
            "frame": lambda node: arrays.read_frame(node, self.read),
            "polars": lambda node: arrays.read_polars(node, self.read),
        }

    def read(self, plain: Any) -> Any:
        """Read a value of any supported class."""
        kind = type(plain)
        if kind in PLAIN or kind is Tensor:
            return plain
        if self._depth == MAX_DEPTH:
            raise ValueError("it is nested too deep")
        self._depth += 1
        try:
            if kind in (list, tuple):
                return kind(self.read(part) for part in plain)
            return self._readers[plain["type"]](plain)
        finally:
            self._depth -= 1

    def _numbered(self, read: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
        """Store a complete object by its number, so that no object contains itself."""

        def read_and_keep(node: dict[str, Any]) -> Any:
            number = node["number"]
            value = read(node)
            if type(number) is not int or number in self._made:
                raise ValueError(f"two objects have the number {number!r:.40}")
            self._made[number] = value
            return value

        return read_and_keep

    def _scalar(self, node: dict[str, Any]) -> np.generic:
        values = arrays.read_array(node["values"])
        if values.shape != ():
            raise ValueError("a number is an array")
        return values[()]

    def _object(self, node: dict[str, Any]) -> Any:
        kind = loadable.find_class(node["class"])
        if issubclass(kind, nn.Module | nn.Parameter):
            raise ValueError(f"an object claims to be a {kind.__name__}")
        state = self._parts(node["state"])
        _check_state(kind, state)
        if kind is Pipeline:
            return Pipeline(**state)
        loadable.check_own_class(kind)
        return _with_state(object.__new__(kind), state)

    def _module(self, node: dict[str, Any]) -> nn.Module:
        kind = loadable.find_class(node["class"])
        if not issubclass(kind, nn.Module):
            raise ValueError(f"a module claims to be a {kind.__name__}")
        attributes = self._parts(node["attributes"])
        parameters = _all_of(nn.Parameter, self._parts(node["parameters"]))
        buffers = _all_of(Tensor, self._parts(node["buffers"]))
        modules = _all_of(nn.Module, self._parts(node["modules"]))
        if type(node["training"]) is not bool:
            raise ValueError(f"{kind.__name__} neither trains nor predicts")
        if node["class"] in loadable.CONTAINERS:
            value = _make_container(kind, parameters or modules)
        elif node["class"] in loadable.LAYERS:
            value = _make_layer(kind, attributes, parameters, buffers)
        else:
            return self._own_module(kind, node, attributes, parameters, buffers, modules)
        parts = [vars(value)[f"_{group}"] for group in ("parameters", "buffers", "modules")]
        if parts != [parameters, buffers, modules]:
            raise ValueError(f"{kind.__name__} has parts of other names than it can have")
        value.training = node["training"]
        return value

    def _own_module(
        self,
        kind: type[nn.Module],
        node: dict[str, Any],
        attributes: dict[str, Any],
        parameters: dict[str, Any],
        buffers: dict[str, Any],
        modules: dict[str, Any],
    ) -> nn.Module:
        loadable.check_own_class(kind)
        names = [*attributes, *parameters, *buffers, *modules]
        _check_names(kind, names)
        if len(set(names)) < len(names) or MODULE_INTERNALS.intersection(names):
            raise ValueError(f"{kind.__name__} has a part whose name is taken")
        if any(isinstance(part, nn.Module | nn.Parameter) for part in attributes.values()):
            raise ValueError(f"{kind.__name__} has a part that is none of its modules")
        if not set(node["not_persistent"]) <= buffers.keys():
            raise ValueError(f"{kind.__name__} lacks a buffer")
        value = object.__new__(kind)
        nn.Module.__init__(value)
        state = vars(value)
        state["training"] = node["training"]
        state["_parameters"].update(parameters)
        state["_buffers"].update(buffers)
        state["_modules"].update(modules)
        state["_non_persistent_buffers_set"].update(node["not_persistent"])
        return _with_state(value, attributes)

    def _parameter(self, node: dict[str, Any]) -> nn.Parameter:
        kind = loadable.find_class(node["class"])
        marks, values = self._parts(node["marks"]), node["values"]
        if not issubclass(kind, nn.Parameter) or type(values) is not Tensor:
            raise ValueError(f"a {kind.__name__} is where weights should be")
        if not marks.keys() <= set(MARKS) or not all(part is True for part in marks.values()):
            raise ValueError(f"weights have the attributes {sorted(marks)}")
        value = Tensor._make_subclass(kind, values, node["requires_grad"] is True)
        vars(value).update(marks)
        return value

    def _parts(self, parts: Any) -> dict[str, Any]:
        if type(parts) is not dict:
            raise ValueError("the parts of an object have no names")
        return {name: self.read(part) for name, part in parts.items()}


# --- What the state of an object may be -----------------------------------------------------------


def _check_state(kind: type, state: dict[str, Any]) -> None:
    """Raise ValueError unless the attributes are possible for an object."""
    _check_names(kind, state)
    if dataclasses.is_dataclass(kind):
        fields = {field.name for field in dataclasses.fields(kind)}
        unknown, lacking = state.keys() - fields, fields - state.keys()
    elif issubclass(kind, BaseEstimator):
        parameters = set(kind._get_param_names())
        unknown = {
            name
            for name in state.keys() - parameters
            # Convention for fitted attributes.
            if kind is Pipeline or not (name.endswith("_") or name.startswith("_"))
        }
        lacking = parameters - state.keys()
    else:
        unknown = lacking = set()
    for names, what in ((unknown, "has no"), (lacking, "lacks its")):
        if names:
            raise ValueError(f"{kind.__name__} {what} {', '.join(sorted(names)):.200}")
    if kind is Pipeline:
        _check_pipeline(state)


def _check_names(kind: type, names: Iterable[str]) -> None:
    """Raise ValueError if an attribute has an invalid name or the name of a class attribute."""
    for name in names:
        if not name.isidentifier() or name.startswith("__"):
            raise ValueError(f"{kind.__name__} has an attribute {name!r:.60}")
        # A class attribute that is None may be set on objects.
        if inspect.getattr_static(kind, name, None) is not None and not _is_field(kind, name):
            raise ValueError(f"{kind.__name__} has another {name!r:.60}")


def _is_field(kind: type, name: str) -> bool:
    """Return whether a dataclass has a field whose default is a class attribute."""
    return name in getattr(kind, "__dataclass_fields__", {})


def _check_pipeline(state: dict[str, Any]) -> None:
    if state["memory"] is not None:
        # A cache is a folder with pickles.
        raise ValueError(
            "memory names a folder of pickles, which would be run; use set_params(memory=None)"
        )
    for name, step in state["steps"]:
        is_step = step is None or isinstance(step, str | BaseEstimator)
        if type(name) is not str or not is_step:
            raise ValueError("a step of Pipeline is no estimator")


def _with_state(value: Any, state: dict[str, Any]) -> Any:
    for name, part in state.items():
        # Also for frozen dataclasses.
        object.__setattr__(value, name, part)
    # Looked up in the class, because a part may have this name.
    if hasattr(type(value), "check_loaded"):
        type(value).check_loaded(value)
    return value


# --- Layers of torch ------------------------------------------------------------------------------


def _layer_argument(layer: nn.Module, name: str) -> Any:
    value = getattr(layer, name)
    return value is not None and (isinstance(value, Tensor) or value) if name == "bias" else value


def _make_layer(
    kind: type[nn.Module],
    arguments: dict[str, Any],
    parameters: dict[str, Any],
    buffers: dict[str, Any],
) -> nn.Module:
    """Create a layer by its constructor, and set weights of the resulting shapes."""
    expected = loadable.LAYERS[loadable.class_name(kind)]
    if sorted(arguments) != sorted(expected) or not _are_sizes(arguments.values()):
        raise ValueError(f"{kind.__name__} is made of other parts")
    if arguments.get("num_layers", 0) > len(parameters):
        raise ValueError(f"{kind.__name__} has weights for fewer layers")
    # The meta device allocates no memory.
    on_meta = {"device": "meta"} if "device" in inspect.signature(kind).parameters else {}
    layer = kind(**arguments, **on_meta)
    for asked, given in ((vars(layer)["_parameters"], parameters), (layer._buffers, buffers)):
        if _shapes(asked) != _shapes(given):
            raise ValueError(
                f"{kind.__name__} has weights of other shapes than its arguments imply"
            )
    for name, part in {**parameters, **buffers}.items():
        setattr(layer, name, part)
    return layer


def _are_sizes(values: Iterable[Any]) -> bool:
    return all(
        _are_sizes(value) if type(value) is tuple else type(value) in PLAIN for value in values
    )


def _shapes(parts: dict[str, Tensor | None]) -> dict[str, Any]:
    return {
        name: None if part is None else (part.shape, part.is_floating_point())
        for name, part in parts.items()
    }


def _make_container(kind: type[nn.Module], parts: dict[str, Any]) -> nn.Module:
    if kind is nn.ModuleDict:
        return kind(parts)
    return kind(*parts.values()) if kind is nn.Sequential else kind(list(parts.values()))


def _all_of(kind: type, parts: dict[str, Any]) -> dict[str, Any]:
    if not all(part is None or isinstance(part, kind) for part in parts.values()):
        raise ValueError(f"something is where a {kind.__name__} should be")
    return parts


def _tensor(value: Tensor, path: str) -> Tensor:
    if value.layout is not torch.strided or value.dtype not in DTYPES.values():
        raise TypeError(
            f"{path} is a tensor of {value.dtype}, {value.layout}, which is not stored."
        )
    # A copy, because a view would keep its complete base.
    return value.detach().cpu().clone()


def _refusal(value: Any, path: str) -> str:
    if "best_estimator_" in getattr(value, "__dict__", {}):
        advice = "save its best_estimator_"
    else:
        advice = "set it to None"
    return (
        f"{path} is of type {loadable.class_name(type(value))}, which cannot be stored without "
        "running code when it is read. Stored are numbers, strings, arrays, tables, and what "
        f"belongs to skqos; {advice}, or use joblib."
    )
