"""What the Displays share: ends of pipelines, targets, matplotlib on demand, axes, heat maps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
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


def take_target(y: Any, name: str, target: int | None) -> np.ndarray:
    """Values of one target, (n,); NaN only in `y_true`; errors as of `find_target`."""
    y = as_target(y, name, allow_nan=name == "y_true")
    columns = y.reshape(len(y), -1)
    return columns[:, find_target(columns.shape[1], name, target)]


def predicts_quantiles(estimator: Any, X: Any, caller: str) -> tuple[Any, Any]:
    """Return the regressor at the end of a Pipeline, as it is now, and X as it gets it.

    Raises
    ------
    TypeError
        If its ``predict`` does not take ``quantiles``.
    """
    final = last_step(estimator)
    predict = getattr(final, "predict", None)
    parameters = inspect.signature(predict).parameters if predict else {}
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if "quantiles" not in parameters and not takes_any:
        raise TypeError(
            f"{caller} needs a fitted regressor whose predict takes quantiles; got "
            f"{type(final).__name__}."
        )
    final = final._snapshot() if isinstance(final, PairRegressor) else final
    return final, transform_input(estimator, X)


def take_intervals(
    y_true: Any, intervals: Any, target: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Values of one target, (n,), and its intervals, (n, 2)."""
    y, lower, upper = check_intervals(y_true, intervals)
    k = find_target(y.shape[1], "y_true", target)
    return y[:, k], np.column_stack([lower[:, k], upper[:, k]])


def find_target(n_targets: int, name: str, target: int | None) -> int:
    """Return the number of the target; ValueError if there are several and none is named."""
    if target is None:
        if n_targets > 1:
            raise ValueError(f"{name} has {n_targets} columns: say by `target` which to take.")
        return 0
    if not 0 <= target < n_targets:
        raise ValueError(f"target={target} is not in {name}, which has {n_targets} column(s).")
    return target


def find_groups(groups: Any, X: Any, parameter: str) -> Any:
    """Return the column of X of that name, or the groups as they are."""
    if not isinstance(groups, str):
        return groups
    frame = to_frame(X, "X")
    columns = [] if frame is None else list(frame.columns)
    if groups not in columns:
        raise ValueError(
            f"{parameter}={groups!r} is no column of X, which has "
            f"{columns or 'no names, being an array'}. Name one, or give a label for each row."
        )
    return frame[groups]


def binomial_range(share: Any, n_rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of 95 % of the shares of hits among rows that each hit by chance.

    Parameters
    ----------
    share : float or ndarray of shape (n_groups,)
        Probability of a hit.
    n_rows : ndarray of shape (n_groups,)
        At least 1.

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
    # Takes its time to import, which only those who draw have.
    from scipy.stats import binom

    low, high = binom.interval(0.95, n_rows, share)
    return np.maximum(low, 0) / n_rows, high / n_rows


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

    return {**defaults, **normalize_kwargs(given or {}, artist)}


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
