"""The network of R2SL: one map of known features and latent states, convolutions, dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos.embeddings import EMBEDDING_STD, FeatureEmbedding, append_rows
from skqos.entities import EntityEncoder, EntityTable
from skqos.members import ByteDropout, MemberLinear, PairLinear
from skqos.prediction import Encoded, take

KERNEL_WIDTHS = (1, 3, 5)
# Initial standard deviation of feature embeddings; three times that of other networks reduced the
# error.
FEATURE_STD = 0.15
# Lower bound of the deviation of shares, so that an unusual region does not become an outlier.
MIN_DEVIATION = 0.1

# Rows of entities: vectors of the known features (n_members, n, n_features * dim), and shares of
# the latent states (n_members or 1, n, kinds * m).
Rows = tuple[Tensor, Tensor]
# Convolved features, shares and, with skip connection, its contribution.
Projection = tuple[Tensor, ...]


class EntityRows(nn.Module):
    """One side's rows of the map: known features, then latent states (eq. 21 and 22).

    Each cell is a vector. For a known feature, it is its embedding. For a latent state, it is the
    share of the state in the region, standardised over the entities, times a learnt vector.

    Parameters
    ----------
    table : EntityTable
        Context of the training entities.
    n_categories : sequence of int
        Number of codes of each categorical column.
    states : sequence of tuple of int and ndarray of shape (n_regions + 1, m)
        For each kind of region, its categorical column and the states of its codes; the last row
        is that of an unknown region.
    n_states : int
        Number m of states.
    n_members : int
        Number of members; shares are the same for all.
    dim : int
        Width of a cell's vector.
    dropout : float
        Dropout of features and shares in training.

    Attributes
    ----------
    state_vectors : Parameter of shape (n_members, n_kinds, m, dim)
        Vectors by which shares are multiplied.
    """

    def __init__(
        self,
        table: EntityTable,
        n_categories: Sequence[int],
        states: Sequence[tuple[int, np.ndarray]],
        n_states: int,
        *,
        n_members: int,
        dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.features = FeatureEmbedding(table, n_categories, dim, n_members, FEATURE_STD)
        self.dropout = ByteDropout(dropout)
        shape = n_members, len(states), n_states, dim
        self.state_vectors = nn.Parameter(EMBEDDING_STD * torch.randn(shape))
        self.columns = [column for column, _ in states]
        for k, (column, shares) in enumerate(states):
            of_entities = shares[table.categories[:, column]]
            deviation = np.maximum(of_entities.std(0), MIN_DEVIATION)
            scaled = (shares - of_entities.mean(0)) / deviation
            self.register_buffer(f"shares_{k}", torch.tensor(scaled, dtype=torch.float32))
        self.register_buffer("shares", self._find_shares(table))

    def forward(self, codes: Tensor) -> Rows:
        """Rows of known entities."""
        features = self.features(codes)
        shares = self.shares[codes].expand(len(features), -1, -1)
        return self.dropout(features), self.dropout(shares)

    def encode_known(self) -> tuple[Rows, Tensor]:
        """Rows of all known entities, and the average of their features."""
        features = self.features.encode_known()
        return (features, self.shares.unsqueeze(0)), features.mean(1)

    def encode_new(self, average: Tensor, new: EntityTable) -> Rows:
        """Rows of newcomers, given the average of the known features."""
        return self.features.encode_new(average, new), self._find_shares(new).unsqueeze(0)

    def grow(self, table: EntityTable, n_categories: Sequence[int]) -> None:
        """Add the entities and categories that were appended; see `FeatureEmbedding.grow`.

        A new region has the states of an unknown one.
        """
        self.features.grow(table, n_categories)
        for k, column in enumerate(self.columns):
            shares = getattr(self, f"shares_{k}")
            setattr(self, f"shares_{k}", append_rows(shares, n_categories[column] + 1, shares[-1]))
        self.shares = self._find_shares(table)

    def _find_shares(self, table: EntityTable) -> Tensor:
        """Shares of the states in the regions of entities; (n, kinds * m)."""
        # The code of an unknown region is -1, which is the last row.
        shares = [
            getattr(self, f"shares_{k}")[table.categories[:, column]]
            for k, column in enumerate(self.columns)
        ]
        return torch.cat([self.state_vectors.new_zeros(len(table), 0), *shares], dim=1)


class MapGeometry:
    """Geometry of the convolutions: the cells and weights that each output cell reads.

    Rows of users and services alternate: the known features of the user and of the service,
    followed by the states of the user's and of the service's region for each kind of region. A tap
    is one position of a kernel; the taps of all kernels are numbered consecutively.

    Cells of a convolution that read neither a feature nor a state are equal for all pairs, to the
    bias of their kernel. They are omitted, because the bias of the dense layer replaces them.

    Parameters
    ----------
    n_features : tuple of int
        Number of known features of users and of services.
    n_kinds, n_states : int
        Number of kinds of region and of their states.

    Attributes
    ----------
    n_rows, width : int
        Shape of the map.
    height : int
        Height of the kernels.
    n_taps : int
        Number of taps.
    cells : ndarray of shape (n_cells, 3)
        Kernel, row and column of the convolutions' cells that vary; the `n_known` that read a
        feature come first.
    n_known : int
        Number of cells that read a feature.
    feature_taps : tuple of ndarray of shape (n_features, n_known)
        By side, the tap by which a cell reads a feature; `n_taps` if it does not.
    state_taps : ndarray of shape (2 * n_kinds * n_states, n_cells)
        Likewise for the states of users and then of services.
    """

    def __init__(self, n_features: tuple[int, int], n_kinds: int, n_states: int) -> None:
        self.n_rows = 2 + 2 * n_kinds
        self.width = max(5, n_states, *n_features)
        self.height = min(n_states, self.n_rows)
        self.n_taps = self.height * sum(KERNEL_WIDTHS)
        shape = len(KERNEL_WIDTHS), self.n_rows, self.width
        cells = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
        of_features = [
            self._taps(np.full(n, side), np.arange(n), cells) for side, n in enumerate(n_features)
        ]
        side, kind, state = np.indices((2, n_kinds, n_states)).reshape(3, -1)
        of_states = self._taps(2 + 2 * kind + side, state, cells)
        known, by_states = (
            (taps < self.n_taps).any(axis=0) for taps in (np.vstack(of_features), of_states)
        )
        kept = np.concatenate([np.flatnonzero(known), np.flatnonzero(by_states & ~known)])
        self.cells = cells[kept]
        self.n_known = int(known.sum())
        self.feature_taps = tuple(taps[:, known] for taps in of_features)
        self.state_taps = of_states[:, kept]

    def _taps(self, rows: np.ndarray, columns: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Taps by which cells of the convolutions read cells of the map."""
        kernel, row, column = cells.T
        widths = np.array(KERNEL_WIDTHS)
        starts = self.height * (np.cumsum(widths) - widths)
        width = widths[kernel]
        down = rows[:, None] - row + (self.height - 1) // 2
        right = columns[:, None] - column + width // 2
        is_read = (down >= 0) & (down < self.height) & (right >= 0) & (right < width)
        return np.where(is_read, starts[kernel] + down * width + right, self.n_taps)


