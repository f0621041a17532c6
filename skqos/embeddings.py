"""What networks know of a user or a service: id and context as vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from skqos.entities import EntityTable

# Small: a rare id or category adds little noise until it learns.
EMBEDDING_STD = 0.05


class FeatureEmbedding(nn.Module):
    """One vector per known feature: the id, each categorical column, the numeric columns together.

    An entity that training did not see gets the average of the known entities for what it lacks
    (id, unknown context) and its own context for the rest.

    Parameters
    ----------
    table : EntityTable
        Context of the training entities.
    n_categories : sequence of int
        Number of codes of each categorical column.
    dim : int
        Width of each vector.

    Attributes
    ----------
    n_features : int
        Number of vectors.
    out_dim : int
        Width of all vectors, laid side by side.
    """

    def __init__(self, table: EntityTable, n_categories: Sequence[int], dim: int) -> None:
        super().__init__()
        numerics = np.nan_to_num(table.numerics)
        self.register_buffer("categories", torch.tensor(table.categories))
        self.register_buffer("numerics", torch.tensor(numerics))
        self.id_embedding = _embedding(len(table), dim)
        self.category_embeddings = nn.ModuleList(_embedding(n, dim) for n in n_categories)
        n_numeric = numerics.shape[1]
        self.numeric_layer = nn.Linear(n_numeric, dim) if n_numeric else None
        self.n_features = 1 + len(n_categories) + bool(n_numeric)
        self.out_dim = self.n_features * dim

    def forward(self, codes: Tensor) -> Tensor:
        """Embed known entities; (n, out_dim)."""
        parts = [self.id_embedding(codes)]
        columns = self.categories[codes].unbind(1)
        parts += [
            embedding(column)
            for embedding, column in zip(self.category_embeddings, columns, strict=True)
        ]
        if self.numeric_layer is not None:
            parts.append(self.numeric_layer(self.numerics[codes]))
        return torch.cat(parts, dim=1)

    def encode_known(self) -> Tensor:
        """Embed all known entities; (n_known, out_dim)."""
        return self(torch.arange(len(self.categories), device=self.categories.device))

    def encode_new(self, average: Tensor, new: EntityTable) -> Tensor:
        """Embed newcomers; (n_new, out_dim).

        Parameters
        ----------
        average : Tensor of shape (out_dim,)
            Average of the known entities.
        new : EntityTable
            Context of the newcomers.
        """
        vectors = average.repeat(len(new), 1)
        width = self.id_embedding.embedding_dim
        columns = torch.as_tensor(new.categories, device=vectors.device).unbind(1)
        for k, (embedding, column) in enumerate(
            zip(self.category_embeddings, columns, strict=True), start=1
        ):
            known = column >= 0
            vectors[known, k * width : (k + 1) * width] = embedding(column[known])
        if self.numeric_layer is not None:
            # Standardised: an unknown number is the mean, 0.
            numerics = torch.as_tensor(np.nan_to_num(new.numerics)).to(vectors)
            start = (1 + len(columns)) * width
            vectors[:, start : start + width] = self.numeric_layer(numerics)
        return vectors

    def grow(self, table: EntityTable, n_categories: Sequence[int]) -> None:
        """Make room for the entities and categories that were appended to those known.

        What is new starts as the average of the known entities, so that the network predicts it as
        it did when it was unknown.

        Parameters
        ----------
        table : EntityTable
            Context of all entities, the known ones first.
        n_categories : sequence of int
            Number of codes of each categorical column.
        """
        with torch.no_grad():
            known = self.categories.unbind(1)
            averages = [
                embedding(column).mean(0)
                for embedding, column in zip(self.category_embeddings, known, strict=True)
            ]
            self.category_embeddings = nn.ModuleList(
                _grown(embedding, n, average)
                for embedding, n, average in zip(
                    self.category_embeddings, n_categories, averages, strict=True
                )
            )
            average = self.id_embedding.weight.mean(0)
            self.id_embedding = _grown(self.id_embedding, len(table), average)
        self.categories = torch.tensor(table.categories)
        self.numerics = torch.tensor(np.nan_to_num(table.numerics))


def append_rows(values: Tensor, n_rows: int, row: Tensor) -> Tensor:
    """Append copies of a row up to a number of rows."""
    return torch.cat([values, row.expand(n_rows - len(values), -1)])


def _grown(embedding: nn.Embedding, n: int, row: Tensor) -> nn.Embedding:
    return nn.Embedding.from_pretrained(append_rows(embedding.weight, n, row), freeze=False)


def _embedding(n: int, dim: int) -> nn.Embedding:
    embedding = nn.Embedding(n, dim)
    nn.init.normal_(embedding.weight, std=EMBEDDING_STD)
    return embedding
