"""The network of TPMCF: sequences of features, an encoder over time, and dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from skqos.embeddings import EMBEDDING_STD, FeatureEmbedding
from skqos.entities import EntityEncoder, EntityTable
from skqos.members import ByteDropout, MemberLinear
from skqos.prediction import Encoded
from skqos.tpmcf.calendar import Calendar
from skqos.tpmcf.features import StepCells
from skqos.tpmcf.gcmf import TensorSides, average_node, last_steps, place_steps, take_nodes
from skqos.tpmcf.joint import JointFeatures
from skqos.tpmcf.pair_history import HISTORY_DIM, UNMEASURED, PairHistory
from skqos.tpmcf.transformer import each_step, pool
from skqos.tpmcf.windows import Windows, interpolate_horizons, lay_later_steps, lay_windows

SIDES = ("user", "service")
# Share of forecasts in training that are in a gap, if windows have later steps.
GAP_SHARE = 0.5
# Buffers of prediction, and the buffers of training that replace them.
BUFFERS = (
    *("times", "window_steps", "window_present", "later_steps", "later_present"),
    *("user_features", "service_features"),
    *("fold_rows", "user_folds", "service_folds"),
)


@dataclass(frozen=True)
class PairInputs:
    """Inputs of the network, for n pairs at target steps.

    Attributes
    ----------
    windows : Windows
        Steps of the sequences.
    mixed : Tensor of shape (n_members, n, window, dim)
        Sum of the mixed features of user and service at each step.
    last : list of Tensor of shape (n_members or 1, n, width)
        Features of user and service at the last step.
    embeddings : list of Tensor of shape (n_members, n, width)
        Embeddings of ids and context of both sides; empty if there are none.
    history : tuple of Tensor, or None
        Cells and summary of each pair, as returned by `PairHistory`.
    """

    windows: Windows
    mixed: Tensor
    last: list[Tensor]
    embeddings: list[Tensor]
    history: tuple[Tensor, Tensor] | None


class TPMCFModule(nn.Module):
    """Prediction of a pair at a time step, from the last steps of user and service.

    A step of the sequence is the sum of linear maps of the following inputs: the features of user
    and service at that step (eq. 7), the measurements of the pair at that step, the embeddings of
    ids and context, the distance of the step from the last one, the distance of the target from the
    last step and, if steps have dates, the time of day and of the week of the target. The predicted
    cell is never part of its own sequence. The encoder processes the sequence, the maximum over
    time summarises it, and dense layers predict the QoS. All members have the same rows and
    windows; each has weights and embeddings of its own.

    Parameters
    ----------
    times : ndarray of int64 of shape (n_steps,)
        The time steps seen in training, ascending.
    features : sequence of Tensor of shape (n_members or 1, n_folds, n_steps, n, width)
        Features of users and of services without the cells of each fold, for each member or
        shared. Prediction uses their average over the folds.
    entities : tuple of FeatureEmbedding, or None
        Embeddings of users and of services.
    encoder : Module
        Encoder from sequences and their masks to sequences.
    n_members : int
        Number of members, whose predictions are averaged.
    token_dim : int or None
        Width of a step of the sequence. If None, features are concatenated without mixing.
    window : int
        Length of a sequence, in time steps; steps without measurements are padded.
    n_later : int
        Number of these that are later than the target step.
    max_horizon : int
        The longest distance from the last step of a window to the target step that training draws.
        Longer distances are treated as this one.
    hidden_sizes : sequence of int
        Widths of the dense layers except the last.
    pooling : {"max", "mean", "last"}
        Summary of the sequence.
    step_encoding : bool
        Whether a step contains its distance from the last one.
    calendar : Calendar or None
        Encoding of the time of day and of the week of a target step.
    history : PairHistory or None
        The measured cells of pairs.
    target_features : bool
        Whether the dense layers also receive the features and embeddings of the last step, the time
        of the target, and the mean and the number of the pair's other cells.
    entity_dropout : float
        Dropout of the embeddings of users and services in training.
    newcomer_share : float
        Share of the users and of the services of training rows that are represented as new ones.
    forecast_share : float
        Share of the training rows that are predicted from steps before their own.
    initial_prediction : float
        Initial value of the constant that is added to predictions and trained.
    """

    def __init__(
        self,
        times: np.ndarray,
        features: TensorSides,
        entities: tuple[FeatureEmbedding, FeatureEmbedding] | None,
        encoder: nn.Module,
        *,
        n_members: int,
        token_dim: int | None,
        window: int,
        n_later: int,
        max_horizon: int,
        hidden_sizes: Sequence[int],
        pooling: str,
        step_encoding: bool,
        calendar: Calendar | None,
        history: PairHistory | None,
        target_features: bool,
        entity_dropout: float,
        newcomer_share: float,
        forecast_share: float,
        initial_prediction: float,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.n_earlier, self.n_later = window - n_later, n_later
        self.max_horizon = max_horizon
        self.target_features = target_features
        self.newcomer_share = newcomer_share
        self.forecast_share = forecast_share
        self.joint: JointFeatures | None = None
        for name in BUFFERS:
            self.register_buffer(name, None)
        self._set_steps(times, [side.mean(1) for side in features])
        self.train_on(features)
        self.entities = None if entities is None else nn.ModuleList(entities)
        self.entity_dropout = ByteDropout(entity_dropout)
        self.encoder = encoder
        self.calendar = calendar
        widths = [side.shape[-1] for side in features]
        entity_widths = [side.out_dim for side in entities or ()]
        dim = sum(widths) if token_dim is None else token_dim
        self.mix_features = _mixers(n_members, widths, token_dim)
        self.mix_entities = None if entities is None else _mixers(n_members, entity_widths, dim)
        self.position_embeddings = None
        if step_encoding:
            self.position_embeddings = _embeddings(n_members, window, dim)
        self.register_buffer("horizon_shares", interpolate_horizons(max_horizon))
        self.horizon_embeddings = _embeddings(n_members, self.horizon_shares.shape[1], dim)
        self.distance_embeddings = None
        if n_later:
            self.distance_embeddings = _embeddings(n_members, self.horizon_shares.shape[1], dim)
        in_dim = dim + (sum(widths) + sum(entity_widths)) * target_features
        self.history, self.mix_history = history, None
        if history is not None:
            self.mix_history = MemberLinear(n_members, HISTORY_DIM, dim, bias=False)
            in_dim += HISTORY_DIM * target_features
        self.mix_calendar = None
        if calendar is not None:
            self.mix_calendar = MemberLinear(n_members, calendar.out_dim, dim, bias=False)
            in_dim += calendar.out_dim * target_features
        self.layers = nn.ModuleList(
            MemberLinear(n_members, n, next_n) for n, next_n in pairwise([in_dim, *hidden_sizes, 1])
        )
        nn.init.constant_(self.layers[-1].bias, initial_prediction)

    def train_on(self, features: TensorSides, at: np.ndarray | None = None) -> None:
        """Set the features of training rows, without the cells of each fold.

        Parameters
        ----------
        features : sequence of Tensor of shape (n_members or 1, n_folds, n_described, n, width)
            Features of users and of services at the described steps.
        at : ndarray of int64 of shape (n_described,), default=None
            Positions of these among all steps; None stands for all. Other steps have the features
            of prediction.
        """
        n_folds, n_described = features[0].shape[1:3]
        n_steps = len(self.times)
        rows = torch.arange(n_folds * n_described).view(n_folds, n_described)
        parts = [[side.flatten(1, 2)] for side in features]
        if at is not None:
            others = torch.arange(n_steps).repeat(n_folds, 1)
            others[:, at] = rows + n_steps
            rows = others
            parts = [
                [getattr(self, f"{name}_features"), *part]
                for name, part in zip(SIDES, parts, strict=True)
            ]
        self.fold_rows = rows
        for name, part in zip(SIDES, parts, strict=True):
            setattr(self, f"{name}_folds", _with_average(torch.cat(part, dim=1)))

    def train_jointly(self, joint: JointFeatures) -> None:
        """Compute the features in each training step, so that the graph convolution is trained.

        Parameters
        ----------
        joint : JointFeatures
            The features of the training steps. They replace the tables until `forget_training`.
        """
        self.forget_training()
        self.joint = joint

    def place(self, times: np.ndarray, at: np.ndarray, features: TensorSides) -> None:
        """Insert the features of some steps, which may be new, into those for prediction.

        Parameters
        ----------
        times : ndarray of int64 of shape (n_steps,)
            All time steps, ascending.
        at : ndarray of int64 of shape (n_placed,)
            Positions of the placed ones.
        features : sequence of Tensor of shape (n_members or 1, n_placed, n, width)
            Their features; nodes that are not known yet come last.
        """
        known = self.user_features, self.service_features
        self._set_steps(
            times,
            [
                place_steps(side, self.times, times, at, placed)
                for side, placed in zip(known, features, strict=True)
            ],
        )

    def remember(self, cells: StepCells, known_times: np.ndarray) -> None:
        """Add cells to the history of their pairs.

        Parameters
        ----------
        cells : StepCells
            Further cells, whose shape includes all present steps and entities.
        known_times : ndarray of int64 of shape (n_known_steps,)
            The time steps of the history so far.
        """
        if self.history is not None:
            self.history.extend(cells, np.searchsorted(self.times.numpy(), known_times))

    def extend_horizons(self, longest: int) -> None:
        """Raise the longest horizon. Further horizons start with the embedding of the longest."""
        if longest <= self.max_horizon:
            return
        self.max_horizon = longest
        self.horizon_shares = interpolate_horizons(longest)
        n_knots = self.horizon_shares.shape[1]
        self.horizon_embeddings = repeat_last(self.horizon_embeddings, n_knots)
        if self.distance_embeddings is not None:
            self.distance_embeddings = repeat_last(self.distance_embeddings, n_knots)

    def grow(self, users: EntityEncoder, services: EntityEncoder) -> None:
        """Add embeddings of the users and services that were appended."""
        for embedding, side in zip(self.entities or (), (users, services), strict=False):
            embedding.grow(side.table_, side.n_categories)

    def forward(self, users: Tensor, services: Tensor, steps: Tensor, folds: Tensor) -> Tensor:
        """Predict training rows; (n_members, n).

        Parameters
        ----------
        users, services, steps : Tensor of int64 of shape (n,)
            Codes.
        folds : Tensor of int64 of shape (n,)
            The fold of each row, whose features do not contain the row's own value. In joint
            training, all rows have the same fold.
        """
        windows = self._training_windows(steps)
        nodes, rows = self._training_nodes(folds, windows)
        features, embeddings, measured = [], [], []
        for k, codes in enumerate((users, services)):
            is_new = torch.rand(codes.shape, device=codes.device) < self.newcomer_share
            measured.append(torch.where(is_new, UNMEASURED, codes))
            features.append(_features_of(nodes[k], codes, is_new, rows))
            if self.entities is not None:
                embeddings.append(self._embeddings_of(k, codes, is_new))
        mixed = sum(
            each_step(mix, side) for mix, side in zip(self.mix_features, features, strict=True)
        )
        last = [side[:, :, self.n_earlier - 1] for side in features]
        history = self._history_of(*measured, windows)
        return self._predict(PairInputs(windows, mixed, last, embeddings, history))

    def encode_known(self) -> Encoded:
        """Encode all known nodes, with mixed features.

        A side consists of codes, (n, 1), features and mixed features, (n_members or 1, n_steps, n,
        ...), and the embeddings, (n_members, n, width), if there are any.
        """
        of_sides = self._prediction_features()
        averages = [average_node(side) for side in of_sides]
        embeddings = [embedding.encode_known() for embedding in self.entities or ()]
        sides = [
            self._side(k, torch.arange(features.shape[2]), features, embeddings[k : k + 1])
            for k, features in enumerate(of_sides)
        ]
        return Encoded(*sides, (averages, [side.mean(1) for side in embeddings]))

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Encode new entities, with the features of the average node."""
        averages, average_embeddings = known.averages
        sides = []
        for k, new in enumerate((new_users, new_services)):
            embeddings = [
                embedding.encode_new(average, new)
                for embedding, average in zip(
                    (self.entities or ())[k : k + 1], average_embeddings[k : k + 1], strict=True
                )
            ]
            codes = torch.full((len(new),), UNMEASURED)
            features = averages[k].expand(-1, -1, len(new), -1)
            sides.append(self._side(k, codes, features, embeddings))
        return Encoded(*sides)

    def score(self, encoded: Encoded, users: Tensor, services: Tensor, times: Tensor) -> Tensor:
        """Predict pairs from positions of encoded entities, at any times; (n,)."""
        return self._predict(self._gather(encoded, users, services, times)).mean(0)

    def attention_weights(
        self, encoded: Encoded, users: Tensor, services: Tensor, times: Tensor
    ) -> Tensor:
        """Return the attention between the steps of a window, averaged over members.

        Its shape is (n, n_blocks, n_heads, window, window).
        """
        inputs = self._gather(encoded, users, services, times)
        present = inputs.windows.present
        return self.encoder.attention_weights(self._sequence(inputs), present).mean(0)

    def windows(self, times: Tensor) -> Windows:
        """Return the windows of times, around the time or the steps before and after it.

        A time before all steps is treated as the first step.
        """
        ends = last_steps(self.times, times)
        own = torch.where(self.times[ends] >= times, ends, UNMEASURED)
        return self._windows_around(ends, own, ends + 1, times)

    def forget_training(self) -> None:
        """Keep only what prediction needs."""
        self.user_features, self.service_features = self._prediction_features()
        self.joint = self.fold_rows = self.user_folds = self.service_folds = None

    def _prediction_features(self) -> TensorSides:
        """Return the features for prediction, which joint training changes."""
        if self.joint is None:
            return [self.user_features, self.service_features]
        return self.joint.averages()

    def _set_steps(self, times: np.ndarray, features: TensorSides) -> None:
        """Set the measured steps, and their features for prediction."""
        self.times = torch.tensor(times)
        self.window_steps, self.window_present = lay_windows(times, self.n_earlier)
        self.later_steps, self.later_present = lay_later_steps(times, self.n_later)
        self.user_features, self.service_features = features

    def _training_windows(self, steps: Tensor) -> Windows:
        """Return windows that end at the steps of the rows or, for a share of the rows, earlier.

        If windows have later steps, half of these rows are predicted as in a gap between steps.
        """
        draws = torch.rand(2, *steps.shape, device=steps.device)
        targets = self.times[steps]
        wanted = targets - self._draw_horizons(draws[0])
        ends = torch.searchsorted(self.times, wanted, right=True) - 1
        # The smallest integers wrap around: there is no step before them.
        is_forecast = (draws[1] < self.forecast_share) & (ends >= 0) & (wanted < targets)
        starts = steps + 1
        if self.n_later:
            draws = torch.rand(2, *steps.shape, device=steps.device)
            # The largest integers wrap around: there is no step after them.
            after = targets + self._draw_horizons(draws[0])
            is_in_gap = (draws[1] < GAP_SHARE) & (after > targets)
            later = torch.where(is_in_gap, torch.searchsorted(self.times, after), len(self.times))
            starts = torch.where(is_forecast, later, starts)
        return self._windows_around(torch.where(is_forecast, ends, steps), steps, starts, targets)

    def _draw_horizons(self, draws: Tensor) -> Tensor:
        """Map uniform draws to horizons up to the longest, whose logarithm is uniform."""
        return ((self.max_horizon + 1) ** draws).long().clamp(1, self.max_horizon)

    def _windows_around(
        self, ends: Tensor, own: Tensor, starts: Tensor, targets: Tensor
    ) -> Windows:
        """Join the steps up to `ends` and those from `starts` on, the number of steps for none."""
        horizons = (targets - self.times[ends]).clamp(0, self.max_horizon)
        distances = torch.zeros_like(horizons)
        steps, present = self.window_steps[ends], self.window_present[ends]
        if self.n_later:
            first = self.times[starts.clamp(max=len(self.times) - 1)]
            has_later = starts < len(self.times)
            distances = has_later * (first - targets).clamp(1, self.max_horizon)
            steps = torch.cat([steps, self.later_steps[starts]], dim=1)
            present = torch.cat([present, self.later_present[starts]], dim=1)
        return Windows(steps, present, ends, own, horizons, distances, targets)

    def _training_nodes(self, folds: Tensor, windows: Windows) -> tuple[TensorSides, Tensor]:
        """Return the features of both sides, and the row of each step of the windows in them.

        Features have the shape (n_members or 1, n_rows, n + 1, width); the average node is last.
        """
        if self.joint is None:
            rows = self.fold_rows[folds.unsqueeze(1), windows.steps]
            return [self.user_folds, self.service_folds], rows
        return [_with_average(side) for side in self.joint(folds[:1])], windows.steps

    def _embeddings_of(self, side: int, codes: Tensor, is_new: Tensor) -> Tensor:
        """Embeddings of ids and context; the ids of newcomers are the average id."""
        embedding = self.entities[side]
        found = embedding(codes)
        ids, context = found.tensor_split([embedding.dim], dim=2)
        average = embedding.average_id().unsqueeze(1)
        of_ids = torch.where(is_new.unsqueeze(1), average, ids)
        return self.entity_dropout(torch.cat([of_ids, context], dim=2))

    def _gather(
        self, encoded: Encoded, users: Tensor, services: Tensor, times: Tensor
    ) -> PairInputs:
        windows = self.windows(times)
        mixed, last, embeddings, measured = 0, [], [], []
        for side, positions in ((encoded.users, users), (encoded.services, services)):
            codes, features, mixed_features, *of_ids = side
            measured.append(codes.squeeze(1).index_select(0, positions))
            mixed = mixed + take_nodes(mixed_features, windows.steps, positions.unsqueeze(1))
            last.append(take_nodes(features, windows.ends, positions))
            embeddings += [embedding.index_select(1, positions) for embedding in of_ids]
        return PairInputs(windows, mixed, last, embeddings, self._history_of(*measured, windows))

    def _side(
        self, k: int, codes: Tensor, features: Tensor, embeddings: list[Tensor]
    ) -> list[Tensor]:
        codes = codes.to(features.device).unsqueeze(1)
        return [codes, features, each_step(self.mix_features[k], features), *embeddings]

    def _history_of(
        self, users: Tensor, services: Tensor, windows: Windows
    ) -> tuple[Tensor, Tensor] | None:
        """Look up the other cells of pairs; for a forecast, only those of known steps."""
        if self.history is None:
            return None
        visible = windows.present & (windows.steps != windows.own.unsqueeze(1))
        is_forecast = (windows.own != windows.ends) & (windows.distances == 0)
        n_known = torch.where(is_forecast, windows.ends + 1, len(self.times))
        return self.history(users, services, windows.steps, visible, windows.own, n_known)

    def _sequence(self, inputs: PairInputs) -> Tensor:
        """Add the inputs that are equal at all steps, and the distances; 0 where padded (eq. 7)."""
        windows, embeddings = inputs.windows, inputs.embeddings
        by_horizon = self.horizon_shares @ self.horizon_embeddings
        constant = by_horizon.index_select(1, windows.horizons)
        if self.distance_embeddings is not None:
            by_distance = self.horizon_shares @ self.distance_embeddings
            constant = constant + by_distance.index_select(1, windows.distances)
        if embeddings:
            constant = constant + sum(
                mix(side) for mix, side in zip(self.mix_entities, embeddings, strict=True)
            )
        if self.calendar is not None:
            constant = constant + self.mix_calendar(self.calendar(windows.targets))
        sequence = inputs.mixed + constant.unsqueeze(2)
        if inputs.history is not None:
            sequence = sequence + each_step(self.mix_history, inputs.history[0])
        if self.position_embeddings is not None:
            sequence = sequence + self.position_embeddings.unsqueeze(1)
        return sequence * windows.present.unsqueeze(2)

    def _predict(self, inputs: PairInputs) -> Tensor:
        """Encode the sequence, summarise it, and apply the dense layers."""
        present = inputs.windows.present
        encoded = self.encoder(self._sequence(inputs), present)
        hidden = pool(encoded, present, self.pooling, last=self.n_earlier - 1)
        if self.target_features:
            shared = [*inputs.last, *inputs.history[1:]] if inputs.history else inputs.last
            if self.calendar is not None:
                shared = [*shared, self.calendar(inputs.windows.targets)]
            shared = [side.expand(len(hidden), -1, -1) for side in shared]
            hidden = torch.cat([hidden, *shared, *inputs.embeddings], dim=2)
        for layer in self.layers[:-1]:
            hidden = torch.relu(layer(hidden))
        return self.layers[-1](hidden).squeeze(2)


