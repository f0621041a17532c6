"""The network of SHARP-QoS: graph convolutions, routing, fusion, and a product of two sides.

Inside graphs, features are (n_rows, n_members * dim), with concatenated members. Features of
entities have the members as the first axis, preceded by the tasks if they differ between tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos.embeddings import append_rows
from skqos.entities import EntityTable
from skqos.graphs import BipartiteGraph, ContextGraph, SideScales
from skqos.members import ByteDropout, split_members
from skqos.prediction import Encoded
from skqos.sharp_qos.context import ContextColumn
from skqos.sharp_qos.hyperbolic import (
    GraphConvolution,
    HypergraphConvolution,
    PoincareBall,
)
from skqos.sharp_qos.routing import CrossRouting, GatedFusion, SubnetworkRouting, TaskLinear

# Initial size of features.
FEATURE_STD = 0.05


class ContextConvolution(nn.Module):
    """All context graphs: convolution of the features of categories.

    Entities of a side with equal categories are equal in a graph and share a row. The rows of all
    graphs are concatenated and convolved as one graph.

    Parameters
    ----------
    graphs : list of list of ContextColumn
        Columns of each graph: one for separate graphs, all for the merged graph.
    features : list of list of ndarray of shape (n_codes, feature_dim)
        Features of the codes of each column.
    users, services : EntityTable
        Training entities.
    n_members : int
        Number of members.
    dim : int
        Width of the layers.
    n_layers : int
        Number of layers.
    ball : PoincareBall or None
        Ball of the convolution; None for Euclidean space.
    fine_tune : bool
        Whether the features are trained.

    Attributes
    ----------
    out_dim : int
        Total width of the features of an entity.
    """

    def __init__(
        self,
        graphs: list[list[ContextColumn]],
        features: list[list[np.ndarray]],
        users: EntityTable,
        services: EntityTable,
        *,
        n_members: int,
        dim: int,
        n_layers: int,
        ball: PoincareBall | None,
        fine_tune: bool,
    ) -> None:
        super().__init__()
        self.n_members = n_members
        self.graphs = graphs
        # The codes of all columns, concatenated.
        of_codes = torch.cat([_scaled(column) for of_graph in features for column in of_graph])
        self.features = nn.Parameter(of_codes.repeat(1, n_members), requires_grad=fine_tune)
        self._join(users, services)
        widths = [sum(column.shape[1] for column in features[0])] + [dim] * n_layers
        self.layers = nn.ModuleList(
            GraphConvolution(n_members, n_in, n_out, ball, len(graphs))
            for n_in, n_out in pairwise(widths)
        )
        self.out_dim = len(graphs) * widths[-1]

    def grow(
        self, graphs: list[list[ContextColumn]], users: EntityTable, services: EntityTable
    ) -> None:
        """Add the entities that were appended; new categories start as the average."""
        known, grown = (list(chain.from_iterable(columns)) for columns in (self.graphs, graphs))
        parts = self.features.detach().split(_n_codes(self.graphs))
        parts = [_append_codes(*part) for part in zip(parts, known, grown, strict=True)]
        self.features = nn.Parameter(torch.cat(parts), self.features.requires_grad)
        self.graphs = graphs
        self._join(users, services)

    def forward(self) -> Tensor:
        """Convolve among the training entities; (n_rows, n_members * dim)."""
        return self._convolve(self.places, self.graph, self.sizes)

    def take(self, convolved: Tensor, rows: Tensor) -> Tensor:
        """Select rows of each graph from the result of `forward`.

        Parameters
        ----------
        convolved : Tensor of shape (n_rows, n_members * dim)
            Features of all rows.
        rows : Tensor of int64 of shape (n, n_graphs)
            Rows from ``user_rows`` or ``service_rows``.

        Returns
        -------
        Tensor of shape (n_members, n, out_dim)
        """
        return split_members(F.embedding(rows, convolved), self.n_members)

    def encode_known(self) -> list[Tensor]:
        """Represent all known users, and all known services; (n_members, n, out_dim) each."""
        convolved = self()
        return [self.take(convolved, rows) for rows in (self.user_rows, self.service_rows)]

    def encode_new(
        self, averages: list[Tensor], new_users: EntityTable, new_services: EntityTable
    ) -> list[Tensor]:
        """Represent new users, and new services, given the average known ones.

        A new entity receives messages from all entities and sends none. Without a known category in
        a graph, it is the average entity of its side.
        """
        return [
            self._receive(average.unsqueeze(1), codes)
            for average, codes in zip(
                averages,
                (self._user_codes(new_users), self._service_codes(new_services)),
                strict=True,
            )
        ]

    def _receive(self, average: Tensor, codes: list[np.ndarray]) -> Tensor:
        """Convolve new entities, given by their codes in each graph, with all entities."""
        n_new = len(codes[0])
        has_context = np.stack([(of_graph >= 0).any(1) for of_graph in codes], axis=1)
        if not has_context.any():
            return average.expand(-1, n_new, -1)
        new = [torch.as_tensor(of_graph, device=average.device) for of_graph in codes]
        rows = [torch.cat(pair) for pair in zip(self.rows.split(self.sizes), new, strict=True)]
        counts = [
            torch.cat([known, known.new_zeros(n_new)]) for known in self.counts.split(self.sizes)
        ]
        sizes = [len(of_graph) for of_graph in rows]
        graph = ContextGraph(self._groups(rows), torch.cat(counts))
        convolved = self._convolve(self._places(rows), graph, sizes)
        last = np.cumsum(sizes) - n_new + np.arange(n_new)[:, None]
        found = self.take(convolved, torch.as_tensor(last, device=average.device))
        has_context = torch.as_tensor(has_context, device=average.device)
        width = found.shape[2] // len(codes)
        return torch.where(has_context.repeat_interleave(width, dim=1), found, average)

    def _join(self, users: EntityTable, services: EntityTable) -> None:
        """Arrange the rows of the graphs and their edges."""
        rows, counts, places = [], [], []
        for codes in zip(self._user_codes(users), self._service_codes(services), strict=True):
            found, inverse, count = np.unique(
                np.concatenate(codes), axis=0, return_inverse=True, return_counts=True
            )
            places.append(inverse.reshape(-1) + sum(map(len, rows)))
            rows.append(torch.tensor(found))
            counts.append(torch.tensor(count))
        self.sizes = [len(of_graph) for of_graph in rows]
        user_rows, service_rows = np.split(np.stack(places, axis=1), [len(users)])
        self.register_buffer("rows", torch.cat(rows))
        self.register_buffer("counts", torch.cat(counts))
        self.register_buffer("places", self._places(rows))
        self.register_buffer("user_rows", torch.tensor(user_rows))
        self.register_buffer("service_rows", torch.tensor(service_rows))
        self.graph = ContextGraph(self._groups(rows), self.counts)

    def _convolve(self, places: Tensor, graph: ContextGraph, sizes: list[int]) -> Tensor:
        """Convolve rows, given by the positions of their codes' features."""
        # The codes of a column are followed by their average.
        columns = self.features.split(_n_codes(self.graphs))
        table = torch.cat([part for x in columns for part in (x, x.mean(0, keepdim=True))])
        found = F.embedding(places, table).unflatten(2, (self.n_members, -1))
        # The columns of a merged graph are concatenated.
        x = found.transpose(1, 2).flatten(1)
        for layer in self.layers:
            x = layer(x, graph, sizes)
        return x

    def _places(self, rows: list[Tensor]) -> Tensor:
        """Return the positions of the features of codes; -1 selects the average."""
        starts = iter(np.cumsum([0, *(n + 1 for n in _n_codes(self.graphs))]).tolist())
        places = [
            torch.stack(
                [
                    next(starts) + torch.where(codes < 0, len(column.groups), codes)
                    for column, codes in zip(columns, of_graph.unbind(1), strict=True)
                ],
                dim=1,
            )
            for columns, of_graph in zip(self.graphs, rows, strict=True)
        ]
        return torch.cat(places)

    def _groups(self, rows: list[Tensor]) -> Tensor:
        """Return the group of each code, -1 for none. Groups of different graphs are distinct."""
        groups, start = [], 0
        for columns, of_graph in zip(self.graphs, rows, strict=True):
            # -1 selects the appended entry, which is no group.
            of_columns = [np.append(column.groups, -1) for column in columns]
            found = torch.stack(
                [
                    torch.as_tensor(of_column, device=codes.device)[codes]
                    for of_column, codes in zip(of_columns, of_graph.unbind(1), strict=True)
                ],
                dim=1,
            )
            groups.append(torch.where(found < 0, -1, found + start))
            start += 1 + max(int(of_column.max()) for of_column in of_columns)
        return torch.cat(groups)

    def _user_codes(self, users: EntityTable) -> list[np.ndarray]:
        return [
            np.column_stack([column.user_codes(users) for column in columns])
            for columns in self.graphs
        ]

    def _service_codes(self, services: EntityTable) -> list[np.ndarray]:
        return [
            np.column_stack([column.service_codes(services) for column in columns])
            for columns in self.graphs
        ]


