"""TabM on embeddings of ids and context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin

from skqos.benchmarks.peers._encoding import count_codes, import_peer, number_codes

PAIRS_PER_BATCH = 16_384


class TabM(RegressorMixin, BaseEstimator):
    """TabM with `n_members` members, on embeddings that they share.

    Each member minimises the mean absolute error of the roots of the target, by AdamW with a
    one-cycle schedule. The prediction is the mean of the members.
    """

    def __init__(
        self,
        tables: Sequence[NDArray[np.int64]],
        *,
        seed: int,
        n_members: int = 8,
        embedding_dim: int = 32,
        n_blocks: int = 2,
        hidden_size: int = 128,
        dropout: float = 0.2,
        max_epochs: int = 20,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.05,
    ) -> None:
        self.tables = tables
        self.seed = seed
        self.n_members = n_members
        self.embedding_dim = embedding_dim
        self.n_blocks = n_blocks
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def fit(self, X: NDArray[np.int64], y: NDArray[np.float64]) -> TabM:
        """Train the network on rows of ids with values of 0 or more."""
        import torch

        torch.manual_seed(self.seed)
        self.unit_ = float(np.mean(y))
        codes = torch.as_tensor(number_codes(self.tables, X))
        target = torch.as_tensor(np.sqrt(y / self.unit_)).float()[:, None]
        self.net_ = self._make_net().train()
        optimizer = torch.optim.AdamW(
            self.net_.parameters(), self.learning_rate, weight_decay=self.weight_decay
        )
        n_steps = self.max_epochs * -(-len(codes) // self.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=n_steps
        )
        for _ in range(self.max_epochs):
            for rows in torch.randperm(len(codes)).split(self.batch_size):
                optimizer.zero_grad()
                (self.net_(codes[rows]) - target[rows]).abs().mean().backward()
                optimizer.step()
                schedule.step()
        return self

    def predict(self, X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predict rows of ids."""
        import torch

        self.net_.eval()
        codes = torch.as_tensor(number_codes(self.tables, X))
        with torch.inference_mode():
            parts = [self.net_(part).mean(dim=1) for part in codes.split(PAIRS_PER_BATCH)]
        root = torch.cat(parts).numpy().astype(np.float64)
        return self.unit_ * np.maximum(root, 0) ** 2

    def _make_net(self) -> Any:
        from torch import nn

        tabm = import_peer("tabm", "TabM")
        sizes = count_codes(self.tables)
        embedding = nn.Embedding(int(sizes.sum()), self.embedding_dim)
        nn.init.normal_(embedding.weight, std=0.05)
        backbone = tabm.MLPBackboneBatchEnsemble(
            d_in=self.embedding_dim * len(sizes),
            n_blocks=self.n_blocks,
            d_block=self.hidden_size,
            dropout=self.dropout,
            k=self.n_members,
            tabm_init=True,
            scaling_init="random-signs",
            start_scaling_init_chunks=None,
        )
        return nn.Sequential(
            embedding,
            nn.Flatten(start_dim=1),
            tabm.EnsembleView(k=self.n_members),
            backbone,
            tabm.LinearEnsemble(self.hidden_size, 1, k=self.n_members),
            nn.Flatten(start_dim=1),
        )
