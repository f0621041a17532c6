"""Structural features of users and services: factors, and convolutions over the QoS graph.

Features are (n_rows, n_members * dim), with concatenated members.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos.embeddings import append_rows
from skqos.graphs import BipartiteGraph, SideScales
from skqos.members import ByteDropout
from skqos.sharp_qos.hyperbolic import (
    GraphConvolution,
    HypergraphConvolution,
    PoincareBall,
)

# Initial size of features.
FEATURE_STD = 0.05


@dataclass(frozen=True)
class Structure:
    """Structural features of one side for one task.

    Attributes
    ----------
    layers : list of Tensor of shape (n_entities, n_members * ...)
        Outputs of the layers.
    connected : Tensor of bool of shape (n_entities, 1)
        Whether an entity has an edge. An entity without edges is represented, like a new one, by
        the average of those with edges.
    n_members : int
        Number of members.
    """

    layers: list[Tensor]
    connected: Tensor
    n_members: int

    def average(self) -> Tensor:
        """Average over connected entities; (n_members, 1, out_dim)."""
        weights = self.connected.to(self.layers[0].dtype) / self.connected.sum()
        return self._join([weights.T @ x for x in self.layers])

    def take(self, codes: Tensor, is_new: Tensor | None = None) -> Tensor:
        """Represent known entities, some of them as new ones.

        Parameters
        ----------
        codes : Tensor of int64 of shape (n,)
            Codes of the entities.
        is_new : Tensor of bool of shape (n_members, n, 1), default=None
            Entities that are represented as new ones.

        Returns
        -------
        Tensor of shape (n_members, n, out_dim)
        """
        connected = self.connected[codes]
        if is_new is not None:
            connected = connected & ~is_new
        found = self._join([F.embedding(codes, x) for x in self.layers])
        return torch.where(connected, found, self.average())

    def encode_known(self) -> Tensor:
        """Represent all known entities; (n_members, n_entities, out_dim)."""
        return torch.where(self.connected, self._join(self.layers), self.average())

    def _join(self, layers: list[Tensor]) -> Tensor:
        """Concatenate the outputs of the layers for each member."""
        parts = [x.unflatten(1, (self.n_members, -1)) for x in layers]
        return torch.cat(parts, dim=2).transpose(0, 1)


class QoSGraph(nn.Module):
    """Structural features of all entities for one QoS parameter.

    The features of the nodes are processed by the layers. The result is the concatenation of the
    features and the outputs of all layers. The context of the nodes may be a further input of the
    first layer, so that it is part of the messages.

    With features for each fold of the pairs, these are fixed, and all folds share a correction,
    which is trained and starts at 0. A pair is trained with the features of its fold. In
    prediction, the features are averages over the folds.

    Parameters
    ----------
    graph : BipartiteGraph
        Graph of the observed pairs.
    features : ndarray of shape ([n_folds,] n_users + n_services, feature_dim)
        Features of the nodes, from which all members start; with a first axis, those computed
        without the pairs of each fold.
    n_members : int
        Number of members.
    dim : int
        Width of the layers.
    n_layers : int
        Number of layers.
    convolution : {"hhgcn", "hygcn", "gcn", "none"}
        Kind of convolution, or no layers.
    ball : PoincareBall or None
        Ball of the convolution; None for Euclidean space.
    dropout : float
        Dropout rate of the features.
    edge_dropout : float
        Fraction of the edges that carry no messages in a training step.
    side_scales : bool
        Whether each layer scales received messages by learnt factors.
    newcomer_share : float
        Fraction of the nodes whose features are the average of their side in a training step, like
        those of a node that is added without training.
    fine_tune : bool
        Whether the features, or their correction, are trained.
    context_dim : int, default=0
        Width of the context that is part of the messages.
    """

    def __init__(
        self,
        graph: BipartiteGraph,
        features: np.ndarray,
        *,
        n_members: int,
        dim: int,
        n_layers: int,
        convolution: str,
        ball: PoincareBall | None,
        dropout: float,
        edge_dropout: float,
        side_scales: bool,
        newcomer_share: float,
        fine_tune: bool,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.n_members = n_members
        self.edge_dropout = edge_dropout
        self.newcomer_share = newcomer_share
        has_folds = features.ndim == 3
        # Each fold is scaled by itself, because a common scale would depend on its own pairs.
        scaled = [scale_features(of_fold) for of_fold in (features if has_folds else [features])]
        self.register_buffer("fold_features", torch.stack(scaled) if has_folds else None)
        start = torch.zeros_like(scaled[0]) if has_folds else scaled[0]
        self.features = nn.Parameter(start.repeat(1, n_members), requires_grad=fine_tune)
        self.dropout = ByteDropout(dropout)
        layer = HypergraphConvolution if convolution == "hhgcn" else GraphConvolution
        feature_dim = features.shape[-1]
        dims = [dim] * (0 if convolution == "none" else n_layers)
        self.layers = nn.ModuleList(
            layer(
                n_members,
                n_in,
                n_out,
                ball,
                n_parts=graph.n_parts,
                scales=SideScales(n_members) if side_scales else None,
            )
            for n_in, n_out in pairwise([feature_dim + context_dim, *dims])
        )
        self.out_dim = feature_dim + sum(dims)
        self._join(graph)

    @property
    def n_folds(self) -> int | None:
        """Number of folds with features of their own; None without folds."""
        return None if self.fold_features is None else len(self.fold_features)

    def forward(
        self,
        held_out: Tensor | None = None,
        context: Tensor | None = None,
        fold: Tensor | None = None,
    ) -> list[Tensor]:
        """Convolve the features of all nodes.

        Parameters
        ----------
        held_out : Tensor of int64, default=None
            Edges that carry no messages; -1 for no edge. If None, all edges carry messages.
        context : Tensor of shape (n_members, n_users + n_services, context_dim), default=None
            Context of the nodes, which is part of the messages.
        fold : Tensor of int64 of shape (1,), default=None
            Fold whose features are used. If None, they are averages over the folds.

        Returns
        -------
        list of Tensor of shape (n_users + n_services, n_members * ...)
            Features, and output of each layer.
        """
        x = self.dropout(self._features_of(fold))
        outputs = [x]
        if len(self.layers):
            weights = None if held_out is None else self._weights(held_out)
            operators = self.graph(weights, self.edge_dropout if self.training else 0.0)
            x = self._with_context(self._with_newcomers(x), context)
            for layer in self.layers:
                x = layer(x, operators)
                outputs.append(x)
        return outputs

    def split(self, outputs: list[Tensor]) -> tuple[Structure, Structure]:
        """Split the outputs of the layers into those of users and of services."""
        n_users = len(self.users_connected)
        return (
            Structure([x[:n_users] for x in outputs], self.users_connected, self.n_members),
            Structure([x[n_users:] for x in outputs], self.services_connected, self.n_members),
        )

    def grow(self, graph: BipartiteGraph) -> None:
        """Replace the graph by one with more edges and nodes.

        The features of a new node start as the average of the connected nodes of its side. Without
        layers, the graph contains only the new edges.
        """
        known = self.users_connected, self.services_connected
        grown = self._with_new_nodes(self.features.detach(), graph)
        self.features = nn.Parameter(grown, self.features.requires_grad)
        if self.fold_features is not None:
            of_folds = [self._with_new_nodes(x, graph) for x in self.fold_features]
            self.fold_features = torch.stack(of_folds)
        self._join(graph)
        for is_connected, before in zip(
            (self.users_connected, self.services_connected), known, strict=True
        ):
            is_connected[: len(before)] |= before

    def vector_blocks(self) -> tuple[nn.Parameter, list[int]]:
        """Return the features of the nodes, and the number of users and of services."""
        return self.features, [len(self.users_connected), len(self.services_connected)]

    def _join(self, graph: BipartiteGraph) -> None:
        # Only layers use the edges.
        self.graph = graph if len(self.layers) else None
        users_connected, services_connected = graph.connected()
        self.register_buffer("users_connected", users_connected)
        self.register_buffer("services_connected", services_connected)

    def _features_of(self, fold: Tensor | None) -> Tensor:
        """Return the features without the pairs of a fold, or their averages over the folds."""
        if self.fold_features is None:
            return self.features
        fixed = self.fold_features.mean(0) if fold is None else self.fold_features[fold].squeeze(0)
        return fixed.repeat(1, self.n_members) + self.features

    def _with_context(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Append the context of each member to its features."""
        if context is None:
            return x
        of_members = x.unflatten(1, (self.n_members, -1))
        return torch.cat([of_members, context.transpose(0, 1)], dim=2).flatten(1)

    def _with_new_nodes(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        """Append the further nodes of a graph, with the average features of their side."""
        sides = x.split([len(self.users_connected), len(self.services_connected)])
        sizes = graph.n_users, graph.n_services
        grown = zip(sides, sizes, self._averages(x), strict=True)
        return torch.cat([append_rows(*side) for side in grown])

    def _averages(self, x: Tensor) -> list[Tensor]:
        """Return the average features of the connected users, and of the connected services."""
        connected = self.users_connected, self.services_connected
        sides = x.split([len(side) for side in connected])
        # A selection by a mask would wait for the device, because its size depends on values.
        return [
            is_connected.to(x.dtype).squeeze(1) @ side / is_connected.sum()
            for side, is_connected in zip(sides, connected, strict=True)
        ]

    def _with_newcomers(self, x: Tensor) -> Tensor:
        """In training, replace the features of some nodes by the average of their side."""
        if not (self.training and self.newcomer_share):
            return x
        connected = self.users_connected, self.services_connected
        averages = torch.cat(
            [
                average.expand(len(side), -1)
                for average, side in zip(self._averages(x), connected, strict=True)
            ]
        )
        draws = torch.rand(len(x), self.n_members, 1, device=x.device)
        is_new = (draws < self.newcomer_share).expand(-1, -1, x.shape[1] // self.n_members)
        return torch.where(is_new.flatten(1), averages, x)

    def _weights(self, held_out: Tensor) -> Tensor:
        """Return 0 for held-out edges, otherwise 1; -1 refers to an extra entry."""
        weights = torch.ones(self.graph.n_edges + 1, device=held_out.device)
        # An assignment of a number would copy it from the host.
        return weights.index_fill(0, held_out, 0.0)[:-1]


def scale_features(features: np.ndarray) -> Tensor:
    """Scale features to a common size."""
    size = features.std() if features.size else 0.0
    return torch.tensor(FEATURE_STD * features / (size or 1.0), dtype=torch.float32)
