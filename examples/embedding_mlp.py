"""The baseline of every accuracy line: a multi-layer perceptron on embeddings.

Ids and context codes (country, autonomous system, subnet, and the provider of services) get a
32-d embedding each; concatenated; dense 256, 128, 1 with ReLU, dropout 0.2 after the first. Mean
absolute error on log(1 + y) or y / max(y); AdamW with decoupled weight decay, one-cycle.

    from embedding_mlp import EmbeddingMLP
    from skqos.benchmarks.peers import context_codes
    model = EmbeddingMLP(context_codes(data.users, data.services), log=True, seed=0)
    model.fit(X, y).predict(X_test)

Without context, and with time steps, as `benchmark_temporal.py` has it:

    tables = [np.arange(n)[:, np.newaxis] for n in (n_users, n_services, n_steps)]
    model = EmbeddingMLP(tables, log=True, seed=0, max_epochs=12, batch_size=512)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class EmbeddingNet(nn.Module):
    """Embeddings of all codes of a row's ids, then a dense head."""

    def __init__(self, tables: list[np.ndarray], dim: int, dropout: float) -> None:
        super().__init__()
        self.tables = [torch.as_tensor(table) for table in tables]
        self.embeddings = nn.ModuleList(
            nn.Embedding(int(column.max()) + 1, dim) for table in tables for column in table.T
        )
        for embedding in self.embeddings:
            nn.init.normal_(embedding.weight, std=0.05)
        self.head = nn.Sequential(
            nn.Linear(dim * len(self.embeddings), 256),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Linear(128, 1),
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        codes = torch.cat(
            [table[column] for table, column in zip(self.tables, ids.unbind(1), strict=True)], dim=1
        )
        vectors = [
            embedding(column)
            for embedding, column in zip(self.embeddings, codes.unbind(1), strict=True)
        ]
        return self.head(torch.cat(vectors, dim=1)).squeeze(1)


class EmbeddingMLP:
    """The baseline with `fit` and `predict`; ids are positions in the tables, one a column."""

    def __init__(
        self,
        tables: list[np.ndarray],
        *,
        log: bool,
        seed: int,
        max_epochs: int = 20,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.05,
        embedding_dim: int = 32,
        dropout: float = 0.2,
    ) -> None:
        self.tables = tables
        self.log = log
        self.seed = seed
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.embedding_dim = embedding_dim
        self.dropout = dropout

    def fit(self, X: np.ndarray, y: np.ndarray) -> EmbeddingMLP:
        torch.manual_seed(self.seed)
        self.scale_ = float(np.max(y))
        target = torch.as_tensor(np.log1p(y) if self.log else y / self.scale_).float()
        ids = torch.as_tensor(X)
        self.net_ = EmbeddingNet(self.tables, self.embedding_dim, self.dropout).train()
        optimizer = torch.optim.AdamW(
            self.net_.parameters(), self.learning_rate, weight_decay=self.weight_decay
        )
        n_steps = self.max_epochs * -(-len(ids) // self.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=n_steps
        )
        for _ in range(self.max_epochs):
            for rows in torch.randperm(len(ids)).split(self.batch_size):
                optimizer.zero_grad()
                (self.net_(ids[rows]) - target[rows]).abs().mean().backward()
                optimizer.step()
                schedule.step()
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        self.net_.eval()
        with torch.inference_mode():
            parts = [self.net_(part) for part in torch.as_tensor(X).split(65536)]
        prediction = torch.cat(parts).numpy().astype(np.float64)
        return np.expm1(prediction) if self.log else prediction * self.scale_