def _n_codes(graphs: list[list[ContextColumn]]) -> list[int]:
    """Count the codes of each column of all graphs."""
    return [len(column.groups) for columns in graphs for column in columns]


class NumericContext(nn.Module):
    """Projected numeric context of one side. It is not in the paper, which has only categories.

    Parameters
    ----------
    table : EntityTable
        Training entities, with any number of numeric columns; an unknown value is the mean, 0.
    n_members : int
        Number of members.
    dim : int
        Width of the projection.
    """

    def __init__(self, table: EntityTable, n_members: int, dim: int) -> None:
        super().__init__()
        n_numeric = table.numerics.shape[1]
        self.register_buffer("numerics", torch.tensor(np.nan_to_num(table.numerics)))
        scale = max(n_numeric, 1) ** -0.5
        self.weight = nn.Parameter(scale * torch.randn(n_members, n_numeric, dim))
        self.bias = nn.Parameter(torch.zeros(n_members, 1, dim))

    def forward(self, codes: Tensor) -> Tensor:
        """Represent known entities; (n_members, n, dim)."""
        return self._project(self.numerics[codes])

    def encode_known(self) -> Tensor:
        """Represent all known entities; (n_members, n, dim)."""
        return self._project(self.numerics)

    def encode_new(self, average: Tensor, new: EntityTable) -> Tensor:
        """Represent new entities; without any known number, they are the average entity."""
        numbers = torch.as_tensor(np.nan_to_num(new.numerics)).to(average)
        nothing = torch.as_tensor(np.isnan(new.numerics).all(1, keepdims=True))
        projected = self._project(numbers)
        return torch.where(nothing.to(average.device), average.unsqueeze(1), projected)

    def grow(self, table: EntityTable) -> None:
        """Add the numbers of the entities that were appended."""
        self.numerics = torch.tensor(np.nan_to_num(table.numerics))

    def _project(self, numbers: Tensor) -> Tensor:
        return torch.relu(numbers @ self.weight + self.bias)


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
    features and the outputs of all layers.

    Parameters
    ----------
    graph : BipartiteGraph
        Graph of the observed pairs.
    features : ndarray of shape (n_users + n_services, feature_dim)
        Features of the nodes, from which all members start.
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
        Whether the features are trained.
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
    ) -> None:
        super().__init__()
        self.n_members = n_members
        self.edge_dropout = edge_dropout
        self.newcomer_share = newcomer_share
        of_members = _scaled(features).repeat(1, n_members)
        self.features = nn.Parameter(of_members, requires_grad=fine_tune)
        self.dropout = ByteDropout(dropout)
        layer = HypergraphConvolution if convolution == "hhgcn" else GraphConvolution
        widths = [features.shape[1]] + [dim] * (0 if convolution == "none" else n_layers)
        self.layers = nn.ModuleList(
            layer(
                n_members,
                n_in,
                n_out,
                ball,
                n_parts=graph.n_parts,
                scales=SideScales(n_members) if side_scales else None,
            )
            for n_in, n_out in pairwise(widths)
        )
        self.out_dim = sum(widths)
        self._join(graph)

    def forward(self, held_out: Tensor | None = None) -> list[Tensor]:
        """Convolve the features of all nodes.

        Parameters
        ----------
        held_out : Tensor of int64, default=None
            Edges that carry no messages; -1 for no edge. If None, all edges carry messages.

        Returns
        -------
        list of Tensor of shape (n_users + n_services, n_members * ...)
            Features, and output of each layer.
        """
        x = self.dropout(self.features)
        outputs = [x]
        if len(self.layers):
            weights = None if held_out is None else self._weights(held_out)
            operators = self.graph(weights, self.edge_dropout if self.training else 0.0)
            x = self._with_newcomers(x)
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
        n_users = len(self.users_connected)
        known = self.users_connected, self.services_connected
        sides = [
            append_rows(x, n, average)
            for x, n, average in zip(
                (self.features[:n_users].detach(), self.features[n_users:].detach()),
                (graph.n_users, graph.n_services),
                self._averages(self.features.detach()),
                strict=True,
            )
        ]
        self.features = nn.Parameter(torch.cat(sides), self.features.requires_grad)
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


