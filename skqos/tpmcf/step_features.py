"""What `fit` learns of the measured cells: how the cells of any steps become features of nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from skqos.tpmcf.features import NodeFeatures, Sides, StepCells, without_folds

if TYPE_CHECKING:
    from torch import Tensor

    from skqos.tpmcf.gcmf import GCMF, TensorSides


@dataclass(frozen=True)
class SpatialFeatures:
    """Trained units of graph convolution, which embed the nodes of any steps.

    Attributes
    ----------
    gcmf : GCMF
        The units, without a graph.
    scales : list of tuple of Tensor, or None
        Mean and deviation of the embeddings of users and of services in `fit`, by which they are
        standardised and bounded (tanh). None leaves them as they are.
    with_initial : bool
        Whether the initial features stand ahead of the embeddings.
    """

    gcmf: GCMF
    scales: list[tuple[Tensor, Tensor]] | None
    with_initial: bool

    def join(self, initial: Sides, embedded: TensorSides) -> TensorSides:
        """Lay the features of the sequences side by side.

        Embeddings are of each member, initial features for all.
        """
        import torch

        if self.scales is not None:
            embedded = [
                torch.tanh((side - mean) / deviation)
                for side, (mean, deviation) in zip(embedded, self.scales, strict=True)
            ]
        if not self.with_initial:
            return embedded
        return [
            torch.cat([torch.as_tensor(first).expand(len(side), -1, -1, -1, -1), side], dim=4)
            for first, side in zip(initial, embedded, strict=True)
        ]

    def embed(
        self, times: np.ndarray, cells: StepCells, folds: np.ndarray, initial: Sides
    ) -> TensorSides:
        """Embed the nodes of some steps by their graphs and initial features."""
        from skqos.prediction import copy_module

        return copy_module(self.gcmf).observe(times, cells, folds, initial).embed_all()


@dataclass(frozen=True)
class StepFeatures:
    """The features of users and services at time steps, with and without a fold of the cells.

    One object for all that `fit` and updates learn of the cells beside the network: bases, scales
    and averages of the initial features, and the units of the graph convolution. It holds no cells.
    It is never changed: `fit`, `with_graph` and `extend` return another.

    Attributes
    ----------
    nodes : NodeFeatures
        The initial features.
    n_folds : int or None
        Number of folds; with None features are of all cells.
    spatial : SpatialFeatures or None
        The graph convolution, where sequences hold its embeddings.
    """

    nodes: NodeFeatures
    n_folds: int | None
    spatial: SpatialFeatures | None = None

    def fit(self, cells: StepCells) -> Self:
        """Learn bases, scales and averages from all training cells."""
        return replace(self, nodes=self.nodes.fit(cells))

    def with_graph(
        self, gcmf: GCMF, embedded: TensorSides, *, bounded: bool, with_initial: bool
    ) -> Self:
        """Take the units of a trained graph convolution.

        Parameters
        ----------
        gcmf : GCMF
            It is copied, but for the steps that it knows.
        embedded : tuple of Tensor of shape (n_members, n_folds, n_steps, n, width)
            How it embeds the nodes of the training steps.
        bounded : bool
            Whether embeddings are standardised and bounded.
        with_initial : bool
            Whether the initial features stand ahead of the embeddings.
        """
        from skqos.prediction import copy_module
        from skqos.tpmcf.gcmf import embedding_scales

        scales = list(map(embedding_scales, embedded)) if bounded else None
        units = copy_module(gcmf).forget_steps()
        return replace(self, spatial=SpatialFeatures(units, scales, with_initial))

    def join(self, initial: Sides, embedded: TensorSides | None) -> TensorSides:
        """Lay initial features and embeddings of the same steps side by side, as tensors."""
        import torch

        if self.spatial is None:
            return [torch.as_tensor(side).unsqueeze(0) for side in initial]
        return self.spatial.join(initial, embedded)

    def check_shared_weights(self) -> None:
        """Raise ValueError if further steps have no weights of the graph convolution."""
        if self.spatial is not None and self.spatial.gcmf.units[0].weight.shape[1] > 1:
            raise ValueError(
                "partial_fit needs gcmf_weights='shared': the model was fitted with "
                "gcmf_weights='own', weights of each step, of which a further step has none."
            )

    def extend(self, before: StepCells, after: StepCells) -> Self:
        """Learn of further cells and entities.

        Parameters
        ----------
        before, after : StepCells
            All cells of the steps that have further ones, without and with these.
        """
        return replace(self, nodes=self.nodes.extend(before, after))

    def initial(self, cells: StepCells, folds: np.ndarray) -> Sides:
        """Describe the nodes of all steps of `fit` by the cells of each (F_0).

        Returns
        -------
        users, services : ndarray of float32 of shape (n_folds, n_steps, n, width)
            Features without the cells of each fold.
        """
        return without_folds(self.nodes.transform, cells, folds, self.n_folds)

    def of_steps(self, times: np.ndarray, cells: StepCells, folds: np.ndarray) -> TensorSides:
        """Describe the nodes of some steps, known by `fit` or `extend`, as sequences hold them.

        Parameters
        ----------
        times : ndarray of int64 of shape (n_steps,)
            The steps, ascending.
        cells : StepCells
            All their cells.
        folds : ndarray of int64 of shape (n_cells,)
            Fold of each.

        Returns
        -------
        users, services : Tensor of shape (n_members or 1, n_folds, n_steps, n, width)
            Features without the cells of each fold.
        """
        elsewhere = self.nodes.elsewhere(cells)
        initial = without_folds(
            lambda kept: self.nodes.transform(kept, elsewhere), cells, folds, self.n_folds
        )
        embedded = None
        if self.spatial is not None:
            embedded = self.spatial.embed(times, cells, folds, initial)
        return self.join(initial, embedded)
