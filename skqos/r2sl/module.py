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
from skqos.prediction import Encoded

KERNEL_WIDTHS = (1, 3, 5)
# Columns beside the middle one of the widest kernel.
MARGIN = KERNEL_WIDTHS[-1] // 2
# Shares that vary less are not blown up: a region unlike all others would be far out.
MIN_DEVIATION = 0.1

# Vectors of the known features (n, n_features, dim) and shares of the latent states (n, kinds, m).
Rows = tuple[Tensor, Tensor]


class EntityRows(nn.Module):
    """One side's rows of the map: known features, then latent states (eq. 21 and 22).

    Each cell is a vector. A known feature's is its embedding; a latent state's is the share of
    that state in the region, standardised over the entities, times a vector that is learnt.

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
    dim : int
        Width of a cell's vector.
    dropout : float
        Dropout of features and shares in training.

    Attributes
    ----------
    state_vectors : Parameter of shape (n_kinds, m, dim)
        What shares are multiplied by.
    """

    def __init__(
        self,
        table: EntityTable,
        n_categories: Sequence[int],
        states: Sequence[tuple[int, np.ndarray]],
        n_states: int,
        dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.features = FeatureEmbedding(table, n_categories, dim)
        self.dropout = nn.Dropout(dropout)
        self.state_vectors = nn.Parameter(EMBEDDING_STD * torch.randn(len(states), n_states, dim))
        self.columns = [column for column, _ in states]
        for k, (column, shares) in enumerate(states):
            of_entities = shares[table.categories[:, column]]
            deviation = np.maximum(of_entities.std(0), MIN_DEVIATION)
            scaled = (shares - of_entities.mean(0)) / deviation
            self.register_buffer(f"shares_{k}", torch.tensor(scaled, dtype=torch.float32))

    def forward(self, codes: Tensor) -> Rows:
        """Rows of known entities."""
        features, shares = self._rows(self.features(codes), self.features.categories[codes])
        return self.dropout(features), self.dropout(shares)

    def encode_known(self) -> tuple[Rows, Tensor]:
        """Rows of all known entities, and the average of their features."""
        features = self.features.encode_known()
        return self._rows(features, self.features.categories), features.mean(0)

    def encode_new(self, average: Tensor, new: EntityTable) -> Rows:
        """Rows of newcomers, given the average of the known features."""
        categories = torch.as_tensor(new.categories, device=average.device)
        return self._rows(self.features.encode_new(average, new), categories)

    def grow(self, table: EntityTable, n_categories: Sequence[int]) -> None:
        """Make room for entities and categories that were appended, see `FeatureEmbedding.grow`.

        A new region has the states of an unknown one.
        """
        self.features.grow(table, n_categories)
        for k, column in enumerate(self.columns):
            shares = getattr(self, f"shares_{k}")
            setattr(self, f"shares_{k}", append_rows(shares, n_categories[column] + 1, shares[-1]))

    def _rows(self, features: Tensor, categories: Tensor) -> Rows:
        # The code of an unknown region is -1, which is the last row.
        shares = [
            getattr(self, f"shares_{k}")[categories[:, column]]
            for k, column in enumerate(self.columns)
        ]
        n_kinds, n_states, _ = self.state_vectors.shape
        stacked = (
            torch.stack(shares, 1) if n_kinds else features.new_zeros(len(features), 0, n_states)
        )
        return features.unflatten(1, (self.features.n_features, -1)), stacked


class R2SLModule(nn.Module):
    """Multi-scale convolutions over the fused map, and a dense head (eq. 23 to 26).

    Rows of users and services alternate: known features of the user, of the service, then for each
    kind of region the states of the user's, of the service's. Convolution is linear, so that a
    pair's convolved map is the sum of what its user's and its service's rows give, each alone;
    the map itself is never formed.

    Parameters
    ----------
    user_rows, service_rows : EntityRows
        The two sides of the map.
    n_filters : int
        Filters of each width of kernel; kernels are min(m, rows) high and 1, 3 and 5 wide.
    hidden_size : int
        Width of the first dense layer, 2^v; the others are a half and a quarter of it.
    """

    def __init__(
        self, user_rows: EntityRows, service_rows: EntityRows, *, n_filters: int, hidden_size: int
    ) -> None:
        super().__init__()
        self.sides = nn.ModuleList([user_rows, service_rows])
        n_kinds, n_states, dim = user_rows.state_vectors.shape
        self.n_rows = 2 + 2 * n_kinds
        self.width = max(5, n_states, *(side.features.n_features for side in self.sides))
        height = min(n_states, self.n_rows)
        self.kernels = nn.ModuleList(
            nn.Conv2d(dim, n_filters, (height, width)) for width in KERNEL_WIDTHS
        )
        sizes = [len(KERNEL_WIDTHS) * n_filters * self.n_rows * self.width]
        sizes += [hidden_size, hidden_size // 2, hidden_size // 4, 1]
        self.layers = nn.ModuleList(nn.Linear(n, next_n) for n, next_n in pairwise(sizes))

    def forward(self, users: Tensor, services: Tensor) -> Tensor:
        """Predict pairs of known entities, given by code; (n,)."""
        user_rows, service_rows = self.sides
        return self._predict(
            self._convolve(user_rows(users), 0) + self._convolve(service_rows(services), 1)
        )

    def encode_known(self) -> Encoded:
        """Convolve the rows of every known entity."""
        (users, average_user), (services, average_service) = (
            side.encode_known() for side in self.sides
        )
        return Encoded(
            self._convolve(users, 0),
            self._convolve(services, 1),
            (average_user, average_service),
        )

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Convolve the rows of newcomers."""
        users, services = (
            side.encode_new(average, new)
            for side, average, new in zip(
                self.sides, known.averages, (new_users, new_services), strict=True
            )
        )
        return Encoded(self._convolve(users, 0), self._convolve(services, 1))

    def score(self, encoded: Encoded, users: Tensor, services: Tensor) -> Tensor:
        """Predict pairs, given as positions into what was encoded; convolved rows add up; (n,)."""
        return self._predict(encoded.users[users] + encoded.services[services])

    def grow(self, users: EntityEncoder, services: EntityEncoder) -> None:
        """Make room for entities and categories that were appended."""
        for side, encoder in zip(self.sides, (users, services), strict=True):
            side.grow(encoder.table_, encoder.n_categories)

    def _convolve(self, rows: Rows, side: int) -> Tensor:
        """Convolve one side's rows with all kernels, flattened (eq. 24 and 25); (n, size)."""
        features, shares = rows
        kernel = torch.cat(
            [F.pad(k.weight, (MARGIN - k.kernel_size[1] // 2,) * 2) for k in self.kernels]
        )
        known = self._convolve_features(features, kernel, side)
        states = self._convolve_states(kernel, side)
        total = torch.addmm(known.flatten(1), shares.flatten(1), states.flatten(1))
        if side == 1:
            # The bias belongs to the pair: the services' side has it.
            bias = torch.cat([k.bias for k in self.kernels])
            total = total + bias.repeat_interleave(self.n_rows * self.width)
        return total

    def _convolve_features(self, features: Tensor, kernel: Tensor, row: int) -> Tensor:
        """Convolve maps that are 0 but for a row; (n, filters, rows, width).

        The rows of the result are one-dimensional convolutions of that row, each with the row of
        the kernel that falls on it.
        """
        height = kernel.shape[2]
        first = max(0, row - height // 2)
        result_rows = range(first, min(self.n_rows, row + (height - 1) // 2 + 1))
        on_row = [row - k + (height - 1) // 2 for k in result_rows]
        weight = kernel[:, :, on_row].transpose(1, 2).flatten(0, 1)
        padded = F.pad(features, (0, 0, 0, self.width - features.shape[1])).transpose(1, 2)
        convolved = F.conv1d(padded, weight, padding=MARGIN).unflatten(1, (-1, len(on_row)))
        return F.pad(convolved, (0, 0, first, self.n_rows - first - len(on_row)))

    def _convolve_states(self, kernel: Tensor, side: int) -> Tensor:
        """Convolve a map per state, 0 but for its vector; (kinds * m, filters, rows, width).

        The result is the kernel, turned round, about the state's cell.
        """
        vectors = self.sides[side].state_vectors
        height, below = kernel.shape[2], kernel.shape[2] // 2
        taps = torch.einsum("kmc,fchw->kmhwf", vectors, kernel.flip(2, 3)).flatten(0, 1)
        kind, state = (index.flatten()[:, None, None] for index in self._cells(vectors))
        canvas = vectors.new_zeros(
            len(taps), self.n_rows + height - 1, self.width + 2 * MARGIN, len(kernel)
        )
        canvas[
            torch.arange(len(taps), device=taps.device)[:, None, None],
            2 + 2 * kind + side + torch.arange(height, device=taps.device)[:, None],
            state + torch.arange(2 * MARGIN + 1, device=taps.device),
        ] = taps
        canvas = canvas[:, below : below + self.n_rows, MARGIN : MARGIN + self.width]
        return canvas.permute(0, 3, 1, 2)

    def _cells(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """Kind and number of each state."""
        sizes = (torch.arange(n, device=vectors.device) for n in vectors.shape[:2])
        return torch.meshgrid(*sizes, indexing="ij")

    def _predict(self, hidden: Tensor) -> Tensor:
        """Go through the dense layers (eq. 26)."""
        for layer in self.layers:
            hidden = layer(F.relu(hidden))
        return hidden.squeeze(1)
