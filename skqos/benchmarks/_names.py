"""Names that are looked up."""

from __future__ import annotations

from collections.abc import Iterable


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raise ValueError unless a name is among those that exist.

    Examples
    --------
    >>> from skqos.benchmarks._names import check_known
    >>> check_known("split", "b", ["a", "c"])
    Traceback (most recent call last):
    ...
    ValueError: There is no split 'b'; there are a, c.
    """
    names = list(known)
    if name not in names:
        raise ValueError(f"There is no {what} {name!r}; there are {', '.join(names)}.")
