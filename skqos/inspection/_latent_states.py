"""Latent states of regions, sorted so that regions that share a state stand together."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd

from skqos.inspection._common import (
    check_matplotlib,
    check_option,
    check_options,
    draw_heat_map,
    final_estimator,
    prepare_axes,
)
from skqos.r2sl.estimator import R2SLRegressor
from skqos.r2sl.latent_states import RegionalLatentStates

SIDES = ("user", "service")


class LatentStateDisplay:
    """P(state given region) of one kind of region, a heat map for users and one for services.

    Use `from_estimator` to draw those of a fitted estimator.

    Parameters
    ----------
    states : DataFrame of shape (n_regions, n_states)
        P(state given region), as in ``latent_states_`` of `R2SLRegressor`: the index has the levels
        side ("user", "service") and region, in which NaN is the region "unknown".

    n_entities : Series, default=None
        How many users or services each region has, by the index of `states`. Without it the
        first regions count as the largest.

    kind : str, default="region"
        What the regions are.

    Attributes
    ----------
    states, n_entities, kind
        As given.

    shown_ : dict of str to DataFrame
        By side, the rows that are drawn, from top to bottom.

    axes_ : ndarray of Axes of shape (2,)
        Of users and of services.

    figure_ : Figure
        Theirs.

    images_ : dict of str to AxesImage
        By side.

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
    @check_options
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
        """Draw the latent states of a fitted estimator.

        Parameters
        ----------
        estimator : R2SLRegressor, RegionalLatentStates or Pipeline
            Fitted; or a Pipeline that ends in one.
        kind : str, default=None
            The kind of region, one of ``region_features_``; its first by default. For
            `RegionalLatentStates`, which knows of one kind and no name of it, a name to show.
        n_regions, colorbar, ax, im_kw
            As in `plot`.

        Returns
        -------
        LatentStateDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            Without matplotlib; if the estimator is not fitted, or another one.
        ValueError
            If it has no latent states, or none of that kind; or as in `plot`.
        """
        caller = f"{cls.__name__}.from_estimator"
        check_matplotlib(caller)
        final = final_estimator(estimator, (R2SLRegressor, RegionalLatentStates), caller)
        if isinstance(final, RegionalLatentStates):
            display = cls(states=_states_by_side(final), kind=kind or "region")
        else:
            kind = _find_kind(final, kind)
            states = final.latent_states_[kind]
            display = cls(states=states, n_entities=_count_entities(final, kind, states), kind=kind)
        return display.plot(ax, n_regions=n_regions, colorbar=colorbar, im_kw=im_kw)

    @check_options
    def plot(
        self,
        ax: Any = None,
        *,
        n_regions: int | None = 30,
        colorbar: bool = True,
        im_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw a heat map for users and one for services: a row a region, a column a state.

        Rows are sorted by their most probable state, then by its probability.

        Parameters
        ----------
        ax : array-like of Axes of shape (2,), default=None
            Where to draw users and services. A new figure by default.
        n_regions : int or None, default=30
            At most so many regions a side, those with the most entities. None draws all.
        colorbar : bool, default=True
            Whether to put a colour bar beside the services.
        im_kw : dict, default=None
            Keywords for ``Axes.imshow``.

        Returns
        -------
        self : LatentStateDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            If `ax` is of the wrong length or `n_regions` is below 1.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        if n_regions is not None and n_regions < 1:
            raise ValueError(f"n_regions must be 1 or more, or None for all; got {n_regions}.")
        self.shown_ = {side: self._select(side, n_regions) for side in SIDES}
        n_rows = max(map(len, self.shown_.values()))
        axes = prepare_axes(ax, len(SIDES), (8, 1.4 + 0.2 * n_rows))
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
        self.axes_, self.figure_ = axes, axes[0].figure
        return self

    def _select(self, side: str, n_regions: int | None) -> pd.DataFrame:
        """Rows of the largest regions of a side, those of the same state together."""
        is_side = self.states.index.get_level_values(0) == side
        table = self.states[is_side].droplevel(0)
        if self.n_entities is not None and n_regions is not None:
            sizes = self.n_entities.to_numpy()[is_side]
            table = table.iloc[np.argsort(-sizes, kind="stable")]
        table = table.iloc[:n_regions]
        values = table.to_numpy()
        return table.iloc[np.lexsort([-values.max(axis=1), values.argmax(axis=1)])]


def _states_by_side(model: RegionalLatentStates) -> pd.DataFrame:
    return pd.concat(
        {
            "user": pd.DataFrame(model.user_states_, index=model.user_regions_),
            "service": pd.DataFrame(model.service_states_, index=model.service_regions_),
        },
        names=["side", "region"],
    )


def _find_kind(model: R2SLRegressor, kind: str | None) -> str:
    kinds = model.region_features_
    if not kinds:
        raise ValueError(
            "This R2SLRegressor has no latent states: it was fitted without regions, which are "
            "categorical context of users and services alike, such as 'user_country' and "
            "'service_country'."
        )
    if kind is None:
        return kinds[0]
    check_option("kind", kind, kinds)
    return kind


def _count_entities(model: R2SLRegressor, kind: str, states: pd.DataFrame) -> pd.Series:
    """Users or services of each region, by the index of its states."""
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
