"""What the figures of the pages share: grey text on a transparent ground, for light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent / "_static"
GREY = "#808790"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "skqos",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY
    ),
}


def save_figure(name: str, size: tuple[float, float], *draw_panels: Callable[[Axes], None]) -> None:
    """Draw a figure of panels side by side and write it as SVG, the same in every run."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(draw_panels), squeeze=False)[0]
        for draw, axes in zip(draw_panels, panels, strict=True):
            draw(axes)
        figure.savefig(FOLDER / f"{name}.svg", transparent=True, metadata={"Date": None})
