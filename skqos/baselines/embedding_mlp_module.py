"""The network of the multilayer perceptron: dense layers on vectors of ids and context."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from skqos.embeddings import FeatureEmbedding
from skqos.entities import EntityEncoder, EntityTable
from skqos.members import ByteDropout, MemberLinear, PairLinear
from skqos.prediction import Encoded, take


class EmbeddingMLPModule(nn.Module):
    """Dense layers with ReLU on the vectors of a user and of a service.

    Parameters
    ----------
    user_features, service_features : FeatureEmbedding
        Vectors of ids and context of `n_members` members.
    n_members : int
        Number of members, whose predictions are averaged.
    hidden_sizes : sequence of int
        Sizes of the hidden dense layers.
    dropout : float
        Dropout rate of the vectors in training.
    """

    def __init__(
        self,
        user_features: FeatureEmbedding,
        service_features: FeatureEmbedding,
        *,
        n_members: int,
        hidden_sizes: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.user_features = user_features
        self.service_features = service_features
        self.dropout = ByteDropout(dropout)
        widths = user_features.out_dim, service_features.out_dim
        first, *others = hidden_sizes
        self.first = PairLinear(n_members, *widths, first)
        self.rest = nn.ModuleList(
            MemberLinear(n_members, size, next_size)
            for size, next_size in pairwise([first, *others, 1])
        )

    def forward(self, users: Tensor, services: Tensor) -> Tensor:
        """Predict pairs of known entities from their codes; (n_members, n)."""
        of_users = self.dropout(self.user_features(users))
        return self._predict(self.first(of_users, self.dropout(self.service_features(services))))

    def encode_known(self) -> Encoded:
        """Apply the first layer to every known entity."""
        users, services = self.user_features.encode_known(), self.service_features.encode_known()
        averages = users.mean(1), services.mean(1)
        return Encoded(self.first.users(users), self.first.services(services), averages)

    def encode_new(
        self, known: Encoded, new_users: EntityTable, new_services: EntityTable
    ) -> Encoded:
        """Apply the first layer to new entities."""
        average_user, average_service = known.averages
        return Encoded(
            self.first.users(self.user_features.encode_new(average_user, new_users)),
            self.first.services(self.service_features.encode_new(average_service, new_services)),
        )

    def score(self, encoded: Encoded, users: Tensor, services: Tensor | slice) -> Tensor:
        """Predict pairs from positions of encoded entities; (n,)."""
        of_users = take(encoded.users, users)
        return self._predict(of_users + take(encoded.services, services)).mean(0)

    def grow(self, users: EntityEncoder, services: EntityEncoder) -> None:
        """Add the entities and categories that were appended."""
        self.user_features.grow(users.table_, users.n_categories)
        self.service_features.grow(services.table_, services.n_categories)

    def _predict(self, hidden: Tensor) -> Tensor:
        for layer in self.rest:
            hidden = layer(torch.relu(hidden))
        return hidden.squeeze(2)
