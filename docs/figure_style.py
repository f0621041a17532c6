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
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY
    ),
}


def save_figure(name: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> None:
    """Draw a figure of one panel and write it as SVG, the same in every run."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(FOLDER / f"{name}.svg", transparent=True, metadata={"Date": None})
