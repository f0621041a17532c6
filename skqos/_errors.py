"""Errors that contain the name of the parameter or column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def about(name: str) -> Iterator[None]:
    """Convert exceptions of the block to a ValueError or TypeError with a name.

    For calls that pass user input to libraries, or call its methods. These may raise any exception,
    without the name of a parameter or column.

    Parameters
    ----------
    name : str
        Name of the parameter or column that the block reads.

    Raises
    ------
    TypeError, ValueError
        In place of exceptions that are of another class or do not contain the name. Errors of
        memory and files, warnings raised as errors, and interrupts are not converted.

    Examples
    --------
    >>> from skqos._errors import about
    >>> with about("y"):
    ...     float("fast")
    Traceback (most recent call last):
    ...
    ValueError: y: could not convert string to float: 'fast'
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error
    except (Warning, OSError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{name}: cannot be read ({type(error).__name__}: {error}).") from error


def check_same_length(**parts: Any) -> None:
    """Check that arrays have the same number of rows; None is ignored.

    Raises
    ------
    ValueError
        If the numbers of rows differ; the message contains the number of each.

    Examples
    --------
    >>> from skqos._errors import check_same_length
    >>> check_same_length(X=[[0, 1]], y=[0.5], groups=None)
    """
    lengths = {}
    for name, part in parts.items():
        if part is not None:
            with about(name):
                lengths[name] = part.shape[0] if hasattr(part, "shape") else len(part)
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {found}; they must be "
            "the same."
        )
