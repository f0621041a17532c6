"""The network of SHARP-QoS: graph convolutions, routing, fusion, and a product of two sides."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from skqos.embeddings import append_rows
from skqos.entities import EntityTable
from skqos.graphs import BipartiteGraph, ContextGraph
from skqos.prediction import Encoded
from skqos.sharp_qos.context import ContextColumn
from skqos.sharp_qos.hyperbolic import GraphConvolution, HypergraphConvolution, PoincareBall
from skqos.sharp_qos.routing import CrossRouting, GatedFusion, SubnetworkRouting

# Features enter at this size: small ahead of what the layers make of them.
FEATURE_STD = 0.05


class ContextConvolution(nn.Module):
    """One context graph: features of categories, convolved among the entities that share them.

    Entities of a side with equal categories are equal here, and share a row.

    Parameters
    ----------
    columns : list of ContextColumn
        The columns of the graph: one, or all of a merged graph.
    features : list of ndarray of shape (n_codes, feature_dim)
        Features of the codes of each column.
    users, services : EntityTable
        The training entities.
    dim : int
        Width of the layers.
    n_layers : int
        Number of layers.
    ball : PoincareBall or None
        Where to convolve; None is Euclidean space.
    fine_tune : bool
        Whether the features are trained on.
    """

    def __init__(
        self,
        columns: list[ContextColumn],
        features: list[np.ndarray],
        users: EntityTable,
        services: EntityTable,
        dim: int,
        n_layers: int,
        ball: PoincareBall | None,
        fine_tune: bool,
    ) -> None:
        super().__init__()
        self.columns = columns
        self.features = nn.ParameterList(
            nn.Parameter(_scaled(feature), requires_grad=fine_tune) for feature in features
        )
        self._join(users, services)
        widths = [sum(feature.shape[1] for feature in features)] + [dim] * n_layers
        self.layers = nn.ModuleList(
            GraphConvolution(n_in, n_out, ball) for n_in, n_out in pairwise(widths)
        )

    def grow(self, columns: list[ContextColumn], users: EntityTable, services: EntityTable) -> None:
        """Join entities that were appended to the graph; new categories start as the average."""
        self.features = nn.ParameterList(
            nn.Parameter(_append_codes(feature.detach(), *pair), feature.requires_grad)
            for feature, *pair in zip(self.features, self.columns, columns, strict=True)
        )
        self.columns = columns
        self._join(users, services)

    def _join(self, users: EntityTable, services: EntityTable) -> None:
        """Arrange the rows of the graph and its edges."""
        user_codes, service_codes = self._user_codes(users), self._service_codes(services)
        rows, inverse, counts = np.unique(
            np.concatenate([user_codes, service_codes]),
            axis=0,
            return_inverse=True,
            return_counts=True,
        )
        user_rows, service_rows = np.split(inverse.reshape(-1), [len(users)])
        self.register_buffer("rows", torch.tensor(rows))
        self.register_buffer("counts", torch.tensor(counts))
        self.register_buffer("user_rows", torch.tensor(user_rows))
        self.register_buffer("service_rows", torch.tensor(service_rows))
        self.graph = ContextGraph(self._groups(self.rows), self.counts)

    def forward(self) -> Tensor:
        """Convolve among the training entities; (n_rows, dim)."""
        return self._convolve(self.rows, self.graph)

    def encode_known(self) -> list[Tensor]:
        """Represent all known users, and all known services; (n, dim) each."""
        known = self()
        return [known[self.user_rows], known[self.service_rows]]

    def encode_new(
        self, averages: list[Tensor], new_users: EntityTable, new_services: EntityTable
    ) -> list[Tensor]:
        """Represent new users, and new services, given the average known ones.

        A newcomer receives messages from all entities and sends none. One without any category
        known here is the average entity of its side.
        """
        sides = []
        for average, new_codes in zip(
            averages, (self._user_codes(new_users), self._service_codes(new_services)), strict=True
        ):
            new = average.repeat(len(new_codes), 1)
            codes = torch.as_tensor(new_codes, device=new.device)
            has_context = (codes >= 0).any(1)
            if has_context.any():
                new[has_context] = self._receive(codes[has_context])
            sides.append(new)
        return sides

    def _receive(self, codes: Tensor) -> Tensor:
        """Convolve newcomers among all entities."""
        rows = torch.cat([self.rows, codes])
        counts = torch.cat([self.counts, self.counts.new_zeros(len(codes))])
        graph = ContextGraph(self._groups(rows), counts)
        return self._convolve(rows, graph)[len(self.rows) :]

    def _convolve(self, rows: Tensor, graph: ContextGraph) -> Tensor:
        # -1 takes what is appended: the average of all codes.
        x = torch.cat(
            [
                torch.cat([feature, feature.mean(0, keepdim=True)])[codes]
                for feature, codes in zip(self.features, rows.unbind(1), strict=True)
            ],
            dim=1,
        )
        for layer in self.layers:
            x = layer(x, graph)
        return x

    def _groups(self, rows: Tensor) -> Tensor:
        # -1 takes what is appended: no group.
        return torch.stack(
            [
                torch.as_tensor(np.append(column.groups, -1), device=rows.device)[codes]
                for column, codes in zip(self.columns, rows.unbind(1), strict=True)
            ],
            dim=1,
        )

    def _user_codes(self, users: EntityTable) -> np.ndarray:
        return np.column_stack([column.user_codes(users) for column in self.columns])

    def _service_codes(self, services: EntityTable) -> np.ndarray:
        return np.column_stack([column.service_codes(services) for column in self.columns])


class NumericContext(nn.Module):
    """Numeric context of one side, projected. Ours: the paper has categories only.

    Parameters
    ----------
    table : EntityTable
        The training entities, with none to many numbers; an unknown number is the mean, 0.
    dim : int
        Width of the projection.
    """

    def __init__(self, table: EntityTable, dim: int) -> None:
        super().__init__()
        n_numeric = table.numerics.shape[1]
        self.register_buffer("numerics", torch.tensor(np.nan_to_num(table.numerics)))
        self.weight = nn.Parameter(torch.randn(n_numeric, dim) / max(n_numeric, 1) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, codes: Tensor) -> Tensor:
        """Represent known entities; (n, dim)."""
        return self._project(self.numerics[codes])

    def encode_known(self) -> Tensor:
        """Represent all known entities; (n, dim)."""
        return self._project(self.numerics)

    def encode_new(self, average: Tensor, new: EntityTable) -> Tensor:
        """Represent newcomers; one of whom no number is known is the average entity."""
        numbers = torch.as_tensor(np.nan_to_num(new.numerics)).to(average)
        nothing = torch.as_tensor(np.isnan(new.numerics).all(1, keepdims=True))
        return torch.where(nothing.to(average.device), average, self._project(numbers))

    def grow(self, table: EntityTable) -> None:
        """Take over the numbers of entities that were appended."""
        self.numerics = torch.tensor(np.nan_to_num(table.numerics))

    def _project(self, numbers: Tensor) -> Tensor:
        return torch.relu(numbers @ self.weight + self.bias)


@dataclass(frozen=True)
class Structure:
    """Structural features of one side for one task.

    Attributes
    ----------
    layers : list of Tensor of shape (n_entities, ...)
        Outputs of the layers.
    connected : Tensor of bool of shape (n_entities, 1)
        Whether an entity has an edge. One that has none is new to this task: like a newcomer, it
        is represented by the average of those that have.
    """

    layers: list[Tensor]
    connected: Tensor

    def average(self) -> Tensor:
        """Average over connected entities; (out_dim,)."""
        weights = self.connected.to(self.layers[0].dtype) / self.connected.sum()
        return torch.cat([(weights * x).sum(0) for x in self.layers])

    def take(self, codes: Tensor, is_new: Tensor | None = None) -> Tensor:
        """Represent known entities, some of them as if they were new; (n, out_dim)."""
        connected = self.connected[codes]
        if is_new is not None:
            connected = connected & ~is_new
        found = torch.cat([x[codes] for x in self.layers], dim=1)
        return torch.where(connected, found, self.average())

    def encode_known(self) -> Tensor:
        """Represent all known entities; (n_entities, out_dim)."""
        return torch.where(self.connected, torch.cat(self.layers, dim=1), self.average())


class QoSGraph(nn.Module):
    """Structural features of all entities for one QoS parameter.

    Features of the nodes go through the layers; the outputs of all layers, the features ahead of
    them, stand side by side.

    Parameters
    ----------
    graph : BipartiteGraph
        Who was observed using what.
    features : ndarray of shape (n_users + n_services, feature_dim)
        Features of the nodes.
    dim : int
        Width of the layers.
    n_layers : int
        Number of layers.
    convolution : {"hhgcn", "hygcn", "gcn", "none"}
        With or without the hypergraphs, in the ball or in Euclidean space, or no layers.
    ball : PoincareBall or None
        None is Euclidean space.
    dropout : float
        Dropout of the features.
    fine_tune : bool
        Whether the features are trained on.
    """

    def __init__(
        self,
        graph: BipartiteGraph,
        features: np.ndarray,
        dim: int,
        n_layers: int,
        convolution: str,
        ball: PoincareBall | None,
        dropout: float,
        fine_tune: bool,
    ) -> None:
        super().__init__()
        self._join(graph)
        self.features = nn.Parameter(_scaled(features), requires_grad=fine_tune)
        self.dropout = nn.Dropout(dropout)
        layer = HypergraphConvolution if convolution == "hhgcn" else GraphConvolution
        widths = [features.shape[1]] + [dim] * (0 if convolution == "none" else n_layers)
        self.layers = nn.ModuleList(layer(n_in, n_out, ball) for n_in, n_out in pairwise(widths))
        self.out_dim = sum(widths)

    def forward(self, held_out: Tensor | None = None) -> list[Tensor]:
        """Convolve.

        Parameters
        ----------
        held_out : Tensor of int64, default=None
            Edges that carry no messages, -1 for none; None is no edge.

        Returns
        -------
        list of Tensor of shape (n_users + n_services, ...)
            The features and the output of each layer.
        """
        x = self.dropout(self.features)
        outputs = [x]
        if len(self.layers):
            operators = self.graph(None if held_out is None else self._weights(held_out))
            for layer in self.layers:
                x = layer(x, operators)
                outputs.append(x)
        return outputs

    def split(self, outputs: list[Tensor]) -> tuple[Structure, Structure]:
        """Part the outputs of the layers into those of users and those of services."""
        n_users = len(self.users_connected)
        return (
            Structure([x[:n_users] for x in outputs], self.users_connected),
            Structure([x[n_users:] for x in outputs], self.services_connected),
        )

    def grow(self, graph: BipartiteGraph) -> None:
        """Take over a graph with more edges, and with further nodes after those of either side.

        The features of a new node start as the average of the connected nodes of its side.
        """
        n_users = len(self.users_connected)
        sides = [
            append_rows(x, n, x[is_connected.squeeze(1)].mean(0))
            for x, n, is_connected in (
                (self.features[:n_users].detach(), graph.n_users, self.users_connected),
                (self.features[n_users:].detach(), graph.n_services, self.services_connected),
            )
        ]
        self.features = nn.Parameter(torch.cat(sides), self.features.requires_grad)
        self._join(graph)

    def _join(self, graph: BipartiteGraph) -> None:
        self.graph = graph
        users_connected, services_connected = graph.connected()
        self.register_buffer("users_connected", users_connected)
        self.register_buffer("services_connected", services_connected)

    def _weights(self, held_out: Tensor) -> Tensor:
        """0 for edges held out, else 1; -1 falls on the one that is cut off again."""
        weights = torch.ones(self.graph.n_edges + 1, device=held_out.device)
        weights[held_out] = 0
        return weights[:-1]


class SharpQoSModule(nn.Module):
    """Hierarchical features, shared features, fusion and joint prediction, top to bottom.

    Parameters
    ----------
    graphs : list of QoSGraph
        One per task, that is, per QoS parameter.
    context_graphs : list of ContextConvolution
        None to many.
    numbers : tuple of NumericContext or None
        Numeric context of users and of services.
    context_dim : int
        Width of all context features together; 0 without context.
    hidden_dim : int
        Width of routed and of fused features.
    out_dim : int
        Width of the vectors whose product predicts.
    routing, cross_routing : bool
        Whether SNR and Cross-SNR take part.
    n_blocks, n_cross_blocks : int
        Number of blocks of either.
    gate_temperature : float
        Temperature of their gates.
    l0_penalty : float
        Weight of the expected number of open gates in the loss.
    context_dropout : float
        Dropout of the context features.
    newcomer_share : float
        Share of a step's entities that are trained on as if they were new.
    start : ndarray of shape (n_tasks,)
        What the untrained network predicts, about.
    """

    def __init__(
        self,
        graphs: list[QoSGraph],
        context_graphs: list[ContextConvolution],
        numbers: tuple[NumericContext, NumericContext] | None,
        *,
        context_dim: int,
        hidden_dim: int,
        out_dim: int,
        routing: bool,
        cross_routing: bool,
        n_blocks: int,
        n_cross_blocks: int,
        gate_temperature: float,
        l0_penalty: float,
        context_dropout: float,
        newcomer_share: float,
        start: np.ndarray,
    ) -> None:
        super().__init__()
        n_tasks, structural_dim = len(graphs), graphs[0].out_dim
        self.l0_penalty = l0_penalty
        self.newcomer_share = newcomer_share
        self.graphs = nn.ModuleList(graphs)
        self.context_graphs = nn.ModuleList(context_graphs)
        self.numbers = None if numbers is None else nn.ModuleList(numbers)
        self.context_dropout = nn.Dropout(context_dropout)
        self.router = self.cross_router = None
        shared_dim = context_dim
        if routing and context_dim:
            self.router = SubnetworkRouting(
                context_dim, hidden_dim, n_tasks, n_blocks, gate_temperature
            )
            shared_dim = hidden_dim
        if cross_routing and n_tasks > 1:
            self.cross_router = CrossRouting(
                structural_dim, hidden_dim, n_tasks, n_cross_blocks, gate_temperature
            )
            shared_dim += hidden_dim
        self.fusions = nn.ModuleList(
            GatedFusion(structural_dim, shared_dim, hidden_dim) for _ in graphs
        )
        self.user_heads = nn.ModuleList(_feed_forward(hidden_dim, out_dim) for _ in graphs)
        self.service_heads = nn.ModuleList(_feed_forward(hidden_dim, out_dim) for _ in graphs)
        self.bias = nn.Parameter(torch.tensor(start, dtype=torch.float32))

    def forward(self, users: Tensor, services: Tensor, edges: Tensor | None = None) -> Tensor:
        """Predict pairs of known entities.

        Parameters
        ----------
        users, services : Tensor of int64 of shape (n,)
            Codes.
        edges : Tensor of int64 of shape (n, n_tasks), default=None
            Edges of the QoS graphs that carry no messages, because these pairs are what the
            network is to predict; -1 where there is none.

        Returns
        -------
        Tensor of shape (n, n_tasks)
        """
        held_out = [None] * len(self.graphs) if edges is None else edges.unbind(1)
        structural = [
            graph.split(graph(left_out))
            for graph, left_out in zip(self.graphs, held_out, strict=True)
        ]
        context = [graph() for graph in self.context_graphs]
        # Users and many services come up more than once in a batch.
        users, user_positions = users.unique(return_inverse=True)
        services, service_positions = services.unique(return_inverse=True)
        z_users = self._represent(
            self._context_of(context, "user_rows", users, 0),
            self._take([of_users for of_users, _ in structural], users),
            self.user_heads,
        )
        z_services = self._represent(
            self._context_of(context, "service_rows", services, 1),
            self._take([of_services for _, of_services in structural], services),
            self.service_heads,
        )
        return self._multiply(z_users[:, user_positions], z_services[:, service_positions])

    def encode_known(self) -> Encoded:
        """Represent all known users and services; (n_tasks, n, out_dim) each.

        All edges carry messages.
        """
        structural = list(zip(*(graph.split(graph()) for graph in self.graphs), strict=True))
        context = [graph.encode_known() for graph in self.context_graphs]
        if self.numbers is not None:
            context.append([numbers.encode_known() for numbers in self.numbers])
        averages = (
            [[structure.average() for structure in side] for side in structural],
            [[side.mean(0) for side in sides] for sides in context],
        )
        structures = [[structure.encode_known() for structure in side] for side in structural]
        return Encoded(*self._represent_sides(context, structures), averages)

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Represent newcomers: each has the structure of the average entity of its side."""
        structural, averages = known.averages
        new = new_users, new_services
        # Numbers have averages of their own, after those of the graphs.
        context = [
            graph.encode_new(sides, *new)
            for graph, sides in zip(self.context_graphs, averages, strict=False)
        ]
        if self.numbers is not None:
            context.append(
                [
                    numbers.encode_new(average, table)
                    for numbers, average, table in zip(self.numbers, averages[-1], new, strict=True)
                ]
            )
        structures = [
            [average.expand(len(table), -1) for average in side]
            for side, table in zip(structural, new, strict=True)
        ]
        return Encoded(*self._represent_sides(context, structures))

    def score(self, encoded: Encoded, users: Tensor, services: Tensor) -> Tensor:
        """Predict pairs, given as positions into what was encoded; (n, n_tasks)."""
        return self._multiply(encoded.users[:, users], encoded.services[:, services])

    def grow(
        self,
        graphs: list[BipartiteGraph],
        columns: list[list[ContextColumn]],
        users: EntityTable,
        services: EntityTable,
    ) -> None:
        """Take over new edges, and entities and categories that were appended to those known.

        Parameters
        ----------
        graphs : list of BipartiteGraph
            The grown QoS graph of each task.
        columns : list of list of ContextColumn
            The grown columns of each context graph.
        users, services : EntityTable
            All entities, the known ones first.
        """
        for grown, graph in zip(self.graphs, graphs, strict=True):
            grown.grow(graph)
        for grown, members in zip(self.context_graphs, columns, strict=True):
            grown.grow(members, users, services)
        for numbers, table in zip(self.numbers or (), (users, services), strict=False):
            numbers.grow(table)

    def penalty(self) -> Tensor:
        """Weigh the expected number of open gates (L0)."""
        probabilities = self.gate_probabilities().values()
        return self.l0_penalty * sum(p.sum() for p in probabilities)

    def gate_probabilities(self) -> dict[str, Tensor]:
        """Tell the probability that each gate is open.

        Of SNR by task and block; of Cross-SNR by task, other task and block, and 0 between a task
        and itself.
        """
        found = {}
        if self.router is not None:
            found["snr"] = self.router.gates.probabilities()
        if self.cross_router is not None:
            router = self.cross_router
            found["cross_snr"] = router.gates.probabilities() * router.others
        return found

    def active_shares(self) -> dict[str, np.ndarray]:
        """Share of each task's gates that are not 0 at prediction, for either routing."""
        found = {}
        with torch.no_grad():
            if self.router is not None:
                found["snr"] = (self.router.gates.settled() > 0).float().mean(1).cpu().numpy()
            if self.cross_router is not None:
                open_gates = (self.cross_router.gates.settled() > 0) * self.cross_router.others
                n_others = len(open_gates) - 1
                found["cross_snr"] = (open_gates.sum(1) / n_others).mean(1).cpu().numpy()
        return found

    def _represent_sides(
        self, context: list[list[Tensor]], structural: list[list[Tensor]]
    ) -> list[Tensor]:
        """Represent users, and services, given both sides of each graph."""
        return [
            self._represent([sides[k] for sides in context], structural[k], heads)
            for k, heads in enumerate((self.user_heads, self.service_heads))
        ]

    def _represent(
        self, context: list[Tensor], structural: list[Tensor], heads: nn.ModuleList
    ) -> Tensor:
        """Route, fuse and project; (n_tasks, n, out_dim)."""
        n_tasks = len(structural)
        shared: list[list[Tensor]] = [[] for _ in range(n_tasks)]
        if context:
            joined = self.context_dropout(torch.cat(context, dim=1))
            routed = [joined] * n_tasks if self.router is None else self.router(joined)
            for parts, part in zip(shared, routed, strict=True):
                parts.append(part)
        if self.cross_router is not None:
            for parts, part in zip(shared, self.cross_router(structural), strict=True):
                parts.append(part)
        fused = [
            fusion(own, parts)
            for fusion, own, parts in zip(self.fusions, structural, shared, strict=True)
        ]
        return torch.stack([head(z) for head, z in zip(heads, fused, strict=True)])

    def _context_of(
        self, context: list[Tensor], rows: str, codes: Tensor, side: int
    ) -> list[Tensor]:
        """Take the context features of known entities of a side."""
        found = [
            x[getattr(graph, rows)[codes]]
            for x, graph in zip(context, self.context_graphs, strict=True)
        ]
        if self.numbers is not None:
            found.append(self.numbers[side](codes))
        return found

    def _take(self, structural: list[Structure], codes: Tensor) -> list[Tensor]:
        """Take the structural features of known entities; in training, make some newcomers."""
        is_new = None
        if self.training and self.newcomer_share:
            is_new = torch.rand(len(codes), 1, device=codes.device) < self.newcomer_share
        return [structure.take(codes, is_new) for structure in structural]

    def _multiply(self, users: Tensor, services: Tensor) -> Tensor:
        """Row-wise product of the two sides."""
        return (users * services).sum(2).T + self.bias


def _feed_forward(in_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, in_dim), nn.ReLU(), nn.Linear(in_dim, out_dim))


def _append_codes(features: Tensor, known: ContextColumn, grown: ContextColumn) -> Tensor:
    """Features of the codes of a grown column: those of either side stay ahead of its new ones."""
    n_users, average = known.n_user_categories, features.mean(0)
    n_services = len(grown.groups) - grown.n_user_categories
    return torch.cat(
        [
            append_rows(features[:n_users], grown.n_user_categories, average),
            append_rows(features[n_users:], n_services, average),
        ]
    )


def _scaled(features: np.ndarray) -> Tensor:
    """Bring features to a common size."""
    size = features.std() if features.size else 0.0
    return torch.tensor(FEATURE_STD * features / (size or 1.0), dtype=torch.float32)
