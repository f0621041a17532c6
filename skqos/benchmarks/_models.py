"""Models that are created by factories."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from skqos.benchmarks._split import Split

Factory = Callable[..., Any]


def find_factory(model: str | Factory) -> Factory:
    """Return a factory, which may be imported by ``module:name``.

    Raises
    ------
    ValueError
        If the text has no colon, or the module does not contain the name.
    ModuleNotFoundError
        If the module does not exist.
    """
    if callable(model):
        return model
    module, colon, name = model.partition(":")
    if not colon:
        raise ValueError(
            f"model must be 'module:name', such as 'my_module:make_model'; got {model!r}."
        )
    found = getattr(import_module(module), name, None)
    if not callable(found):
        raise ValueError(f"model: the module {module!r} has no function or class {name!r}.")
    return found


def make_model(model: str | Factory, split: Split, seed: int) -> Any:
    """Call a factory with the arguments that its parameter names request.

    Parameters
    ----------
    model : str or callable
        Class or function, or its ``module:name``. It may have the parameters ``seed`` or
        ``random_state``, ``users``, ``services`` and ``qos``.

    split : Split
        Split with the context and the QoS.

    seed : int
        Seed.

    Raises
    ------
    ValueError
        If the factory has another parameter without a default, or does not return a regressor.
    """
    factory = find_factory(model)
    known = {
        "seed": seed,
        "random_state": seed,
        "users": split.users,
        "services": split.services,
        "qos": split.qos,
    }
    parameters = inspect.signature(factory).parameters
    unknown = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in known
    ]
    if unknown:
        raise ValueError(
            f"model: a factory may ask for {', '.join(known)}; {_name(factory)} also needs "
            f"{', '.join(unknown)}."
        )
    made = factory(**{name: value for name, value in known.items() if name in parameters})
    if not (hasattr(made, "fit") and hasattr(made, "predict")):
        raise ValueError(
            f"model: {_name(factory)} must return a regressor with fit and predict; got "
            f"{made!r:.60}."
        )
    return made


def name_model(model: str | Factory) -> str:
    """Return the name of a model in results."""
    return model if isinstance(model, str) else f"{model.__module__}:{_name(model)}"


def _name(factory: Factory) -> str:
    return getattr(factory, "__qualname__", repr(factory))
