"""What the Displays share: the end of a pipeline, matplotlib on demand, axes, heat maps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from skqos._errors import about
from skqos._parameters import validated
from skqos._pipelines import last_step
from skqos.base import PairRegressor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

R = TypeVar("R")
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LINE_STYLES = ("-", "--", "-.", ":")
POINTS_PER_INCH = 72


# Types of what `plot` and its like take, by name.
OPTIONS: dict[str, list[Any]] = {
    "kind": [str, None],
    "stages": [str],
    "block": [Integral],
    "head": [Integral, None],
    "target": [Integral, None],
    "min_rows": [Integral],
    "max_groups": [Integral, None],
    "n_regions": [Integral, None],
    "target_names": ["array-like", None],
    "include_values": ["boolean"],
    "colorbar": ["boolean"],
    "im_kw": [dict, None],
    "line_kw": [dict, None],
    "bar_kw": [dict, None],
}


def check_options(function: Callable[..., R]) -> Callable[..., R]:
    """Decorate a function that groups or draws: its options have to be of the types above."""
    names = inspect.signature(function).parameters
    return validated({name: OPTIONS[name] for name in names if name in OPTIONS})(function)


def final_estimator(estimator: Any, kinds: tuple[type, ...], caller: str) -> Any:
    """Return the fitted estimator, or the one at the end of a Pipeline, as it is now.

    It is a view that a later fit in another thread does not change.

    Raises
    ------
    TypeError
        If it is none of the given kinds.
    NotFittedError
        If it is not fitted.
    """
    final = last_step(estimator)
    if not isinstance(final, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        what = type(final).__name__
        if final is not estimator:
            what = f"a Pipeline that ends in {what}"
        raise TypeError(
            f"{caller} needs a fitted {names}, or a Pipeline that ends in one; got {what}."
        )
    check_is_fitted(final)
    return final._snapshot() if isinstance(final, PairRegressor) else final


def check_matplotlib(caller: str) -> None:
    """Raise ImportError, saying what to install, if there is no matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{caller} requires matplotlib. You can install it with `pip install 'skqos[plot]'`."
        ) from error


def check_option(name: str, value: Any, options: Sequence[str]) -> None:
    """Raise ValueError if a parameter is none of its options."""
    if value not in options:
        raise ValueError(f"{name} must be one of {list(options)}; got {value!r}.")


def name_targets(n_targets: int, names: Sequence[str] | None) -> list[str]:
    """Names of targets, "target 0" and so on by default; ValueError if they are too few or many."""
    if names is None:
        return [f"target {k}" for k in range(n_targets)]
    with about("target_names"):
        names = list(names)
    if len(names) != n_targets:
        raise ValueError(
            f"target_names must have a name for each of the {n_targets} targets; got {len(names)}: "
            f"{list(names)}."
        )
    return [str(name) for name in names]


def prepare_axes(
    ax: Any, n_panels: int, size: tuple[float, float], width_ratios: Sequence[float] | None = None
) -> np.ndarray:
    """Return the given axes, or those of a new figure.

    Parameters
    ----------
    ax : Axes, array-like of Axes, or None
        What `plot` was given.
    n_panels : int
        How many are needed.
    size : tuple of float
        Width and height of a new figure, in inches.
    width_ratios : sequence of float, default=None
        Of the axes of a new figure.

    Raises
    ------
    ValueError
        If the number of axes is another, or one of them is none.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(
            1, n_panels, figsize=size, width_ratios=width_ratios, layout="constrained"
        )
        return np.atleast_1d(axes)
    from matplotlib.axes import Axes

    with about("ax"):
        axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != n_panels or not all(isinstance(one, Axes) for one in axes):
        kinds = ", ".join(sorted({type(one).__name__ for one in axes}))
        raise ValueError(
            f"ax must hold as many matplotlib Axes as there are panels, {n_panels}; got "
            f"{len(axes)} of type {kinds}."
        )
    return axes


def style(artist: type, defaults: dict[str, Any], given: dict[str, Any] | None) -> dict[str, Any]:
    """Keywords of an artist: the given ones, which may have short names, over the defaults."""
    from matplotlib.cbook import normalize_kwargs

    return {**defaults, **normalize_kwargs(given, artist)}


def draw_heat_map(
    ax: Axes,
    values: pd.DataFrame,
    *,
    texts: np.ndarray | None = None,
    im_kw: dict[str, Any] | None = None,
    colorbar_label: str | None = None,
) -> tuple[AxesImage, np.ndarray | None]:
    """Draw a table as an image whose ticks are the labels of its rows and columns.

    Parameters
    ----------
    ax : Axes
        Where.
    values : DataFrame
        Colours; NaN is left blank.
    texts : ndarray of str of the shape of `values`, default=None
        Written into the cells that are not NaN.
    im_kw : dict, default=None
        For ``imshow``.
    colorbar_label : str, default=None
        Label of a colour bar beside the axes; none without it.

    Returns
    -------
    image : AxesImage
    texts : ndarray of Text of the shape of `values`, or None
        None in cells without a text.
    """
    options = {"cmap": "viridis", "aspect": "auto", "interpolation": "nearest", **(im_kw or {})}
    image = ax.imshow(values.to_numpy(dtype=np.float64), **options)
    ax.set_facecolor("0.93")
    ax.set_xticks(range(values.shape[1]), values.columns.map(str))
    ax.set_yticks(
        range(values.shape[0]), values.index.map(str), fontsize=_row_size(ax, len(values))
    )
    if colorbar_label is not None:
        ax.figure.colorbar(image, ax=ax, label=colorbar_label)
    return image, None if texts is None else _write_cells(ax, image, texts)


def _row_size(ax: Axes, n_rows: int) -> float:
    """Size of letters that fit the height of a row, in points."""
    height = ax.get_window_extent().height / ax.figure.dpi * POINTS_PER_INCH
    return float(np.clip(0.75 * height / n_rows, 3, 9))


def _write_cells(ax: Axes, image: AxesImage, texts: np.ndarray) -> np.ndarray:
    """Write into cells, light on dark and dark on light."""
    values = image.get_array()
    written = np.full(texts.shape, None, dtype=object)
    for row, column in np.argwhere(~np.ma.getmaskarray(values)):
        red, green, blue, _ = image.cmap(image.norm(values[row, column]))
        is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        written[row, column] = ax.text(
            column,
            row,
            texts[row, column],
            ha="center",
            va="center",
            color="black" if is_light else "white",
            fontsize=8,
        )
    return written