class R2SLModule(nn.Module):
    """Multi-scale convolutions over the fused map, and a dense head (eq. 23 to 26).

    A convolution is linear. It is computed as products with matrices of the kernel weights: one for
    the features of each side, and one for the states. The convolved map of a pair is the sum of the
    contributions of its user's and its service's rows, so the map itself is not stored.

    Parameters
    ----------
    user_rows, service_rows : EntityRows
        The two sides of the map.
    n_members : int
        Number of members, whose predictions are averaged.
    n_filters : int
        Filters of each width of kernel; kernels are min(m, rows) high and 1, 3 and 5 wide.
    hidden_size : int
        Width of the first dense layer, 2^v; the others are a half and a quarter of it.
    skip_connection : bool
        Whether the first dense layer also reads the known features as they are.

    Attributes
    ----------
    geometry : MapGeometry
        Cells and taps.
    kernels : Parameter of shape (n_members, n_taps, dim, n_filters)
        Weights of all kernels.
    kernel_bias : Parameter of shape (n_members, 3, n_filters)
        Their biases.
    layers : ModuleList of MemberLinear
        The dense layers. Inputs of the first are the cells that vary, each with all filters.
    skip : ModuleList of PairLinear
        Skip connection of the features to the first layer; empty without skip connection.
    """

    def __init__(
        self,
        user_rows: EntityRows,
        service_rows: EntityRows,
        *,
        n_members: int,
        n_filters: int,
        hidden_size: int,
        skip_connection: bool,
    ) -> None:
        super().__init__()
        self.sides = nn.ModuleList([user_rows, service_rows])
        _, n_kinds, n_states, dim = user_rows.state_vectors.shape
        n_features = user_rows.features.n_features, service_rows.features.n_features
        self.geometry = MapGeometry(n_features, n_kinds, n_states)
        self._make_kernels(n_members, dim, n_filters)
        for side, taps in enumerate(self.geometry.feature_taps):
            self.register_buffer(f"feature_taps_{side}", torch.tensor(taps))
        self.register_buffer("state_taps", torch.tensor(self.geometry.state_taps))
        self.register_buffer("kernel_of_cell", torch.tensor(self.geometry.cells[:, 0]))
        sizes = [n_filters * len(self.geometry.cells)]
        sizes += [hidden_size, hidden_size // 2, hidden_size // 4, 1]
        self.layers = nn.ModuleList(
            MemberLinear(n_members, n, next_n) for n, next_n in pairwise(sizes)
        )
        widths = user_rows.features.out_dim, service_rows.features.out_dim
        self.skip = nn.ModuleList(
            [PairLinear(n_members, *widths, hidden_size)] if skip_connection else []
        )

    def forward(self, users: Tensor, services: Tensor) -> Tensor:
        """Predict pairs of known entities from their codes; (n_members, n)."""
        user_rows, service_rows = self.sides
        return self._predict(
            self._project_users(user_rows(users)), self._project_services(service_rows(services))
        )

    def encode_known(self) -> Encoded:
        """Convolve the known features of every known entity."""
        (users, average_user), (services, average_service) = (
            side.encode_known() for side in self.sides
        )
        return Encoded(
            self._project_users(users),
            self._project_services(services),
            (average_user, average_service),
        )

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Convolve the known features of newcomers."""
        users, services = (
            side.encode_new(average, new)
            for side, average, new in zip(
                self.sides, known.averages, (new_users, new_services), strict=True
            )
        )
        return Encoded(self._project_users(users), self._project_services(services))

    def score(self, encoded: Encoded, users: Tensor, services: Tensor | slice) -> Tensor:
        """Predict pairs from positions of encoded entities; (n,)."""
        of_users, of_services = (
            tuple(take(part, positions) for part in parts)
            for parts, positions in ((encoded.users, users), (encoded.services, services))
        )
        return self._predict(of_users, of_services).mean(0)

    def grow(self, users: EntityEncoder, services: EntityEncoder) -> None:
        """Add the entities and categories that were appended."""
        for side, encoder in zip(self.sides, (users, services), strict=True):
            side.grow(encoder.table_, encoder.n_categories)

    def _make_kernels(self, n_members: int, dim: int, n_filters: int) -> None:
        """Start weights and biases as ``torch.nn.Conv2d`` does."""
        height, widths = self.geometry.height, torch.tensor(KERNEL_WIDTHS)
        largest = (dim * height * widths) ** -0.5
        weights = torch.empty(n_members, self.geometry.n_taps, dim, n_filters).uniform_(-1, 1)
        weights *= largest.repeat_interleave(height * widths)[:, None, None]
        biases = torch.empty(n_members, len(widths), n_filters).uniform_(-1, 1)
        self.kernels = nn.Parameter(weights)
        self.kernel_bias = nn.Parameter(biases * largest[:, None])

    def _project_users(self, rows: Rows) -> Projection:
        """Compute the part of users that does not depend on the pair."""
        features, shares = rows
        known = torch.bmm(features, self._feature_matrix(0))
        return known, shares, *(skip.users(features) for skip in self.skip)

    def _project_services(self, rows: Rows) -> Projection:
        """Compute the part of services that does not depend on the pair, including biases."""
        features, shares = rows
        bias, _ = self._split_cells(self._cell_bias())
        known = torch.baddbmm(bias, features, self._feature_matrix(1))
        return known, shares, *(skip.services(features) for skip in self.skip)

    def _feature_matrix(self, side: int) -> Tensor:
        """Weights of features in the cells that read any.

        Shape (n_members, n_features * dim, n_known * n_filters).
        """
        taps = getattr(self, f"feature_taps_{side}")
        # A row per tap, and one of zeros.
        by_tap = F.pad(self.kernels.transpose(0, 1).flatten(1), (0, 0, 0, 1))
        found = F.embedding(taps, by_tap).unflatten(2, (len(self.kernels), -1, self._n_filters))
        return found.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)

    def _state_matrix(self) -> Tensor:
        """Weights of states in all cells; (n_members, 2 * kinds * m, n_cells * n_filters)."""
        vectors = torch.cat([side.state_vectors.flatten(1, 2) for side in self.sides], dim=1)
        by_tap = torch.einsum("psd,ptdf->stpf", vectors, self.kernels).flatten(2)
        # For each state a row per tap, and one of zeros.
        by_tap = F.pad(by_tap, (0, 0, 0, 1))
        starts = by_tap.shape[1] * torch.arange(len(by_tap), device=by_tap.device)
        found = F.embedding(starts[:, None] + self.state_taps, by_tap.flatten(0, 1))
        return found.unflatten(2, (-1, self._n_filters)).permute(2, 0, 1, 3).flatten(2)

    def _cell_bias(self) -> Tensor:
        """Bias of each cell; (n_members, 1, n_cells * n_filters)."""
        return self.kernel_bias[:, self.kernel_of_cell].flatten(1).unsqueeze(1)

    def _split_cells(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split values of cells into cells that read a feature, and the others."""
        n_known = self._n_filters * self.geometry.n_known
        return x[..., :n_known], x[..., n_known:]

    @property
    def _n_filters(self) -> int:
        return self.kernels.shape[-1]

    def _predict(self, users: Projection, services: Projection) -> Tensor:
        """Convolve the states, and go through the dense layers (eq. 26); (n_members, n)."""
        (known_u, shares_u, *skipped_u), (known_s, shares_s, *skipped_s) = users, services
        # One user may be paired with all services.
        shares_u = shares_u.expand(-1, shares_s.shape[1], -1)
        hidden = self._convolve(known_u + known_s, torch.cat([shares_u, shares_s], dim=2))
        first, *others = self.layers
        hidden = first(F.relu(hidden))
        for part in (*skipped_u, *skipped_s):
            hidden = hidden + part
        for layer in others:
            hidden = layer(F.relu(hidden))
        return hidden.squeeze(2)

    def _convolve(self, known: Tensor, shares: Tensor) -> Tensor:
        """Add the states to the convolved features; (n_members, n, n_cells * n_filters)."""
        shares = shares.expand(len(known), -1, -1)
        of_known, of_others = self._split_cells(self._state_matrix())
        _, bias = self._split_cells(self._cell_bias())
        return torch.cat(
            [torch.baddbmm(known, shares, of_known), torch.baddbmm(bias, shares, of_others)], dim=2
        )
