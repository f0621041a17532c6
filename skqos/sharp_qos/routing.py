"""Adaptive sharing of features between tasks: hard-concrete gates, SNR, Cross-SNR, gated fusion."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Where the stretched concrete distribution begins and ends (gamma and zeta).
STRETCH = (-0.1, 1.1)
# Louizos et al. keep the odds of a gate within these bounds.
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
    """

    def __init__(self, *shape: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.log_odds = nn.Parameter(0.01 * torch.randn(shape))
        self.log_odds.no_weight_decay = True

    def forward(self) -> Tensor:
        """Draw the gates in training; else give their deterministic form."""
        if not self.training:
            return self.settled()
        with torch.no_grad():
            self.log_odds.clamp_(-LOG_ODDS_BOUND, LOG_ODDS_BOUND)
        u = torch.rand_like(self.log_odds).clamp(1e-6, 1 - 1e-6)
        return _stretch((torch.logit(u) + self.log_odds) / self.temperature)

    def settled(self) -> Tensor:
        """Give the deterministic form of the gates."""
        return _stretch(self.log_odds)

    def probabilities(self) -> Tensor:
        """Probability that a gate is not 0, sigmoid(log alpha - beta log(-gamma / zeta))."""
        low, high = STRETCH
        return torch.sigmoid(self.log_odds - self.temperature * math.log(-low / high))


def _stretch(log_odds: Tensor) -> Tensor:
    low, high = STRETCH
    return (torch.sigmoid(log_odds) * (high - low) + low).clamp(0, 1)


class Blocks(nn.Module):
    """Parallel transformation blocks, each linear with a ReLU, computed as one.

    Parameters
    ----------
    in_dim, out_dim : int
        Width of the input and of each block's output.
    n_blocks : int
        Number of blocks.
    """

    def __init__(self, in_dim: int, out_dim: int, n_blocks: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, n_blocks * out_dim)
        self.n_blocks = n_blocks

    def forward(self, x: Tensor) -> Tensor:
        """Transform; (n, n_blocks, out_dim)."""
        return torch.relu(self.linear(x)).unflatten(1, (self.n_blocks, -1))


class SubnetworkRouting(nn.Module):
    """SNR: route context features through blocks that all tasks share, by gates of each task.

    Parameters
    ----------
    in_dim, out_dim : int
        Width of the context features and of the routed ones.
    n_tasks, n_blocks : int
        Number of tasks P and of blocks K1.
    temperature : float
        Temperature of the gates.
    """

    def __init__(
        self, in_dim: int, out_dim: int, n_tasks: int, n_blocks: int, temperature: float
    ) -> None:
        super().__init__()
        self.blocks = Blocks(in_dim, out_dim, n_blocks)
        self.gates = HardConcreteGates(n_tasks, n_blocks, temperature=temperature)

    def forward(self, context: Tensor) -> Tensor:
        """Route; (n_tasks, n, out_dim)."""
        return torch.einsum("pk,nkd->pnd", self.gates(), self.blocks(context))


class CrossRouting(nn.Module):
    """Cross-SNR: route the features of all other tasks to each task.

    Parameters
    ----------
    in_dim, out_dim : int
        Width of a task's features and of the routed ones.
    n_tasks, n_blocks : int
        Number of tasks P and of blocks K2 for the features of each.
    temperature : float
        Temperature of the gates.
    """

    def __init__(
        self, in_dim: int, out_dim: int, n_tasks: int, n_blocks: int, temperature: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Blocks(in_dim, out_dim, n_blocks) for _ in range(n_tasks))
        self.gates = HardConcreteGates(n_tasks, n_tasks, n_blocks, temperature=temperature)
        others = 1 - torch.eye(n_tasks)
        # A task has no gates for itself.
        self.register_buffer("others", others.unsqueeze(2))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Route; (n_tasks, n, out_dim)."""
        blocks = torch.stack([block(x) for block, x in zip(self.blocks, features, strict=True)])
        return torch.einsum("pjk,jnkd->pnd", self.gates() * self.others, blocks)


class GatedFusion(nn.Module):
    """Blend a task's structural features with the shared ones, each dimension by a gate.

    The gate is sigmoid(W [Y || Y_shared] + b); the summary of the paper leaves its form open.

    Parameters
    ----------
    in_dim, shared_dim, out_dim : int
        Width of the structural features, of the shared ones, and of the blend.
    """

    def __init__(self, in_dim: int, shared_dim: int, out_dim: int) -> None:
        super().__init__()
        self.own = nn.Linear(in_dim, out_dim)
        self.shared = self.gate = None
        if shared_dim:
            self.shared = nn.Linear(shared_dim, out_dim)
            self.gate = nn.Linear(in_dim + shared_dim, out_dim)

    def forward(self, own: Tensor, shared: list[Tensor]) -> Tensor:
        """Blend; (n, out_dim). Without shared features there is nothing to blend."""
        if self.gate is None:
            return self.own(own)
        gate = torch.sigmoid(self.gate(torch.cat([own, *shared], dim=1)))
        return gate * self.own(own) + (1 - gate) * self.shared(torch.cat(shared, dim=1))
