"""Conversion of parameters from numpy scalars, which may overflow, to Python values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd

from skqos._errors import about
from skqos._sklearn_compat import validate_params
from skqos._warnings import warn_user
from skqos.exceptions import UnusedParameterWarning

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


def plain_value(value: Any) -> Any:
    """Return a numpy scalar as a bool, int, float or str; arrays and lists of them as lists.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos._parameters import plain_value
    >>> plain_value(np.float32(0.5)), plain_value((np.int64(3), "a")), plain_value(np.arange(2))
    (0.5, (3, 'a'), [0, 1])
    """
    if isinstance(value, np.floating):
        # `item` does not convert longdouble.
        return float(value)
    if isinstance(value, np.timedelta64):
        return _plain_duration(value)
    if isinstance(value, np.bool_ | np.integer | np.str_):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain_value(list(value)) if value.ndim else value
    if type(value) in (list, tuple):
        return type(value)(plain_value(part) for part in value)
    return value


def _plain_duration(value: np.timedelta64) -> Any:
    """Return a duration of pandas; `item` would return an int for nanoseconds."""
    try:
        return pd.Timedelta(value)
    except (ValueError, OverflowError):
        # A unit that pandas does not support.
        return value.item()


def with_plain_parameters(configured: T) -> T:
    """Return a shallow copy whose parameters are Python's own values.

    An estimator stores its parameters unchanged, as scikit-learn requires. Computations use the
    parameters of this copy.

    Parameters
    ----------
    configured : estimator or splitter
        Object whose parameters are the arguments of its ``__init__``.
    """
    copy = object.__new__(type(configured))
    vars(copy).update(vars(configured))
    constraints = getattr(configured, "_parameter_constraints", {})
    for name in parameter_names(type(configured)):
        vars(copy)[name] = _as_meant(vars(copy)[name], constraints.get(name, ["boolean"]))
    return copy


def check_numbers(parameters: Mapping[str, Any]) -> None:
    """Check that numbers are ints or floats of at most 64 bits, before they are compared.

    Raises
    ------
    ValueError
        If a parameter is or contains an integer of more than 64 bits.
    TypeError
        If it is or contains a number that is not an int or float, such as a fraction.
    """
    for name, value in parameters.items():
        for number in _numbers(plain_value(value)):
            if not isinstance(number, int | float):
                raise TypeError(
                    f"The {name!r} parameter must hold integers and floats; got {number!r:.60}."
                )
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                raise ValueError(
                    f"The {name!r} parameter must hold integers of at most 64 bits; got "
                    f"{_shorten(number)}."
                )


def check_items(name: str, value: Any) -> None:
    """Raise TypeError unless a parameter contains hashable items."""
    with about(name):
        for item in value:
            hash(item)


def validated(constraints: dict[str, Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check the parameters of the decorated function by scikit-learn's constraints.

    The function receives Python values, and ints for bools if an int is expected.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        checked = validate_params(constraints, prefer_skip_nested_validation=True)(function)

        @wraps(function)
        def call(*arguments: P.args, **keywords: P.kwargs) -> R:
            given = signature.bind(*arguments, **keywords)
            taken = {name: given.arguments[name] for name in constraints if name in given.arguments}
            check_numbers(taken)
            for name, value in taken.items():
                given.arguments[name] = _as_meant(value, constraints[name])
            return checked(*given.args, **given.kwargs)

        return call

    return decorate


def _as_meant(value: Any, constraints: list[Any]) -> Any:
    """Return a Python value, with an int for a bool unless a bool is expected."""
    value = plain_value(value)
    return int(value) if isinstance(value, bool) and "boolean" not in constraints else value


def _numbers(value: Any) -> Iterator[Any]:
    if type(value) in (list, tuple):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, Real):
        yield value


def _shorten(number: int) -> str:
    # Python does not convert very long integers to strings.
    return f"one of {number.bit_length()} bits" if number.bit_length() > 200 else str(number)


def parameter_names(kind: Any) -> tuple[str, ...]:
    """Return the names of the parameters of a class of estimators or splitters."""
    return _read_names(kind)


# A function of its own, because mypy does not accept classes as arguments of a cached function.
@lru_cache(maxsize=256)
def _read_names(kind: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.__init__).parameters)[1:]


@dataclass(frozen=True)
class SwitchedOff:
    """Parameters that have no effect while other parameters have certain values.

    An estimator lists such rules in its class attribute ``_switched_off``.

    Attributes
    ----------
    parameters : tuple of str
        Parameters without effect.
    by : dict of str to tuple or callable
        Values of other parameters, or a test of the value, such as `lacks`. All must apply.
    """

    parameters: tuple[str, ...]
    by: Mapping[str, tuple[Any, ...] | Callable[[Any], bool]]

    def applies(self, configured: Any) -> bool:
        """Return whether an estimator with plain parameters has these values."""
        return all(_is_among(getattr(configured, name), values) for name, values in self.by.items())


def _is_among(value: Any, values: tuple[Any, ...] | Callable[[Any], bool]) -> bool:
    return values(value) if callable(values) else value in values


def lacks(item: str) -> Callable[[Iterable[Any]], bool]:
    """Return a test whether a sequence does not contain an item.

    Examples
    --------
    >>> from skqos._parameters import lacks
    >>> lacks("mlp")(["lhuc"]), lacks("mlp")(["mlp", "lhuc"])
    (True, False)
    """
    return lambda items: item not in list(items)


def is_empty(items: Sequence[Any] | None) -> bool:
    """Return whether a sequence has no items; None, which stands for a default, is not empty."""
    return items is not None and len(items) == 0


def warn_of_unused_parameters(estimator: Any) -> None:
    """Warn once of each parameter that differs from its default and has no effect.

    Parameters
    ----------
    estimator : estimator
        Estimator with valid parameters and rules in ``_switched_off``.
    """
    plain = with_plain_parameters(estimator)
    defaults = inspect.signature(type(estimator).__init__).parameters
    told = set()
    for rule in filter(lambda rule: rule.applies(plain), estimator._switched_off):
        reasons = " and ".join(f"{name}={getattr(plain, name)!r}" for name in rule.by)
        for name in rule.parameters:
            if name not in told and not _are_equal(getattr(plain, name), defaults[name].default):
                told.add(name)
                warn_user(
                    f"{name}={getattr(plain, name)!r} has no effect with {reasons}.",
                    UnusedParameterWarning,
                )


def _are_equal(value: Any, default: Any) -> bool:
    """Compare two values of a parameter; sequences of any kind are equal if their items are."""
    items = [
        list(x) if isinstance(x, Iterable) and not isinstance(x, str) else x
        for x in (value, default)
    ]
    return items[0] == items[1]
