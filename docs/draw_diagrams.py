"""Draw the networks of the method pages: ``python docs/draw_diagrams.py`` writes ``_static``.

A diagram is rows of boxes from top to bottom, and arrows between them. It is 400 units wide, so
that its text is legible on a phone. Boxes have a fill of their own and arrows are grey: both can be
seen on light and on dark pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH = 400
MARGIN = 4
GAP = 10
ROW_GAP = 26
LINE_HEIGHT = 17
PADDING = 9
FONT_SIZE = 13.5
FILLS = {"input": "#d9e2ec", "part": "#bcd7f5", "output": "#bfe3c6", "option": "#f6e3b4"}
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" font-family="system-ui, sans-serif" font-size="{size}" role="img">
<title>{title}</title>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" \
orient="auto"><path d="M0 0 8 4 0 8z" fill="#808790"/></marker></defs>"""


@dataclass(frozen=True)
class Box:
    """A part of a network.

    Attributes
    ----------
    name : str
        By which arrows refer to it.
    text : str
        Lines of its text.
    kind : {"input", "part", "output", "option"}
        "option" is a part that the default leaves out; it has a dashed border.
    span : float
        Width relative to the other boxes of the row.
    """

    name: str
    text: str
    kind: str = "part"
    span: float = 1.0


@dataclass(frozen=True)
class Diagram:
    """Rows of boxes, and pairs of names between which arrows run."""

    title: str
    rows: Sequence[Sequence[Box]]
    arrows: Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Place:
    """Where a box is."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Horizontal position of the centre."""
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        """Vertical position of the lower edge."""
        return self.y + self.height


def lay_out(rows: Sequence[Sequence[Box]]) -> dict[str, Place]:
    """Place the boxes of each row side by side, the rows below one another."""
    places, y = {}, float(MARGIN)
    for row in rows:
        height = 2 * PADDING + LINE_HEIGHT * max(box.text.count("\n") + 1 for box in row)
        room = WIDTH - 2 * MARGIN - GAP * (len(row) - 1)
        unit = room / sum(box.span for box in row)
        x = float(MARGIN)
        for box in row:
            places[box.name] = Place(x, y, unit * box.span, height)
            x += unit * box.span + GAP
        y += height + ROW_GAP
    return places


def draw(diagram: Diagram) -> str:
    """Return a diagram as SVG."""
    places = lay_out(diagram.rows)
    height = max(place.bottom for place in places.values()) + MARGIN
    head = HEAD.format(
        width=WIDTH, height=f"{height:g}", size=FONT_SIZE, title=escape(diagram.title)
    )
    arrows = [_draw_arrow(places[start], places[end]) for start, end in diagram.arrows]
    boxes = [_draw_box(box, places[box.name]) for row in diagram.rows for box in row]
    return "\n".join([head, *arrows, *boxes, "</svg>\n"])


def _draw_arrow(start: Place, end: Place) -> str:
    # Between boxes of different widths, straight down where one is above the other.
    low, high = max(start.x, end.x), min(start.x + start.width, end.x + end.width)
    x1 = x2 = (low + high) / 2
    if high - low < 2 * GAP:
        x1, x2 = start.middle, end.middle
    return (
        f'<path d="M{x1:.1f} {start.bottom:.1f} L{x2:.1f} {end.y - 1:.1f}" fill="none" '
        'stroke="#808790" stroke-width="1.5" marker-end="url(#head)"/>'
    )


def _draw_box(box: Box, place: Place) -> str:
    dash = ' stroke-dasharray="4 3"' if box.kind == "option" else ""
    lines = box.text.split("\n")
    first = place.y + (place.height - LINE_HEIGHT * (len(lines) - 1)) / 2 + 0.35 * FONT_SIZE
    text = "".join(
        f'<text x="{place.middle:.1f}" y="{first + LINE_HEIGHT * k:.1f}" text-anchor="middle" '
        f'fill="#17202b">{escape(line)}</text>'
        for k, line in enumerate(lines)
    )
    return (
        f'<rect x="{place.x:.1f}" y="{place.y:.1f}" width="{place.width:.1f}" '
        f'height="{place.height:.1f}" rx="6" fill="{FILLS[box.kind]}" stroke="#5b6570"{dash}/>'
        f"{text}"
    )


SA_MOE = Diagram(
    "The network and the two stages of SA-MoE",
    [
        [
            Box("user", "user: id, context,\nfactors (optional)", "input"),
            Box("service", "service: id, context,\nfactors (optional)", "input"),
        ],
        [Box("u", "tower of users: u"), Box("s", "tower of services: s")],
        [Box("pair", "the pair u, s")],
        [
            Box("attention", "attention"),
            Box("lhuc", "LHUC"),
            Box("mlp", "MLP"),
            Box("gate", "gate"),
        ],
        [Box("mixture", "mixture of the experts, weighted by the gate")],
        [Box("head", "linear layer and tanh")],
        [Box("prediction", "prediction of the first stage", "output")],
        [
            Box("refill", "refill: fill the matrix\nbefore the SVD", "option"),
            Box("pseudo", "pseudo-labels: further\ntraining rows"),
        ],
        [Box("second", "second stage: the same network, trained again")],
        [Box("final", "prediction", "output")],
    ],
    [
        ("user", "u"),
        ("service", "s"),
        ("u", "pair"),
        ("s", "pair"),
        *(("pair", expert) for expert in ("attention", "lhuc", "mlp", "gate")),
        *((expert, "mixture") for expert in ("attention", "lhuc", "mlp", "gate")),
        ("mixture", "head"),
        ("head", "prediction"),
        ("prediction", "refill"),
        ("prediction", "pseudo"),
        ("refill", "second"),
        ("pseudo", "second"),
        ("second", "final"),
    ],
)

