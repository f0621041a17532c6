"""Errors that name what is wrong, whoever finds it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def about(name: str) -> Iterator[None]:
    """Let what the block raises be a ValueError or TypeError that names a parameter or column.

    For calls that hand what the user gave to a library, or to methods of what the user gave: they
    may raise anything, and know no name.

    Parameters
    ----------
    name : str
        What the block reads.

    Raises
    ------
    TypeError, ValueError
        In place of an exception of the block that is neither, is raised by a library, or does not
        name it. What says that memory or files fail, warnings turned to errors and interrupts pass.

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
    """Check that arrays have a row each for the same samples; None is left out.

    Raises
    ------
    ValueError
        If they have not, with the number of rows of each by its name.

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
