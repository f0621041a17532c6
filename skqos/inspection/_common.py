"""Common functions of the displays: pipelines, targets, matplotlib, axes and heat maps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skqos._errors import about
from skqos._frames import to_frame
from skqos._parameters import validated
from skqos._pipelines import last_step, transform_input
from skqos._sklearn_compat import Interval
from skqos._target_checks import as_target
from skqos.base import PairRegressor
from skqos.metrics._intervals import check_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

P = ParamSpec("P")
R = TypeVar("R")
# Colours of Okabe and Ito, which colour-blind readers can distinguish.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LINE_STYLES = ("-", "--", "-.", ":")
POINTS_PER_INCH = 72


# Types of the options of `plot` and similar functions, by name.
OPTIONS: dict[str, list[Any]] = {
    "kind": [str, None],
    "stages": [str],
    "block": [Integral],
    "head": [Integral, None],
    "target": [Integral, None],
    "min_rows": [Integral],
    "max_groups": [Integral, None],
    "n_regions": [Integral, None],
    "n_bands": [Interval(Integral, 1, None, closed="left")],
    "n_bins": [Interval(Integral, 1, None, closed="left")],
    "max_rows": [Interval(Integral, 1, None, closed="left")],
    "confidence_level": [Interval(Real, 0, 1, closed="neither")],
    "limit": [Interval(Real, None, None, closed="neither")],
    "strategy": [str],
    "target_names": ["array-like", None],
    "include_values": ["boolean"],
    "colorbar": ["boolean"],
    "im_kw": [dict, None],
    "line_kw": [dict, None],
    "bar_kw": [dict, None],
    "fill_kw": [dict, None],
    "scatter_kw": [dict, None],
}


def check_options(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function whose options must have the types above."""
    names = inspect.signature(function).parameters
    return validated({name: OPTIONS[name] for name in names if name in OPTIONS})(function)


