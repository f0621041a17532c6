"""Progress of `fit` with ``verbose=1``: records of the logger "skqos", or lines on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

LOGGER = logging.getLogger("skqos")
PART: ContextVar[str] = ContextVar("part", default="")


@contextmanager
def reports_of(part: str) -> Iterator[None]:
    """Begin the lines of the block with the name of a part of `fit`."""
    token = PART.set(f"{part}: ")
    try:
        yield
    finally:
        PART.reset(token)


def report(line: str) -> None:
    """Report a line of progress.

    It is logged at level INFO where the logger has a handler and this level. Without such a
    configuration it is written to stderr: a terminal shows the last line, others show all lines.
    """
    line = PART.get() + line
    if _is_logged():
        LOGGER.info(line)
    else:
        sys.stderr.write(f"\r\x1b[K{line}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()


def end_report() -> None:
    """End the current line of a terminal."""
    if sys.stderr.isatty() and not _is_logged():
        sys.stderr.write("\n")


def _is_logged() -> bool:
    return LOGGER.hasHandlers() and LOGGER.isEnabledFor(logging.INFO)
