"""Tables in Markdown, and their replacement in files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


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


def write_between_marks(path: Path, tables: Mapping[str, str]) -> None:
    """Replace the text between the marks of each table for which the file has marks.

    Parameters
    ----------
    path : Path
        File with the marks ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``.

    tables : mapping of str to str
        Texts by name of their marks.

    Raises
    ------
    ValueError
        If the file has none of the marks, or not one begin and then one end of a table.
    """
    text = path.read_text()
    found = False
    for name, table in tables.items():
        begin, end = (f"<!-- {name}: {mark} -->" for mark in ("begin", "end"))
        if begin not in text:
            continue
        found = True
        before, _, rest = text.partition(begin)
        _, is_closed, after = rest.partition(end)
        if not is_closed or text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{path} must have {begin!r} once, and {end!r} once after it.")
        text = f"{before}{begin}\n{table}\n{end}{after}"
    if not found:
        raise ValueError(f"{path} has none of the marks '<!-- NAME: begin -->' of {list(tables)}.")
    path.write_text(text)
