"""Errors by group of users and of services."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from skqos._errors import check_same_length
from skqos._pipelines import last_step, target_names_of, transform_input
from skqos._target_checks import check_target_names
from skqos.inspection._common import (
    COLORS,
    check_options,
    draw_heat_map,
    find_groups,
    style,
    take_target,
)
from skqos.inspection._display import Display, drawing
from skqos.metrics._common import name_missing

OTHER = "other"


@check_options
def group_errors(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    user_groups: ArrayLike | None = None,
    service_groups: ArrayLike | None = None,
    min_rows: int = 10,
    max_groups: int | None = 10,
    target: int | None = None,
) -> pd.DataFrame:
    """Mean absolute error of each group of users, of services, or of both.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observed values in any unit; NaN where nothing was observed.

    y_pred : array-like of the shape of `y_true`
        Finite predictions in the unit of `y_true`.

    user_groups, service_groups : array-like of shape (n_samples,), default=None
        Group of the user and of the service of each row, as labels of any kind; a missing value is
        the group "unknown". At least one of the two must be given.

    min_rows : int, default=10
        Groups with fewer observed rows are merged into the group "other".

    max_groups : int or None, default=10
        Maximum number of groups of users, and of services, in addition to "other". The largest
        groups are kept and the others merged. If None, all are kept.

    target : int, default=None
        Column of `y_true` and `y_pred`. Required if they have several.

    Returns
    -------
    DataFrame of shape (n_groups, 2)
        The columns are ``mean_absolute_error``, in the unit of y, and ``n_rows``, the number of
        observed rows. The index holds the labels of the user groups, of the service groups, or one
        level for each, as strings. The groups of a level are in descending order of their error,
        with "other" last. If the groups are Series, the levels have their names, otherwise
        user_group and service_group.

    Raises
    ------
    ValueError
        If lengths differ, there are no groups or no observed rows, y has several columns and
        `target` is None, or a parameter is out of range.

    Examples
    --------
    >>> from skqos.inspection import group_errors
    >>> y, prediction = [1.0, 2.0, 3.0, 4.0], [1.0, 2.5, 2.5, 6.0]
    >>> errors = group_errors(y, prediction, user_groups=["a", "b", "b", "c"], min_rows=1)
    >>> errors["mean_absolute_error"].to_dict()
    {'c': 2.0, 'b': 0.5, 'a': 0.0}
    """
    if user_groups is None and service_groups is None:
        raise ValueError("Give user_groups, service_groups, or both.")
    _check_limits(min_rows, max_groups)
    y_true = take_target(y_true, "y_true", target)
    y_pred = take_target(y_pred, "y_pred", target)
    check_same_length(y_true=y_true, y_pred=y_pred)
    observed = ~np.isnan(y_true)
    if not observed.any():
        raise ValueError("y_true is NaN in every row; at least one observed value is needed.")
    keys = [
        _merge_small(_read_labels(groups, side, len(y_true))[observed], min_rows, max_groups)
        for side, groups in (("user", user_groups), ("service", service_groups))
        if groups is not None
    ]
    errors = pd.Series(np.abs(y_pred - y_true)[observed])
    table = errors.groupby([key.to_numpy() for key in keys]).agg(["mean", "size"])
    table.columns = ["mean_absolute_error", "n_rows"]
    table.index.names = [key.name for key in keys]
    ranks = [
        _worst_first(table, level).get_indexer(table.index.get_level_values(level))
        for level in range(len(keys))
    ]
    # The last key of lexsort is the primary one.
    return table.iloc[np.lexsort(ranks[::-1])]


class GroupErrorDisplay(Display):
    """Mean absolute errors by group of users and of services.

    Rows grouped by both are shown as a heat map, and otherwise as bars. Use `from_estimator` or
    `from_predictions` to create the plot.

    Parameters
    ----------
    errors : DataFrame
        Result of `group_errors`.

    Attributes
    ----------
    errors : DataFrame
        As passed to the constructor.

    mean_absolute_error : float
        Mean absolute error of all rows.

    ax_ : Axes
        Axes of the plot.

    figure_ : Figure
        Figure of the plot.

    image_ : AxesImage or None
        Heat map, with user groups as rows and service groups as columns.

    bars_ : BarContainer or None
        Bars of the groups, from top to bottom.

    text_ : ndarray of Text, or None
        Errors and counts, in the cells or beside the bars; None for a cell without rows.

    line_ : Line2D or None
        Error of all rows, as a line across the bars.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skqos.inspection import GroupErrorDisplay
    >>> y, prediction = [1.0, 2.0, 3.0, 4.0], [1.0, 2.5, 2.5, 6.0]
    >>> display = GroupErrorDisplay.from_predictions(
    ...     y, prediction, user_groups=["a", "b", "b", "c"], min_rows=1
    ... )
    >>> [float(bar.get_width()) for bar in display.bars_]
    [2.0, 0.5, 0.0]
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, errors: pd.DataFrame) -> None:
        self.errors = errors
        self.mean_absolute_error = float(
            np.average(errors["mean_absolute_error"], weights=errors["n_rows"])
        )

    @classmethod
    @drawing
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        user_groups: str | ArrayLike | None = None,
        service_groups: str | ArrayLike | None = None,
        min_rows: int = 10,
        max_groups: int | None = 10,
        target: int | None = None,
        include_values: bool = True,
        colorbar: bool = True,
        ax: Any = None,
        im_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the errors of a fitted regressor on given rows.

        Parameters
        ----------
        estimator : regressor, Pipeline or search
            Fitted.
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Rows, as in the estimator's `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS of these rows; NaN where nothing was observed.
        user_groups, service_groups : str or array-like of shape (n_samples,), default=None
            As in `group_errors`, or the name of a column of X after the transformers of a Pipeline,
            for example ``"user_country"`` after a `ContextJoiner`.
        min_rows, max_groups, target
            As in `group_errors`.
        include_values, colorbar, ax, im_kw, bar_kw
            As in `plot`.

        Returns
        -------
        GroupErrorDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            If matplotlib is not installed, or the estimator is not fitted or has no `predict`.
        ValueError
            If a column does not exist, and as in `group_errors` and `plot`.
        """
        caller = f"{cls.__name__}.from_estimator"
        final = last_step(estimator)
        if not hasattr(final, "predict"):
            raise TypeError(f"{caller} needs a fitted regressor; got {type(final).__name__}.")
        X = transform_input(estimator, X)
        check_target_names(y, target_names_of(final))
        return cls.from_predictions(
            y,
            final.predict(X),
            user_groups=find_groups(user_groups, X, "user_groups"),
            service_groups=find_groups(service_groups, X, "service_groups"),
            min_rows=min_rows,
            max_groups=max_groups,
            target=target,
            include_values=include_values,
            colorbar=colorbar,
            ax=ax,
            im_kw=im_kw,
            bar_kw=bar_kw,
        )

    @classmethod
    @drawing
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        *,
        user_groups: ArrayLike | None = None,
        service_groups: ArrayLike | None = None,
        min_rows: int = 10,
        max_groups: int | None = 10,
        target: int | None = None,
        include_values: bool = True,
        colorbar: bool = True,
        ax: Any = None,
        im_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the errors of given predictions.

        Parameters
        ----------
        y_true, y_pred, user_groups, service_groups, min_rows, max_groups, target
            As in `group_errors`.
        include_values, colorbar, ax, im_kw, bar_kw
            As in `plot`.

        Returns
        -------
        GroupErrorDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            As in `group_errors` and `plot`.
        """
        errors = group_errors(
            y_true,
            y_pred,
            user_groups=user_groups,
            service_groups=service_groups,
            min_rows=min_rows,
            max_groups=max_groups,
            target=target,
        )
        return cls(errors=errors).plot(
            ax, include_values=include_values, colorbar=colorbar, im_kw=im_kw, bar_kw=bar_kw
        )

    @drawing
    def plot(
        self,
        ax: Any = None,
        *,
        include_values: bool = True,
        colorbar: bool = True,
        im_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the errors: a heat map for both kinds of groups, or bars for one.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw on. If None, a new figure is created.
        include_values : bool, default=True
            Whether to write the errors and the numbers of rows into the cells or beside the bars.
        colorbar : bool, default=True
            Whether to add a colour bar to the heat map.
        im_kw, bar_kw : dict, default=None
            Keyword arguments for ``Axes.imshow`` and for ``Axes.barh``.

        Returns
        -------
        self : GroupErrorDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `ax` is not an Axes.
        """
        self.image_: Any = None
        self.bars_: Any = None
        self.line_: Any = None
        self.text_: np.ndarray | None = None
        if self.errors.index.nlevels == 2:
            self._draw_heat_map(ax, include_values, colorbar, im_kw)
        else:
            self._draw_bars(ax, include_values, bar_kw)
        return self

    def _draw_heat_map(
        self, ax: Any, include_values: bool, colorbar: bool, im_kw: dict[str, Any] | None
    ) -> None:
        users, services = (_worst_first(self.errors, level) for level in range(2))
        values, counts = (
            self.errors[column].unstack().reindex(index=users, columns=services)
            for column in ("mean_absolute_error", "n_rows")
        )
        size = (2.5 + 0.75 * len(services), 1.7 + 0.45 * len(users))
        self._take_axes(ax, size)
        self.image_, self.text_ = draw_heat_map(
            self.ax_,
            values,
            texts=_cell_texts(values, counts) if include_values else None,
            im_kw={"vmin": 0, **(im_kw or {})},
            colorbar_label="mean absolute error" if colorbar else None,
        )
        user_name, service_name = self.errors.index.names
        self.ax_.set(xlabel=service_name, ylabel=user_name)
        self.ax_.tick_params(axis="x", labelrotation=45)
        for label in self.ax_.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")

    def _draw_bars(self, ax: Any, include_values: bool, bar_kw: dict[str, Any] | None) -> None:
        from matplotlib.patches import Rectangle

        errors = self.errors["mean_absolute_error"]
        self._take_axes(ax, (6, 1.3 + 0.3 * len(errors)))
        options = style(Rectangle, {"color": COLORS[0]}, bar_kw)
        positions = np.arange(len(errors))
        self.bars_ = self.ax_.barh(positions, errors, **options)
        self.ax_.set_yticks(positions, errors.index)
        self.ax_.invert_yaxis()
        self.line_ = self.ax_.axvline(self.mean_absolute_error, color="0.3", linestyle="--")
        self.line_.set_label("all rows")
        if include_values:
            labels = [
                f"{_as_text(error)} (n={n:,})"
                for error, n in zip(errors, self.errors["n_rows"], strict=True)
            ]
            # Readable also on the line of all rows.
            blank = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            texts = self.ax_.bar_label(self.bars_, labels, padding=3, fontsize=8, bbox=blank)
            self.text_ = np.array(texts, dtype=object)
            # Space for the longest label.
            self.ax_.set_xlim(right=1.3 * max(errors.max(), self.mean_absolute_error))
        self.ax_.set(xlabel="mean absolute error", ylabel=errors.index.name)
        self.ax_.legend(frameon=False, loc="lower right")


def _check_limits(min_rows: int, max_groups: int | None) -> None:
    if min_rows < 1:
        raise ValueError(f"min_rows must be 1 or more; got {min_rows}.")
    if max_groups is not None and max_groups < 1:
        raise ValueError(f"max_groups must be 1 or more, or None for all; got {max_groups}.")


def _read_labels(groups: Any, side: str, n_rows: int) -> pd.Series:
    """Return labels as strings, with "unknown" for missing ones."""
    name = getattr(groups, "name", None) or f"{side}_group"
    labels = pd.Series(np.asarray(groups, dtype=object), name=str(name))
    if len(labels) != n_rows:
        raise ValueError(
            f"{side}_groups has {len(labels)} labels for {n_rows} rows; give one for each row."
        )
    return name_missing(labels)


def _merge_small(labels: pd.Series, min_rows: int, max_groups: int | None) -> pd.Series:
    """Merge all but the largest groups."""
    sizes = labels[labels != OTHER].value_counts().sort_index()
    sizes = sizes.sort_values(ascending=False, kind="stable")
    kept = sizes[sizes >= min_rows].index[:max_groups]
    return labels.where(labels.isin(kept), OTHER)


def _worst_first(errors: pd.DataFrame, level: int) -> pd.Index:
    """Order the groups of a level by descending error, with "other" last."""
    rows = errors["n_rows"].groupby(level=level).sum()
    total = (errors["mean_absolute_error"] * errors["n_rows"]).groupby(level=level).sum()
    order = (total / rows).sort_values(ascending=False, kind="stable").index
    is_other = order == OTHER
    return order[~is_other].append(order[is_other])


def _cell_texts(values: pd.DataFrame, counts: pd.DataFrame) -> np.ndarray:
    """Return the error and the number of rows of each cell as text; empty without rows."""
    texts = np.full(values.shape, "", dtype=object)
    for row, column in np.argwhere(values.notna().to_numpy()):
        error, n = values.iat[row, column], counts.iat[row, column]
        texts[row, column] = f"{_as_text(error)}\nn={n:,.0f}"
    return texts


def _as_text(error: float) -> str:
    """Format with three digits, without a power of ten for large errors."""
    return f"{error:#.3g}" if error < 99.5 else f"{error:,.0f}"
