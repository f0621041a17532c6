"""Sparse graph operators with their normalisations: bipartite, hypergraph and context.

Users come first and services after them in every matrix of nodes. No operator is ever formed as a
matrix over pairs of nodes: a product costs as much as the graph has edges or memberships.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn


class _SparseProduct(torch.autograd.Function):
    """A sparse matrix, whose transpose is at hand, times a dense one."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, a: Tensor, at: Tensor, x: Tensor
    ) -> Tensor:
        """Multiply."""
        ctx.at = at
        return a @ x

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[None, None, Tensor]:
        """Multiply by the transpose; torch would build it anew every time."""
        return None, None, ctx.at @ gradient.contiguous()


class _SparsePattern(nn.Module):
    """Where a sparse matrix has entries, by rows; the entries come with each use."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape
        # Entries count from 1: scipy would drop a 0.
        order = sparse.coo_array((np.arange(1, len(rows) + 1), (rows, columns)), shape).tocsr()
        self.register_buffer("row_starts", torch.tensor(order.indptr, dtype=torch.int32))
        self.register_buffer("columns", torch.tensor(order.indices, dtype=torch.int32))
        self.register_buffer("order", torch.tensor(order.data - 1, dtype=torch.int32))

    def check_loaded(self) -> None:
        """Raise ValueError if the pattern of a file leads out of bounds, which `fill` trusts."""
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

    def fill(self, values: Tensor) -> Tensor:
        """Return the sparse matrix with these values in the order of the entries given."""
        with warnings.catch_warnings():
            # "Sparse CSR tensor support is in beta state"
            warnings.simplefilter("ignore", UserWarning)
            return torch.sparse_csr_tensor(
                self.row_starts,
                self.columns,
                values[self.order],
                self.shape,
                check_invariants=False,
            )


class BipartiteGraph(nn.Module):
    """Users and services, joined where a value was observed.

    Parameters
    ----------
    users, services : ndarray of int64 of shape (n_edges,)
        Codes of the distinct pairs observed.
    n_users, n_services : int
        Number of nodes of either side.
    """

    def __init__(
        self, users: np.ndarray, services: np.ndarray, n_users: int, n_services: int
    ) -> None:
        super().__init__()
        self.register_buffer("users", torch.tensor(users, dtype=torch.int32))
        self.register_buffer("services", torch.tensor(services, dtype=torch.int32))
        self.by_user = _SparsePattern(users, services, (n_users, n_services))
        self.by_service = _SparsePattern(services, users, (n_services, n_users))

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
        """Tell which users and which services have an edge; (n, 1) of bool each."""
        sides = []
        for n, nodes in zip(self.by_user.shape, (self.users, self.services), strict=True):
            is_connected = torch.zeros(n, 1, dtype=torch.bool)
            is_connected[nodes.long()] = True
            sides.append(is_connected)
        return tuple(sides)

    def forward(self, weights: Tensor | None = None) -> BipartiteOperators:
        """Make the operators of the graph.

        Parameters
        ----------
        weights : Tensor of shape (n_edges,), default=None
            1 for an edge that carries messages and 0 for one that does not; None is all ones.
            Degrees count edges that do.
        """
        if weights is None:
            weights = torch.ones(self.n_edges, device=self.users.device)
        n_users, n_services = self.by_user.shape
        return BipartiteOperators(
            graph=self,
            weights=weights,
            user_degrees=weights.new_zeros(n_users).index_add(0, self.users, weights),
            service_degrees=weights.new_zeros(n_services).index_add(0, self.services, weights),
        )


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
        """Average over neighbours and self, D^-1/2 (A + I) D^-1/2 x.

        Parameters
        ----------
        x : Tensor of shape (n_users + n_services, dim)
            Features of the nodes.

        Returns
        -------
        Tensor of the shape of `x`
        """
        a, at = self._adjacency
        x_u, x_s = x.split(self.sizes)
        neighbours = torch.cat([_SparseProduct.apply(a, at, x_s), _SparseProduct.apply(at, a, x_u)])
        return neighbours + torch.cat(self._scales).square().unsqueeze(1) * x

    def convolve_second_hop(self, x_users: Tensor, x_services: Tensor) -> Tensor:
        """Average over users who share services, and over services that share users.

        Each service is a hyperedge over its users, with incidence matrix H; each user is one over
        its services. Applied as factors, D_v^-1/2 H D_e^-1 H^T D_v^-1/2 x. A node without edges
        gets 0.

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
        h, ht = self._incidence
        return torch.cat(
            [
                _through_hyperedges(h, ht, self.user_degrees, self.service_degrees, x_users),
                _through_hyperedges(ht, h, self.service_degrees, self.user_degrees, x_services),
            ]
        )

    # Every layer of a network multiplies by the same matrices.

    @cached_property
    def _scales(self) -> tuple[Tensor, Tensor]:
        """D^-1/2 of users and of services, self-loops counted."""
        return (self.user_degrees + 1).rsqrt(), (self.service_degrees + 1).rsqrt()

    @cached_property
    def _adjacency(self) -> tuple[Tensor, Tensor]:
        """Normalised adjacency by users, and by services."""
        scale_u, scale_s = self._scales
        graph = self.graph
        return self._fill(self.weights * scale_u[graph.users] * scale_s[graph.services])

    @cached_property
    def _incidence(self) -> tuple[Tensor, Tensor]:
        """Incidence matrix by users, and by services."""
        return self._fill(self.weights)

    def _fill(self, values: Tensor) -> tuple[Tensor, Tensor]:
        return self.graph.by_user.fill(values), self.graph.by_service.fill(values)


