"""The network of TPMCF: sequences of a pair's features, an encoder over time, dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from skqos.embeddings import EMBEDDING_STD, FeatureEmbedding
from skqos.entities import EntityTable
from skqos.members import ByteDropout, MemberLinear
from skqos.prediction import Encoded
from skqos.tpmcf.gcmf import TensorSides, average_node, last_steps, take_nodes
from skqos.tpmcf.transformer import each_step, pool


@dataclass(frozen=True)
class Windows:
    """The last steps up to a target step, by position into the steps seen in training.

    Attributes
    ----------
    steps : Tensor of int64 of shape (n, window)
        The steps, in order of time, each at its distance from the last; 0 where padded.
    present : Tensor of bool of shape (n, window)
        False for padding: ahead of the first step, and where nothing was measured. The last step is
        there.
    ahead : Tensor of int64 of shape (n,)
        0 if the last step is the target step, 1 if the target step comes later.
    """

    steps: Tensor
    present: Tensor
    ahead: Tensor


def lay_windows(times: np.ndarray, window: int) -> tuple[Tensor, Tensor]:
    """Find which measured steps are in the window that ends at each of them.

    A window spans `window` consecutive times. What is stored grows with the measured steps, not
    with the time between them.

    Parameters
    ----------
    times : ndarray of int64 of shape (n_steps,)
        The measured steps, ascending.
    window : int
        Length of a window.

    Returns
    -------
    steps : Tensor of int64 of shape (n_steps, window)
        Positions into `times`; 0 where nothing was measured.
    present : Tensor of bool of shape (n_steps, window)
        Whether something was.
    """
    wanted = times[:, None] + np.arange(1 - window, 1)
    # The smallest integers wrap around: what they ask for is no step before them.
    steps = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
    present = (times[steps] == wanted) & (wanted <= times[:, None])
    return torch.tensor(np.where(present, steps, 0)), torch.tensor(present)


class TPMCFModule(nn.Module):
    """Predict a user's QoS of a service at a time step from both their last steps.

    A step of the sequence is the user's and the service's features at that step (eq. 7), mixed
    linearly, plus what both are at every step (id and context), which step it is and how far back.
    The encoder goes over the sequence, the maximum over time summarises it, dense layers predict.
    Members see the same rows in the same windows; all weights and vectors are of each member.

    Parameters
    ----------
    times : ndarray of int64 of shape (n_steps,)
        The time steps seen in training, ascending.
    features : sequence of Tensor of shape (n_members or 1, n_tables, n_steps, n, width)
        Features of users and of services without the cells of each fold, of each member or for
        all. Prediction takes their average over the folds.
    vectors : tuple of FeatureEmbedding, or None
        Of users and of services.
    encoder : Module
        From sequences and their masks to sequences.
    n_members : int
        Number of members, whose predictions are averaged.
    token_dim : int or None
        Width of a step of the sequence; None takes the features as they are, side by side.
    window : int
        Length of a sequence, in time steps; those without measurements are padded.
    hidden_sizes : sequence of int
        Widths of the dense layers but the last.
    pooling : {"max", "mean", "last"}
        How the sequence is summarised.
    step_encoding : bool
        Whether a step tells its time and its distance from the target step.
    target_features : bool
        Whether the dense layers see features and vectors of the last step beside the summary.
    vector_dropout : float
        Dropout of the vectors in training.
    newcomer_share : float
        Share of the users and of the services of training rows that are given as newcomers.
    forecast_share : float
        Share of the training rows that are predicted from the steps before their own.
    start : float
        Initial value of the constant that is added to predictions and trained.
    """

    def __init__(
        self,
        times: np.ndarray,
        features: TensorSides,
        vectors: tuple[FeatureEmbedding, FeatureEmbedding] | None,
        encoder: nn.Module,
        *,
        n_members: int,
        token_dim: int | None,
        window: int,
        hidden_sizes: Sequence[int],
        pooling: str,
        step_encoding: bool,
        target_features: bool,
        vector_dropout: float,
        newcomer_share: float,
        forecast_share: float,
        start: float,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.target_features = target_features
        self.newcomer_share = newcomer_share
        self.forecast_share = forecast_share
        self.register_buffer("times", torch.tensor(times))
        steps, present = lay_windows(times, window)
        self.register_buffer("window_steps", steps)
        self.register_buffer("window_present", present)
        for name, side in zip(("user", "service"), features, strict=True):
            # The average node comes after all others: that of newcomers.
            self.register_buffer(f"{name}_tables", torch.cat([side, average_node(side)], dim=-2))
            self.register_buffer(f"{name}_features", side.mean(1))
        self.vectors = None if vectors is None else nn.ModuleList(vectors)
        self.vector_dropout = ByteDropout(vector_dropout)
        self.encoder = encoder
        widths = [side.shape[-1] for side in features]
        vector_widths = [side.out_dim for side in vectors or ()]
        dim = sum(widths) if token_dim is None else token_dim
        self.mix_features = _mixers(n_members, widths, token_dim)
        self.mix_vectors = None if vectors is None else _mixers(n_members, vector_widths, dim)
        self.step_vectors = self.position_vectors = None
        if step_encoding:
            self.step_vectors = _vectors(n_members, len(times), dim)
            self.position_vectors = _vectors(n_members, window, dim)
        # One for a window that ends at the target step, one for a window that ends before it.
        self.ahead_vectors = _vectors(n_members, 2, dim)
        in_dim = dim + (sum(widths) + sum(vector_widths)) * target_features
        self.layers = nn.ModuleList(
            MemberLinear(n_members, n, next_n) for n, next_n in pairwise([in_dim, *hidden_sizes, 1])
        )
        nn.init.constant_(self.layers[-1].bias, start)

    def forward(self, users: Tensor, services: Tensor, steps: Tensor, tables: Tensor) -> Tensor:
        """Predict training rows; (n_members, n).

        Parameters
        ----------
        users, services, steps : Tensor of int64 of shape (n,)
            Codes.
        tables : Tensor of int64 of shape (n,)
            Which table of features holds those without the row's own value.
        """
        windows = self._training_windows(steps)
        table_steps = tables.unsqueeze(1) * len(self.times) + windows.steps
        features, vectors = [], []
        for k, codes in enumerate((users, services)):
            is_new = torch.rand(codes.shape, device=codes.device) < self.newcomer_share
            features.append(self._features_of(k, codes, is_new, table_steps))
            if self.vectors is not None:
                vectors.append(self._vectors_of(k, codes, is_new))
        mixed = sum(
            each_step(mix, side) for mix, side in zip(self.mix_features, features, strict=True)
        )
        return self._predict(mixed, [side[:, :, -1] for side in features], vectors, windows)

    def encode_known(self) -> Encoded:
        """Gather what is known of every known node; mix its features once.

        A side holds features and mixed features, (n_members or 1, n_steps, n, ...), and what is
        the same at every step, (n_members, n, width), if there is any.
        """
        averages = [average_node(side) for side in (self.user_features, self.service_features)]
        vectors = [embedding.encode_known() for embedding in self.vectors or ()]
        sides = [
            self._side(k, features, vectors[k : k + 1])
            for k, features in enumerate((self.user_features, self.service_features))
        ]
        return Encoded(*sides, (averages, [side.mean(1) for side in vectors]))

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Gather what is known of newcomers: they have the features of the average node."""
        averages, average_vectors = known.averages
        sides = []
        for k, new in enumerate((new_users, new_services)):
            vectors = [
                embedding.encode_new(average, new)
                for embedding, average in zip(
                    (self.vectors or ())[k : k + 1], average_vectors[k : k + 1], strict=True
                )
            ]
            sides.append(self._side(k, averages[k].expand(-1, -1, len(new), -1), vectors))
        return Encoded(*sides)

    def score(self, encoded: Encoded, users: Tensor, services: Tensor, times: Tensor) -> Tensor:
        """Predict pairs from positions of encoded entities, at any times; (n,)."""
        return self._predict(*self._gather(encoded, users, services, times)).mean(0)

    def attention_weights(
        self, encoded: Encoded, users: Tensor, services: Tensor, times: Tensor
    ) -> Tensor:
        """Attention of each step of a window to each, averaged over members.

        Its shape is (n, n_blocks, n_heads, window, window).
        """
        mixed, _, vectors, windows = self._gather(encoded, users, services, times)
        sequence = self._sequence(mixed, vectors, windows)
        return self.encoder.attention_weights(sequence, windows.present).mean(0)

    def windows(self, times: Tensor) -> Windows:
        """Find the window of each time: it ends at the time, or at the last step before it.

        A time before all steps has the first step alone.
        """
        ends = last_steps(self.times, times)
        return self._windows_ending_at(ends, (self.times[ends] != times).long())

    def forget_training_tables(self) -> None:
        """Keep what prediction needs."""
        self.user_tables = self.service_tables = None

    def _training_windows(self, steps: Tensor) -> Windows:
        """End windows at the rows' own steps; those of a share of the rows a step earlier."""
        ahead = torch.rand(steps.shape, device=steps.device) < self.forecast_share
        ahead = (ahead & (steps > 0)).long()
        return self._windows_ending_at(steps - ahead, ahead)

    def _windows_ending_at(self, ends: Tensor, ahead: Tensor) -> Windows:
        return Windows(self.window_steps[ends], self.window_present[ends], ahead)

    def _features_of(self, side: int, codes: Tensor, is_new: Tensor, table_steps: Tensor) -> Tensor:
        """Sequences of features; those of newcomers are of the average entity."""
        values = (self.user_tables, self.service_tables)[side]
        codes = torch.where(is_new, values.shape[-2] - 1, codes)
        return take_nodes(values.flatten(1, 2), table_steps, codes.unsqueeze(1))

    def _vectors_of(self, side: int, codes: Tensor, is_new: Tensor) -> Tensor:
        """Vectors of ids and context; the ids of newcomers are the average id."""
        embedding = self.vectors[side]
        vectors = embedding(codes)
        ids, context = vectors.tensor_split([embedding.dim], dim=2)
        average = embedding.average_id().unsqueeze(1)
        of_ids = torch.where(is_new.unsqueeze(1), average, ids)
        return self.vector_dropout(torch.cat([of_ids, context], dim=2))

    def _gather(
        self, encoded: Encoded, users: Tensor, services: Tensor, times: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor], Windows]:
        windows = self.windows(times)
        mixed, last, vectors = 0, [], []
        for side, codes in ((encoded.users, users), (encoded.services, services)):
            features, mixed_features, *of_ids = side
            mixed = mixed + take_nodes(mixed_features, windows.steps, codes.unsqueeze(1))
            last.append(take_nodes(features, windows.steps[:, -1], codes))
            vectors += [vector.index_select(1, codes) for vector in of_ids]
        return mixed, last, vectors, windows

    def _side(self, k: int, features: Tensor, vectors: list[Tensor]) -> list[Tensor]:
        return [features, each_step(self.mix_features[k], features), *vectors]

    def _sequence(self, mixed: Tensor, vectors: list[Tensor], windows: Windows) -> Tensor:
        """Add what holds at every step, and which step it is; 0 where padded (eq. 7)."""
        constant = self.ahead_vectors.index_select(1, windows.ahead)
        if vectors:
            constant = constant + sum(
                mix(side) for mix, side in zip(self.mix_vectors, vectors, strict=True)
            )
        sequence = mixed + constant.unsqueeze(2)
        if self.step_vectors is not None:
            of_steps = self.step_vectors[:, windows.steps] + self.position_vectors.unsqueeze(1)
            sequence = sequence + of_steps
        return sequence * windows.present.unsqueeze(2)

    def _predict(
        self, mixed: Tensor, last: list[Tensor], vectors: list[Tensor], windows: Windows
    ) -> Tensor:
        """Encode the sequence, summarise it, go through the dense layers."""
        sequence = self._sequence(mixed, vectors, windows)
        summary = pool(self.encoder(sequence, windows.present), windows.present, self.pooling)
        hidden = summary
        if self.target_features:
            last = [side.expand(len(summary), -1, -1) for side in last]
            hidden = torch.cat([summary, *last, *vectors], dim=2)
        for layer in self.layers[:-1]:
            hidden = torch.relu(layer(hidden))
        return self.layers[-1](hidden).squeeze(2)


class FeaturePlacement(nn.Module):
    """Lay the features of users and services side by side without mixing them (the paper)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.margins = before, after

    def forward(self, features: Tensor) -> Tensor:
        """Put features of shape (..., width) among zeros, to be summed with the other side's."""
        return nn.functional.pad(features, self.margins)


def _mixers(n_members: int, widths: list[int], dim: int | None) -> nn.ModuleList:
    """Map both sides to the width of a step; their sum is the step."""
    if dim is None:
        user_width, service_width = widths
        return nn.ModuleList([FeaturePlacement(0, service_width), FeaturePlacement(user_width, 0)])
    return nn.ModuleList(MemberLinear(n_members, width, dim) for width in widths)


def _vectors(n_members: int, n: int, dim: int) -> nn.Parameter:
    return nn.Parameter(EMBEDDING_STD * torch.randn(n_members, n, dim))
