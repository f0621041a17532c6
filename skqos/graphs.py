"""Sparse graph operators with their normalisations: bipartite, hypergraph and context.

In every matrix of nodes, users precede services. Operators are not stored as matrices over pairs of
nodes: the cost of a product is proportional to the number of edges or memberships.

Only a product that needs a gradient imports torch-geometric, whose `EdgeIndex` keeps the transpose.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from skqos._errors import check_same_length
from skqos._target_checks import as_target
from skqos.entities import UNKNOWN, EntityEncoder
from skqos.inputs import as_frame, locate_context, read_columns
from skqos.preprocessing import ContextJoiner

if TYPE_CHECKING:
    from torch_geometric import EdgeIndex
    from torch_geometric.data import HeteroData

# Number of types of edges with values, which are bins of residuals.
N_BINS = 4
# Number of additional measurements without residual that damp the mean of a user or service.
MEAN_DAMPING = 5.0


@dataclass(frozen=True)
class SparseRows:
    """Positions of the entries of a sparse matrix, sorted by rows; products receive the values.

    Attributes
    ----------
    row_starts : Tensor of int32 of shape (n_rows + 1,)
        Start of the entries of each row.
    columns : Tensor of int32 of shape (n_entries,)
        Column of each entry.
    shape : tuple of int
        Number of rows and of columns.
    """

    row_starts: Tensor
    columns: Tensor
    shape: tuple[int, int]

    def multiply(self, entries: Tensor, x: Tensor) -> Tensor:
        """Multiply the matrix with the given values by a dense matrix."""
        entries = entries.to(x.dtype)
        with warnings.catch_warnings():
            # "Sparse CSR tensor support is in beta state"
            warnings.simplefilter("ignore", UserWarning)
            if torch.is_grad_enabled() and x.requires_grad:
                return self._edge_index.matmul(x, input_value=entries)
            return torch.sparse_csr_tensor(
                self.row_starts, self.columns, entries, self.shape, check_invariants=False
            ).matmul(x)

    @property
    def rows(self) -> Tensor:
        """Return the row of each entry, as int32."""
        rows = torch.arange(self.shape[0], dtype=torch.int32, device=self.columns.device)
        # Without the size, this would wait for the device.
        return rows.repeat_interleave(self.row_starts.diff(), output_size=len(self.columns))

    @cached_property
    def _edge_index(self) -> EdgeIndex:
        from torch_geometric import EdgeIndex

        entries = torch.stack([self.rows, self.columns])
        return EdgeIndex(entries, sparse_size=self.shape, sort_order="row")


class _SparsePattern(nn.Module):
    """Positions of the entries of a sparse matrix, in any order."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape
        # Entries are numbered from 1, because scipy would drop a 0.
        order = sparse.coo_array((np.arange(1, len(rows) + 1), (rows, columns)), shape).tocsr()
        self.register_buffer("row_starts", torch.tensor(order.indptr, dtype=torch.int32))
        self.register_buffer("columns", torch.tensor(order.indices, dtype=torch.int32))
        self.register_buffer("order", torch.tensor(order.data - 1, dtype=torch.int32))

    def check_loaded(self) -> None:
        """Raise ValueError if the pattern of a file is out of bounds."""
        n_rows, n_columns = self.shape
        starts, n = self.row_starts, len(self.columns)
        is_increasing = bool((starts.diff() >= 0).all())
        is_whole = len(starts) == n_rows + 1 and starts[0] == 0 and starts[-1] == n
        is_whole = is_whole and self.columns.shape == self.order.shape == (n,)
        in_range = all(
            n == 0 or (values.min() >= 0 and values.max() < size)
            for values, size in ((self.columns, n_columns), (self.order, n))
        )
        dtypes = {values.dtype for values in (starts, self.columns, self.order)}
        if not (is_increasing and is_whole and in_range) or dtypes != {torch.int32}:
            raise ValueError("a sparse pattern has entries outside of its shape")

    @property
    def sorted(self) -> SparseRows:
        """Pattern sorted by rows, cached until the buffers move to another device."""
        kept = vars(self).get("_sorted")
        if kept is None or kept.columns is not self.columns:
            kept = SparseRows(self.row_starts, self.columns, self.shape)
            vars(self)["_sorted"] = kept
        return kept

    def __getstate__(self) -> dict[str, Any]:
        """Omit values that can be computed from the buffers."""
        return {name: part for name, part in vars(self).items() if name != "_sorted"}


