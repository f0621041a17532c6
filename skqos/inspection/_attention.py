"""Attention over the time steps of a window."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from skqos._pipelines import transform_input
from skqos.inspection._common import (
    COLORS,
    LINE_STYLES,
    check_option,
    draw_heat_map,
    final_estimator,
    style,
)
from skqos.inspection._display import Display, drawing
from skqos.tpmcf.estimator import TPMCFRegressor


class AttentionDisplay(Display):
    """Attention of `TPMCFRegressor` over the steps of a window, averaged over rows.

    With several members, the weights are also averaged over the members.

    Use `from_estimator` to create the plot from a fitted estimator.

    Parameters
    ----------
    weights : ndarray of shape (n_samples, n_blocks, n_heads, window, window)
        Result of ``attention_weights(X)`` of a fitted estimator: attention of the step on the
        fourth axis to the step on the fifth axis.

    window_times : ndarray of shape (n_samples, window), default=None
        Result of ``window_times(X)``: the time steps of the window of each row, as integers or time
        stamps, NaN or NaT where nothing was measured. If None, all windows are assumed to be
        complete.

    n_later : int, default=0
        Number of steps of the window after the step of the row, with ``window_side="both"``.

    Attributes
    ----------
    weights, window_times, n_later
        As passed to the constructor.

    attention_ : DataFrame of shape (window, window), or (window, n_heads)
        Plotted values; see `plot`. The labels of steps are their times if all rows have the same
        complete window, and otherwise their distances from the last step. Steps that are missing in
        all rows are NaN.

    ax_ : Axes
        Axes of the plot.

    figure_ : Figure
        Figure of the plot.

    image_ : AxesImage or None
        Heat map.

    lines_ : list of Line2D or None
        Lines of the heads.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skqos import TPMCFRegressor
    >>> from skqos.datasets import make_qos
    >>> from skqos.inspection import AttentionDisplay
    >>> data = make_qos(10, 15, density=0.5, n_time_steps=5, random_state=0)
    >>> model = TPMCFRegressor(window=3, max_epochs=1, random_state=0)
    >>> display = AttentionDisplay.from_estimator(model.fit(data.X, data.y), [[0, 7, 4], [3, 2, 4]])
    >>> display.attention_.index.tolist()
    [2, 3, 4]
    >>> plt.close(display.figure_)
    """

    def __init__(
        self, *, weights: np.ndarray, window_times: np.ndarray | None = None, n_later: int = 0
    ) -> None:
        self.weights = weights
        self.window_times = window_times
        self.n_later = n_later

    @classmethod
    @drawing
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        kind: Literal["matrix", "received"] = "matrix",
        block: int = -1,
        head: int | None = None,
        colorbar: bool = True,
        ax: Any = None,
        im_kw: dict[str, Any] | None = None,
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the attention of a fitted estimator, averaged over given rows.

        Parameters
        ----------
        estimator : TPMCFRegressor, Pipeline or search
            Fitted estimator, or a Pipeline or fitted search that ends with one.
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Rows to average over, with columns as in the estimator's `fit`. With one row, its own
            attention is plotted.
        kind, block, head, colorbar, ax, im_kw, line_kw
            As in `plot`.

        Returns
        -------
        AttentionDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            If matplotlib is not installed, or the estimator is not fitted or of another class.
        AttributeError
            If the estimator has no attention, because of `temporal` or `modules`.
        ValueError
            If X is not as described, or as in `plot`.
        """
        caller = f"{cls.__name__}.from_estimator"
        final = final_estimator(estimator, (TPMCFRegressor,), caller)
        X = transform_input(estimator, X)
        display = cls(
            weights=final.attention_weights(X),
            window_times=final.window_times(X),
            n_later=final.module_.n_later,
        )
        return display.plot(
            ax, kind=kind, block=block, head=head, colorbar=colorbar, im_kw=im_kw, line_kw=line_kw
        )

    @drawing
    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["matrix", "received"] = "matrix",
        block: int = -1,
        head: int | None = None,
        colorbar: bool = True,
        im_kw: dict[str, Any] | None = None,
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the attention, averaged over rows.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw on. If None, a new figure is created.
        kind : {"matrix", "received"}, default="matrix"
            "matrix" is a heat map of the attention of each step (row) to each step (column), which
            sums to 1 along a row. "received" is one line per head: the attention that each step
            receives on average.
        block : int, default=-1
            Block of the encoder; negative values count from the last block.
        head : int or None, default=None
            Head to plot. If None, the heat map is averaged over the heads, and there is one line
            per head.
        colorbar : bool, default=True
            Whether to add a colour bar to the heat map.
        im_kw, line_kw : dict, default=None
            Keyword arguments for ``Axes.imshow`` and for all lines (``Axes.plot``).

        Returns
        -------
        self : AttentionDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `kind` is invalid, `block` or `head` does not exist, or `ax` is not an Axes.
        """
        check_option("kind", kind, ("matrix", "received"))
        n_blocks, n_heads = self.weights.shape[1:3]
        _check_position("block", block, n_blocks)
        heads = list(range(n_heads))
        if head is not None:
            _check_position("head", head, n_heads)
            heads = [heads[head]]
        averaged = self._average(self.weights[:, block])[heads]
        labels = self._step_labels()
        self._take_axes(ax, (4.5, 3.6))
        self.image_: Any = None
        self.lines_: list[Any] | None = None
        if kind == "matrix":
            self.attention_ = pd.DataFrame(averaged.mean(axis=0), labels, labels)
            self._draw_matrix(colorbar, im_kw)
        else:
            received = np.nanmean(averaged, axis=1).T
            self.attention_ = pd.DataFrame(received, labels, [f"head {k}" for k in heads])
            self._draw_received(line_kw)
        return self

    def _average(self, weights: np.ndarray) -> np.ndarray:
        """Average weights (n, n_heads, window, window) over rows; NaN for steps without rows."""
        present = self._present()
        total = np.einsum("nhij,ni->hij", weights, present)
        with np.errstate(invalid="ignore"):
            return total / present.sum(axis=0)[:, None]

    def _present(self) -> np.ndarray:
        """Return which steps of the window of each row are present."""
        if self.window_times is None:
            return np.ones((len(self.weights), self.weights.shape[-1]), dtype=bool)
        return ~pd.isna(self.window_times)

    def _uniform(self) -> np.ndarray:
        """Return the attention that each step would receive if all weights were equal."""
        present = self._present()
        alike = present / present.sum(axis=1, keepdims=True)
        return np.nanmean(
            self._average(np.repeat(alike[:, None, None], alike.shape[1], axis=2))[0], axis=0
        )

    def _step_labels(self) -> pd.Index:
        times = self.window_times
        if times is not None and (times == times[0]).all():
            is_number = times.dtype.kind == "f"
            return pd.Index(times[0].astype(np.int64) if is_number else times[0], name="time step")
        window = self.weights.shape[-1]
        first = 1 - window + self.n_later
        name = "step (0 is that of the row)" if self.n_later else "step (0 is the last)"
        return pd.RangeIndex(first, first + window, name=name)

    def _draw_matrix(self, colorbar: bool, im_kw: dict[str, Any] | None) -> None:
        self.image_, _ = draw_heat_map(
            self.ax_,
            self.attention_,
            im_kw={"vmin": 0, **(im_kw or {})},
            colorbar_label="attention" if colorbar else None,
        )
        name = self.attention_.index.name
        self.ax_.set(xlabel=f"to {name}", ylabel=f"of {name}")

    def _draw_received(self, line_kw: dict[str, Any] | None) -> None:
        from matplotlib.lines import Line2D
        from matplotlib.ticker import MaxNLocator

        steps = self.attention_.index
        self.lines_ = []
        for k, (label, received) in enumerate(self.attention_.items()):
            options = {
                "color": COLORS[k % len(COLORS)],
                "linestyle": LINE_STYLES[k % len(LINE_STYLES)],
                "marker": ".",
                "label": label,
            }
            self.lines_ += self.ax_.plot(steps, received, **style(Line2D, options, line_kw))
        uniform = self._uniform()
        self.ax_.plot(steps, uniform, color="0.6", linewidth=1, zorder=0, label="uniform")
        self.ax_.set(xlabel=steps.name, ylabel="attention received")
        # Space for the legend above the lines.
        self.ax_.set_ylim(0, 1.4 * max(uniform.max(), self.attention_.to_numpy().max()))
        if not isinstance(steps, pd.DatetimeIndex):
            self.ax_.xaxis.set_major_locator(MaxNLocator(integer=True))
        self.ax_.legend(frameon=False, loc="upper left", ncols=min(len(self.lines_) + 1, 4))


def _check_position(name: str, position: int, n: int) -> None:
    if not -n <= position < n:
        raise ValueError(f"{name}={position} does not exist; it must be from 0 to {n - 1}.")