class SharpQoSModule(nn.Module):
    """Network of hierarchical features, shared features, fusion and joint prediction.

    Parameters
    ----------
    graphs : list of QoSGraph
        Graph of each task, which is a QoS parameter.
    context : ContextConvolution or None
        Context graphs.
    numbers : tuple of NumericContext or None
        Numeric context of users and of services.
    context_dim : int
        Total width of the context features; 0 without context.
    n_members : int
        Number of members, whose predictions are averaged.
    hidden_dim : int
        Width of routed and of fused features.
    out_dim : int
        Width of the vectors whose product is the prediction.
    routing, cross_routing : bool
        Whether there is SNR and Cross-SNR.
    n_blocks, n_cross_blocks : int
        Number of blocks of each routing.
    gate_temperature, gate_log_odds : float
        Temperature and initial log-odds of the gates.
    l0_penalty : float
        Weight of the expected number of open gates in the loss.
    context_dropout : float
        Dropout rate of the context features.
    newcomer_share : float
        Fraction of the entities of a step that are represented as new ones.
    start : ndarray of shape (n_tasks,)
        Approximate prediction of the untrained network.
    """

    # Convolved context, in `fixed_parts`.
    _convolved: Tensor | None = None

    def __init__(
        self,
        graphs: list[QoSGraph],
        context: ContextConvolution | None,
        numbers: tuple[NumericContext, NumericContext] | None,
        *,
        context_dim: int,
        n_members: int,
        hidden_dim: int,
        out_dim: int,
        routing: bool,
        cross_routing: bool,
        n_blocks: int,
        n_cross_blocks: int,
        gate_temperature: float,
        gate_log_odds: float,
        l0_penalty: float,
        context_dropout: float,
        newcomer_share: float,
        start: np.ndarray,
    ) -> None:
        super().__init__()
        n_tasks, structural_dim = len(graphs), graphs[0].out_dim
        self.n_members = n_members
        self.l0_penalty = l0_penalty
        self.newcomer_share = newcomer_share
        self.graphs = nn.ModuleList(graphs)
        self.context = context
        self.numbers = None if numbers is None else nn.ModuleList(numbers)
        self.context_dropout = ByteDropout(context_dropout)
        self.router = self.cross_router = None
        gates = gate_temperature, gate_log_odds
        shared_dim = context_dim
        if routing and context_dim:
            self.router = SubnetworkRouting(
                n_members, context_dim, hidden_dim, n_tasks, n_blocks, *gates
            )
            shared_dim = hidden_dim
        if cross_routing and n_tasks > 1:
            self.cross_router = CrossRouting(
                n_members, structural_dim, hidden_dim, n_tasks, n_cross_blocks, *gates
            )
            shared_dim += hidden_dim
        stack = n_tasks, n_members
        self.fusion = GatedFusion(*stack, structural_dim, shared_dim, hidden_dim)
        self.user_head = _feed_forward(*stack, hidden_dim, out_dim)
        self.service_head = _feed_forward(*stack, hidden_dim, out_dim)
        self.bias = nn.Parameter(torch.tensor(start, dtype=torch.float32).repeat(n_members, 1))

    @contextmanager
    def fixed_parts(self) -> Iterator[None]:
        """Convolve the context graphs once inside the block, which may not change them."""
        if self.context is not None:
            self._convolved = self.context()
        try:
            yield
        finally:
            self.__dict__.pop("_convolved", None)

    def forward(self, users: Tensor, services: Tensor, edges: Tensor | None = None) -> Tensor:
        """Predict pairs of known entities.

        Parameters
        ----------
        users, services : Tensor of int64 of shape (n,)
            Codes.
        edges : Tensor of int64 of shape (n, n_tasks), default=None
            Edges of the QoS graphs that carry no messages, because their pairs are predicted; -1
            for no edge.

        Returns
        -------
        Tensor of shape (n_members, n, n_tasks)
        """
        held_out = [None] * len(self.graphs) if edges is None else edges.unbind(1)
        structural = [
            graph.split(graph(left_out))
            for graph, left_out in zip(self.graphs, held_out, strict=True)
        ]
        # Users and many services occur more than once in a batch.
        users, user_positions = _distinct(users)
        services, service_positions = _distinct(services)
        user_context, service_context = self._context_of(users, services)
        z_users = self._represent(
            user_context,
            self._take([of_users for of_users, _ in structural], users),
            self.user_head,
        )
        z_services = self._represent(
            service_context,
            self._take([of_services for _, of_services in structural], services),
            self.service_head,
        )
        predicted = self._multiply(
            _take_rows(z_users, user_positions), _take_rows(z_services, service_positions)
        )
        return predicted.permute(1, 2, 0)

    def encode_known(self) -> Encoded:
        """Represent all known users and services; (n_tasks, n_members, n, out_dim) each.

        All edges carry messages.
        """
        structural = list(zip(*(graph.split(graph()) for graph in self.graphs), strict=True))
        context = [] if self.context is None else [self.context.encode_known()]
        if self.numbers is not None:
            context.append([numbers.encode_known() for numbers in self.numbers])
        averages = (
            [torch.stack([structure.average() for structure in side]) for side in structural],
            [[side.mean(1) for side in sides] for sides in context],
        )
        structures = [
            torch.stack([structure.encode_known() for structure in side]) for side in structural
        ]
        return Encoded(*self._represent_sides(context, structures), averages)

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Represent new entities, with the structural features of the average entity."""
        structural, averages = known.averages
        new = new_users, new_services
        context = []
        if self.context is not None:
            context.append(self.context.encode_new(averages[0], *new))
        if self.numbers is not None:
            context.append(
                [
                    numbers.encode_new(average, table)
                    for numbers, average, table in zip(self.numbers, averages[-1], new, strict=True)
                ]
            )
        structures = [
            average.expand(-1, -1, len(table), -1)
            for average, table in zip(structural, new, strict=True)
        ]
        return Encoded(*self._represent_sides(context, structures))

    def score(self, encoded: Encoded, users: Tensor, services: Tensor | slice) -> Tensor:
        """Predict pairs from positions of encoded entities; (n, n_tasks)."""
        predicted = self._multiply(encoded.users[:, :, users], encoded.services[:, :, services])
        return predicted.mean(1).T

    def grow(
        self,
        graphs: list[BipartiteGraph],
        columns: list[list[ContextColumn]],
        users: EntityTable,
        services: EntityTable,
    ) -> None:
        """Add new edges, and the entities and categories that were appended.

        Parameters
        ----------
        graphs : list of BipartiteGraph
            Extended QoS graph of each task.
        columns : list of list of ContextColumn
            Extended columns of each context graph.
        users, services : EntityTable
            All entities, the known ones first.
        """
        for grown, graph in zip(self.graphs, graphs, strict=True):
            grown.grow(graph)
        if self.context is not None:
            self.context.grow(columns, users, services)
        for numbers, table in zip(self.numbers or (), (users, services), strict=False):
            numbers.grow(table)

    def penalty(self) -> Tensor:
        """Return the weighted expected number of open gates (L0) per member."""
        probabilities = self.gate_probabilities().values()
        return self.l0_penalty * sum(p.sum() for p in probabilities)

    def gate_probabilities(self) -> dict[str, Tensor]:
        """Return the probability that each gate is open, averaged over the members.

        The axes of SNR are task and block. Those of Cross-SNR are task, other task and block, with
        0 for a task and itself.
        """
        found = {}
        if self.router is not None:
            found["snr"] = self.router.gates.probabilities().mean(0)
        if self.cross_router is not None:
            router = self.cross_router
            found["cross_snr"] = router.gates.probabilities().mean(0) * router.others
        return found

    def active_shares(self) -> dict[str, np.ndarray]:
        """Return the share of the gates of each task that are not 0 in prediction, by routing."""
        found = {}
        with torch.no_grad():
            if self.router is not None:
                is_open = self.router.gates.settled() > 0
                found["snr"] = is_open.float().mean((0, 2)).cpu().numpy()
            if self.cross_router is not None:
                is_open = (self.cross_router.gates.settled() > 0) * self.cross_router.others
                n_others = is_open.shape[1] - 1
                found["cross_snr"] = (is_open.sum(2) / n_others).mean((0, 2)).cpu().numpy()
        return found

    def _represent_sides(
        self, context: list[list[Tensor]], structural: list[Tensor]
    ) -> list[Tensor]:
        """Represent users and services, given the context of both."""
        return [
            self._represent([sides[k] for sides in context], structural[k], head)
            for k, head in enumerate((self.user_head, self.service_head))
        ]

    def _represent(self, context: list[Tensor], structural: Tensor, head: nn.Sequential) -> Tensor:
        """Route, fuse and project.

        Parameters
        ----------
        context : list of Tensor of shape (n_members, n, ...)
            Context features; may be empty.
        structural : Tensor of shape (n_tasks, n_members, n, structural_dim)
            Structural features.
        head : Sequential
            Head of the side.

        Returns
        -------
        Tensor of shape (n_tasks, n_members, n, out_dim)
        """
        shared = []
        if context:
            joined = self.context_dropout(torch.cat(context, dim=2))
            if self.router is None:
                shared.append(joined.expand(len(structural), -1, -1, -1))
            else:
                shared.append(self.router(joined))
        if self.cross_router is not None:
            shared.append(self.cross_router(structural))
        return head(self.fusion(structural, shared))

    def _context_of(self, users: Tensor, services: Tensor) -> list[list[Tensor]]:
        """Select the context features of known users and of known services."""
        found = [[], []]
        if self.context is not None:
            convolved = self.context() if self._convolved is None else self._convolved
            rows = self.context.user_rows[users], self.context.service_rows[services]
            for side, of_side in zip(found, rows, strict=True):
                side.append(self.context.take(convolved, of_side))
        for side, numbers, codes in zip(found, self.numbers or (), (users, services), strict=False):
            side.append(numbers(codes))
        return found

    def _take(self, structural: list[Structure], codes: Tensor) -> Tensor:
        """Select structural features of known entities; in training, represent some as new ones."""
        is_new = None
        if self.training and self.newcomer_share:
            draws = torch.rand(self.n_members, len(codes), 1, device=codes.device)
            is_new = draws < self.newcomer_share
        return torch.stack([structure.take(codes, is_new) for structure in structural])

    def _multiply(self, users: Tensor, services: Tensor) -> Tensor:
        """Multiply rows of the two sides (n_tasks, n_members, n, out_dim), and add the constant."""
        return (users * services).sum(-1) + self.bias.T.unsqueeze(2)


def _feed_forward(n_tasks: int, n_members: int, in_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(
        TaskLinear(n_tasks, n_members, in_dim, in_dim),
        nn.ReLU(),
        TaskLinear(n_tasks, n_members, in_dim, out_dim),
    )


def _distinct(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Find distinct codes, and where each code is among them.

    On other devices than a CPU, all codes are treated as distinct, because counting them would wait
    for the device.
    """
    if codes.device.type == "cpu":
        return codes.unique(return_inverse=True)
    return codes, torch.arange(len(codes), device=codes.device)


def _take_rows(z: Tensor, rows: Tensor) -> Tensor:
    """Select rows of the second last axis, as an embedding, whose gradient is fastest."""
    stack, (n, dim) = z.shape[:-2], z.shape[-2:]
    starts = torch.arange(0, stack.numel() * n, n, device=z.device)
    found = F.embedding(rows + starts.unsqueeze(1), z.reshape(-1, dim))
    return found.unflatten(0, stack)


def _append_codes(features: Tensor, known: ContextColumn, grown: ContextColumn) -> Tensor:
    """Return the features of the codes of an extended column; new codes follow on each side."""
    n_users, average = known.n_user_categories, features.mean(0)
    n_services = len(grown.groups) - grown.n_user_categories
    return torch.cat(
        [
            append_rows(features[:n_users], grown.n_user_categories, average),
            append_rows(features[n_users:], n_services, average),
        ]
    )


def _scaled(features: np.ndarray) -> Tensor:
    """Scale features to a common size."""
    size = features.std() if features.size else 0.0
    return torch.tensor(FEATURE_STD * features / (size or 1.0), dtype=torch.float32)