class BipartiteGraph(nn.Module):
    """Graph of users and services, with an edge for each pair with an observed value.

    With `values`, an edge has a type, the quantile of its residual. With ``residuals="both"``, a
    residual is the value minus the damped means of its service and its user. With
    ``residuals="sender"``, the type of a message is that of the value minus the damped mean of the
    node that sends it, which contains the level of the receiver. Means and quantiles are computed
    from the edges that take part in a product; the values of other edges have no influence.

    Parameters
    ----------
    users, services : ndarray of int64 of shape (n_edges,)
        Codes of the distinct pairs observed.
    n_users, n_services : int
        Number of users and of services.
    values : ndarray of shape (n_edges,), default=None
        Values of the edges, in any unit. If None, edges have no values.
    residuals : {"both", "sender"}, default="both"
        Means that are subtracted from the values.
    normalization : {"symmetric", "row"}, default="symmetric"
        Scaling of messages: by the degrees of both nodes, or by that of the receiver.
    """

    def __init__(
        self,
        users: np.ndarray,
        services: np.ndarray,
        n_users: int,
        n_services: int,
        *,
        values: np.ndarray | None = None,
        residuals: str = "both",
        normalization: str = "symmetric",
    ) -> None:
        super().__init__()
        self.residuals = residuals
        self.normalization = normalization
        self.register_buffer("users", torch.tensor(users, dtype=torch.int32))
        self.register_buffer("services", torch.tensor(services, dtype=torch.int32))
        self.register_buffer(
            "values", None if values is None else torch.tensor(values, dtype=torch.float32)
        )
        self.by_user = _SparsePattern(users, services, (n_users, n_services))
        self.by_service = _SparsePattern(services, users, (n_services, n_users))

    def with_edges(
        self, users: np.ndarray, services: np.ndarray, values: np.ndarray, shape: tuple[int, int]
    ) -> BipartiteGraph:
        """Return a graph of the same kind with other edges.

        Parameters
        ----------
        users, services : ndarray of int64 of shape (n_edges,)
            Codes of the distinct pairs observed.
        values : ndarray of shape (n_edges,)
            Values of the edges, which a graph without values ignores.
        shape : tuple of int
            Number of users and of services.
        """
        return BipartiteGraph(
            users,
            services,
            *shape,
            values=None if self.values is None else values,
            residuals=self.residuals,
            normalization=self.normalization,
        )

    @property
    def n_parts(self) -> int:
        """Number of feature matrices of a convolution: one per type, and the own features."""
        return 1 if self.values is None else N_BINS + 1

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.users)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return self.by_user.shape[0]

    @property
    def n_services(self) -> int:
        """Number of services."""
        return self.by_user.shape[1]

    def connected(self) -> tuple[Tensor, Tensor]:
        """Return which users and which services have an edge, as bool of shape (n, 1)."""
        sides = []
        for n, nodes in zip(self.by_user.shape, (self.users, self.services), strict=True):
            is_connected = torch.zeros(n, 1, dtype=torch.bool)
            is_connected[nodes.long()] = True
            sides.append(is_connected)
        return tuple(sides)

    def forward(
        self, weights: Tensor | None = None, dropout: float = 0.0
    ) -> BipartiteOperators | TypedOperators:
        """Return the operators of the graph.

        Parameters
        ----------
        weights : Tensor of shape (n_edges,), default=None
            1 for edges that carry messages, and 0 for others. If None, all edges carry messages.
            Degrees, means and bins count only these edges.
        dropout : float, default=0.0
            Fraction of the edges that are dropped at random, after computing means and bins.
        """
        if weights is None:
            weights = torch.ones(self.n_edges, device=self.users.device)
        bins = None if self.values is None else self.bins(weights)
        if dropout:
            weights = weights * (torch.rand_like(weights) >= dropout)
        n_users, n_services = self.by_user.shape
        operators = BipartiteOperators(
            graph=self,
            weights=weights,
            user_degrees=weights.new_zeros(n_users).index_add(0, self.users, weights),
            service_degrees=weights.new_zeros(n_services).index_add(0, self.services, weights),
        )
        return operators if bins is None else TypedOperators(operators, bins)

    def bins(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the type of each edge for users, and for services, as receivers; int64.

        Edges of weight 0 do not influence the types of others.
        """
        values = self.values.to(weights.dtype)
        centred = values - (weights * values).sum() / weights.sum().clamp(min=1)
        users, services = (self.users, self.n_users), (self.services, self.n_services)
        less_services = _less_means(centred, weights, *services)
        if self.residuals == "both":
            bins = _quantiles(_less_means(less_services, weights, *users), weights)
            return bins, bins
        less_users = _less_means(centred, weights, *users)
        return _quantiles(less_services, weights), _quantiles(less_users, weights)


def _less_means(values: Tensor, weights: Tensor, nodes: Tensor, n_nodes: int) -> Tensor:
    """Subtract the damped weighted mean of each edge's node."""
    sums = values.new_zeros(n_nodes).index_add(0, nodes, weights * values)
    counts = values.new_zeros(n_nodes).index_add(0, nodes, weights)
    return values - (sums / (counts + MEAN_DAMPING))[nodes]


def _quantiles(values: Tensor, weights: Tensor) -> Tensor:
    """Return the bins of values by the quantiles of those with positive weight; int64."""
    if not len(values):
        return values.long()
    is_kept = weights > 0
    # A selection by a mask would wait for the device. Values that are not kept come last.
    ascending = torch.where(is_kept, values, torch.inf).sort().values
    ranks = is_kept.sum() * torch.arange(1, N_BINS, device=values.device) // N_BINS
    return torch.bucketize(values, ascending[ranks.clamp(min=1) - 1])


@dataclass(frozen=True)
class BipartiteOperators:
    """Products with the normalised adjacency of a bipartite graph and of its two hypergraphs."""

    graph: BipartiteGraph
    weights: Tensor
    user_degrees: Tensor
    service_degrees: Tensor

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of users and of services."""
        return self.graph.by_user.shape

    def convolve(self, x: Tensor) -> Tensor:
        """Average over neighbours and the node itself.

        The operator is D^-1/2 (A + I) D^-1/2, or D^-1 (A + I) with normalisation by rows.

        Parameters
        ----------
        x : Tensor of shape (n_users + n_services, dim)
            Features of the nodes.

        Returns
        -------
        Tensor of the shape of `x`
        """
        received, sent = self._normalize([degrees + 1 for degrees in self._degrees])
        x = sent * x
        neighbours = self._sum_neighbours(*x.split(self.sizes))
        return received * (neighbours + x)

    def convolve_second_hop(self, x_users: Tensor, x_services: Tensor) -> Tensor:
        """Average over users who share services, and over services that share users.

        Each service is a hyperedge over its users, with incidence matrix H; each user is one over
        its services. The operator is applied as factors, D_v^-1/2 H D_e^-1 H^T D_v^-1/2 x, or
        D_v^-1 H D_e^-1 H^T x with normalisation by rows. The result is 0 for a node without edges.

        Parameters
        ----------
        x_users : Tensor of shape (n_users, dim)
            Features of the users.
        x_services : Tensor of shape (n_services, dim)
            Features of the services.

        Returns
        -------
        Tensor of shape (n_users + n_services, dim)
        """
        degrees = [degrees.clamp(min=1) for degrees in self._degrees]
        received, sent = self._normalize(degrees)
        sent_users, sent_services = sent.split(self.sizes)
        # A user is a hyperedge of services, and a service one of users.
        sums = self._sum_neighbours(sent_users * x_users, sent_services * x_services)
        edges = sums / torch.cat(degrees).unsqueeze(1)
        return received * self._sum_neighbours(*edges.split(self.sizes))

    @property
    def _degrees(self) -> tuple[Tensor, Tensor]:
        return self.user_degrees, self.service_degrees

    def _normalize(self, degrees: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the scales of received and of sent messages of all nodes, (n_nodes, 1) each."""
        of_nodes = torch.cat(degrees).unsqueeze(1)
        if self.graph.normalization == "row":
            return of_nodes.reciprocal(), torch.ones_like(of_nodes)
        return of_nodes.rsqrt(), of_nodes.rsqrt()

    def _sum_neighbours(self, x_users: Tensor, x_services: Tensor) -> Tensor:
        """Sum over the services of each user, and over the users of each service."""
        by_user, by_service = self._entries
        return torch.cat(
            [
                self.graph.by_user.sorted.multiply(by_user, x_services),
                self.graph.by_service.sorted.multiply(by_service, x_users),
            ]
        )

    @cached_property
    def _entries(self) -> tuple[Tensor, Tensor]:
        """Weights of the edges by users, and by services, which all layers use."""
        return self.weights[self.graph.by_user.order], self.weights[self.graph.by_service.order]


@dataclass(frozen=True)
class TypedOperators:
    """Products with the adjacency of each type of edge of a bipartite graph.

    There is one block of features per type, each with its own weights, as in graph convolutional
    matrix completion (GC-MC). A product sums over the types.

    Attributes
    ----------
    untyped : BipartiteOperators
        Operators of all edges of any type.
    bins : tuple of two Tensors of int64 of shape (n_edges,)
        Type of each edge for users as receivers, and for services.
    """

    untyped: BipartiteOperators
    bins: tuple[Tensor, Tensor]

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of users and of services."""
        return self.untyped.sizes

    def convolve(self, x: Tensor) -> Tensor:
        """Average over the neighbours of all types, and add the node's own features.

        This is sum_b D_r^-1 A_b D_s^-1 x_b + x_self. D_r D_s is the product of the roots of the
        degrees of both ends, or the degree of the receiver with normalisation by rows. Degrees
        count edges of all types and 1 for the node itself.

        Parameters
        ----------
        x : Tensor of shape ((N_BINS + 1) * n_nodes, dim)
            Features of the nodes for each type, followed by their own features.

        Returns
        -------
        Tensor of shape (n_nodes, dim)
        """
        untyped, n_nodes = self.untyped, sum(self.sizes)
        received, sent = untyped._normalize([degrees + 1 for degrees in untyped._degrees])
        typed, own = x.split([N_BINS * n_nodes, n_nodes])
        blocks = sent * typed.unflatten(0, (N_BINS, n_nodes))
        x_users, x_services = (part.flatten(0, 1) for part in blocks.split(self.sizes, dim=1))
        return received * self._sum_typed_neighbours(x_users, x_services) + own

    def convolve_second_hop(self, x_users: Tensor, x_services: Tensor) -> Tensor:
        """Average over users who share services of the same type, and over services likewise.

        Each service is one hyperedge per type over its users. With incidence matrices H_b, this is
        sum_b D_v^-1/2 H_b D_b^-1 H_b^T D_v^-1/2 x_b, or sum_b D_v^-1 H_b D_b^-1 H_b^T x_b with
        normalisation by rows.

        Parameters
        ----------
        x_users : Tensor of shape (N_BINS * n_users, dim)
            Features of the users for each type.
        x_services : Tensor of shape (N_BINS * n_services, dim)
            Features of the services for each type.

        Returns
        -------
        Tensor of shape (n_nodes, dim)
        """
        untyped = self.untyped
        received, sent = untyped._normalize([part.clamp(min=1) for part in untyped._degrees])
        sent_users, sent_services = sent.split(self.sizes)
        edges = [
            _average(graph, sent.repeat(N_BINS, 1) * x)
            for graph, sent, x in zip(
                self._hyperedges, (sent_services, sent_users), (x_services, x_users), strict=True
            )
        ]
        return received * self._sum_typed_neighbours(*edges)

    def _sum_typed_neighbours(self, x_users: Tensor, x_services: Tensor) -> Tensor:
        """Sum over the services of each user, and the users of each service, by their types."""
        by_user, by_service = self.untyped._entries
        rows_u, rows_s = self._typed_rows
        return torch.cat(
            [rows_u.multiply(by_user, x_services), rows_s.multiply(by_service, x_users)]
        )

    @cached_property
    def _typed_rows(self) -> list[SparseRows]:
        """Graph by users, and by services; a column is a pair of neighbour and type."""
        graph = self.untyped.graph
        return [
            SparseRows(
                pattern.row_starts,
                bins[pattern.order].int() * pattern.shape[1] + pattern.columns,
                (pattern.shape[0], N_BINS * pattern.shape[1]),
            )
            for pattern, bins in zip((graph.by_user, graph.by_service), self.bins, strict=True)
        ]

    @cached_property
    def _hyperedges(self) -> list[tuple[SparseRows, Tensor]]:
        """Hypergraphs; rows are hyperedges, which are users of a type and services of a type.

        Users are hyperedges of services, so that the types are those of services as receivers.
        """
        graph = self.untyped.graph
        return [
            self._typed_hyperedges(*case)
            for case in zip(
                (graph.by_user, graph.by_service),
                self.untyped._entries,
                self.bins[::-1],
                strict=True,
            )
        ]

    def _typed_hyperedges(
        self, pattern: _SparsePattern, entries: Tensor, bins: Tensor
    ) -> tuple[SparseRows, Tensor]:
        """Sort the entries of a pattern by type, then by rows."""
        bins = bins[pattern.order]
        order = bins.to(torch.uint8).argsort(stable=True)
        n_rows, n_columns = pattern.shape
        rows = pattern.sorted.rows[order] + n_rows * bins[order]
        # `bincount` would wait for the device.
        starts = rows.new_zeros(N_BINS * n_rows).index_add(0, rows, torch.ones_like(rows)).cumsum(0)
        columns = (pattern.columns[order] + n_columns * bins[order]).int()
        shape = N_BINS * n_rows, N_BINS * n_columns
        return SparseRows(F.pad(starts, (1, 0)).int(), columns, shape), entries[order]


def _average(hyperedges: tuple[SparseRows, Tensor], x: Tensor) -> Tensor:
    """Average over the members of each hyperedge; 0 without members."""
    rows, entries = hyperedges
    degrees = rows.multiply(entries, x.new_ones(len(x), 1))
    return rows.multiply(entries, x) / degrees.clamp(min=1)


class SideScales(nn.Module):
    """Multiply the messages that users, and services, receive by learnt factors.

    Parameters
    ----------
    n_members : int
        Number of members; each has its own factors, which start at 1.
    """

    def __init__(self, n_members: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(2, n_members))
        self.factors.no_weight_decay = True

    def forward(self, x: Tensor, sizes: tuple[int, int]) -> Tensor:
        """Scale features (n_users + n_services, n_members * dim)."""
        n_members = self.factors.shape[1]
        sides = zip(x.unflatten(1, (n_members, -1)).split(sizes), self.factors, strict=True)
        return torch.cat([side * factors.unsqueeze(1) for side, factors in sides]).flatten(1)

    def of_side(self, x: Tensor, side: int) -> Tensor:
        """Scale features (n_members, ...) of users (0) or of services (1)."""
        return x * self.factors[side].view(-1, *[1] * (x.ndim - 1))


class ContextGraph(nn.Module):
    """Graph of nodes that share a category in one or more columns of context.

    Within a column, the nodes of a category form a clique. Nodes with equal categories and equal
    features remain equal under any convolution, so that they are represented by one row.

    Parameters
    ----------
    categories : Tensor of int64 of shape (n_rows, n_columns)
        Code of each column; -1 has no edges.
    counts : Tensor of shape (n_rows,)
        Number of nodes of each row. A row with 0 nodes receives messages like one node and sends
        none.
    """

    def __init__(self, categories: Tensor, counts: Tensor) -> None:
        super().__init__()
        sizes = [int(column.max()) + 1 for column in categories.unbind(1)]
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0).to(categories.device)
        rows, columns = torch.nonzero(categories >= 0, as_tuple=True)
        groups = categories[rows, columns] + starts[columns]
        counts = counts.to(torch.float32)
        # The node of a row is a member of each of its groups, but counts once, as the self-loop.
        n_own = (counts > 0) * (categories >= 0).sum(1)
        members = counts.new_zeros(sum(sizes)).index_add(0, groups, counts[rows])
        degrees = counts.new_zeros(len(counts)).index_add(0, rows, members[groups]) + 1 - n_own
        scale = degrees.rsqrt()
        # Messages of members to their group, and of groups to rows.
        self.register_buffer("sent", (counts * scale)[rows])
        self.register_buffer("taken", scale[rows])
        self.register_buffer("self_weight", ((1 - n_own) / degrees).unsqueeze(1))
        pairs = [part.cpu().numpy() for part in (groups, rows)]
        shape = sum(sizes), len(counts)
        self.by_group = _SparsePattern(*pairs, shape).to(counts.device)
        self.by_row = _SparsePattern(*pairs[::-1], shape[::-1]).to(counts.device)

    def convolve(self, x: Tensor) -> Tensor:
        """Average over neighbours and the node itself, D^-1/2 (A + I) D^-1/2 x.

        A sums the cliques of all columns, without the diagonal.

        Parameters
        ----------
        x : Tensor of shape (n_rows, dim)
            Features.

        Returns
        -------
        Tensor of the shape of `x`
        """
        groups = self.by_group.sorted.multiply(self.sent[self.by_group.order], x)
        found = self.by_row.sorted.multiply(self.taken[self.by_row.order], groups)
        return torch.addcmul(found, self.self_weight, x)


def to_hetero_data(X: Any, y: Any, users: Any = None, services: Any = None) -> HeteroData:
    """Convert interactions to a graph of torch-geometric.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_columns)
        User ids in column 0 and service ids in column 1. Columns named ``user_*`` and ``service_*``
        are context.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Measured QoS; NaN where a value was not observed.
    users, services : DataFrame, default=None
        Context with the ids as index, as in `ContextJoiner`.

    Returns
    -------
    HeteroData
        Nodes are the users and services of X. ``data["user"]`` and ``data["service"]`` have

        - ``ids``, ndarray of shape (n_nodes,): the id of each node;
        - ``categories``, Tensor of int64 of shape (n_nodes, n_categorical): codes of categorical
          context, -1 where it is unknown;
        - ``x``, Tensor of float32 of shape (n_nodes, n_numeric): numeric context, standardised, 0
          where it is unknown.

        ``data["user", "measured", "service"]`` has one edge per row of X: ``edge_index`` of shape
        (2, n_samples), and ``edge_attr``, Tensor of float32 of shape (n_samples, n_targets): y in
        its own unit.

    Raises
    ------
    ValueError
        If X, y or a table is not as described.
    TypeError
        If a table is not a DataFrame.

    Examples
    --------
    >>> from skqos.datasets import make_qos
    >>> from skqos.graphs import to_hetero_data
    >>> qos = make_qos(20, 30, density=0.3, random_state=0)
    >>> data = to_hetero_data(qos.X, qos.y, qos.users, qos.services)
    >>> data["user", "measured", "service"].edge_attr.shape
    torch.Size([180, 1])
    """
    from torch_geometric.data import HeteroData

    frame = as_frame(ContextJoiner(users, services).fit_transform(X), 2, None)
    layout = locate_context(frame.columns, 2, None, None)
    columns = read_columns(frame, 2, layout)
    y = as_target(y, "y", allow_nan=True)
    check_same_length(X=frame, y=y)
    data, ends = HeteroData(), []
    for side, ids, context in (
        ("user", columns.users, columns.user_context),
        ("service", columns.services, columns.service_context),
    ):
        encoder = EntityEncoder(side)
        ends.append(encoder.fit(ids, context))
        table = encoder.table_
        data[side].num_nodes = encoder.n_entities
        data[side].ids = encoder.ids_.to_numpy()
        data[side].categories = torch.tensor(_with_unknown(table.categories, encoder))
        data[side].x = torch.tensor(np.nan_to_num(table.numerics))
    edges = data["user", "measured", "service"]
    edges.edge_index = torch.tensor(np.stack(ends))
    edges.edge_attr = torch.tensor(y.reshape(len(y), -1), dtype=torch.float32)
    return data


def _with_unknown(codes: np.ndarray, encoder: EntityEncoder) -> np.ndarray:
    """Return codes of categories with -1 in place of the encoder's category of missing values."""
    codes = codes.copy()
    for column, known in zip(codes.T, encoder.categories_, strict=True):
        for missing in np.flatnonzero(known.isna()):
            column[column == missing] = UNKNOWN
            column[column > missing] -= 1
    return codes
