"""Graph convolutional matrix factorisation (CSFE): spatial features of all steps at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos.entities import EntityTable
from skqos.graphs import BipartiteGraph, BipartiteOperators
from skqos.prediction import Encoded
from skqos.tpmcf.features import Sides, StepCells

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
        1 for weights that all steps share, the number of steps for own weights of each.
    """

    def __init__(self, n_members: int, in_dim: int, out_dim: int, n_weights: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_members, n_weights, in_dim, out_dim))
        self.bias = nn.Parameter(torch.zeros(n_members, n_weights, 1, out_dim))
        for weight in self.weight.flatten(0, 1):
            nn.init.xavier_uniform_(weight)

    def forward(self, convolved: Tensor) -> Tensor:
        """Transform convolved features; (n_members, n_steps, n, out_dim).

        They have the shape (n_members, n_steps, n, in_dim), or (n_steps, n, in_dim) where all
        members share them.
        """
        return F.relu(convolved @ self.weight + self.bias)


class GCMF(nn.Module):
    """Two graph-convolution units whose outputs, side by side, embed every node at every step.

    The graphs of all steps are one graph without edges between steps, so that one sparse product
    convolves them all. A user's and a service's embedding of the step, multiplied, predict (the
    matrix factorisation that the units are trained by). Members share the graph and the initial
    features; each has units of its own.

    Parameters
    ----------
    times : ndarray of int64 of shape (n_steps,)
        The time steps, ascending.
    cells : StepCells
        The training cells: the edges.
    folds : ndarray of int64 of shape (n_cells,)
        Fold of each.
    features : tuple of ndarray of shape (n_tables, n_steps, n, width)
        Initial features of users and services (F_0), one table without the cells of each fold; a
        single table is of all cells.
    n_members : int
        Number of members; the prediction is the average of theirs.
    hidden_dim : int
        Width of each unit (f').
    own_weights : bool
        Whether each step has weights of its own (the paper) or all share them.
    whole_self : bool
        Whether a node's own features keep weight 1 in the convolution (the authors' code), in place
        of 1 / (degree + 1) (the paper).
    start : float
        What is predicted at first; learnt on.
    """

    def __init__(
        self,
        times: np.ndarray,
        cells: StepCells,
        folds: np.ndarray,
        features: Sides,
        *,
        n_members: int,
        hidden_dim: int,
        own_weights: bool,
        whole_self: bool,
        start: float,
    ) -> None:
        super().__init__()
        n_steps, n_users, n_services = cells.shape
        in_dim = features[0].shape[-1]
        self.whole_self = whole_self
        self.register_buffer("times", torch.tensor(times))
        self.register_buffer("folds", torch.tensor(folds, dtype=torch.int32))
        self.graph = BipartiteGraph(
            cells.step_users, cells.step_services, n_steps * n_users, n_steps * n_services
        )
        n_weights = n_steps if own_weights else 1
        self.units = nn.ModuleList(
            GraphUnit(n_members, n, hidden_dim, n_weights) for n in (in_dim, hidden_dim)
        )
        self.start = nn.Parameter(torch.full((n_members, 1), float(start)))
        self.n_tables = len(features[0])
        # The first unit convolves what never changes: once is enough.
        convolved = [
            convolve_steps(
                self._operators(k), [torch.tensor(side[k]) for side in features], whole_self
            )
            for k in range(self.n_tables)
        ]
        for name, side in zip(("user", "service"), zip(*convolved, strict=True), strict=True):
            self.register_buffer(f"{name}_convolved", torch.stack(side))
            self.register_buffer(f"{name}_frozen", None)

    def forward(self, users: Tensor, services: Tensor, steps: Tensor, tables: Tensor) -> Tensor:
        """Predict training rows, all of one fold, from the others' cells; (n_members, n)."""
        return self._multiply(self.embed(tables[:1]), users, services, steps)

    def encode_known(self) -> Encoded:
        """Embed all known nodes at all steps."""
        users, services = self.prediction_embeddings()
        return Encoded(users, services, [average_node(side) for side in (users, services)])

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Embed newcomers at all steps: each is the average node."""
        users, services = known.averages
        return Encoded(
            users.expand(-1, -1, len(new_users), -1),
            services.expand(-1, -1, len(new_services), -1),
        )

    def score(self, encoded: Encoded, users: Tensor, services: Tensor, times: Tensor) -> Tensor:
        """Predict pairs, given as positions into what was encoded, at any times; (n,)."""
        embedded = encoded.users, encoded.services
        return self._multiply(embedded, users, services, last_steps(self.times, times)).mean(0)

    def embed(self, table: Tensor) -> TensorSides:
        """Embeddings of all nodes at all steps, both units' outputs side by side.

        Those of both sides have the shape (n_members, n_steps, n, 2 * hidden_dim). The table is
        given as a tensor of shape (1,): a number would have to be read from the device.
        """
        first = [
            self.units[0](side.index_select(0, table).squeeze(0))
            for side in (self.user_convolved, self.service_convolved)
        ]
        # One sparse product for all members, side by side in the width.
        wide = [side.permute(1, 2, 0, 3).flatten(2) for side in first]
        convolved = convolve_steps(self._operators(table), wide, self.whole_self)
        n_members = len(self.start)
        second = [
            self.units[1](side.unflatten(2, (n_members, -1)).permute(2, 0, 1, 3))
            for side in convolved
        ]
        return [torch.cat(outputs, dim=-1) for outputs in zip(first, second, strict=True)]

    @torch.no_grad()
    def embed_all(self) -> TensorSides:
        """Embeddings without each fold; (n_members, n_tables, n_steps, n, 2 * hidden_dim)."""
        all_tables = torch.arange(self.n_tables, device=self.user_convolved.device)
        tables = [self.embed(table) for table in all_tables.split(1)]
        return [torch.stack(side, dim=1) for side in zip(*tables, strict=True)]

    def prediction_embeddings(self) -> TensorSides:
        """Average the embeddings over the folds: they are what training has seen."""
        if self.user_frozen is not None:
            return [self.user_frozen, self.service_frozen]
        return [side.mean(1) for side in self.embed_all()]

    def freeze(self) -> None:
        """Keep what prediction needs: the embeddings, no graph and no features."""
        self.user_frozen, self.service_frozen = self.prediction_embeddings()
        self.graph = None
        self.folds = self.user_convolved = self.service_convolved = None

    def _operators(self, table: int | Tensor) -> BipartiteOperators:
        """Operators of the graph without a fold's edges, or of the whole graph."""
        return self.graph(None if self.n_tables == 1 else (self.folds != table).float())

    def _multiply(
        self, embedded: TensorSides, users: Tensor, services: Tensor, steps: Tensor
    ) -> Tensor:
        of_users, of_services = (
            take_nodes(side, steps, codes)
            for side, codes in zip(embedded, (users, services), strict=True)
        )
        return self.start + (of_users * of_services).sum(2) / of_users.shape[2] ** 0.5


