"""The network of SA-MoE: two towers, a gated mixture of experts, a bounded head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from skqos.embeddings import FeatureEmbedding, append_rows
from skqos.entities import EntityEncoder, EntityTable
from skqos.members import ByteDropout, MemberLinear, PairLinear
from skqos.prediction import Encoded, take
from skqos.sa_moe.experts import AttentionExpert, LHUCExpert, MLPExpert

# Three times that of other networks, chosen on validation folds.
EMBEDDING_STD = 0.15
ACTIVATIONS = {"relu": nn.ReLU, "identity": nn.Identity}


class EntityTower(nn.Module):
    """One side's tower: id embedding, side features and factors, mixed by a layer (eq. 11).

    For an entity that training did not see, the factors and other missing inputs are the average of
    the known entities.

    Parameters
    ----------
    table : EntityTable
        Context of the training entities.
    n_categories : sequence of int
        Number of codes of each categorical column.
    factors : ndarray of shape (n_entities, rank)
        Factors of the interaction matrix; constants of the network.
    n_members : int
        Number of members.
    embedding_dim : int
        Width of each embedding and of the projected numeric context.
    out_dim : int or None
        Width of the mixed vector. If None, the inputs are concatenated without mixing.
    activation : {"relu", "identity"}
        Applied to the mixed vector. The paper has none ("identity").
    dropout : float
        Dropout of the concatenated inputs in training.

    Attributes
    ----------
    out_dim : int
        Width of an entity's vector.
    """

    def __init__(
        self,
        table: EntityTable,
        n_categories: Sequence[int],
        factors: np.ndarray,
        *,
        n_members: int,
        embedding_dim: int,
        out_dim: int | None,
        activation: str,
        dropout: float,
    ) -> None:
        super().__init__()
        self.features = FeatureEmbedding(
            table, n_categories, embedding_dim, n_members, EMBEDDING_STD
        )
        # Scaled to the size of initial embeddings, so that no input dominates.
        factors = EMBEDDING_STD * factors / (factors.std() or 1.0) if factors.size else factors
        self.register_buffer("factors", torch.tensor(factors, dtype=torch.float32))
        self.dropout = ByteDropout(dropout)
        in_dim = self.features.out_dim + factors.shape[1]
        self.out_dim = in_dim if out_dim is None else out_dim
        self.mixer = nn.Identity()
        if out_dim is not None:
            self.mixer = nn.Sequential(
                MemberLinear(n_members, in_dim, out_dim), ACTIVATIONS[activation]()
            )

    def forward(self, codes: Tensor) -> Tensor:
        """Represent known entities; (n_members, n, out_dim)."""
        return self.mixer(self.dropout(self._join(self.features(codes), self.factors[codes])))

    def encode_known(self) -> tuple[Tensor, Tensor]:
        """Represent all known entities, (n_members, n_known, out_dim); average their inputs."""
        inputs = self._join(self.features.encode_known(), self.factors)
        return self.mixer(inputs), inputs.mean(1)

    def encode_new(self, average: Tensor, new: EntityTable) -> Tensor:
        """Represent newcomers, given the average of the known inputs."""
        features = self.features.encode_new(average[:, : self.features.out_dim], new)
        factors = self.factors.mean(0).expand(len(new), -1)
        return self.mixer(self._join(features, factors))

    def grow(self, table: EntityTable, n_categories: Sequence[int]) -> None:
        """Add the entities and categories that were appended; see `FeatureEmbedding.grow`."""
        self.features.grow(table, n_categories)
        self.factors = append_rows(self.factors, len(table), self.factors.mean(0))

    def _join(self, features: Tensor, factors: Tensor) -> Tensor:
        """Concatenate the features of each member and the shared factors."""
        return torch.cat([features, factors.expand(len(features), -1, -1)], dim=2)


class SAMoEModule(nn.Module):
    """Mixture of experts on the vectors of a user and a service (eq. 11 and 14 to 17).

    Parameters
    ----------
    user_tower, service_tower : EntityTower
        Towers that compute u_i and s_j.
    n_members : int
        Number of members, whose predictions are averaged.
    hidden_sizes : sequence of int
        Layers of the MLP expert; the last is the common width of the experts' outputs.
    experts : sequence of {"attention", "lhuc", "mlp"}
        Experts of the mixture.
    attention_dim, n_heads, attention_dropout : int, int, float
        Parameters of the attention expert.
    shared_projections : bool
        Whether the attention expert projects u and s by the same weights.
    batch_norm : bool
        Whether the LHUC expert has batch normalisation.
    activation : {"relu", "identity"}
        Activation of the mixed output before the head. The paper has none ("identity").
    bound : float
        Predictions lie between -bound and bound.
    """

    def __init__(
        self,
        user_tower: EntityTower,
        service_tower: EntityTower,
        *,
        n_members: int,
        hidden_sizes: Sequence[int],
        experts: Sequence[str],
        attention_dim: int,
        n_heads: int,
        attention_dropout: float,
        shared_projections: bool,
        batch_norm: bool,
        activation: str,
        bound: float,
    ) -> None:
        super().__init__()
        self.user_tower = user_tower
        self.service_tower = service_tower
        sides = n_members, user_tower.out_dim, service_tower.out_dim
        out_dim = hidden_sizes[-1]
        build = {
            "attention": lambda: AttentionExpert(
                *sides,
                attention_dim,
                out_dim,
                n_heads=n_heads,
                shared=shared_projections,
                dropout=attention_dropout,
            ),
            "lhuc": lambda: LHUCExpert(*sides, out_dim, batch_norm=batch_norm),
            "mlp": lambda: MLPExpert(*sides, hidden_sizes),
        }
        self.experts = nn.ModuleDict({name: build[name]() for name in experts})
        self.gate = PairLinear(*sides, len(experts))
        self.activation = ACTIVATIONS[activation]()
        self.head = MemberLinear(n_members, out_dim, 1)
        self.register_buffer("bound", torch.tensor(bound, dtype=torch.float32))

    def forward(self, users: Tensor, services: Tensor) -> Tensor:
        """Predict pairs of known entities from their codes; (n_members, n)."""
        u, s = self.user_tower(users), self.service_tower(services)
        return self._mix(self._project_users(u), self._project_services(s))

    def encode_known(self) -> Encoded:
        """Project every known entity for the gate and all experts."""
        u, average_user = self.user_tower.encode_known()
        s, average_service = self.service_tower.encode_known()
        return Encoded(
            self._project_users(u), self._project_services(s), (average_user, average_service)
        )

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Project newcomers."""
        average_user, average_service = known.averages
        u = self.user_tower.encode_new(average_user, new_users)
        s = self.service_tower.encode_new(average_service, new_services)
        return Encoded(self._project_users(u), self._project_services(s))

    def score(self, encoded: Encoded, users: Tensor, services: Tensor | slice) -> Tensor:
        """Predict pairs from positions of encoded entities; (n,)."""
        return self._mix(*self._take(encoded, users, services)).mean(0)

    def score_experts(self, encoded: Encoded, users: Tensor, services: Tensor) -> Tensor:
        """Return the prediction and the gate weight of each expert; (n, 2, n_experts)."""
        gate, outputs = self._consult(*self._take(encoded, users, services))
        alone = torch.stack([self._predict(output).mean(0) for output in outputs], dim=1)
        return torch.stack([alone, gate.mean(0)], dim=1)

    def grow(self, users: EntityEncoder, services: EntityEncoder, bound: float) -> None:
        """Add the entities and categories that were appended, and allow larger targets."""
        self.user_tower.grow(users.table_, users.n_categories)
        self.service_tower.grow(services.table_, services.n_categories)
        self.bound = self.bound.clamp(min=bound)

    def _project_users(self, u: Tensor) -> list[Tensor]:
        return [self.gate.users(u), *(expert.users(u) for expert in self.experts.values())]

    def _project_services(self, s: Tensor) -> list[Tensor]:
        return [self.gate.services(s), *(expert.services(s) for expert in self.experts.values())]

    def _take(
        self, encoded: Encoded, users: Tensor, services: Tensor | slice
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Select the projections of pairs, for the gate and all experts."""
        return (
            [take(part, users) for part in encoded.users],
            [take(part, services) for part in encoded.services],
        )

    def _consult(
        self, users: Sequence[Tensor], services: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Gate weights (eq. 15) and the output of each expert."""
        gate_u, *user_parts = users
        gate_s, *service_parts = services
        outputs = [
            expert(u, s)
            for expert, u, s in zip(self.experts.values(), user_parts, service_parts, strict=True)
        ]
        return (gate_u + gate_s).softmax(dim=-1), outputs

    def _mix(self, users: Sequence[Tensor], services: Sequence[Tensor]) -> Tensor:
        """Weight the experts' outputs by the gate (eq. 16) and predict."""
        gate, outputs = self._consult(users, services)
        first, *others = zip(gate.split(1, -1), outputs, strict=True)
        mixed = first[0] * first[1]
        for weight, output in others:
            mixed.addcmul_(weight, output)
        return self._predict(mixed)

    def _predict(self, output: Tensor) -> Tensor:
        """Map an output into the range of the targets by tanh (eq. 17)."""
        return self.bound * torch.tanh(self.head(self.activation(output)).squeeze(2) / self.bound)
