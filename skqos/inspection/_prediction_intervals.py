"""Prediction intervals and measurements of rows."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skqos._errors import check_same_length
from skqos._pipelines import target_names_of
from skqos._target_checks import check_target_names
from skqos.inspection._common import (
    COLORS,
    predicts_quantiles,
    style,
    take_intervals,
    take_target,
)
from skqos.inspection._display import Display, drawing
from skqos.metrics._intervals import interval_quantiles


class PredictionIntervalDisplay(Display):
    """Prediction intervals and measurements of rows, in the order of the prediction.

    Use `from_estimator` or `from_predictions` to create the plot.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,)
        Measured values, without NaN.

    intervals : ndarray of shape (n_samples, 2)
        Lower and upper ends of the intervals.

    y_pred : ndarray of shape (n_samples,), default=None
        Predictions. If None, rows are in the order of the centres of their intervals.

    Attributes
    ----------
    y_true, intervals, y_pred : ndarray or None
        As passed to the constructor.

    rows_ : ndarray of int of shape (n_shown,)
        Plotted rows, from left to right.

    ax_ : Axes
        Axes of the plot.

    figure_ : Figure
        Figure of the plot.

    fill_ : FillBetweenPolyCollection
        Intervals.

    line_ : Line2D or None
        Predictions.

    covered_, missed_ : PathCollection
        Measured values inside and outside the interval.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skqos.inspection import PredictionIntervalDisplay
    >>> y, intervals = [3.0, 1.0, 2.0], [[2.0, 4.0], [0.0, 0.5], [1.0, 2.0]]
    >>> display = PredictionIntervalDisplay.from_predictions(y, intervals)
    >>> display.rows_.tolist(), display.missed_.get_offsets().tolist()
    ([1, 2, 0], [[0.0, 1.0]])
    >>> plt.close(display.figure_)
    """

    def __init__(
        self, *, y_true: np.ndarray, intervals: np.ndarray, y_pred: np.ndarray | None = None
    ) -> None:
        self.y_true = y_true
        self.intervals = intervals
        self.y_pred = y_pred

    @classmethod
    @drawing
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        confidence_level: float = 0.9,
        target: int | None = None,
        max_rows: int = 200,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
        fill_kw: dict[str, Any] | None = None,
        scatter_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the predictions and intervals of a fitted regressor on given rows.

        Parameters
        ----------
        estimator : regressor, Pipeline or search
            Fitted regressor whose ``predict`` accepts ``quantiles``.
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Rows with columns as in the estimator's `fit`. They should not be training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS of these rows; NaN where nothing was observed.
        confidence_level : float, default=0.9
            Confidence level of the intervals, above 0 and below 1; at most 0.98 for the intervals
            of this package.
        target
            As in `from_predictions`.
        max_rows, ax, line_kw, fill_kw, scatter_kw
            As in `plot`.

        Returns
        -------
        PredictionIntervalDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            If matplotlib is not installed, or the estimator is not fitted or does not predict
            quantiles.
        ValueError
            As in `from_predictions`.
        """
        caller = f"{cls.__name__}.from_estimator"
        final, X = predicts_quantiles(estimator, X, caller)
        check_target_names(y, target_names_of(final))
        return cls.from_predictions(
            y,
            final.predict(X, quantiles=interval_quantiles(confidence_level)),
            y_pred=final.predict(X),
            target=target,
            max_rows=max_rows,
            ax=ax,
            line_kw=line_kw,
            fill_kw=fill_kw,
            scatter_kw=scatter_kw,
        )

    @classmethod
    @drawing
    def from_predictions(
        cls,
        y_true: ArrayLike,
        intervals: ArrayLike,
        *,
        y_pred: ArrayLike | None = None,
        target: int | None = None,
        max_rows: int = 200,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
        fill_kw: dict[str, Any] | None = None,
        scatter_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot given intervals.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
            Observed values in any unit; rows with NaN, where nothing was observed, are omitted.
        intervals : array-like of shape (n_samples, 2) or (n_samples, n_targets, 2)
            Lower and upper end of each interval.
        y_pred : array-like of the shape of `y_true`, default=None
            Finite predictions.
        target : int, default=None
            Column of `y_true`, `intervals` and `y_pred`. Required if they have several.
        max_rows, ax, line_kw, fill_kw, scatter_kw
            As in `plot`.

        Returns
        -------
        PredictionIntervalDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            As in `skqos.metrics.interval_coverage` and in `plot`, if there are several targets and
            `target` is None, or if there is no observation.
        """
        y, ends = take_intervals(y_true, intervals, target)
        observed = ~np.isnan(y)
        if not observed.any():
            raise ValueError("y_true is NaN in every row; at least one observed value is needed.")
        predicted = None
        if y_pred is not None:
            predicted = take_target(y_pred, "y_pred", target)
            check_same_length(y_true=y, y_pred=predicted)
            predicted = predicted[observed]
        display = cls(y_true=y[observed], intervals=ends[observed], y_pred=predicted)
        return display.plot(
            ax, max_rows=max_rows, line_kw=line_kw, fill_kw=fill_kw, scatter_kw=scatter_kw
        )

    @drawing
    def plot(
        self,
        ax: Any = None,
        *,
        max_rows: int = 200,
        line_kw: dict[str, Any] | None = None,
        fill_kw: dict[str, Any] | None = None,
        scatter_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot intervals, predictions and measured values.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw on. If None, a new figure is created.
        max_rows : int, default=200
            Maximum number of plotted rows, evenly spaced in the order of the prediction.
        line_kw, fill_kw, scatter_kw : dict, default=None
            Keyword arguments for the predictions (``Axes.plot``), the intervals
            (``Axes.fill_between``) and the measured values (``Axes.scatter``).

        Returns
        -------
        self : PredictionIntervalDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `ax` is not an Axes.
        """
        from matplotlib.collections import PolyCollection
        from matplotlib.lines import Line2D

        self._take_axes(ax, (6, 3.5))
        self.rows_ = self._choose_rows(max_rows)
        positions = np.arange(len(self.rows_))
        lower, upper = self.intervals[self.rows_].T
        options = {"color": COLORS[0], "alpha": 0.25, "linewidth": 0, "label": "interval"}
        self.fill_ = self.ax_.fill_between(
            positions, lower, upper, **style(PolyCollection, options, fill_kw)
        )
        self.line_ = None
        if self.y_pred is not None:
            options = {"color": COLORS[0], "linewidth": 1, "label": "prediction"}
            (self.line_,) = self.ax_.plot(
                positions, self.y_pred[self.rows_], **style(Line2D, options, line_kw)
            )
        self._draw_measured(positions, lower, upper, scatter_kw)
        by = "middle of the interval" if self.y_pred is None else "prediction"
        self.ax_.set(xlabel=f"rows in the order of the {by}", ylabel="y", xticks=[])
        self.ax_.legend(frameon=False)
        return self

    def _choose_rows(self, max_rows: int) -> np.ndarray:
        key = self.intervals.mean(axis=1) if self.y_pred is None else self.y_pred
        order = np.argsort(key, kind="stable")
        n_shown = min(max_rows, len(order))
        return order[np.linspace(0, len(order) - 1, n_shown).round().astype(np.int64)]

    def _draw_measured(
        self,
        positions: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        scatter_kw: dict[str, Any] | None,
    ) -> None:
        from matplotlib.collections import PathCollection

        y = self.y_true[self.rows_]
        is_covered = (lower <= y) & (y <= upper)
        self.covered_, self.missed_ = (
            self.ax_.scatter(
                positions[rows],
                y[rows],
                **style(PathCollection, {"color": color, "s": 8, "label": label}, scatter_kw),
            )
            for rows, color, label in (
                (is_covered, "0.3", "measured, covered"),
                (~is_covered, COLORS[1], "measured, missed"),
            )
        )
