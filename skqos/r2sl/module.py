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

# Rows of entities: vectors of the known features (n_members, n, n_features * dim), shares of the
# latent states (n_members or 1, n, kinds * m) and, for expected levels, the inputs of `PairLevels`.
Rows = tuple[Tensor, ...]
# Convolved features, shares, the contribution of a skip connection, and the inputs of `PairLevels`.
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
    log_levels : sequence of ndarray of shape (n_regions + 1,), default=()
        For each kind of region, the logarithms of the levels of its codes, if pairs have expected
        levels; the last one is that of an unknown region.
    min_size : int, default=1
        Number of entities below which a region of these kinds has zeros in place of its embedding.

    Attributes
    ----------
    state_vectors : Parameter of shape (n_members, n_kinds, m, dim)
        Vectors by which shares are multiplied.
    """

    levels: Tensor

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
        log_levels: Sequence[np.ndarray] = (),
        min_size: int = 1,
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
        self.has_levels = len(log_levels) > 0
        for k, levels in enumerate(log_levels):
            parts = np.column_stack([states[k][1], levels])
            self.register_buffer(f"levels_{k}", torch.tensor(parts, dtype=torch.float32))
        self.has_rare = min_size > 1
        if self.has_rare:
            self._find_rare(table, n_categories, min_size)
        self._set_rows(table)

    def forward(self, codes: Tensor) -> Rows:
        """Rows of known entities."""
        features = self._hide_rare(self.features(codes), self.kept[codes])
        shares = self.shares[codes].expand(len(features), -1, -1)
        levels = [self.levels[codes].unsqueeze(0)] if self.has_levels else []
        return self.dropout(features), self.dropout(shares), *levels

    def encode_known(self) -> tuple[Rows, Tensor]:
        """Rows of all known entities, and the average of their features."""
        features = self._hide_rare(self.features.encode_known(), self.kept)
        levels = [self.levels.unsqueeze(0)] if self.has_levels else []
        return (features, self.shares.unsqueeze(0), *levels), features.mean(1)

    def encode_new(self, average: Tensor, new: EntityTable) -> Rows:
        """Rows of newcomers, given the average of the known features."""
        features = self._hide_rare(self.features.encode_new(average, new), self._find_kept(new))
        shares = self._find("shares", new).unsqueeze(0)
        levels = [self._find("levels", new).unsqueeze(0)] if self.has_levels else []
        return features, shares, *levels

    def grow(self, table: EntityTable, n_categories: Sequence[int]) -> None:
        """Add the entities and categories that were appended; see `FeatureEmbedding.grow`.

        A new region has the states of an unknown one.
        """
        self.features.grow(table, n_categories)
        for name in self._tables:
            for k, column in enumerate(self.columns):
                values = getattr(self, f"{name}_{k}")
                grown = append_rows(values, n_categories[column] + 1, values[-1])
                setattr(self, f"{name}_{k}", grown)
        self._set_rows(table)

    @property
    def _tables(self) -> list[str]:
        """Names of the values of regions, which are stored for each kind."""
        has = {"shares": True, "levels": self.has_levels, "common": self.has_rare}
        return [name for name, is_there in has.items() if is_there]

    def _set_rows(self, table: EntityTable) -> None:
        """Store the values of the known entities."""
        self.register_buffer("shares", self._find("shares", table))
        self.register_buffer("levels", self._find("levels", table) if self.has_levels else None)
        self.register_buffer("kept", self._find_kept(table))

    def _find(self, name: str, table: EntityTable) -> Tensor:
        """Return the values of the regions of entities, all kinds side by side."""
        # The code of an unknown region is -1, which is the last row.
        values = [
            getattr(self, f"{name}_{k}")[table.categories[:, column]]
            for k, column in enumerate(self.columns)
        ]
        return torch.cat([self.state_vectors.new_zeros(len(table), 0), *values], dim=1)

    def _find_rare(self, table: EntityTable, n_categories: Sequence[int], min_size: int) -> None:
        """Mark the regions with enough entities, and unknown ones; (n_regions + 1, 1)."""
        for k, column in enumerate(self.columns):
            codes = table.categories[:, column]
            counts = np.bincount(codes[codes >= 0], minlength=n_categories[column])
            common = np.append(counts >= min_size, True)[:, np.newaxis]
            self.register_buffer(f"common_{k}", torch.tensor(common, dtype=torch.float32))

    def _find_kept(self, table: EntityTable) -> Tensor:
        """Return 1 for the features of entities that are used, and 0 for those of rare regions."""
        kept = self.state_vectors.new_ones(len(table), self.features.n_features)
        if self.has_rare:
            # The first feature is the id.
            kept[:, [1 + column for column in self.columns]] = self._find("common", table)
        return kept

    def _hide_rare(self, features: Tensor, kept: Tensor) -> Tensor:
        if not self.has_rare:
            return features
        return (features.unflatten(2, (*kept.shape[1:], -1)) * kept.unsqueeze(2)).flatten(2)


class PairLevels(nn.Module):
    """The expected level of a pair, as a cell of the map for each kind of region.

    The level is log E[y | c, c'] under the model of the latent states, standardised over the
    training pairs. The cell is the level times a learnt vector. It is not in the paper.

    Parameters
    ----------
    mismatch : ndarray of shape (n_kinds,)
        Factor of the mean if the states of the regions differ.
    n_members : int
        Number of members.
    dim : int
        Width of a cell's vector.
    dropout : float
        Dropout of the levels in training.

    Attributes
    ----------
    vectors : Parameter of shape (n_members, n_kinds, dim)
        Vectors by which levels are multiplied.
    """

    def __init__(self, mismatch: np.ndarray, *, n_members: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ByteDropout(dropout)
        self.vectors = nn.Parameter(EMBEDDING_STD * torch.randn(n_members, len(mismatch), dim))
        self.register_buffer("mismatch", torch.tensor(mismatch, dtype=torch.float32))
        self.register_buffer("mean", torch.zeros(len(mismatch)))
        self.register_buffer("deviation", torch.ones(len(mismatch)))

    def forward(self, of_users: Tensor, of_services: Tensor) -> Tensor:
        """Return the levels of pairs; (1, n, n_kinds).

        The parameters hold the states and the log level of the region of each kind,
        (1, n, n_kinds * (m + 1)).
        """
        users, services = (
            part.unflatten(2, (len(self.mismatch), -1)) for part in (of_users, of_services)
        )
        match = (users[..., :-1] * services[..., :-1]).sum(3)
        factor = self.mismatch + (1 - self.mismatch) * match
        level = users[..., -1] + services[..., -1] + factor.log()
        return self.dropout((level - self.mean) / self.deviation)

    @torch.no_grad()
    def standardise(self, of_users: Tensor, of_services: Tensor) -> None:
        """Set mean and deviation of the levels to those of the training pairs."""
        levels = self.eval()(of_users, of_services)[0]
        self.train()
        self.mean = levels.mean(0)
        self.deviation = levels.std(0, correction=0).clamp(min=MIN_DEVIATION)


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
    has_levels : bool, default=False
        Whether the row of a user's states also has the expected level of the pair, in its last
        column.

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
        Likewise for the states of users and then of services, followed by the levels, if any.
    """

    def __init__(
        self,
        n_features: tuple[int, int],
        n_kinds: int,
        n_states: int,
        *,
        has_levels: bool = False,
    ) -> None:
        self.n_rows = 2 + 2 * n_kinds
        self.width = max(5, n_states + has_levels, *n_features)
        self.height = min(n_states, self.n_rows)
        self.n_taps = self.height * sum(KERNEL_WIDTHS)
        shape = len(KERNEL_WIDTHS), self.n_rows, self.width
        cells = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
        of_features = [
            self._taps(np.full(n, side), np.arange(n), cells) for side, n in enumerate(n_features)
        ]
        side, kind, state = np.indices((2, n_kinds, n_states)).reshape(3, -1)
        rows, columns = 2 + 2 * kind + side, state
        if has_levels:
            rows = np.append(rows, 2 + 2 * np.arange(n_kinds))
            columns = np.append(columns, np.full(n_kinds, n_states))
        of_states = self._taps(rows, columns, cells)
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
    levels : PairLevels, default=None
        Expected levels of pairs, if they are in the map.

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
        levels: PairLevels | None = None,
    ) -> None:
        super().__init__()
        self.sides = nn.ModuleList([user_rows, service_rows])
        self.levels = levels
        _, n_kinds, n_states, dim = user_rows.state_vectors.shape
        n_features = user_rows.features.n_features, service_rows.features.n_features
        has_levels = levels is not None
        self.geometry = MapGeometry(n_features, n_kinds, n_states, has_levels=has_levels)
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
        features, shares, *levels = rows
        known = torch.bmm(features, self._feature_matrix(0))
        return known, shares, *(skip.users(features) for skip in self.skip), *levels

    def _project_services(self, rows: Rows) -> Projection:
        """Compute the part of services that does not depend on the pair, including biases."""
        features, shares, *levels = rows
        bias, _ = self._split_cells(self._cell_bias())
        known = torch.baddbmm(bias, features, self._feature_matrix(1))
        return known, shares, *(skip.services(features) for skip in self.skip), *levels

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
        """Weights of states and levels; (n_members, n_states_and_levels, n_cells * n_filters)."""
        vectors = [side.state_vectors.flatten(1, 2) for side in self.sides]
        if self.levels is not None:
            vectors.append(self.levels.vectors)
        vectors = torch.cat(vectors, dim=1)
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
        """Convolve the states, and apply the dense layers (eq. 26); (n_members, n)."""
        (known_u, shares_u, *rest_u), (known_s, shares_s, *rest_s) = users, services
        # One user may be paired with all services.
        shares = [shares_u.expand(-1, shares_s.shape[1], -1), shares_s]
        if self.levels is not None:
            shares.append(self.levels(rest_u[-1], rest_s[-1]).expand(len(shares_s), -1, -1))
        hidden = self._convolve(known_u + known_s, torch.cat(shares, dim=2))
        first, *others = self.layers
        hidden = first(F.relu(hidden))
        n_skipped = len(self.skip)
        for part in (*rest_u[:n_skipped], *rest_s[:n_skipped]):
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
