"""Parameters as Python's own values: numpy scalars count, but overflow and are no bool or int."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


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
        # `item` leaves longdouble as it is.
        return float(value)
    if isinstance(value, np.bool_ | np.integer | np.str_):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain_value(list(value)) if value.ndim else value
    if type(value) in (list, tuple):
        return type(value)(plain_value(part) for part in value)
    return value


def with_plain_parameters(configured: T) -> T:
    """Return a shallow copy whose parameters are Python's own values.

    An estimator keeps what it was given, as scikit-learn asks; whoever reads a parameter to compute
    with it reads it here.

    Parameters
    ----------
    configured : estimator or splitter
        Its parameters are the arguments of its ``__init__``.
    """
    copy = object.__new__(type(configured))
    vars(copy).update(vars(configured))
    for name in _parameter_names(type(configured)):
        vars(copy)[name] = plain_value(vars(copy)[name])
    return copy


@lru_cache(maxsize=256)
def _parameter_names(kind: type) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.__init__).parameters)[1:]
