"""Adaptive sharing of features between tasks: hard-concrete gates, SNR, Cross-SNR, gated fusion.

Activations have an axis of members, preceded by an axis of tasks if they differ between tasks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from skqos.members import MemberLinear

# Bounds of the stretched concrete distribution (gamma and zeta).
STRETCH = (-0.1, 1.1)
# Bound of the log-odds of gates, from Louizos et al.
LOG_ODDS_BOUND = math.log(1e2)


class HardConcreteGates(nn.Module):
    """Gates z in [0, 1] that are exactly 0 or 1 with positive probability.

    In training u ~ U(0, 1), s = sigmoid((log u - log(1 - u) + log alpha) / beta) and z is
    s (zeta - gamma) + gamma, clipped to [0, 1]; otherwise s = sigmoid(log alpha). Louizos,
    Welling, Kingma, "Learning sparse neural networks through L0 regularization", ICLR 2018.

    Parameters
    ----------
    *shape : int
        Shape of the array of gates.
    temperature : float
        Temperature beta of the concrete distribution.
    start : float
        Initial log-odds (log alpha), up to a little noise.
    """

    def __init__(self, *shape: int, temperature: float, start: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.log_odds = nn.Parameter(start + 0.01 * torch.randn(shape))
        self.log_odds.no_weight_decay = True

    def forward(self) -> Tensor:
        """Draw the gates in training; otherwise return their deterministic form."""
        if not self.training:
            return self.settled()
        with torch.no_grad():
            self.log_odds.clamp_(-LOG_ODDS_BOUND, LOG_ODDS_BOUND)
        u = torch.rand_like(self.log_odds).clamp(1e-6, 1 - 1e-6)
        return _stretch((torch.logit(u) + self.log_odds) / self.temperature)

    def settled(self) -> Tensor:
        """Return the deterministic form of the gates."""
        return _stretch(self.log_odds)

    def probabilities(self) -> Tensor:
        """Return P(gate is not 0), which is sigmoid(log alpha - beta log(-gamma / zeta))."""
        low, high = STRETCH
        return torch.sigmoid(self.log_odds - self.temperature * math.log(-low / high))


def _stretch(log_odds: Tensor) -> Tensor:
    low, high = STRETCH
    return (torch.sigmoid(log_odds) * (high - low) + low).clamp(0, 1)


class TaskLinear(nn.Module):
    """A linear layer for each task and member.

    Parameters
    ----------
    n_tasks, n_members : int
        Number of tasks and of members.
    in_dim, out_dim : int
        Width of the input and of the output.
    """

    def __init__(self, n_tasks: int, n_members: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.n_tasks = n_tasks
        self.linear = MemberLinear(n_tasks * n_members, in_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows (n_tasks, n_members, n, in_dim); (n_tasks, n_members, n, out_dim)."""
        return self.linear(x.flatten(0, 1)).unflatten(0, (self.n_tasks, -1))


class SubnetworkRouting(nn.Module):
    """SNR: route context features through shared blocks, with gates for each task.

    A block is linear with a ReLU.

    Parameters
    ----------
    n_members : int
        Number of members.
    in_dim, out_dim : int
        Width of the context features and of the routed ones.
    n_tasks, n_blocks : int
        Number of tasks P and of blocks K1.
    temperature, start : float
        Temperature and initial log-odds of the gates.
    """

    def __init__(
        self,
        n_members: int,
        in_dim: int,
        out_dim: int,
        n_tasks: int,
        n_blocks: int,
        temperature: float,
        start: float,
    ) -> None:
        super().__init__()
        self.n_blocks = n_blocks
        # All blocks, concatenated.
        self.blocks = MemberLinear(n_members, in_dim, n_blocks * out_dim)
        shape = n_members, n_tasks, n_blocks
        self.gates = HardConcreteGates(*shape, temperature=temperature, start=start)

    def forward(self, context: Tensor) -> Tensor:
        """Route (n_members, n, in_dim); (n_tasks, n_members, n, out_dim)."""
        blocks = torch.relu(self.blocks(context)).unflatten(2, (self.n_blocks, -1))
        return torch.einsum("mpk,mnkd->pmnd", self.gates(), blocks)


class CrossRouting(nn.Module):
    """Cross-SNR: route the features of all other tasks to each task.

    A block is linear with a ReLU.

    Parameters
    ----------
    n_members : int
        Number of members.
    in_dim, out_dim : int
        Width of a task's features and of the routed ones.
    n_tasks, n_blocks : int
        Number of tasks P and of blocks K2 for the features of each.
    temperature, start : float
        Temperature and initial log-odds of the gates.
    """

    def __init__(
        self,
        n_members: int,
        in_dim: int,
        out_dim: int,
        n_tasks: int,
        n_blocks: int,
        temperature: float,
        start: float,
    ) -> None:
        super().__init__()
        self.n_blocks = n_blocks
        self.blocks = TaskLinear(n_tasks, n_members, in_dim, n_blocks * out_dim)
        shape = n_members, n_tasks, n_tasks, n_blocks
        self.gates = HardConcreteGates(*shape, temperature=temperature, start=start)
        # A task has no gates for its own features.
        self.register_buffer("others", (1 - torch.eye(n_tasks)).unsqueeze(2))

    def forward(self, features: Tensor) -> Tensor:
        """Route (n_tasks, n_members, n, in_dim); (n_tasks, n_members, n, out_dim)."""
        blocks = torch.relu(self.blocks(features)).unflatten(3, (self.n_blocks, -1))
        return torch.einsum("mpjk,jmnkd->pmnd", self.gates() * self.others, blocks)


class GatedFusion(nn.Module):
    """Fuse the structural features of each task with the shared ones, with a gate per dimension.

    The gate is sigmoid(W [Y || Y_shared] + b); the summary of the paper leaves its form open.

    Parameters
    ----------
    n_tasks, n_members : int
        Number of tasks and of members.
    in_dim, shared_dim, out_dim : int
        Width of the structural, the shared and the fused features.
    """

    def __init__(
        self, n_tasks: int, n_members: int, in_dim: int, shared_dim: int, out_dim: int
    ) -> None:
        super().__init__()
        stack = n_tasks, n_members
        self.own = TaskLinear(*stack, in_dim, out_dim)
        self.shared = self.gate = None
        if shared_dim:
            self.shared = TaskLinear(*stack, shared_dim, out_dim)
            self.gate = TaskLinear(*stack, in_dim + shared_dim, out_dim)

    def forward(self, own: Tensor, shared: list[Tensor]) -> Tensor:
        """Fuse rows (n_tasks, n_members, n, ...); (n_tasks, n_members, n, out_dim).

        Without shared features there is nothing to blend.
        """
        if self.gate is None:
            return self.own(own)
        gate = torch.sigmoid(self.gate(torch.cat([own, *shared], dim=-1)))
        return torch.lerp(self.shared(torch.cat(shared, dim=-1)), self.own(own), gate)
