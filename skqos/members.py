"""Members: several networks of one shape, each with weights of its own, trained in one pass.

Small networks that are averaged predict better than one wide network, at a part of its cost. The
members of a network are an axis of its tensors: weights have it first, and so do activations,
(n_members, n, width). A module is written as for one network; the layers here see to the rest.
One member is the plain network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MemberLinear(nn.Module):
    """A linear layer of each member; its initial weights are those of ``torch.nn.Linear``.

    Parameters
    ----------
    n_members : int
        Number of members.
    in_dim, out_dim : int
        Width of the input and of the output.
    bias : bool, default=True
        Whether a bias is added.

    Attributes
    ----------
    weight : Parameter of shape (n_members, in_dim, out_dim)
        Weights, to be multiplied from the right.
    bias : Parameter of shape (n_members, 1, out_dim), or None
        Biases.
    """

    def __init__(self, n_members: int, in_dim: int, out_dim: int, *, bias: bool = True) -> None:
        super().__init__()
        largest = max(in_dim, 1) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_members, in_dim, out_dim))
        nn.init.uniform_(self.weight, -largest, largest)
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.empty(n_members, 1, out_dim))
            nn.init.uniform_(self.bias, -largest, largest)

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows of each member, or rows that all share; (n_members, n, out_dim)."""
        x = x.expand(len(self.weight), *x.shape[-2:])
        if self.bias is None:
            return torch.bmm(x, self.weight)
        return torch.baddbmm(self.bias, x, self.weight)


class PairLinear(nn.Module):
    """A linear layer on [u || s], applied to each side apart: the two parts add up to it.

    Parameters
    ----------
    n_members : int
        Number of members.
    user_dim, service_dim : int
        Width of u and of s.
    out_dim : int
        Width of the result.

    Attributes
    ----------
    user_weight : Parameter of shape (n_members, user_dim, out_dim)
        Weights of u. Two parameters: the gradient of a part of one would be as large as the whole.
    service_weight : Parameter of shape (n_members, service_dim, out_dim)
        Weights of s.
    bias : Parameter of shape (n_members, 1, out_dim)
        Biases; the services' part has them.
    """

    def __init__(self, n_members: int, user_dim: int, service_dim: int, out_dim: int) -> None:
        super().__init__()
        self.user_weight = nn.Parameter(torch.empty(n_members, user_dim, out_dim))
        self.service_weight = nn.Parameter(torch.empty(n_members, service_dim, out_dim))
        self.bias = nn.Parameter(torch.empty(n_members, 1, out_dim))
        largest = max(user_dim + service_dim, 1) ** -0.5
        for part in self.parameters():
            nn.init.uniform_(part, -largest, largest)

    @property
    def weight(self) -> Tensor:
        """Weights of [u || s]; (n_members, user_dim + service_dim, out_dim)."""
        return torch.cat([self.user_weight, self.service_weight], dim=1)

    def users(self, u: Tensor) -> Tensor:
        """Return the users' part."""
        return torch.bmm(u, self.user_weight)

    def services(self, s: Tensor) -> Tensor:
        """Return the services' part, with the bias."""
        return torch.baddbmm(self.bias, s, self.service_weight)

    def forward(self, u: Tensor, s: Tensor) -> Tensor:
        """Transform pairs; (n_members, n, out_dim)."""
        return self.users(u) + self.services(s)


class MemberBatchNorm(nn.Module):
    """Batch normalisation of each member's features, as ``torch.nn.BatchNorm1d`` has it.

    Parameters
    ----------
    n_members : int
        Number of members.
    dim : int
        Number of features.
    """

    def __init__(self, n_members: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(n_members * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the rows (n_members, n, dim)."""
        features = x.transpose(0, 1).flatten(1)
        return self.norm(features).unflatten(1, (len(x), -1)).transpose(0, 1)


class ByteDropout(nn.Dropout):
    """Dropout that draws a random byte a value: a fifth of the time of torch's on a CPU.

    The share that is dropped is rounded to a multiple of 1/256, but not to 0 or 1. On other devices
    it is torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop values in training, and scale up those that stay."""
        if not self.training or self.p in (0.0, 1.0) or x.device.type != "cpu":
            return super().forward(x)
        n_dropped = min(max(round(256 * self.p), 1), 255)
        n_words = -(-x.numel() // 8)
        words = torch.empty(n_words, dtype=torch.int64).random_(-(2**63), None)
        draws = words.view(torch.uint8)[: x.numel()].view(x.shape)
        return x * (draws >= n_dropped).to(x.dtype).mul_(256 / (256 - n_dropped))


def split_members(x: Tensor, n_members: int) -> Tensor:
    """Give the members, side by side in the last axis, an axis of their own, the first.

    Parameters
    ----------
    x : Tensor of shape (n, n_features, n_members * dim)
        Vectors of features.
    n_members : int
        Number of members.

    Returns
    -------
    Tensor of shape (n_members, n, n_features * dim)
    """
    return x.unflatten(2, (n_members, -1)).permute(2, 0, 1, 3).flatten(2)
