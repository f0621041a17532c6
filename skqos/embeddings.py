"""Embeddings of ids and context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos.entities import EntityTable
from skqos.members import split_members

# Small, so that a rare id or category adds little noise before it is trained.
EMBEDDING_STD = 0.05


class FeatureEmbedding(nn.Module):
    """One vector per known feature: the id, each categorical column, the numeric columns together.

    An entity that training did not see has the average of the known entities in place of its id and
    unknown context, and its own known context.

    Parameters
    ----------
    table : EntityTable
        Context of the training entities.
    n_categories : sequence of int
        Number of codes of each categorical column.
    dim : int
        Width of each vector.
    n_members : int, default=1
        Number of members, each with its own vectors.
    std : float, default=EMBEDDING_STD
        Initial standard deviation of the vectors.

    Attributes
    ----------
    vectors : Parameter of shape (n_entities + sum(n_categories), n_members * dim)
        Vectors of all ids, followed by those of the codes of each column. A single table needs one
        look-up and one optimiser step.
    n_features : int
        Number of vectors of an entity.
    out_dim : int
        Total width of the vectors of an entity.
    """

    rows: Tensor
    numerics: Tensor

    def __init__(
        self,
        table: EntityTable,
        n_categories: Sequence[int],
        dim: int,
        n_members: int = 1,
        std: float = EMBEDDING_STD,
    ) -> None:
        super().__init__()
        self.n_members = n_members
        self.dim = dim
        self._set_context(table, n_categories)
        self.vectors = nn.Parameter(std * torch.randn(sum(self.sizes), n_members * dim))
        n_numeric = self.numerics.shape[1]
        self.numeric_layer = nn.Linear(n_numeric, n_members * dim) if n_numeric else None
        self.n_features = len(self.sizes) + bool(n_numeric)
        self.out_dim = self.n_features * dim

    def forward(self, codes: Tensor) -> Tensor:
        """Embed known entities; (n_members, n, out_dim)."""
        found = F.embedding(self.rows[codes], self.vectors)
        if self.numeric_layer is not None:
            numbers = self.numeric_layer(self.numerics[codes])
            found = torch.cat([found, numbers.unsqueeze(1)], dim=1)
        return split_members(found, self.n_members)

    def encode_known(self) -> Tensor:
        """Embed all known entities; (n_members, n_known, out_dim)."""
        return self(torch.arange(len(self.rows), device=self.rows.device))

    def encode_new(self, average: Tensor, new: EntityTable) -> Tensor:
        """Embed newcomers; (n_members, n_new, out_dim).

        Parameters
        ----------
        average : Tensor of shape (n_members, out_dim)
            Average of the known entities.
        new : EntityTable
            Context of the newcomers.
        """
        features = average.unsqueeze(1).repeat(1, len(new), 1).unflatten(2, (-1, self.dim))
        codes = torch.as_tensor(new.categories, device=average.device)
        starts = np.cumsum(self.sizes)
        for column, of_column in enumerate(codes.unbind(1)):
            is_known = of_column >= 0
            found = self.vectors[starts[column] + of_column[is_known]]
            features[:, is_known, column + 1] = self._members_first(found)
        if self.numeric_layer is not None:
            # Numbers are standardised; an unknown one is the mean, 0.
            numerics = torch.as_tensor(np.nan_to_num(new.numerics)).to(average)
            features[:, :, -1] = self._members_first(self.numeric_layer(numerics))
        return features.flatten(2)

    def average_id(self) -> Tensor:
        """Average the vectors of the ids; (n_members, dim)."""
        return self.vectors[: self.sizes[0]].mean(0).unflatten(0, (self.n_members, -1))

    def grow(self, table: EntityTable, n_categories: Sequence[int]) -> None:
        """Add the entities and categories that were appended to the known ones.

        New vectors start as the average of the known entities, so that the predictions of new
        entities do not change.

        Parameters
        ----------
        table : EntityTable
            Context of all entities, the known ones first.
        n_categories : sequence of int
            Number of codes of each categorical column.
        """
        vectors = self.vectors.detach()
        averages = F.embedding(self.rows, vectors).mean(0)
        parts = vectors.split(self.sizes)
        self._set_context(table, n_categories)
        grown = map(append_rows, parts, self.sizes, averages)
        self.vectors = nn.Parameter(torch.cat(list(grown)), self.vectors.requires_grad)

    def vector_blocks(self) -> tuple[nn.Parameter, list[int]]:
        """Return the vectors, and the number of ids and of codes of each column."""
        return self.vectors, self.sizes

    def _set_context(self, table: EntityTable, n_categories: Sequence[int]) -> None:
        """Store the positions of the vectors of each entity, and its numbers."""
        self.sizes = [len(table), *n_categories]
        columns = np.column_stack([np.arange(len(table)), table.categories])
        starts = np.cumsum([0, *self.sizes[:-1]])
        self.register_buffer("rows", torch.tensor(columns + starts))
        self.register_buffer("numerics", torch.tensor(np.nan_to_num(table.numerics)))

    def _members_first(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.n_members, -1)).transpose(0, 1)


def append_rows(values: Tensor, n_rows: int, row: Tensor) -> Tensor:
    """Append copies of a row up to a number of rows."""
    return torch.cat([values, row.expand(n_rows - len(values), -1)])
