"""Graph convolutions in the Poincare ball; all use of geoopt is here.

Between layers, features stay in the tangent space at the origin: the exponential map that would end
a layer and the logarithmic map that would start the next one cancel.

Features of nodes are (n_nodes, n_members * dim), the members side by side: one sparse product
serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import geoopt
import torch
import torch.nn.functional as F
from geoopt import PoincareBall
from torch import Tensor, nn

from skqos.graphs import BipartiteOperators, ContextGraph

# How close to the boundary a point may come, as a share of the radius; geoopt's values.
BOUNDARY = {torch.float32: 4e-3, torch.float64: 1e-5}
# Below this share of the longest tangent vector that the ball can hold, nothing is limited.
UNLIMITED_SHARE = 0.75


def soft_limit(length: Tensor) -> Tensor:
    """Limit the length of tangent vectors smoothly to what the ball can hold in floating point.

    ``tanh`` of a length above 3 is 1 to single precision, up to the margin that keeps points inside
    the ball: such a point would get no gradient along its radius. Here a length is left alone up to
    three quarters of the limit, then approaches it as t / (1 + t) does, whose slope falls but
    stays far from zero. Ours.

    Parameters
    ----------
    length : Tensor
        Lengths times the square root of the curvature, float32 or float64.

    Returns
    -------
    Tensor of the shape of `length`
        Less than artanh of the largest radius.
    """
    largest = math.atanh(1 - BOUNDARY[length.dtype])
    start = UNLIMITED_SHARE * largest
    excess = (length - start).clamp(min=0) / (largest - start)
    return torch.where(length < start, length, start + (largest - start) * excess / (1 + excess))


def mobius_translate(v: Tensor, bias: Tensor, c: Tensor) -> Tensor:
    """Translate points in the ball, given and returned as tangent vectors at the origin.

    This is log0(exp0(v) (+) b) with Mobius addition (+). Both vectors appear in it only with
    factors that depend on three inner products, so that the maps of geoopt need not be applied
    elementwise one after the other, which takes six times as long. The result is theirs, but for
    `soft_limit` of the length of v; as theirs, the sum is kept off the boundary.

    Parameters
    ----------
    v : Tensor of shape (..., dim)
        Tangent vectors.
    bias : Tensor of shape (..., dim)
        Points of the ball; leading axes are those of `v`, or broadcast to them.
    c : Tensor, scalar
        Curvature; the ball has radius 1 / sqrt(c).

    Returns
    -------
    Tensor of the shape of `v`
    """
    tiny = torch.finfo(v.dtype).tiny ** 0.5
    root_c = c.sqrt()
    vv = v.square().sum(-1, keepdim=True)
    length = root_c * vv.clamp(min=tiny).sqrt()
    radius = torch.tanh(soft_limit(length))
    # exp0(v) = to_ball * v
    to_ball = radius / length
    vb = (v * bias).sum(-1, keepdim=True)
    bb = bias.square().sum(-1, keepdim=True)
    # The Mobius sum is (alpha * v + beta * b).
    denominator = 1 + 2 * c * to_ball * vb + radius.square() * c * bb
    alpha = (1 + 2 * c * to_ball * vb + c * bb) * to_ball / denominator
    beta = (1 - radius.square()) / denominator
    yy = alpha.square() * vv + 2 * alpha * beta * vb + beta.square() * bb
    largest = 1 - BOUNDARY[v.dtype]
    sum_radius = (root_c * yy.clamp(min=tiny).sqrt()).clamp(max=largest)
    to_tangent = torch.atanh(sum_radius) / sum_radius
    return torch.addcmul((to_tangent * alpha) * v, to_tangent * beta, bias)


class PartLinear(nn.Module):
    """A linear layer whose rows come in parts, each with weights of its own, as has each member.

    In the ball it is HGCN's layer: the Mobius product with a matrix, and the addition of a bias.

    Parameters
    ----------
    n_parts, n_members : int
        Number of parts and of members.
    in_dim, out_dim : int
        Width of the features.
    ball : PoincareBall or None
        Where the biases live; its curvature is that of the features. None is Euclidean space.

    Attributes
    ----------
    weight : Parameter of shape (n_parts, n_members, in_dim, out_dim)
        Weights, to be multiplied from the right.
    bias : Parameter of shape (n_parts, n_members, out_dim)
        Biases; in the ball each row of the last axis is a point.
    """

    def __init__(
        self, n_parts: int, n_members: int, in_dim: int, out_dim: int, ball: PoincareBall | None
    ) -> None:
        super().__init__()
        self.ball = ball
        weight = torch.empty(n_parts, n_members, in_dim, out_dim)
        bias = torch.zeros(n_parts, n_members, out_dim)
        if ball is None:
            # As torch.nn.Linear has it.
            largest = in_dim**-0.5
            self.bias = nn.Parameter(bias.uniform_(-largest, largest))
        else:
            # Xavier's, for a ReLU.
            largest = math.sqrt(2) * math.sqrt(6 / (in_dim + out_dim))
            self.bias = geoopt.ManifoldParameter(bias, manifold=ball)
        self.weight = nn.Parameter(weight.uniform_(-largest, largest))

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """Transform the features of each part; those of all parts, one after the other.

        Parameters
        ----------
        parts : sequence of Tensor of shape (n, n_members * in_dim)
            Features, in the ball tangent vectors at the origin.

        Returns
        -------
        Tensor of shape (sum of n, n_members * out_dim)
        """
        n_members = self.weight.shape[1]
        rows = [part.unflatten(1, (n_members, -1)).transpose(0, 1) for part in parts]
        products = [torch.bmm(x, weight) for x, weight in zip(rows, self.weight, strict=True)]
        v = torch.cat(products, dim=1)
        # Not by `repeat_interleave`, which waits for the device to tell it the size.
        part_of_row = torch.cat(
            [torch.full((len(part),), k, device=v.device) for k, part in enumerate(parts)]
        )
        bias = F.embedding(part_of_row, self.bias.flatten(1))
        bias = bias.unflatten(1, (n_members, -1)).transpose(0, 1)
        # The Mobius product of a matrix and exp0(x) is exp0 of the plain product.
        out = v + bias if self.ball is None else mobius_translate(v, bias, self.ball.c)
        return out.transpose(0, 1).flatten(1)


class GraphConvolution(nn.Module):
    """Transform features, average them over neighbours, activate: GCN, or HyGCN in the ball.

    Averages and activation are taken in the tangent space at the origin, as HGCN does.

    Parameters
    ----------
    n_members : int
        Number of members.
    in_dim, out_dim : int
        Width of the features.
    ball : PoincareBall or None
        None makes a convolution in Euclidean space.
    n_graphs : int, default=1
        Number of graphs that are convolved as one, each with weights of its own.
    """

    def __init__(
        self,
        n_members: int,
        in_dim: int,
        out_dim: int,
        ball: PoincareBall | None,
        n_graphs: int = 1,
    ) -> None:
        super().__init__()
        self.linear = PartLinear(n_graphs, n_members, in_dim, out_dim, ball)

    def forward(
        self,
        x: Tensor,
        graph: BipartiteOperators | ContextGraph,
        sizes: Sequence[int] | None = None,
    ) -> Tensor:
        """Convolve the features of all nodes, tangent vectors at the origin.

        Parameters
        ----------
        x : Tensor of shape (n_nodes, n_members * in_dim)
            Features.
        graph : BipartiteOperators or ContextGraph
            Averages over neighbours.
        sizes : sequence of int, default=None
            Number of nodes of each graph, if there are several.

        Returns
        -------
        Tensor of shape (n_nodes, n_members * out_dim)
        """
        parts = [x] if sizes is None else x.split(sizes)
        return torch.relu(graph.convolve(self.linear(parts)))


class HypergraphConvolution(nn.Module):
    """HHGCN: convolve over the QoS graph and over the hypergraphs of its second hops.

    Each branch has weights of its own. The averages add up ahead of the activation; the summary
    of the paper leaves open how branches are joined.

    Parameters
    ----------
    n_members : int
        Number of members.
    in_dim, out_dim : int
        Width of the features.
    ball : PoincareBall or None
        None makes a convolution in Euclidean space.
    """

    def __init__(
        self, n_members: int, in_dim: int, out_dim: int, ball: PoincareBall | None
    ) -> None:
        super().__init__()
        # Of the QoS graph, of the hypergraph of users, and of that of services.
        self.linear = PartLinear(3, n_members, in_dim, out_dim, ball)

    def forward(self, x: Tensor, graph: BipartiteOperators) -> Tensor:
        """Convolve the features of all nodes, tangent vectors at the origin.

        They are (n_nodes, n_members * in_dim), and then (n_nodes, n_members * out_dim).
        """
        transformed = self.linear([x, *x.split(graph.sizes)])
        nodes, users, services = transformed.split([len(x), *graph.sizes])
        return torch.relu(graph.convolve(nodes) + graph.convolve_second_hop(users, services))


def make_ball(curvature: float, learnable: bool) -> PoincareBall:
    """Make a Poincare ball, whose curvature is fixed or learnt but never decays."""
    ball = PoincareBall(c=curvature, learnable=learnable)
    ball.isp_c.no_weight_decay = True
    return ball


class RiemannianAdamW(torch.optim.Optimizer):
    """Adam for parameters on a manifold by geoopt, torch's for all others.

    Points of a manifold, and parameters marked by an attribute ``no_weight_decay``, get none. A
    parameter may hold many points: each row of its last axis is one.

    Parameters
    ----------
    params : iterable of dict
        Groups of what to optimise, under "params".
    lr : float
        Learning rate.
    weight_decay : float
        Weight decay of all others.
    euclidean : type
        Optimiser of what is not on a manifold.
    **kwargs
        Passed on to it.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float,
        euclidean: type[torch.optim.Optimizer] = torch.optim.AdamW,
        **kwargs: Any,
    ) -> None:
        parameters = [p for group in params for p in group["params"]]
        points = [p for p in parameters if isinstance(p, geoopt.ManifoldParameter)]
        others = [p for p in parameters if not isinstance(p, geoopt.ManifoldParameter)]
        groups = [
            {"params": [p for p in others if not hasattr(p, "no_weight_decay")]},
            {"params": [p for p in others if hasattr(p, "no_weight_decay")], "weight_decay": 0.0},
        ]
        self.parts = [euclidean(groups, lr=lr, weight_decay=weight_decay, **kwargs)]
        if points:
            self.parts.append(geoopt.optim.RiemannianAdam(points, lr=lr))
        super().__init__(parameters, self.parts[0].defaults)
        self._share_groups()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of either optimiser."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both optimisers."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()

    def _share_groups(self) -> None:
        """Show the parts' own groups: what a scheduler changes here, it changes there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]
