"""The three experts of SA-MoE, each split into what one entity gives and what a pair adds.

An expert first projects users and services apart, then meets the pairs. Projections of an entity
are the same for all its pairs, so that prediction computes them once per entity.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PairLinear(nn.Linear):
    """A linear layer on [u || s], applied to each side apart: the two parts add up to it.

    Parameters
    ----------
    dim : int
        Width of u and of s.
    out_features : int
        Width of the result.
    """

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__(2 * dim, out_features)
        self.dim = dim

    def users(self, u: Tensor) -> Tensor:
        """Return the users' part."""
        return F.linear(u, self.weight[:, : self.dim])

    def services(self, s: Tensor) -> Tensor:
        """Return the services' part, with the bias."""
        return F.linear(s, self.weight[:, self.dim :], self.bias)


class AttentionExpert(nn.Module):
    """Multi-head self-attention over the two tokens u_i and s_j.

    Attention weights get dropout, as in the paper's appendix A.2. The two output tokens are
    laid side by side ("reshaped") and mapped linearly to the experts' common width. That map
    takes the place of multi-head attention's own output projection: two linear maps in a row
    are one.

    Parameters
    ----------
    dim : int
        Width of a token.
    out_dim : int
        Common width of the experts' outputs.
    n_heads : int
        Number of heads; divides `dim`.
    dropout : float
        Dropout of the attention weights.
    """

    def __init__(self, dim: int, out_dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(2 * dim, out_dim)
        self.dropout = nn.Dropout(dropout)
        self.user_width = self.service_width = 3 * dim

    def users(self, u: Tensor) -> Tensor:
        """Query, key and value of the user token."""
        return self.query_key_value(u)

    def services(self, s: Tensor) -> Tensor:
        """Query, key and value of the service token; the same weights as for users."""
        return self.query_key_value(s)

    def forward(self, user: Tensor, service: Tensor) -> Tensor:
        """Let the two tokens attend to each other; (n, out_dim)."""
        tokens = torch.stack([user, service], dim=1)
        query, key, value = tokens.unflatten(2, (3, self.n_heads, -1)).unbind(dim=2)
        # Two tokens: products and sums beat a batched matmul of 2 x 2 matrices.
        logits = (query.unsqueeze(2) * key.unsqueeze(1)).sum(-1) / query.shape[-1] ** 0.5
        weights = self.dropout(logits.softmax(dim=2))
        attended = (weights.unsqueeze(-1) * value.unsqueeze(1)).sum(2)
        return self.output(attended.flatten(1))


class LHUCExpert(nn.Module):
    r"""Hidden units of the user, rescaled by the service (learning hidden unit contributions).

    Two stages of eq. 14, the user's pathway modulated by the service's in each:

    .. math::
        h = BN_1(2 \sigma(W_3 s_j) \odot ReLU(W_1 u_i)), \quad
        o = BN_2(2 \sigma(W_4 s_j) \odot ReLU(W_2 h)).

    The paper prints the outer stage and leaves the inner as dots; the same form is ours.

    Parameters
    ----------
    dim : int
        Width of u and of s.
    out_dim : int
        Common width of the experts' outputs.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.user_layer = nn.Linear(dim, out_dim)
        self.hidden_layer = nn.Linear(out_dim, out_dim)
        self.service_layers = nn.Linear(dim, 2 * out_dim)
        self.norm_1 = nn.BatchNorm1d(out_dim)
        self.norm_2 = nn.BatchNorm1d(out_dim)
        self.user_width, self.service_width = out_dim, 2 * out_dim

    def users(self, u: Tensor) -> Tensor:
        """Return the hidden units of the first stage."""
        return F.relu(self.user_layer(u))

    def services(self, s: Tensor) -> Tensor:
        """Return the contributions of both stages, between 0 and 2."""
        return 2 * torch.sigmoid(self.service_layers(s))

    def forward(self, user: Tensor, service: Tensor) -> Tensor:
        """Modulate twice; (n, out_dim)."""
        first, second = service.chunk(2, dim=1)
        hidden = self.norm_1(first * user)
        return self.norm_2(second * F.relu(self.hidden_layer(hidden)))


class MLPExpert(nn.Module):
    """A feed-forward network on [u || s], ReLU after each layer but the last.

    Parameters
    ----------
    dim : int
        Width of u and of s.
    hidden_sizes : sequence of int
        Width of the layers; the last is the experts' common width.
    """

    def __init__(self, dim: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.first = PairLinear(dim, hidden_sizes[0])
        self.rest = nn.ModuleList(
            nn.Linear(size, next_size) for size, next_size in pairwise(hidden_sizes)
        )
        self.user_width = self.service_width = hidden_sizes[0]

    def users(self, u: Tensor) -> Tensor:
        """Return the users' part of the first layer."""
        return self.first.users(u)

    def services(self, s: Tensor) -> Tensor:
        """Return the services' part of the first layer."""
        return self.first.services(s)

    def forward(self, user: Tensor, service: Tensor) -> Tensor:
        """Add the two parts and go through the other layers; (n, hidden_sizes[-1])."""
        hidden = user + service
        for layer in self.rest:
            hidden = layer(F.relu(hidden))
        return hidden
