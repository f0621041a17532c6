"""Gates of SHARP-QoS and experts of SA-MoE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from skqos._pipelines import transform_input
from skqos.inspection._common import (
    COLORS,
    choose_names,
    draw_heat_map,
    final_estimator,
    name_targets,
    style,
)
from skqos.inspection._display import Display, drawing
from skqos.sa_moe.estimator import SAMoERegressor
from skqos.sharp_qos.estimator import SharpQoSRegressor

TITLES = {"snr": "context (SNR)", "cross_snr": "other targets (Cross-SNR)"}
LABELS = {"best_share": "share of pairs it is best on", "mean_gate_weight": "mean gate weight"}
BAR_WIDTH = 0.38


class GateProbabilityDisplay(Display):
    """Probabilities that the gates of `SharpQoSRegressor` are open, as heat maps.

    Use `from_estimator` to create the plot from a fitted estimator.

    Parameters
    ----------
    gate_probabilities : mapping of str to ndarray
        Attribute ``gate_probabilities_`` of a fitted estimator: ``"snr"`` of shape (n_targets,
        n_blocks), ``"cross_snr"`` of shape (n_targets, n_targets, n_cross_blocks), or one of the
        two.

    target_names : sequence of str, default=None
        Names of the targets. If None, they are those of the columns of y in `fit`, if known, or
        "target 0" and so on.

    Attributes
    ----------
    gate_probabilities, target_names
        As passed to the constructor.

    tables : dict of str to DataFrame
        The probabilities as tables with one column per block. A row of ``"snr"`` is a target. A row
        of ``"cross_snr"`` is a target and the other target whose features it receives.

    axes_ : ndarray of Axes of shape (n_routings,)
        Axes of the routings.

    figure_ : Figure
        Figure of the plot.

    images_ : dict of str to AxesImage
        Heat map of each routing.

    text_ : dict of str to (ndarray of Text, or None)
        Values in the cells, by routing.

    Raises
    ------
    ValueError
        If there are no gates, or `target_names` has the wrong length.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.inspection import GateProbabilityDisplay
    >>> probabilities = {"snr": np.array([[0.9, 0.1], [0.8, 0.7]])}
    >>> names = ["response time", "throughput"]
    >>> display = GateProbabilityDisplay(gate_probabilities=probabilities, target_names=names)
    >>> display.tables["snr"].loc["throughput"].tolist()
    [0.8, 0.7]
    """

    def __init__(
        self,
        *,
        gate_probabilities: Mapping[str, np.ndarray],
        target_names: Sequence[str] | None = None,
    ) -> None:
        if not gate_probabilities:
            raise ValueError("gate_probabilities is empty; at least one routing is needed.")
        self.gate_probabilities = gate_probabilities
        self.target_names = target_names
        names = name_targets(len(next(iter(gate_probabilities.values()))), target_names)
        self.tables = {
            routing: _tabulate(probabilities, names)
            for routing, probabilities in gate_probabilities.items()
        }

    @classmethod
    @drawing
    def from_estimator(
        cls,
        estimator: Any,
        *,
        target_names: Sequence[str] | None = None,
        include_values: bool = True,
        colorbar: bool = True,
        ax: Any = None,
        im_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the gate probabilities of a fitted estimator.

        Parameters
        ----------
        estimator : SharpQoSRegressor, Pipeline or search
            Fitted estimator, or a Pipeline or fitted search that ends with one.
        target_names, include_values, colorbar, ax, im_kw
            As in the class and in `plot`.

        Returns
        -------
        GateProbabilityDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            If matplotlib is not installed, or the estimator is not fitted or of another class.
        ValueError
            If the estimator has no routing, and as in `plot`.
        """
        caller = f"{cls.__name__}.from_estimator"
        final = final_estimator(estimator, (SharpQoSRegressor,), caller)
        probabilities = final.gate_probabilities_
        if not probabilities:
            raise ValueError(
                "This SharpQoSRegressor has no gates: it was fitted with "
                f"routing={final.routing} or without context, and with "
                f"cross_routing={final.cross_routing} or a single target."
            )
        names = choose_names(target_names, final)
        display = cls(gate_probabilities=probabilities, target_names=names)
        return display.plot(ax, include_values=include_values, colorbar=colorbar, im_kw=im_kw)

    @drawing
    def plot(
        self,
        ax: Any = None,
        *,
        include_values: bool = True,
        colorbar: bool = True,
        im_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot a heat map for each routing.

        Parameters
        ----------
        ax : Axes or array-like of Axes, default=None
            Axes to draw on, one for each routing. If None, a new figure is created.
        include_values : bool, default=True
            Whether to write the probabilities into the cells.
        colorbar : bool, default=True
            Whether to add a colour bar to the last heat map.
        im_kw : dict, default=None
            Keyword arguments for ``Axes.imshow``.

        Returns
        -------
        self : GateProbabilityDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `ax` has the wrong length.
        """
        n_rows = max(map(len, self.tables.values()))
        size = (1 + 4 * len(self.tables), 1.4 + 0.5 * n_rows)
        axes = self._take_panels(ax, len(self.tables), size)
        self.images_, self.text_ = {}, {}
        for panel, (routing, table) in zip(axes, self.tables.items(), strict=True):
            is_last = panel is axes[-1]
            self.images_[routing], self.text_[routing] = draw_heat_map(
                panel,
                _with_row_labels(table),
                texts=_as_texts(table) if include_values else None,
                im_kw={"vmin": 0, "vmax": 1, **(im_kw or {})},
                colorbar_label="P(gate is open)" if colorbar and is_last else None,
            )
            panel.set(title=TITLES[routing], xlabel="block")
        return self


class ExpertShareDisplay(Display):
    """Bars of the contributions of the experts of `SAMoERegressor`.

    Use `from_estimator` to create the plot from a fitted estimator.

    Parameters
    ----------
    shares : DataFrame of shape (n_experts, 2)
        Result of ``expert_shares(X, y)`` of a fitted estimator: the columns ``best_share`` and
        ``mean_gate_weight``, with one row per expert.

    Attributes
    ----------
    shares : DataFrame
        As passed to the constructor.

    ax_ : Axes
        Axes of the plot.

    figure_ : Figure
        Figure of the plot.

    bars_ : dict of str to BarContainer
        Bars of the experts, by column of `shares`.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import pandas as pd
    >>> from skqos.inspection import ExpertShareDisplay
    >>> shares = pd.DataFrame(
    ...     {"best_share": [0.6, 0.4], "mean_gate_weight": [0.7, 0.3]}, index=["lhuc", "mlp"]
    ... )
    >>> display = ExpertShareDisplay(shares=shares).plot()
    >>> plt.close(display.figure_)
    >>> [float(bar.get_height()) for bar in display.bars_["best_share"]]
    [0.6, 0.4]
    """

    def __init__(self, *, shares: pd.DataFrame) -> None:
        self.shares = shares

    @classmethod
    @drawing
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        include_values: bool = True,
        ax: Any = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the expert shares of a fitted estimator on given pairs.

        Parameters
        ----------
        estimator : SAMoERegressor, Pipeline or search
            Fitted estimator, or a Pipeline or fitted search that ends with one.
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Pairs, as in the estimator's `fit`.
        y : array-like of shape (n_samples,)
            Measured QoS of the pairs.
        include_values, ax, bar_kw
            As in `plot`.

        Returns
        -------
        ExpertShareDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            If matplotlib is not installed, or the estimator is not fitted or of another class.
        ValueError
            If X or y is not as described, and as in `plot`.
        """
        caller = f"{cls.__name__}.from_estimator"
        final = final_estimator(estimator, (SAMoERegressor,), caller)
        display = cls(shares=final.expert_shares(transform_input(estimator, X), y))
        return display.plot(ax, include_values=include_values, bar_kw=bar_kw)

    @drawing
    def plot(
        self,
        ax: Any = None,
        *,
        include_values: bool = True,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot two bars for each expert.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw on. If None, a new figure is created.
        include_values : bool, default=True
            Whether to write the shares above the bars.
        bar_kw : dict, default=None
            Keyword arguments for all bars (``Axes.bar``).

        Returns
        -------
        self : ExpertShareDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `ax` is not an Axes.
        """
        from matplotlib.patches import Rectangle

        self._take_axes(ax, (1.5 + 1.5 * len(self.shares), 3.5))
        positions = np.arange(len(self.shares))
        self.bars_ = {}
        for k, (column, label) in enumerate(LABELS.items()):
            options = {"color": COLORS[k], "width": BAR_WIDTH, "label": label}
            self.bars_[column] = self.ax_.bar(
                positions + (k - 0.5) * BAR_WIDTH,
                self.shares[column],
                **style(Rectangle, options, bar_kw),
            )
            if include_values:
                self.ax_.bar_label(self.bars_[column], fmt="%.2f", padding=1, fontsize=8)
        self.ax_.set_xticks(positions, self.shares.index.map(str))
        # Space for the legend above the bars.
        self.ax_.set_ylim(0, 1.35 * self.shares[list(LABELS)].to_numpy().max())
        self.ax_.set(xlabel="expert", ylabel="share")
        self.ax_.legend(frameon=False)
        return self


def _tabulate(probabilities: np.ndarray, names: list[str]) -> pd.DataFrame:
    """Return a table with one row per target, or per pair of targets, and one column per block."""
    blocks = pd.RangeIndex(probabilities.shape[-1], name="block")
    if probabilities.ndim == 2:
        return pd.DataFrame(probabilities, pd.Index(names, name="target"), blocks)
    # A target has no gates for its own features.
    pairs = np.argwhere(~np.eye(len(names), dtype=bool))
    index = pd.MultiIndex.from_arrays(
        [[names[k] for k in column] for column in pairs.T], names=["target", "source"]
    )
    return pd.DataFrame(probabilities[tuple(pairs.T)], index, blocks)


def _with_row_labels(table: pd.DataFrame) -> pd.DataFrame:
    if table.index.nlevels == 1:
        return table
    return table.set_axis([f"{target}\nfrom {source}" for target, source in table.index])


def _as_texts(table: pd.DataFrame) -> np.ndarray:
    return np.char.mod("%.2f", table.to_numpy())