def _through_hyperedges(
    h: Tensor, ht: Tensor, node_degrees: Tensor, edge_degrees: Tensor, x: Tensor
) -> Tensor:
    scale = node_degrees.clamp(min=1).rsqrt().unsqueeze(1)
    edges = _SparseProduct.apply(ht, h, scale * x) / edge_degrees.clamp(min=1).unsqueeze(1)
    return scale * _SparseProduct.apply(h, ht, edges)


class ContextGraph(nn.Module):
    """Nodes joined where they share a category, in one or more columns of context.

    Within a column, the nodes of a category form a clique. Nodes with equal rows of categories and
    equal features stay equal under any convolution, so that one row stands for all of them.

    Parameters
    ----------
    categories : Tensor of int64 of shape (n_rows, n_columns)
        Code of each column; -1 joins to nothing.
    counts : Tensor of shape (n_rows,)
        How many nodes each row stands for. A row that stands for none receives messages as one
        node would and sends none.
    """

    def __init__(self, categories: Tensor, counts: Tensor) -> None:
        super().__init__()
        sizes = [int(column.max()) + 1 for column in categories.unbind(1)]
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0).to(categories.device)
        rows, columns = torch.nonzero(categories >= 0, as_tuple=True)
        groups = categories[rows, columns] + starts[columns]
        counts = counts.to(torch.float32)
        # A row's own node is a member of each of its groups, but counts once: the self-loop.
        n_own = (counts > 0) * (categories >= 0).sum(1)
        members = counts.new_zeros(sum(sizes)).index_add(0, groups, counts[rows])
        degrees = counts.new_zeros(len(counts)).index_add(0, rows, members[groups]) + 1 - n_own
        scale = degrees.rsqrt()
        # What the members of a group send to it, and what a row takes of its groups.
        self.register_buffer("sent", (counts * scale)[rows])
        self.register_buffer("taken", scale[rows])
        self.register_buffer("self_weight", ((1 - n_own) / degrees).unsqueeze(1))
        pairs = [part.cpu().numpy() for part in (groups, rows)]
        shape = sum(sizes), len(counts)
        self.by_group = _SparsePattern(*pairs, shape).to(counts.device)
        self.by_row = _SparsePattern(*pairs[::-1], shape[::-1]).to(counts.device)

    def convolve(self, x: Tensor) -> Tensor:
        """Average over neighbours and self, D^-1/2 (A + I) D^-1/2 x.

        A sums the cliques of all columns, without the diagonal.

        Parameters
        ----------
        x : Tensor of shape (n_rows, dim)
            Features.

        Returns
        -------
        Tensor of the shape of `x`
        """
        sent, taken = self.sent.to(x.dtype), self.taken.to(x.dtype)
        send = self.by_group.fill(sent), self.by_row.fill(sent)
        take = self.by_row.fill(taken), self.by_group.fill(taken)
        found = _SparseProduct.apply(*take, _SparseProduct.apply(*send, x))
        return torch.addcmul(found, self.self_weight, x)