def take_nodes(nodes: Tensor, steps: Tensor, codes: Tensor) -> Tensor:
    """Take nodes (n_members, n_steps, n, width) by step and code; (n_members, ..., width).

    `steps` and `codes` broadcast to a common shape. One number a node takes a third of the time
    of a look-up by two.
    """
    rows = steps * nodes.shape[2] + codes
    return nodes.flatten(1, 2).index_select(1, rows.flatten()).unflatten(1, rows.shape)


def average_node(nodes: Tensor) -> Tensor:
    """Average the nodes at every step; (..., n_steps, 1, width)."""
    return nodes.mean(-2, keepdim=True)


def last_steps(times: Tensor, targets: Tensor) -> Tensor:
    """Position of the last of the ascending times that is not after each target, at least 0."""
    # Counted, because ONNX has no search in sorted values.
    n_before = (times <= targets.unsqueeze(1)).sum(1)
    return (n_before - 1).clamp(min=0)


def convolve_steps(
    operators: BipartiteOperators, sides: TensorSides, whole_self: bool
) -> TensorSides:
    """Convolve all steps: normalised adjacency with self-loops times features (eq. 2 to 4).

    Nodes stand in the order of the graph: the users of all steps, then the services of all steps.

    Parameters
    ----------
    operators : BipartiteOperators
        Of the graph of all steps.
    sides : tuple of Tensor of shape (n_steps, n, width)
        Features of users and services.
    whole_self : bool
        Whether a node's own features keep weight 1, in place of 1 / (degree + 1).
    """
    nodes = torch.cat([side.flatten(0, 1) for side in sides])
    convolved = operators.convolve(nodes)
    if whole_self:
        degrees = torch.cat([operators.user_degrees, operators.service_degrees])
        convolved = convolved + (degrees / (degrees + 1)).unsqueeze(1) * nodes
    parts = convolved.split([len(side.flatten(0, 1)) for side in sides])
    return [part.unflatten(0, side.shape[:2]) for part, side in zip(parts, sides, strict=True)]


def standardise(values: Tensor) -> Tensor:
    """Centre and scale each feature (the last axis) of each member (the first).

    Constant ones become 0.
    """
    everything = tuple(range(1, values.ndim - 1))
    deviation, mean = torch.std_mean(values, everything, correction=0, keepdim=True)
    return (values - mean) / torch.where(deviation > 0, deviation, 1)