R2SL = Diagram(
    "The latent states and the network of R2SL",
    [
        [
            Box("records", "measurements between\nregions", "input"),
            Box("context", "ids and context of\nuser and service", "input"),
        ],
        [
            Box("states", "EM: P(state | region)\nfor each kind of region"),
            Box("embedding", "embeddings"),
        ],
        [
            Box("lf", "LF: rows of states"),
            Box("kf", "KF: rows of features"),
        ],
        [Box("map", "map O: KF above LF, a vector in each cell")],
        [
            Box("conv1", "convolutions\nm by 1"),
            Box("conv3", "convolutions\nm by 3"),
            Box("conv5", "convolutions\nm by 5"),
        ],
        [Box("dense", "dense layers 2ᵛ, 2ᵛ⁻¹, 2ᵛ⁻², 1\n(the first also reads KF: ours)")],
        [Box("prediction", "prediction", "output")],
    ],
    [
        ("records", "states"),
        ("context", "embedding"),
        ("states", "lf"),
        ("embedding", "kf"),
        ("lf", "map"),
        ("kf", "map"),
        *(("map", f"conv{k}") for k in (1, 3, 5)),
        *((f"conv{k}", "dense") for k in (1, 3, 5)),
        ("dense", "prediction"),
    ],
)

SHARP_QOS = Diagram(
    "The network of SHARP-QoS for the QoS parameter p",
    [
        [
            Box("values", "values of QoS p:\nNMF factors", "input"),
            Box("others", "values of the\nother QoS", "input"),
            Box("context", "context: codes\nof categories", "input"),
        ],
        [
            Box("hhgcn", "HHGCN over\ngraph p", "option"),
            Box("other_hhgcn", "HHGCN over\ntheir graphs", "option"),
            Box("hygcn", "HyGCN over\ncontext graphs"),
        ],
        [
            Box("own", "own features: Yₚ"),
            Box("cross", "Cross-SNR: gates\nfor other QoS"),
            Box("snr", "SNR: gates\nfor the context"),
        ],
        [Box("fusion", "gated fusion: Zₚ")],
        [Box("users", "network of users"), Box("services", "network of services")],
        [Box("product", "product of the two vectors, plus a constant")],
        [Box("prediction", "prediction of QoS p", "output")],
    ],
    [
        ("values", "hhgcn"),
        ("others", "other_hhgcn"),
        ("context", "hygcn"),
        ("hhgcn", "own"),
        ("other_hhgcn", "cross"),
        ("hygcn", "snr"),
        ("own", "fusion"),
        ("cross", "fusion"),
        ("snr", "fusion"),
        ("fusion", "users"),
        ("fusion", "services"),
        ("users", "product"),
        ("services", "product"),
        ("product", "prediction"),
    ],
)

TPMCF = Diagram(
    "The network of TPMCF",
    [
        [Box("cells", "cells that were measured in a time step", "input")],
        [
            Box("statistics", "five\nstatistics"),
            Box("factors", "matrix\nfactors", "option"),
            Box("similarity", "cosine\nsimilarities", "option"),
        ],
        [Box("gcmf", "GCMF: two graph-convolution units", "option")],
        [
            Box(
                "tokens",
                "sequence of the last steps: user and service,\nplus id, context, step "
                "and other measurements\nof the pair (ours)",
            )
        ],
        [Box("attention", "multi-head attention, residual, LayerNorm")],
        [Box("convolution", "two Conv1D, residual, LayerNorm")],
        [Box("pooling", "maximum over time")],
        [Box("dense", "dense layers (with the last step and\nthe mean of the pair: ours)")],
        [Box("prediction", "prediction at the target step", "output")],
    ],
    [
        *(("cells", name) for name in ("statistics", "factors", "similarity")),
        *((name, "gcmf") for name in ("statistics", "factors", "similarity")),
        ("gcmf", "tokens"),
        ("tokens", "attention"),
        ("attention", "convolution"),
        ("convolution", "pooling"),
        ("pooling", "dense"),
        ("dense", "prediction"),
    ],
)

DIAGRAMS = {"sa_moe": SA_MOE, "r2sl": R2SL, "sharp_qos": SHARP_QOS, "tpmcf": TPMCF}


def main() -> None:
    """Write all diagrams."""
    folder = Path(__file__).parent / "_static"
    for name, diagram in DIAGRAMS.items():
        (folder / f"network_{name}.svg").write_text(draw(diagram), encoding="utf-8")


if __name__ == "__main__":
    main()
