"""Warnings that name the line of the user's code."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

# Packages between a user's call and a warning, with ours.
PACKAGES = frozenset({"skqos", "sklearn", "skorch", "joblib"})


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and name the line outside skqos and the packages that call it.

    The number of frames between this line and the warning depends on the method that was called,
    so that it cannot be a constant.

    Parameters
    ----------
    message : str
        Text of the warning.
    category : type of Warning, default=UserWarning
        Class of the warning.
    """
    # 1 is the line below, 2 the caller.
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _package(frame) in PACKAGES:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]
