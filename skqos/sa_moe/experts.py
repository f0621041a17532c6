"""The three experts of SA-MoE, each split into a part per entity and a part per pair.

An expert first projects users and services separately and then processes pairs. The projection of
an entity is the same for all its pairs, so that prediction computes it once per entity: a tensor
(n_members, n, width). A pair selects its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos.members import MemberBatchNorm, MemberLinear, PairLinear


class AttentionExpert(nn.Module):
    """Multi-head self-attention over the two tokens u_i and s_j.

    Dropout is applied to the attention weights, as in appendix A.2 of the paper. The two output
    tokens are concatenated ("reshaped") and mapped linearly to the common width of the experts.
    This map replaces the output projection of multi-head attention, because two consecutive linear
    maps are one. Tokens of equal width, as in the paper, share their projections; tokens of
    different widths have separate projections.

    Parameters
    ----------
    n_members : int
        Number of members.
    user_dim, service_dim : int
        Width of the two tokens.
    dim : int
        Width of queries, keys and values, of all heads together.
    out_dim : int
        Common width of the experts' outputs.
    n_heads : int
        Number of heads; divides `dim`.
    shared : bool
        Whether both tokens are projected by the same weights.
    dropout : float
        Dropout of the attention weights.
    """

    def __init__(
        self,
        n_members: int,
        user_dim: int,
        service_dim: int,
        dim: int,
        out_dim: int,
        *,
        n_heads: int,
        shared: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.user_projection = MemberLinear(n_members, user_dim, 3 * dim)
        self.service_projection = (
            self.user_projection if shared else MemberLinear(n_members, service_dim, 3 * dim)
        )
        self.output = PairLinear(n_members, dim, dim, out_dim)
        self.dropout = nn.Dropout(dropout)

    def users(self, u: Tensor) -> Tensor:
        """Query, key and value of the user token, side by side."""
        return self.user_projection(u)

    def services(self, s: Tensor) -> Tensor:
        """Query, key and value of the service token, side by side."""
        return self.service_projection(s)

    def forward(self, user: Tensor, service: Tensor) -> Tensor:
        """Compute the attention between the two tokens; (n_members, n, out_dim)."""
        user_query, user_key, user_value = user.chunk(3, dim=-1)
        service_query, service_key, service_value = service.chunk(3, dim=-1)
        # A softmax over two tokens is a sigmoid of the difference of their logits.
        difference = user_key - service_key
        values = user_value, service_value
        return self.output(
            self._attend(user_query, difference, *values),
            self._attend(service_query, difference, *values),
        )

    def _attend(
        self, query: Tensor, difference: Tensor, user_value: Tensor, service_value: Tensor
    ) -> Tensor:
        """Average the two values by the softmax of the logits, head by head."""
        products = (query * difference).unflatten(-1, (self.n_heads, -1))
        on_user = torch.sigmoid(products.sum(-1) / products.shape[-1] ** 0.5)
        user_heads = user_value.unflatten(-1, (self.n_heads, -1))
        service_heads = service_value.unflatten(-1, (self.n_heads, -1))
        if not self.training:
            return torch.lerp(service_heads, user_heads, on_user.unsqueeze(-1)).flatten(-2)
        # After dropout, the weights do not sum to 1.
        weights = self.dropout(torch.stack([on_user, 1 - on_user]))
        on_user, on_service = weights.unsqueeze(-1)
        return torch.addcmul(on_user * user_heads, on_service, service_heads).flatten(-2)


class LHUCExpert(nn.Module):
    r"""Learning hidden unit contributions (LHUC): hidden units of the user, scaled by the service.

    There are two stages (eq. 14). In each, the service scales the hidden units of the user:

    .. math::
        h = BN_1(2 \sigma(W_3 s_j) \odot ReLU(W_1 u_i)), \quad
        o = BN_2(2 \sigma(W_4 s_j) \odot ReLU(W_2 h)).

    The paper shows only the outer stage; that the inner one has the same form is our choice.

    Parameters
    ----------
    n_members : int
        Number of members.
    user_dim, service_dim : int
        Width of u and of s.
    out_dim : int
        Common width of the experts' outputs.
    batch_norm : bool
        Whether the two stages are normalised (BN_1 and BN_2), as in the paper.
    """

    def __init__(
        self, n_members: int, user_dim: int, service_dim: int, out_dim: int, *, batch_norm: bool
    ) -> None:
        super().__init__()
        self.user_layer = MemberLinear(n_members, user_dim, out_dim)
        self.hidden_layer = MemberLinear(n_members, out_dim, out_dim)
        # W_3 and W_4, side by side.
        self.service_layer = MemberLinear(n_members, service_dim, 2 * out_dim)
        norm = MemberBatchNorm if batch_norm else nn.Identity
        self.norm_1 = norm(n_members, out_dim)
        self.norm_2 = norm(n_members, out_dim)

    def users(self, u: Tensor) -> Tensor:
        """Return the hidden units of the first stage."""
        return F.relu(self.user_layer(u))

    def services(self, s: Tensor) -> Tensor:
        """Return the contributions of both stages, between 0 and 2, side by side."""
        return 2 * torch.sigmoid(self.service_layer(s))

    def forward(self, user: Tensor, service: Tensor) -> Tensor:
        """Modulate twice; (n_members, n, out_dim)."""
        first, second = service.chunk(2, dim=-1)
        hidden = self.norm_1(first * user)
        return self.norm_2(second * F.relu(self.hidden_layer(hidden), inplace=True))


class MLPExpert(nn.Module):
    """A feed-forward network on [u || s], ReLU after each layer but the last.

    Parameters
    ----------
    n_members : int
        Number of members.
    user_dim, service_dim : int
        Width of u and of s.
    hidden_sizes : sequence of int
        Width of the layers; the last is the experts' common width.
    """

    def __init__(
        self, n_members: int, user_dim: int, service_dim: int, hidden_sizes: Sequence[int]
    ) -> None:
        super().__init__()
        self.first = PairLinear(n_members, user_dim, service_dim, hidden_sizes[0])
        self.rest = nn.ModuleList(
            MemberLinear(n_members, size, next_size) for size, next_size in pairwise(hidden_sizes)
        )

    def users(self, u: Tensor) -> Tensor:
        """Return the users' part of the first layer."""
        return self.first.users(u)

    def services(self, s: Tensor) -> Tensor:
        """Return the services' part of the first layer."""
        return self.first.services(s)

    def forward(self, user: Tensor, service: Tensor) -> Tensor:
        """Add the two parts and apply the other layers; (n_members, n, hidden_sizes[-1])."""
        hidden = user + service
        for layer in self.rest:
            hidden = layer(F.relu(hidden, inplace=True))
        return hidden
