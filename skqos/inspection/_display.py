"""Common parts of all displays: checks of their methods, and the axes that they draw on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from skqos.inspection._common import check_matplotlib, check_options, prepare_axes

D = TypeVar("D")
P = ParamSpec("P")
R = TypeVar("R")


def drawing(method: Callable[Concatenate[D, P], R]) -> Callable[Concatenate[D, P], R]:
    """Decorate a method of a Display that draws: it needs matplotlib and checks its options."""
    checked = check_options(method)

    @wraps(method)
    def call(display: D, *args: P.args, **kwargs: P.kwargs) -> R:
        kind = display if inspect.isclass(display) else type(display)
        check_matplotlib(f"{kind.__name__}.{method.__name__}")
        return checked(display, *args, **kwargs)

    return call


class Display:
    """Base class of displays, which sets their axes."""

    figure_: Any

    def _take_axes(self, ax: Any, size: tuple[float, float]) -> None:
        """Set `ax_` and `figure_`."""
        (self.ax_,) = prepare_axes(ax, 1, size)
        self.figure_ = self.ax_.figure

    def _take_panels(
        self,
        ax: Any,
        n_panels: int,
        size: tuple[float, float],
        width_ratios: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Set and return `axes_`, and set `figure_`."""
        self.axes_ = prepare_axes(ax, n_panels, size, width_ratios)
        self.figure_ = self.axes_[0].figure
        return self.axes_
