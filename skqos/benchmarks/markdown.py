"""Tables in Markdown, and their replacement in files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows of cells as a table.

    Examples
    --------
    >>> from skqos.benchmarks.markdown import markdown
    >>> markdown(["model", "MAE"], [["median", "0.74"]]).splitlines()
    ['| model | MAE |', '|---|---|', '| median | 0.74 |']
    """
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    lines.insert(1, "|---" * len(head) + "|")
    return "\n".join(lines)


def mark_best(texts: Sequence[str], values: Sequence[float], *, highest: bool = False) -> list[str]:
    """Return texts of numbers, with those bold that show the best number.

    Parameters
    ----------
    texts : sequence of str
        Numbers as they are shown, empty where there is none.

    values : sequence of float
        The numbers, NaN where there is none.

    highest : bool, default=False
        Whether the highest number is the best one.

    Examples
    --------
    >>> from skqos.benchmarks.markdown import mark_best
    >>> mark_best(["0.7", "0.5", "0.5"], [0.7, 0.51, 0.52])
    ['0.7', '**0.5**', '**0.5**']
    """
    there = [place for place, text in enumerate(texts) if text]
    if not there:
        return list(texts)
    best = texts[(max if highest else min)(there, key=lambda place: values[place])]
    return [f"**{text}**" if text == best else text for text in texts]


def write_numbers(values: pd.Series, spec: str) -> list[str]:
    """Return numbers as texts, empty where there is none.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos.benchmarks.markdown import write_numbers
    >>> write_numbers(pd.Series([0.7, float("nan")]), ".2f")
    ['0.70', '']
    """
    return ["" if pd.isna(value) else format(value, spec) for value in values]


def write_best(values: pd.Series, spec: str, *, highest: bool = False) -> list[str]:
    """Return numbers as texts, the best ones bold; see `mark_best`.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos.benchmarks.markdown import write_best
    >>> write_best(pd.Series([0.7, 0.51]), ".1f")
    ['0.7', '**0.5**']
    """
    return mark_best(write_numbers(values, spec), values.tolist(), highest=highest)


def find_marks(text: str) -> list[str]:
    """Return the names of the tables for which a text has marks."""
    return re.findall(r"^<!-- (.+): begin -->$", text, flags=re.MULTILINE)


def write_between_marks(path: Path, tables: Mapping[str, str]) -> None:
    """Replace the text between the marks of each table for which the file has marks.

    Parameters
    ----------
    path : Path
        File with the marks ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->`` on lines of their
        own.

    tables : mapping of str to str
        Texts by name of their marks.

    Raises
    ------
    ValueError
        If the file has none of the marks, or not one begin and then one end of a table.
    """
    original = text = path.read_text()
    found = [name for name in tables if name in find_marks(text)]
    for name in found:
        begin, end = (f"<!-- {name}: {mark} -->" for mark in ("begin", "end"))
        # On lines of their own: an include names them in its options.
        parts = re.split(rf"^({re.escape(begin)}|{re.escape(end)})$", text, flags=re.MULTILINE)
        if parts[1::2] != [begin, end]:
            raise ValueError(f"{path} must have {begin!r} once, and {end!r} once after it.")
        text = f"{parts[0]}{begin}\n{tables[name]}\n{end}{parts[-1]}"
    if not found:
        raise ValueError(f"{path} has none of the marks '<!-- NAME: begin -->' of {list(tables)}.")
    if text != original:
        path.write_text(text)
