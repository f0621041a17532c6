"""Graph convolutional matrix factorisation (CSFE): spatial features of all steps at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos.entities import EntityTable
from skqos.graphs import N_BINS, BipartiteGraph, BipartiteOperators, SideScales, TypedOperators
from skqos.prediction import Encoded
from skqos.tpmcf.features import Sides, StepCells

# Buffers: the initial features, the first unit's input, and the embeddings for prediction.
BY_SIDE = (
    *("user_initial", "service_initial"),
    *("user_convolved", "service_convolved"),
    *("user_frozen", "service_frozen"),
)
# Features of both sides: (..., n_steps, n_users, width) and (..., n_steps, n_services, width).
TensorSides = Sequence[Tensor]


class GraphUnit(nn.Module):
    """A GCMF unit without its convolution: ReLU(F W + b), by steps.

    Parameters
    ----------
    n_members : int
        Number of members.
    in_dim, out_dim : int
        Widths.
    n_weights : int
        1 for weights shared by all steps, or the number of steps for separate weights.
    scales : SideScales or None, default=None
        Factors of what users, and services, receive.
    """

    def __init__(
        self,
        n_members: int,
        in_dim: int,
        out_dim: int,
        n_weights: int,
        scales: SideScales | None = None,
    ) -> None:
        super().__init__()
        self.scales = scales
        self.weight = nn.Parameter(torch.empty(n_members, n_weights, in_dim, out_dim))
        self.bias = nn.Parameter(torch.zeros(n_members, n_weights, 1, out_dim))
        for weight in self.weight.flatten(0, 1):
            nn.init.xavier_uniform_(weight)

    def forward(self, convolved: Tensor, side: int) -> Tensor:
        """Transform convolved features of users (0) or of services (1).

        Parameters
        ----------
        convolved : Tensor of shape (n_members, n_steps, n, in_dim) or (n_steps, n, in_dim)
            Features; without the axis of members, all members share them.
        side : int
            0 for users and 1 for services.

        Returns
        -------
        Tensor of shape (n_members, n_steps, n, out_dim)
        """
        received = convolved @ self.weight
        if self.scales is not None:
            received = self.scales.of_side(received, side)
        return F.relu(received + self.bias)


class GCMF(nn.Module):
    """Two graph-convolution units, whose concatenated outputs embed every node at every step.

    The graphs of all steps are one graph without edges between steps, so that one sparse product
    convolves them all. The prediction is the product of the embeddings of user and service at the
    step, with which the units are trained. Members share the graph and the initial features; each
    has units of its own.

    Parameters
    ----------
    in_dim : int
        Width of the initial features.
    n_members : int
        Number of members, whose predictions are averaged.
    hidden_dim : int
        Width of each unit (f').
    n_weights : int
        Number of weights of each unit: 1, which all steps share, or one per step (the paper).
    whole_self : bool
        Whether a node's own features keep weight 1 in the convolution (the authors' code), in place
        of 1 / (degree + 1) (the paper).
    initial_prediction : float
        Prediction before training, by a constant that is trained.
    valued_edges : bool, default=False
        Whether the edges have types, the quarters of the residuals (see
        `BipartiteGraph`). Each unit then has a block of weights for each type, and one for the
        node's own features, whose weight is 1. It is not in the paper.
    bounds : tuple of float, default=None
        Lowest and highest prediction, between which a sigmoid maps the product of the embeddings.
        If None, as in the paper, predictions have no bounds.
    normalization : {"symmetric", "row"}, default="symmetric"
        Scaling of messages: by the degrees of both nodes, as in the paper, or by that of the
        receiver.
    side_scales : bool, default=False
        Whether each unit scales what users, and services, receive by learnt factors.
    edge_dropout : float, default=0.0
        Fraction of the edges that carry no messages in a training step. Degrees count the others.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        n_members: int,
        hidden_dim: int,
        n_weights: int,
        whole_self: bool,
        initial_prediction: float,
        valued_edges: bool = False,
        bounds: tuple[float, float] | None = None,
        normalization: str = "symmetric",
        side_scales: bool = False,
        edge_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.whole_self = whole_self
        self.valued_edges = valued_edges
        self.bounds = bounds
        self.normalization = normalization
        self.edge_dropout = edge_dropout
        n_parts = N_BINS + 1 if valued_edges else 1
        self.units = nn.ModuleList(
            GraphUnit(
                n_members,
                n_parts * n,
                hidden_dim,
                n_weights,
                SideScales(n_members) if side_scales else None,
            )
            for n in (in_dim, hidden_dim)
        )
        constant = float(initial_prediction)
        if bounds is not None:
            low, high = bounds
            share = np.clip((constant - low) / (high - low), 0.01, 0.99)
            constant = float(np.log(share / (1 - share)))
        self.constant = nn.Parameter(torch.full((n_members, 1), constant))
        self.graph = None
        self.n_folds = 0
        for name in ("times", "folds", *BY_SIDE):
            self.register_buffer(name, None)

    def observe(
        self, times: np.ndarray, cells: StepCells, folds: np.ndarray, features: Sides
    ) -> GCMF:
        """Set the graphs of the steps that `embed` and training use.

        Parameters
        ----------
        times : ndarray of int64 of shape (n_steps,)
            The time steps, ascending.
        cells : StepCells
            Their cells: the edges.
        folds : ndarray of int64 of shape (n_cells,)
            Fold of each cell.
        features : tuple of ndarray of shape (n_folds, n_steps, n, width)
            Initial features of users and services (F_0) without the cells of each fold, or with all
            cells if there is only one fold.
        """
        n_steps, n_users, n_services = cells.shape
        self.times = torch.tensor(times)
        self.folds = torch.tensor(folds, dtype=torch.int32)
        self.graph = BipartiteGraph(
            cells.step_users,
            cells.step_services,
            n_steps * n_users,
            n_steps * n_services,
            values=cells.values if self.valued_edges else None,
            normalization=self.normalization,
        )
        self.n_folds = len(features[0])
        initial = [torch.tensor(side) for side in features]
        # The input of the first convolution is constant and, with all edges, convolved once.
        convolved = [
            convolve_steps(self._operators(k), [side[k] for side in initial], self.whole_self)
            for k in range(self.n_folds)
        ]
        self.user_convolved, self.service_convolved = map(torch.stack, zip(*convolved, strict=True))
        if self.edge_dropout:
            self.user_initial, self.service_initial = initial
        self.user_frozen = self.service_frozen = None
        return self

    def forward(self, users: Tensor, services: Tensor, steps: Tensor, folds: Tensor) -> Tensor:
        """Predict training rows of one fold from the cells of the other folds; (n_members, n)."""
        return self._multiply(self.embed_training(folds[:1]), users, services, steps)

    def encode_known(self) -> Encoded:
        """Embed all known nodes at all steps."""
        users, services = self.prediction_embeddings()
        return Encoded(users, services, [average_node(side) for side in (users, services)])

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Embed new entities at all steps as the average node."""
        users, services = known.averages
        return Encoded(
            users.expand(-1, -1, len(new_users), -1),
            services.expand(-1, -1, len(new_services), -1),
        )

    def score(self, encoded: Encoded, users: Tensor, services: Tensor, times: Tensor) -> Tensor:
        """Predict pairs from positions of encoded entities, at any times; (n,)."""
        embedded = encoded.users, encoded.services
        return self._multiply(embedded, users, services, last_steps(self.times, times)).mean(0)

    def embed(self, fold: Tensor, edge_dropout: float = 0.0) -> TensorSides:
        """Embed all nodes at all steps without a fold: both units' outputs side by side.

        Parameters
        ----------
        fold : Tensor of int64 of shape (1,)
            The fold. A number would have to be read from the device.
        edge_dropout : float, default=0.0
            Fraction of the edges that are dropped at random, the same for both units.

        Returns
        -------
        list of two Tensors of shape (n_members, n_steps, n, 2 * hidden_dim)
            Embeddings of users and of services.
        """
        operators = self._operators(fold, edge_dropout)
        if edge_dropout:
            initial = _of_fold((self.user_initial, self.service_initial), fold)
            convolved = convolve_steps(operators, initial, self.whole_self)
        else:
            convolved = _of_fold((self.user_convolved, self.service_convolved), fold)
        first = [self.units[0](features, side) for side, features in enumerate(convolved)]
        second = [
            self.units[1](features, side)
            for side, features in enumerate(self._convolve_members(operators, first))
        ]
        return [torch.cat(outputs, dim=-1) for outputs in zip(first, second, strict=True)]

    def embed_training(self, fold: Tensor) -> TensorSides:
        """Embed all nodes at all steps without a fold; in training mode, edges are dropped."""
        return self.embed(fold, self.edge_dropout if self.training else 0.0)

    @torch.no_grad()
    def embed_all(self) -> TensorSides:
        """Embeddings without each fold; (n_members, n_folds, n_steps, n, 2 * hidden_dim)."""
        folds = torch.arange(self.n_folds, device=self.user_convolved.device)
        embedded = [self.embed(fold) for fold in folds.split(1)]
        return [torch.stack(side, dim=1) for side in zip(*embedded, strict=True)]

    def prediction_embeddings(self) -> TensorSides:
        """Average the embeddings over the folds, as in training."""
        if self.user_frozen is not None:
            return [self.user_frozen, self.service_frozen]
        return [side.mean(1) for side in self.embed_all()]

    def freeze(self) -> GCMF:
        """Keep only what prediction needs: the embeddings, without graph and features."""
        self.user_frozen, self.service_frozen = self.prediction_embeddings()
        return self._forget_graph()

    def forget_steps(self) -> GCMF:
        """Keep only the weights, so that other steps can be observed."""
        self.times = self.user_frozen = self.service_frozen = None
        return self._forget_graph()

    def place(self, times: np.ndarray, at: np.ndarray, embedded: TensorSides) -> None:
        """Insert the embeddings of some steps into the frozen ones of all steps.

        Parameters
        ----------
        times : ndarray of int64 of shape (n_steps,)
            All time steps.
        at : ndarray of int64 of shape (n_placed,)
            Positions of the placed ones.
        embedded : sequence of Tensor of shape (n_members, n_placed, n, width)
            Their embeddings; nodes that are not known yet come last.
        """
        for name, placed in zip(("user_frozen", "service_frozen"), embedded, strict=True):
            frozen = place_steps(getattr(self, name), self.times, times, at, placed)
            setattr(self, name, frozen)
        self.times = torch.tensor(times)

    def _forget_graph(self) -> GCMF:
        self.graph = None
        self.folds = self.user_convolved = self.service_convolved = None
        self.user_initial = self.service_initial = None
        return self

    def _operators(
        self, fold: int | Tensor, edge_dropout: float = 0.0
    ) -> BipartiteOperators | TypedOperators:
        """Return the operators of the graph, with or without the edges of a fold."""
        weights = None if self.n_folds == 1 else (self.folds != fold).float()
        return self.graph(weights, edge_dropout)

    def _convolve_members(
        self, operators: BipartiteOperators | TypedOperators, sides: TensorSides
    ) -> TensorSides:
        """Convolve features of the shape (n_members, n_steps, n, width) of each member.

        The widths of the results contain the types of edges.
        """
        n_members, width = len(sides[0]), sides[0].shape[3]
        # A single sparse product for all members, concatenated along the width.
        wide = [side.permute(1, 2, 0, 3).flatten(2) for side in sides]
        # Types of edges come before members.
        return [
            side.unflatten(2, (-1, n_members, width)).permute(3, 0, 1, 2, 4).flatten(3)
            for side in convolve_steps(operators, wide, self.whole_self)
        ]

    def _multiply(
        self, embedded: TensorSides, users: Tensor, services: Tensor, steps: Tensor
    ) -> Tensor:
        of_users, of_services = (
            take_nodes(side, steps, codes)
            for side, codes in zip(embedded, (users, services), strict=True)
        )
        product = self.constant + (of_users * of_services).sum(2) / of_users.shape[2] ** 0.5
        if self.bounds is None:
            return product
        low, high = self.bounds
        return low + (high - low) * product.sigmoid()


def _of_fold(sides: TensorSides, fold: Tensor) -> TensorSides:
    """Select the features without a fold; the first axis is that of the folds."""
    return [side.index_select(0, fold).squeeze(0) for side in sides]


def take_nodes(nodes: Tensor, steps: Tensor, codes: Tensor) -> Tensor:
    """Select nodes (n_members, n_steps, n, width) by step and code; (n_members, ..., width).

    `steps` and `codes` are broadcast to a common shape. A look-up by one number per node takes a
    third of the time of one by two numbers.
    """
    rows = steps * nodes.shape[2] + codes
    return nodes.flatten(1, 2).index_select(1, rows.flatten()).unflatten(1, rows.shape)


def place_steps(
    nodes: Tensor, known_times: Tensor, times: np.ndarray, at: np.ndarray, placed: Tensor
) -> Tensor:
    """Insert the features of some steps into those of the known steps.

    Parameters
    ----------
    nodes : Tensor of shape (n_members, n_known_steps, n_known, width)
        Features at the known steps.
    known_times : Tensor of int64 of shape (n_known_steps,)
        These steps.
    times : ndarray of int64 of shape (n_steps,)
        All steps, ascending: the known and the placed ones.
    at : ndarray of int64 of shape (n_placed,)
        Positions of the placed ones.
    placed : Tensor of shape (n_members, n_placed, n, width)
        Their features. Nodes that are not known come last.

    Returns
    -------
    Tensor of shape (n_members, n_steps, n, width)
        A node that was not known is the average node at the steps that were not placed.
    """
    n_new = placed.shape[2] - nodes.shape[2]
    grown = torch.cat([nodes, average_node(nodes).expand(-1, -1, n_new, -1)], dim=2)
    result = grown.new_empty(len(grown), len(times), *grown.shape[2:])
    result[:, np.searchsorted(times, known_times.numpy())] = grown
    result[:, at] = placed
    return result


def average_node(nodes: Tensor) -> Tensor:
    """Average the nodes at every step; (..., n_steps, 1, width)."""
    return nodes.mean(-2, keepdim=True)


def last_steps(times: Tensor, targets: Tensor) -> Tensor:
    """Return the position of the last time that is not after each target, at least 0."""
    # Computed by counting, because ONNX has no search in sorted values.
    n_before = (times <= targets.unsqueeze(1)).sum(1)
    return (n_before - 1).clamp(min=0)


def convolve_steps(
    operators: BipartiteOperators | TypedOperators, sides: TensorSides, whole_self: bool
) -> TensorSides:
    """Convolve all steps: normalised adjacency with self-loops times features (eq. 2 to 4).

    Nodes are in the order of the graph: the users of all steps, then the services of all steps.

    Parameters
    ----------
    operators : BipartiteOperators or TypedOperators
        Operators of the graph of all steps. With types of edges, the results for each type and the
        own features are side by side.
    sides : tuple of Tensor of shape (n_steps, n, width)
        Features of users and services.
    whole_self : bool
        Whether a node's own features keep weight 1, in place of 1 / (degree + 1). With types of
        edges they always do.
    """
    nodes = torch.cat([side.flatten(0, 1) for side in sides])
    if isinstance(operators, TypedOperators):
        convolved = _convolve_types(operators, nodes)
    else:
        convolved = operators.convolve(nodes)
    if whole_self and isinstance(operators, BipartiteOperators):
        degrees = torch.cat([operators.user_degrees, operators.service_degrees])
        convolved = convolved + (degrees / (degrees + 1)).unsqueeze(1) * nodes
    parts = convolved.split([len(side.flatten(0, 1)) for side in sides])
    return [part.unflatten(0, side.shape[:2]) for part, side in zip(parts, sides, strict=True)]


def _convolve_types(operators: TypedOperators, nodes: Tensor) -> Tensor:
    """Average the neighbours of each type; (n_nodes, (N_BINS + 1) * width), own features last."""
    # A block of columns for each type, since a product sums over the types.
    blocks = torch.eye(N_BINS + 1, device=nodes.device, dtype=nodes.dtype)[:, None, :, None]
    return operators.convolve((blocks * nodes[:, None, :]).flatten(0, 1).flatten(1))


def embedding_scales(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature (the last axis) of each member (the first).

    The deviation of a constant one is 1.
    """
    everything = tuple(range(1, values.ndim - 1))
    deviation, mean = torch.std_mean(values, everything, correction=0, keepdim=True)
    return mean, torch.where(deviation > 0, deviation, 1)
