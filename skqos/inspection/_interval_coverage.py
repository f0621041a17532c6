"""Coverage of prediction intervals by band of the prediction or by group."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from skqos._pipelines import target_names_of
from skqos._target_checks import check_target_names
from skqos.inspection._common import (
    COLORS,
    binomial_range,
    find_groups,
    predicts_quantiles,
    style,
    take_intervals,
    take_target,
)
from skqos.inspection._display import Display, drawing
from skqos.metrics._intervals import cover_rows, group_rows, interval_quantiles

# More labels are not readable.
MAX_LABELS = 40


class IntervalCoverageDisplay(Display):
    """Coverage of prediction intervals by band of the prediction or by group.

    There is a point for each band or group, and a line at the confidence level. The bar behind a
    point is the range that contains 95 % of the shares expected for this number of rows if the
    intervals are calibrated. Use `from_estimator` or `from_predictions` to create the plot.

    Parameters
    ----------
    coverage : DataFrame of shape (n_groups, 2)
        The columns are ``coverage``, from 0 to 1, and ``n_rows``, the number of observed rows. The
        index holds bands, as an IntervalIndex, or labels; its name is the label of the axis.

    confidence_level : float, default=0.9
        Confidence level of the intervals.

    Attributes
    ----------
    coverage : DataFrame
        As passed to the constructor.

    confidence_level : float
        As passed to the constructor.

    shown_ : DataFrame
        Plotted rows from left to right: bands in their order, groups by ascending coverage.

    ax_ : Axes
        Axes of the plot.

    figure_ : Figure
        Figure of the plot.

    line_ : Line2D
        Points of the bands or groups.

    level_line_ : Line2D
        Line at the confidence level.

    bars_ : BarContainer
        Ranges of the expected shares.

    See Also
    --------
    skqos.metrics.interval_coverage : Compute the coverage.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from skqos.inspection import IntervalCoverageDisplay
    >>> y = np.arange(100.0)
    >>> intervals = np.column_stack([y - 1, np.where(y < 50, y + 1, y - 0.5)])
    >>> display = IntervalCoverageDisplay.from_predictions(y, intervals, by=y, n_bands=4)
    >>> display.coverage["coverage"].tolist()
    [1.0, 1.0, 0.0, 0.0]
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, coverage: pd.DataFrame, confidence_level: float = 0.9) -> None:
        self.coverage = coverage
        self.confidence_level = confidence_level

    @classmethod
    @drawing
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        groups: str | ArrayLike | None = None,
        n_bands: int = 10,
        min_rows: int = 1,
        confidence_level: float = 0.9,
        target: int | None = None,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the coverage of the intervals of a fitted regressor on given rows.

        Parameters
        ----------
        estimator : regressor, Pipeline or search
            Fitted regressor whose ``predict`` accepts ``quantiles``.
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Rows with columns as in the estimator's `fit`. They should not be training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS of these rows; NaN where nothing was observed.
        groups : str or array-like of shape (n_samples,), default=None
            Label of each row, or the name of a column of X after the transformers of a Pipeline,
            for example ``"user"``. If None, the rows are divided into bands of the prediction.
        n_bands, min_rows, target
            As in `from_predictions`.
        confidence_level : float, default=0.9
            Confidence level of the intervals, above 0 and below 1; at most 0.98 for the intervals
            of this package.
        ax, line_kw, bar_kw
            As in `plot`.

        Returns
        -------
        IntervalCoverageDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            If matplotlib is not installed, or the estimator is not fitted or does not predict
            quantiles.
        ValueError
            If a column does not exist, and as in `from_predictions`.
        """
        caller = f"{cls.__name__}.from_estimator"
        final, X = predicts_quantiles(estimator, X, caller)
        check_target_names(y, target_names_of(final))
        intervals = final.predict(X, quantiles=interval_quantiles(confidence_level))
        by = None
        if groups is None:
            by = pd.Series(take_target(final.predict(X), "y_pred", target), name="prediction")
        return cls.from_predictions(
            y,
            intervals,
            groups=find_groups(groups, X, "groups"),
            by=by,
            n_bands=n_bands,
            min_rows=min_rows,
            confidence_level=confidence_level,
            target=target,
            ax=ax,
            line_kw=line_kw,
            bar_kw=bar_kw,
        )

    @classmethod
    @drawing
    def from_predictions(
        cls,
        y_true: ArrayLike,
        intervals: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        by: ArrayLike | None = None,
        n_bands: int = 10,
        min_rows: int = 1,
        confidence_level: float = 0.9,
        target: int | None = None,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the coverage of given intervals.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
            Observed values in any unit; NaN where nothing was observed.
        intervals : array-like of shape (n_samples, 2) or (n_samples, n_targets, 2)
            Lower and upper end of each interval.
        groups : array-like of shape (n_samples,), default=None
            Label of each row, for example its user.
        by : array-like of shape (n_samples,), default=None
            Numbers that are divided into bands, for example the predictions. Either `by` or
            `groups` must be given.
        n_bands : int, default=10
            Number of bands of `by`, with about the same number of rows.
        min_rows : int, default=1
            Minimum number of observed rows; smaller bands and groups are omitted.
        confidence_level : float, default=0.9
            Confidence level of the intervals, above 0 and below 1; at most 0.98 for the intervals
            of this package.
        target : int, default=None
            Column of `y_true` and of `intervals`. Required if they have several.
        ax, line_kw, bar_kw
            As in `plot`.

        Returns
        -------
        IntervalCoverageDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            As in `skqos.metrics.interval_coverage` and in `plot`, if there are several targets and
            `target` is None, or if no group has `min_rows` observed rows.
        """
        if min_rows < 1:
            raise ValueError(f"min_rows must be 1 or more; got {min_rows}.")
        y, ends = take_intervals(y_true, intervals, target)
        covers = cover_rows(y, *ends.T)
        coverage = _count(covers, *group_rows(groups, by, n_bands, len(y)), min_rows)
        display = cls(coverage=coverage, confidence_level=confidence_level)
        return display.plot(ax, line_kw=line_kw, bar_kw=bar_kw)

    @drawing
    def plot(
        self,
        ax: Any = None,
        *,
        line_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the coverage.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw on. If None, a new figure is created.
        line_kw, bar_kw : dict, default=None
            Keyword arguments for the points (``Axes.plot``) and the ranges (``Axes.bar``).

        Returns
        -------
        self : IntervalCoverageDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `ax` is not an Axes.
        """
        from matplotlib.lines import Line2D
        from matplotlib.patches import Rectangle

        self.shown_ = self.coverage
        if not isinstance(self.coverage.index, pd.IntervalIndex):
            self.shown_ = self.coverage.sort_values("coverage", kind="stable")
        self._take_axes(ax, (6, 3.5))
        positions = np.arange(len(self.shown_))
        low, high = binomial_range(self.confidence_level, self.shown_["n_rows"].to_numpy())
        options = {"color": "0.88", "label": "expected range (95 %)", "width": 0.9}
        self.bars_ = self.ax_.bar(
            positions, high - low, bottom=low, **style(Rectangle, options, bar_kw)
        )
        self.level_line_ = self.ax_.axhline(self.confidence_level, color="0.3", linestyle="--")
        self.level_line_.set_label("confidence level")
        options = {"color": COLORS[0], "marker": "o", "linestyle": "", "label": "covered"}
        (self.line_,) = self.ax_.plot(
            positions, self.shown_["coverage"], **style(Line2D, options, line_kw)
        )
        self._label()
        return self

    def _label(self) -> None:
        index = self.shown_.index
        self.ax_.set(xlabel=index.name, ylabel="share covered", xticks=[])
        self.ax_.legend(frameon=False)
        if len(index) > MAX_LABELS:
            self.ax_.set_xlabel(f"{index.name} ({len(index):,})")
            return
        labels = index.map(str)
        if isinstance(index, pd.IntervalIndex):
            labels = [f"{band.left:.3g} to {band.right:.3g}" for band in index]
        self.ax_.set_xticks(
            range(len(index)), labels, rotation=45, ha="right", rotation_mode="anchor"
        )


def _count(covers: np.ndarray, codes: np.ndarray, index: pd.Index, min_rows: int) -> pd.DataFrame:
    """Return the coverage and the number of observed rows of each group with enough rows."""
    table = pd.Series(covers).groupby(codes).agg(["mean", "count"])
    table.columns = ["coverage", "n_rows"]
    table.index = index[table.index]
    table = table[table["n_rows"] >= min_rows]
    if table.empty:
        raise ValueError(f"y_true: no band or group has min_rows={min_rows} observed rows.")
    return table
