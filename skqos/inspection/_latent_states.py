"""Heat maps of the latent states of regions."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd

from skqos.inspection._common import check_option, draw_heat_map, final_estimator
from skqos.inspection._display import Display, drawing
from skqos.r2sl.estimator import R2SLRegressor
from skqos.r2sl.latent_states import RegionalLatentStates

SIDES = ("user", "service")


class LatentStateDisplay(Display):
    """Heat maps of P(state given region) of one kind of region, for users and for services.

    Use `from_estimator` to create the plot from a fitted estimator.

    Parameters
    ----------
    states : DataFrame of shape (n_regions, n_states)
        P(state given region), as in ``latent_states_`` of `R2SLRegressor`. The index has the levels
        side ("user", "service") and region; NaN is the region "unknown".

    n_entities : Series, default=None
        Number of users or services of each region, with the index of `states`. If None, the first
        regions are treated as the largest.

    kind : str, default="region"
        Kind of region.

    Attributes
    ----------
    states, n_entities, kind
        As passed to the constructor.

    shown_ : dict of str to DataFrame
        Plotted rows of each side, from top to bottom.

    axes_ : ndarray of Axes of shape (2,)
        Axes of users and of services.

    figure_ : Figure
        Figure of the plot.

    images_ : dict of str to AxesImage
        Heat map of each side.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import pandas as pd
    >>> from skqos.inspection import LatentStateDisplay
    >>> side_and_region = [("user", "Japan"), ("user", "Italy"), ("service", "Japan")]
    >>> states = pd.DataFrame(
    ...     [[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]],
    ...     index=pd.MultiIndex.from_tuples(side_and_region, names=["side", "country"]),
    ... )
    >>> display = LatentStateDisplay(states=states, kind="country").plot()
    >>> display.shown_["user"].index.tolist()
    ['Italy', 'Japan']
    >>> plt.close(display.figure_)
    """

    def __init__(
        self, *, states: pd.DataFrame, n_entities: pd.Series | None = None, kind: str = "region"
    ) -> None:
        self.states = states
        self.n_entities = n_entities
        self.kind = kind

    @classmethod
    @drawing
    def from_estimator(
        cls,
        estimator: Any,
        *,
        kind: str | None = None,
        n_regions: int | None = 30,
        colorbar: bool = True,
        ax: Any = None,
        im_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the latent states of a fitted estimator.

        Parameters
        ----------
        estimator : R2SLRegressor, RegionalLatentStates, Pipeline or search
            Fitted estimator, or a Pipeline or fitted search that ends with one.
        kind : str, default=None
            Kind of region, one of ``region_features_``; the first one by default. For
            `RegionalLatentStates`, which has one kind without a name, the name in the plot.
        n_regions, colorbar, ax, im_kw
            As in `plot`.

        Returns
        -------
        LatentStateDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            If matplotlib is not installed, or the estimator is not fitted or of another class.
        ValueError
            If it has no latent states, or none of this kind, and as in `plot`.
        """
        caller = f"{cls.__name__}.from_estimator"
        final = final_estimator(estimator, (R2SLRegressor, RegionalLatentStates), caller)
        if isinstance(final, RegionalLatentStates):
            display = cls(states=final.states_by_side(), kind=kind or "region")
        else:
            kind = _find_kind(final, kind)
            states = final.latent_states_[kind]
            display = cls(states=states, n_entities=_count_entities(final, kind, states), kind=kind)
        return display.plot(ax, n_regions=n_regions, colorbar=colorbar, im_kw=im_kw)

    @drawing
    def plot(
        self,
        ax: Any = None,
        *,
        n_regions: int | None = 30,
        colorbar: bool = True,
        im_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot heat maps for users and for services, with regions as rows and states as columns.

        Rows are sorted by their most probable state, then by its probability.

        Parameters
        ----------
        ax : array-like of Axes of shape (2,), default=None
            Axes for users and for services. If None, a new figure is created.
        n_regions : int or None, default=30
            Maximum number of regions of each side; those with the most entities are plotted. If
            None, all are plotted.
        colorbar : bool, default=True
            Whether to add a colour bar.
        im_kw : dict, default=None
            Keyword arguments for ``Axes.imshow``.

        Returns
        -------
        self : LatentStateDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `ax` has the wrong length or `n_regions` is below 1.
        """
        if n_regions is not None and n_regions < 1:
            raise ValueError(f"n_regions must be 1 or more, or None for all; got {n_regions}.")
        self.shown_ = {side: self._select(side, n_regions) for side in SIDES}
        n_rows = max(map(len, self.shown_.values()))
        axes = self._take_panels(ax, len(SIDES), (8, 1.4 + 0.2 * n_rows))
        self.images_ = {}
        for panel, (side, table) in zip(axes, self.shown_.items(), strict=True):
            is_last = panel is axes[-1]
            self.images_[side], _ = draw_heat_map(
                panel,
                table.set_axis(_region_labels(table.index)),
                im_kw={"vmin": 0, "vmax": 1, **(im_kw or {})},
                colorbar_label=f"P(state | {self.kind})" if colorbar and is_last else None,
            )
            panel.set(title=f"{self.kind} of {side}s", xlabel="state")
        return self

    def _select(self, side: str, n_regions: int | None) -> pd.DataFrame:
        """Return the rows of the largest regions of a side, sorted by state."""
        is_side = self.states.index.get_level_values(0) == side
        table = self.states[is_side].droplevel(0)
        if self.n_entities is not None and n_regions is not None:
            sizes = self.n_entities.to_numpy()[is_side]
            table = table.iloc[np.argsort(-sizes, kind="stable")]
        table = table.iloc[:n_regions]
        values = table.to_numpy()
        return table.iloc[np.lexsort([-values.max(axis=1), values.argmax(axis=1)])]


def _find_kind(model: R2SLRegressor, kind: str | None) -> str:
    kinds = model.region_features_
    if not kinds:
        raise ValueError(
            "This R2SLRegressor has no latent states, because it was fitted without regions. "
            "Regions are categorical context of both users and services, such as "
            "'user_country' and 'service_country'."
        )
    if kind is None:
        return kinds[0]
    check_option("kind", kind, kinds)
    return kind


def _count_entities(model: R2SLRegressor, kind: str, states: pd.DataFrame) -> pd.Series:
    """Return the number of users or services of each region, with the index of the states."""
    counts = []
    for side, encoder in zip(SIDES, (model.users_, model.services_), strict=True):
        column = encoder.shared_names[kind]
        categories = encoder.categories_[column]
        codes = encoder.table_.categories[:, column]
        sizes = np.bincount(codes[codes >= 0], minlength=len(categories))
        counts.append(sizes[categories.get_indexer(states.loc[side].index)])
    return pd.Series(np.concatenate(counts), index=states.index, name="n_entities")


def _region_labels(regions: pd.Index) -> list[str]:
    return ["unknown" if pd.isna(region) else str(region) for region in regions]
