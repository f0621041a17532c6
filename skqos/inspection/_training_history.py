"""Training history: losses, and losses and weights of the targets of joint training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd

from skqos.base import BaseQoSRegressor
from skqos.inspection._common import (
    COLORS,
    LINE_STYLES,
    check_option,
    choose_names,
    final_estimator,
    name_targets,
    style,
)
from skqos.inspection._display import Display, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN_OF_KIND = {"task_loss": "train_loss", "task_weight": "task_weight"}
LABEL_OF_KIND = {
    "loss": "loss of the transformed target",
    "task_loss": "training loss of each target",
    "task_weight": "weight of each target's loss",
}


class TrainingHistoryDisplay(Display):
    """Losses over the epochs of all stages of training.

    Use `from_estimator` to create the plot from a fitted estimator. All parameters are stored as
    attributes.

    Parameters
    ----------
    history : DataFrame
        Attribute ``history_`` of a fitted estimator, with one row per epoch and the columns
        ``stage``, ``epoch``, ``train_loss`` and ``valid_loss`` (NaN without validation rows).
        `SharpQoSRegressor` adds ``train_loss_k`` and ``task_weight_k`` for target k.

    target_names : sequence of str, default=None
        Names of the targets of joint training. If None, they are those of the columns of y in
        `fit`, if known, or "target 0" and so on.

    Attributes
    ----------
    axes_ : ndarray of Axes of shape (n_panels,)
        Axes of the panels: one, or one for each stage.

    figure_ : Figure
        Figure of the plot.

    lines_ : dict of (str, str) to Line2D
        Lines by stage and column of `history`.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skqos import SAMoERegressor
    >>> from skqos.datasets import make_qos
    >>> from skqos.inspection import TrainingHistoryDisplay
    >>> data = make_qos(20, 30, density=0.3, random_state=0)
    >>> model = SAMoERegressor(max_epochs=3, first_stage_epochs=2, random_state=0)
    >>> display = TrainingHistoryDisplay.from_estimator(model.fit(data.X, data.y))
    >>> list(display.lines_)
    [('first', 'train_loss'), ('final', 'train_loss')]
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, history: pd.DataFrame, target_names: Sequence[str] | None = None) -> None:
        self.history = history
        self.target_names = target_names

    @classmethod
    @drawing
    def from_estimator(
        cls,
        estimator: Any,
        *,
        target_names: Sequence[str] | None = None,
        kind: Literal["loss", "task_loss", "task_weight"] = "loss",
        stages: Literal["joined", "separate"] = "joined",
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the training history of a fitted estimator.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            Fitted estimator of this package, or a Pipeline or fitted search that ends with one.
        target_names, kind, stages, ax, line_kw
            As in the class and in `plot`.

        Returns
        -------
        TrainingHistoryDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            If matplotlib is not installed, or the estimator is not fitted or not of this package.
        ValueError
            As in `plot`.
        """
        caller = f"{cls.__name__}.from_estimator"
        final = final_estimator(estimator, (BaseQoSRegressor,), caller)
        display = cls(history=final.history_, target_names=choose_names(target_names, final))
        return display.plot(ax, kind=kind, stages=stages, line_kw=line_kw)

    @drawing
    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["loss", "task_loss", "task_weight"] = "loss",
        stages: Literal["joined", "separate"] = "joined",
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the history.

        Parameters
        ----------
        ax : Axes or array-like of Axes, default=None
            Axes to draw on, one for each panel. If None, a new figure is created.
        kind : {"loss", "task_loss", "task_weight"}, default="loss"
            "loss" is the training loss and, if available, the validation loss. "task_loss" and
            "task_weight" are the loss and the weight of each target in joint training.
        stages : {"joined", "separate"}, default="joined"
            "joined" shows all stages one after the other in one panel; "separate" has one panel for
            each stage.
        line_kw : dict, default=None
            Keyword arguments for all lines (``Axes.plot``).

        Returns
        -------
        self : TrainingHistoryDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `kind` or `stages` is invalid, the history has no columns for `kind`, or `ax` or
            `target_names` has the wrong length.
        """
        check_option("kind", kind, list(LABEL_OF_KIND))
        check_option("stages", stages, ("joined", "separate"))
        labels = self._labels(kind)
        by_stage = dict(list(self.history.groupby("stage", sort=False)))
        n_panels = 1 if stages == "joined" else len(by_stage)
        axes = self._take_panels(ax, n_panels, (5 if n_panels == 1 else 4 * n_panels, 3.5))
        self.lines_: dict[tuple[str, str], Any] = {}
        n_before = 0
        for k, (stage, rows) in enumerate(by_stage.items()):
            panel = axes[0 if stages == "joined" else k]
            self._draw_stage(panel, stage, rows, labels, n_before, line_kw)
            if stages == "joined":
                _mark_stage(panel, stage, n_before, len(rows), len(by_stage))
                n_before += len(rows)
            else:
                panel.set_title(f"stage {stage}")
        for panel in axes:
            _finish(panel, LABEL_OF_KIND[kind])
        return self

    def _labels(self, kind: str) -> dict[str, str]:
        """Return the label of each plotted column."""
        if kind == "loss":
            labels = {"train_loss": "training", "valid_loss": "validation"}
            return {name: labels[name] for name in labels if self.history[name].notna().any()}
        pattern = re.compile(rf"{COLUMN_OF_KIND[kind]}_\d+")
        columns = [name for name in self.history.columns if pattern.fullmatch(name)]
        if not columns:
            raise ValueError(
                f"kind={kind!r} needs the columns '{COLUMN_OF_KIND[kind]}_0' and so on, which "
                f"SharpQoSRegressor records; the history has {list(self.history.columns)}."
            )
        return dict(zip(columns, name_targets(len(columns), self.target_names), strict=True))

    def _draw_stage(
        self,
        ax: Axes,
        stage: str,
        rows: pd.DataFrame,
        labels: dict[str, str],
        n_before: int,
        line_kw: dict[str, Any] | None,
    ) -> None:
        from matplotlib.lines import Line2D

        # A stage may have been trained more than once, as that of updates.
        positions = n_before + np.arange(1, len(rows) + 1)
        for k, (column, label) in enumerate(labels.items()):
            options = {
                "color": COLORS[k % len(COLORS)],
                "linestyle": LINE_STYLES[k % len(LINE_STYLES)],
                # Without a marker, a stage of one epoch would be invisible.
                "marker": ".",
                # Each label is once in the legend; labels with a leading underscore are not shown.
                "label": label if n_before == 0 else f"_{label}",
            }
            (self.lines_[stage, column],) = ax.plot(
                positions, rows[column], **style(Line2D, options, line_kw)
            )


def _mark_stage(ax: Axes, stage: str, n_before: int, n_epochs: int, n_stages: int) -> None:
    """Write the name of a stage above its epochs, and separate it by a line from the one before."""
    if n_stages == 1:
        return
    if n_before:
        ax.axvline(n_before + 0.5, color="0.6", linestyle=":", linewidth=1)
    ax.text(
        n_before + 0.5 + n_epochs / 2,
        1.01,
        stage,
        transform=ax.get_xaxis_transform(),
        ha="center",
        va="bottom",
        color="0.3",
    )


def _finish(ax: Axes, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set(xlabel="epoch", ylabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)
