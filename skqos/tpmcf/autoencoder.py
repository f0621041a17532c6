"""Stacked autoencoder that compresses rows of similarities (F_C in the paper)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from skqos.tpmcf.features import Sides, StepCells, normalised_rows

N_HIDDEN_LAYERS = 2
LEARNING_RATE = 1e-3
ROWS_PER_BATCH = 256


class StackedAutoencoder(nn.Module):
    """Dense layers with tanh, whose widths decrease geometrically to the code and increase again.

    Parameters
    ----------
    in_dim : int
        Width of the rows.
    code_dim : int
        Width of the code.
    """

    def __init__(self, in_dim: int, code_dim: int) -> None:
        super().__init__()
        sizes = np.geomspace(in_dim, code_dim, N_HIDDEN_LAYERS + 2).round().astype(int).tolist()
        self.encoder = _dense(sizes)
        self.decoder = _dense(sizes[::-1])

    def forward(self, rows: Tensor) -> Tensor:
        """Reconstruct rows of shape (n, in_dim)."""
        return self.decoder(torch.tanh(self.encoder(rows)))


def _dense(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n, next_n in pairwise(sizes):
        layers += [nn.Tanh(), nn.Linear(n, next_n)]
    return nn.Sequential(*layers[1:])


class SimilarityAutoencoder:
    """Rows of cosine similarities, compressed by one autoencoder per side for all steps.

    The paper trains one per step, so that the codes of different steps are not comparable. Rows of
    the n x n similarities of a step are computed in batches, so that the memory is linear in n. The
    time is proportional to n squared times the number of steps and epochs.

    Parameters
    ----------
    dim : int
        Width of the codes (f_c).
    n_epochs : int
        Number of passes over the rows of all entities and steps.
    """

    def __init__(self, dim: int, n_epochs: int) -> None:
        self.dim = dim
        self.n_epochs = n_epochs

    def fit(self, cells: StepCells) -> SimilarityAutoencoder:
        """Train both autoencoders on the mean squared error of reconstruction."""
        self.models_ = [
            self._train(rows, n)
            for rows, n in zip(normalised_rows(cells), cells.shape[1:], strict=True)
        ]
        return self

    def extend(self, cells: StepCells) -> SimilarityAutoencoder:  # noqa: ARG002
        """Return itself: similarities to further entities are not used."""
        return self

    def transform(self, cells: StepCells) -> Sides:
        """Return the codes of each user and service at each step."""
        sides = []
        for rows, n, model in zip(
            normalised_rows(cells), cells.shape[1:], self.models_, strict=True
        ):
            with torch.inference_mode():
                known = model.encoder[0].in_features
                codes = [model.encoder(batch[:, :known]) for batch in _similarities(rows, n)]
            # Without a step there is no batch.
            joined = torch.cat([torch.empty(0, self.dim), *codes]).numpy().astype(np.float64)
            sides.append(joined.reshape(cells.shape[0], n, self.dim))
        return tuple(sides)

    def _train(self, rows: sparse.csr_array, n: int) -> StackedAutoencoder:
        model = StackedAutoencoder(n, self.dim)
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
        for _ in range(self.n_epochs):
            for batch in _similarities(rows, n):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(batch), batch).backward()
                optimizer.step()
        return model


def _similarities(rows: sparse.csr_array, n: int) -> Iterator[Tensor]:
    """Yield dense rows of similarities of all entities at all steps, in batches.

    `rows` are normalised and block-diagonal, with n entities per step.
    """
    for first in range(0, rows.shape[0], n):
        step = rows[first : first + n]
        transposed = sparse.csr_array(step.T)
        for start in range(0, n, ROWS_PER_BATCH):
            dense = (step[start : start + ROWS_PER_BATCH] @ transposed).toarray()
            yield torch.as_tensor(dense, dtype=torch.float32)