def final_estimator(estimator: Any, kinds: tuple[type, ...], caller: str) -> Any:
    """Return a view of the fitted estimator, or of the last step of a Pipeline or search.

    A later fit in another thread does not change the view.

    Raises
    ------
    TypeError
        If it is not of one of the given classes.
    NotFittedError
        If it is not fitted.
    """
    final = last_step(estimator)
    if not isinstance(final, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        what = type(final).__name__
        if isinstance(estimator, Pipeline):
            what = f"a Pipeline that ends in {what}"
        raise TypeError(
            f"{caller} needs a fitted {names}, or a Pipeline that ends with one; got {what}."
        )
    check_is_fitted(final)
    return final._snapshot() if isinstance(final, PairRegressor) else final


def take_target(y: Any, name: str, target: int | None) -> np.ndarray:
    """Return the values of one target, (n,); only `y_true` may contain NaN."""
    y = as_target(y, name, allow_nan=name == "y_true")
    columns = y.reshape(len(y), -1)
    return columns[:, find_target(columns.shape[1], name, target)]


def predicts_quantiles(estimator: Any, X: Any, caller: str) -> tuple[Any, Any]:
    """Return a view of the regressor at the end of a Pipeline or search, and its input X.

    Raises
    ------
    TypeError
        If its ``predict`` does not accept ``quantiles``.
    """
    final = last_step(estimator)
    predict = getattr(final, "predict", None)
    parameters = inspect.signature(predict).parameters if predict else {}
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if "quantiles" not in parameters and not takes_any:
        raise TypeError(
            f"{caller} needs a fitted regressor whose predict accepts quantiles; got "
            f"{type(final).__name__}."
        )
    final = final._snapshot() if isinstance(final, PairRegressor) else final
    return final, transform_input(estimator, X)


def take_intervals(
    y_true: Any, intervals: Any, target: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of one target, (n,), and its intervals, (n, 2)."""
    y, lower, upper = check_intervals(y_true, intervals)
    k = find_target(y.shape[1], "y_true", target)
    return y[:, k], np.column_stack([lower[:, k], upper[:, k]])


def find_target(n_targets: int, name: str, target: int | None) -> int:
    """Return the number of the target; raise ValueError if it must be given and is not."""
    if target is None:
        if n_targets > 1:
            raise ValueError(f"{name} has {n_targets} columns; select one with `target`.")
        return 0
    if not 0 <= target < n_targets:
        raise ValueError(
            f"target={target} does not exist in {name}, which has {n_targets} column(s)."
        )
    return target


def find_groups(groups: Any, X: Any, parameter: str) -> Any:
    """Return the column of X with that name, or the given groups."""
    if not isinstance(groups, str):
        return groups
    frame = to_frame(X, "X")
    columns = [] if frame is None else list(frame.columns)
    if groups not in columns:
        raise ValueError(
            f"{parameter}={groups!r} is not a column of X, which has "
            f"{columns or 'no column names'}. Give the name of a column, or a label for each row."
        )
    return frame[groups]


def binomial_range(share: Any, n_rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of 95 % of the shares of hits for independent rows.

    Parameters
    ----------
    share : float or ndarray of shape (n_groups,)
        Probability of a hit.
    n_rows : ndarray of shape (n_groups,)
        Number of rows, at least 1.

    Returns
    -------
    low, high : ndarray of float64 of shape (n_groups,)

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.inspection._common import binomial_range
    >>> low, high = binomial_range(0.9, np.array([10, 1000]))
    >>> low.tolist(), high.tolist()
    ([0.7, 0.881], [1.0, 0.918])
    """
    # Slow to import, and only needed for plots.
    from scipy.stats import binom

    low, high = binom.interval(0.95, n_rows, share)
    return np.maximum(low, 0) / n_rows, high / n_rows


def check_matplotlib(caller: str) -> None:
    """Raise ImportError with the command to install matplotlib, if it is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{caller} requires matplotlib. You can install it with `pip install 'skqos[plot]'`."
        ) from error


def check_option(name: str, value: Any, options: Sequence[str]) -> None:
    """Raise ValueError if a parameter has an invalid value."""
    if value not in options:
        raise ValueError(f"{name} must be one of {list(options)}; got {value!r}.")


def choose_names(target_names: Sequence[str] | None, estimator: Any) -> Sequence[str] | None:
    """Return the given names, or those that an estimator knows from the columns of y."""
    if target_names is not None:
        return target_names
    return getattr(estimator, "target_names_in_", None)


def name_targets(n_targets: int, names: Sequence[str] | None) -> list[str]:
    """Return the names of targets; raise ValueError if their number is wrong."""
    if names is None:
        return [f"target {k}" for k in range(n_targets)]
    with about("target_names"):
        names = list(names)
    if len(names) != n_targets:
        raise ValueError(
            f"target_names must contain a name for each of the {n_targets} targets; got "
            f"{len(names)}: {list(names)}."
        )
    return [str(name) for name in names]


def prepare_axes(
    ax: Any, n_panels: int, size: tuple[float, float], width_ratios: Sequence[float] | None = None
) -> np.ndarray:
    """Return the given axes, or the axes of a new figure.

    Parameters
    ----------
    ax : Axes, array-like of Axes, or None
        Argument of `plot`.
    n_panels : int
        Number of panels.
    size : tuple of float
        Width and height of a new figure, in inches.
    width_ratios : sequence of float, default=None
        Width ratios of the axes of a new figure.

    Raises
    ------
    ValueError
        If the number of axes is wrong, or one of them is not an Axes.
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
            f"ax must contain one matplotlib Axes for each of the {n_panels} panels; got "
            f"{len(axes)} of type {kinds}."
        )
    return axes


def style(artist: type, defaults: dict[str, Any], given: dict[str, Any] | None) -> dict[str, Any]:
    """Return keyword arguments of an artist; the given ones, also as aliases, replace defaults."""
    from matplotlib.cbook import normalize_kwargs

    return {**defaults, **normalize_kwargs(given or {}, artist)}


def draw_heat_map(
    ax: Axes,
    values: pd.DataFrame,
    *,
    texts: np.ndarray | None = None,
    im_kw: dict[str, Any] | None = None,
    colorbar_label: str | None = None,
) -> tuple[AxesImage, np.ndarray | None]:
    """Plot a table as an image; the ticks are the labels of its rows and columns.

    Parameters
    ----------
    ax : Axes
        Axes to draw on.
    values : DataFrame
        Plotted values; NaN is blank.
    texts : ndarray of str of the shape of `values`, default=None
        Texts of the cells that are not NaN.
    im_kw : dict, default=None
        Keyword arguments for ``imshow``.
    colorbar_label : str, default=None
        Label of the colour bar. If None, there is no colour bar.

    Returns
    -------
    image : AxesImage
    texts : ndarray of Text of the shape of `values`, or None
        Texts of the cells; None for cells without text.
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
    """Return the font size in points that fits the height of a row."""
    height = ax.get_window_extent().height / ax.figure.dpi * POINTS_PER_INCH
    return float(np.clip(0.75 * height / n_rows, 3, 9))


def _write_cells(ax: Axes, image: AxesImage, texts: np.ndarray) -> np.ndarray:
    """Write texts into cells, in a colour that contrasts with the cell."""
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
