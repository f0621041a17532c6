"""Features of nodes from the measured cells of any time steps, as learnt in `fit`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from skqos.tpmcf.features import NodeFeatures, Sides, StepCells, without_folds

if TYPE_CHECKING:
    from torch import Tensor

    from skqos.tpmcf.gcmf import GCMF, TensorSides
    from skqos.tpmcf.joint import JointFeatures


@dataclass(frozen=True)
class SpatialFeatures:
    """Trained graph-convolution units, which embed the nodes of any steps.

    Attributes
    ----------
    gcmf : GCMF
        Units without a graph.
    scales : list of tuple of Tensor, or None
        Mean and standard deviation of the embeddings of users and of services in `fit`, with which
        embeddings are standardised and bounded by tanh. None for unbounded embeddings.
    with_initial : bool
        Whether the initial features precede the embeddings.
    """

    gcmf: GCMF
    scales: list[tuple[Tensor, Tensor]] | None
    with_initial: bool

    def join(self, initial: Sides, embedded: TensorSides) -> TensorSides:
        """Concatenate the features of the sequences.

        Each member has its own embeddings; the initial features are shared.
        """
        import torch

        from skqos.tpmcf.joint import join_features

        shared = [torch.as_tensor(side) for side in initial] if self.with_initial else None
        return join_features(shared, embedded, self.scales)

    def for_joint_training(self, observed: GCMF, initial: Sides) -> JointFeatures:
        """Return the same features, of units that are trained together with the encoder.

        Parameters
        ----------
        observed : GCMF
            The units with the graphs of the training steps, which are copied.
        initial : tuple of ndarray of shape (n_folds, n_steps, n, width)
            Initial features.
        """
        from skqos.prediction import copy_module
        from skqos.tpmcf.joint import JointFeatures

        shared = initial if self.with_initial else None
        return JointFeatures(copy_module(observed), shared, self.scales)

    def embed(
        self, times: np.ndarray, cells: StepCells, folds: np.ndarray, initial: Sides
    ) -> TensorSides:
        """Embed the nodes of some steps by their graphs and initial features."""
        from skqos.prediction import copy_module

        return copy_module(self.gcmf).observe(times, cells, folds, initial).embed_all()


@dataclass(frozen=True)
class StepFeatures:
    """The features of users and services at time steps, with and without a fold of the cells.

    It contains everything that `fit` and updates learn from the cells outside the network: bases,
    scales and averages of the initial features, and the graph-convolution units. It contains no
    cells. It is immutable: `fit`, `with_graph`, `with_units` and `extend` return a new object.

    Attributes
    ----------
    nodes : NodeFeatures
        The initial features.
    n_folds : int or None
        Number of folds. If None, features are computed from all cells.
    spatial : SpatialFeatures or None
        Graph convolution, if the sequences contain its embeddings.
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
        """Add the units of a trained graph convolution.

        Parameters
        ----------
        gcmf : GCMF
            Graph convolution, which is copied without its steps.
        embedded : tuple of Tensor of shape (n_members, n_folds, n_steps, n, width)
            Embeddings of the nodes of the training steps.
        bounded : bool
            Whether embeddings are standardised and bounded.
        with_initial : bool
            Whether the initial features precede the embeddings.
        """
        from skqos.prediction import copy_module
        from skqos.tpmcf.gcmf import embedding_scales

        scales = list(map(embedding_scales, embedded)) if bounded else None
        units = copy_module(gcmf).forget_steps()
        return replace(self, spatial=SpatialFeatures(units, scales, with_initial))

    def with_units(self, gcmf: GCMF) -> Self:
        """Replace the units of the graph convolution by further trained ones, which are copied."""
        from skqos.prediction import copy_module

        units = copy_module(gcmf).forget_steps()
        return replace(self, spatial=replace(self.spatial, gcmf=units))

    def join(self, initial: Sides, embedded: TensorSides | None) -> TensorSides:
        """Concatenate initial features and embeddings of the same steps, as tensors."""
        import torch

        if self.spatial is None:
            return [torch.as_tensor(side).unsqueeze(0) for side in initial]
        return self.spatial.join(initial, embedded)

    def check_shared_weights(self) -> None:
        """Raise ValueError if there are no graph-convolution weights for further steps."""
        if self.spatial is not None and self.spatial.gcmf.units[0].weight.shape[1] > 1:
            raise ValueError(
                "partial_fit needs gcmf_weights='shared': the model was fitted with "
                "gcmf_weights='own', which has no weights for further steps."
            )

    def extend(self, before: StepCells, after: StepCells) -> Self:
        """Learn from further cells and entities.

        Parameters
        ----------
        before, after : StepCells
            All cells of the steps with further cells, without and with these.
        """
        return replace(self, nodes=self.nodes.extend(before, after))

    def initial(self, cells: StepCells, folds: np.ndarray) -> Sides:
        """Return the initial features of the nodes at all steps of `fit` (F_0).

        Returns
        -------
        users, services : ndarray of float32 of shape (n_folds, n_steps, n, width)
            Features without the cells of each fold.
        """
        return without_folds(self.nodes.transform, cells, folds, self.n_folds)

    def of_steps(self, times: np.ndarray, cells: StepCells, folds: np.ndarray) -> TensorSides:
        """Return the features of nodes at steps known from `fit` or `extend`, for sequences.

        Parameters
        ----------
        times : ndarray of int64 of shape (n_steps,)
            The steps, ascending.
        cells : StepCells
            All their cells.
        folds : ndarray of int64 of shape (n_cells,)
            Fold of each cell.

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