class FeaturePlacement(nn.Module):
    """Concatenate the features of users and services without mixing, as in the paper."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.margins = before, after

    def forward(self, features: Tensor) -> Tensor:
        """Pad features of shape (..., width) with zeros, for the sum with the other side."""
        return nn.functional.pad(features, self.margins)


def _with_average(nodes: Tensor) -> Tensor:
    """Append the average node, which represents new entities; (n_members, n_rows, n + 1, width)."""
    return torch.cat([nodes, average_node(nodes)], dim=2)


def _features_of(nodes: Tensor, codes: Tensor, is_new: Tensor, rows: Tensor) -> Tensor:
    """Return sequences of features; new entities have those of the average node, the last one."""
    codes = torch.where(is_new, nodes.shape[2] - 1, codes)
    return take_nodes(nodes, rows, codes.unsqueeze(1))


def _mixers(n_members: int, widths: list[int], dim: int | None) -> nn.ModuleList:
    """Return maps of both sides to the width of a step, which is their sum."""
    if dim is None:
        user_width, service_width = widths
        return nn.ModuleList([FeaturePlacement(0, service_width), FeaturePlacement(user_width, 0)])
    return nn.ModuleList(MemberLinear(n_members, width, dim) for width in widths)


def repeat_last(embeddings: nn.Parameter, n: int) -> nn.Parameter:
    """Append copies of the last embedding of each member, up to a number of `n`."""
    known = embeddings.detach()
    further = known[:, -1:].expand(-1, n - known.shape[1], -1)
    return nn.Parameter(torch.cat([known, further], dim=1), embeddings.requires_grad)


def _embeddings(n_members: int, n: int, dim: int) -> nn.Parameter:
    return nn.Parameter(EMBEDDING_STD * torch.randn(n_members, n, dim))
