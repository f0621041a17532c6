"""Graph convolutions in the Poincare ball; only the optimiser uses geoopt.

Between layers, features remain in the tangent space at the origin, because the exponential map at
the end of a layer and the logarithmic map at the start of the next one cancel.

Features of nodes are (n_nodes, n_members * dim), with concatenated members, so that there is one
sparse product for all members.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos.graphs import BipartiteOperators, ContextGraph, SideScales, TypedOperators

# Minimum distance of a point from the boundary, relative to the radius; values of geoopt.
BOUNDARY = {torch.float32: 4e-3, torch.float64: 1e-5}
# Fraction of the maximum length of a tangent vector below which lengths are not limited.
UNLIMITED_SHARE = 0.75


def soft_limit(length: Tensor) -> Tensor:
    """Limit the length of tangent vectors smoothly to the range of the ball in floating point.

    In single precision, ``tanh`` of a length above 3 is 1, up to the margin that keeps points
    inside the ball, so that such a point would have no gradient along its radius. Lengths up to
    three quarters of the limit are not changed. Larger ones approach the limit like t / (1 + t),
    whose slope does not vanish. This is not in the paper.

    Parameters
    ----------
    length : Tensor
        Lengths times the square root of the curvature, float32 or float64.

    Returns
    -------
    Tensor of the shape of `length`
        Limited lengths, below artanh of the largest radius.
    """
    largest = math.atanh(1 - BOUNDARY[length.dtype])
    start = UNLIMITED_SHARE * largest
    excess = (length - start).clamp(min=0) / (largest - start)
    return torch.where(length < start, length, start + (largest - start) * excess / (1 + excess))


def mobius_translate(v: Tensor, bias: Tensor, c: Tensor) -> Tensor:
    """Translate points in the ball, given and returned as tangent vectors at the origin.

    This is log0(exp0(v) (+) b) with Mobius addition (+). It is a combination of both vectors with
    factors that depend on three inner products. Computing it directly takes a sixth of the time of
    the elementwise maps of geoopt. The result is the same, except for `soft_limit` of the length of
    v; as in geoopt, the sum is kept off the boundary.

    Parameters
    ----------
    v : Tensor of shape (..., dim)
        Tangent vectors.
    bias : Tensor of shape (..., dim)
        Points of the ball; leading axes are those of `v`, or are broadcast to them.
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


class PoincareBall(nn.Module):
    """Curvature of a Poincare ball, with the parametrisation of geoopt's class of this name.

    Parameters
    ----------
    curvature : float
        Curvature c; the ball has radius 1 / sqrt(c).
    learnable : bool, default=False
        Whether the curvature is trained. It has no weight decay.
    """

    def __init__(self, curvature: float, learnable: bool = False) -> None:
        super().__init__()
        # The inverse of the softplus function.
        raw = torch.tensor(float(curvature)).expm1().log()
        self.isp_c = nn.Parameter(raw, requires_grad=learnable)
        self._mark()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Mark the parameter again, because a deep copy has no marks."""
        super().__setstate__(state)
        self._mark()

    def _mark(self) -> None:
        self.isp_c.no_weight_decay = self.isp_c.is_curvature = True

    @property
    def c(self) -> Tensor:
        """Curvature."""
        return F.softplus(self.isp_c)


class PartLinear(nn.Module):
    """A linear layer on several parts of rows, with separate weights for each part and member.

    In the ball, it is the layer of HGCN: the Mobius product with a matrix, and the addition of a
    bias.

    Parameters
    ----------
    n_parts, n_members : int
        Number of parts and of members.
    in_dim, out_dim : int
        Width of the features.
    ball : PoincareBall or None
        Ball of the biases, with the curvature of the features. None for Euclidean space.

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
            # Initialised like torch.nn.Linear.
            largest = in_dim**-0.5
            self.bias = nn.Parameter(bias.uniform_(-largest, largest))
        else:
            # Xavier initialisation for a ReLU.
            largest = math.sqrt(2) * math.sqrt(6 / (in_dim + out_dim))
            self.bias = nn.Parameter(bias)
            self._mark()
        self.weight = nn.Parameter(weight.uniform_(-largest, largest))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Mark the points again, because a deep copy of a parameter has no marks."""
        super().__setstate__(state)
        if self.ball is not None:
            self._mark()

    def _mark(self) -> None:
        self.bias.no_weight_decay = self.bias.is_on_ball = True

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """Transform the features of each part, and concatenate them.

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
        # `repeat_interleave` would wait for the device.
        part_of_row = torch.cat(
            [torch.full((len(part),), k, device=v.device) for k, part in enumerate(parts)]
        )
        bias = F.embedding(part_of_row, self.bias.flatten(1))
        bias = bias.unflatten(1, (n_members, -1)).transpose(0, 1)
        # The Mobius product of a matrix and exp0(x) is exp0 of the plain product.
        out = v + bias if self.ball is None else mobius_translate(v, bias, self.ball.c)
        return out.transpose(0, 1).flatten(1)


class GraphConvolution(nn.Module):
    """Graph convolution: GCN, or HyGCN in the ball.

    Averages and activation are computed in the tangent space at the origin, as in HGCN.

    Parameters
    ----------
    n_members : int
        Number of members.
    in_dim, out_dim : int
        Width of the features.
    ball : PoincareBall or None
        None for a convolution in Euclidean space.
    n_parts : int, default=1
        Number of graphs that are convolved as one, or of parts for edges with values; each has its
        own weights.
    scales : SideScales or None, default=None
        Factors of the received messages.
    """

    def __init__(
        self,
        n_members: int,
        in_dim: int,
        out_dim: int,
        ball: PoincareBall | None,
        n_parts: int = 1,
        scales: SideScales | None = None,
    ) -> None:
        super().__init__()
        self.linear = PartLinear(n_parts, n_members, in_dim, out_dim, ball)
        self.scales = scales

    def forward(
        self,
        x: Tensor,
        graph: BipartiteOperators | TypedOperators | ContextGraph,
        sizes: Sequence[int] | None = None,
    ) -> Tensor:
        """Convolve the features of all nodes, tangent vectors at the origin.

        Parameters
        ----------
        x : Tensor of shape (n_nodes, n_members * in_dim)
            Features.
        graph : BipartiteOperators, TypedOperators or ContextGraph
            Operators that average over neighbours.
        sizes : sequence of int, default=None
            Number of nodes of each graph, if there are several.

        Returns
        -------
        Tensor of shape (n_nodes, n_members * out_dim)
        """
        parts = [x] * len(self.linear.weight) if sizes is None else x.split(sizes)
        averages = graph.convolve(self.linear(parts))
        if self.scales is not None:
            averages = self.scales(averages, graph.sizes)
        return torch.relu(averages)


class HypergraphConvolution(nn.Module):
    """HHGCN: convolve over the QoS graph and over the hypergraphs of its second hops.

    Each branch has its own weights for each type of edge. The averages are added before the
    activation; the summary of the paper does not state how branches are joined.

    Parameters
    ----------
    n_members : int
        Number of members.
    in_dim, out_dim : int
        Width of the features.
    ball : PoincareBall or None
        None for a convolution in Euclidean space.
    n_parts : int, default=1
        Number of parts of a convolution over the QoS graph: the types of edges and, if there are
        several, the own features.
    scales : SideScales or None, default=None
        Factors of the received messages.
    """

    def __init__(
        self,
        n_members: int,
        in_dim: int,
        out_dim: int,
        ball: PoincareBall | None,
        n_parts: int = 1,
        scales: SideScales | None = None,
    ) -> None:
        super().__init__()
        self.n_parts = n_parts
        self.n_types = max(n_parts - 1, 1)
        # Layers of the QoS graph, of the hypergraph of users, and of that of services.
        self.linear = PartLinear(n_parts + 2 * self.n_types, n_members, in_dim, out_dim, ball)
        self.scales = scales

    def forward(self, x: Tensor, graph: BipartiteOperators | TypedOperators) -> Tensor:
        """Convolve the features of all nodes, tangent vectors at the origin.

        The shape is (n_nodes, n_members * in_dim), and (n_nodes, n_members * out_dim) afterwards.
        """
        of_users, of_services = x.split(graph.sizes)
        parts = [x] * self.n_parts, [of_users] * self.n_types, [of_services] * self.n_types
        transformed = self.linear([*chain.from_iterable(parts)])
        nodes, users, services = transformed.split([sum(map(len, part)) for part in parts])
        averages = graph.convolve(nodes) + graph.convolve_second_hop(users, services)
        if self.scales is not None:
            averages = self.scales(averages, graph.sizes)
        return torch.relu(averages)


class RiemannianAdamW(torch.optim.Optimizer):
    """Riemannian Adam of geoopt for parameters on a Poincare ball, and Adam of torch for others.

    Parameters marked by an attribute ``is_on_ball`` are points of the ball, whose curvature is the
    parameter marked by ``is_curvature``. Points, and parameters marked by ``no_weight_decay``, get
    no weight decay. A parameter may contain several points, one in each row of its last axis.

    Parameters
    ----------
    params : iterable of dict
        Parameter groups, under "params".
    lr : float
        Learning rate.
    weight_decay : float
        Weight decay of all other parameters.
    euclidean : type
        Optimiser of parameters that are not on the ball.
    **kwargs
        Arguments of this optimiser.
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
        points = [p for p in parameters if hasattr(p, "is_on_ball")]
        others = [p for p in parameters if not hasattr(p, "is_on_ball")]
        groups = [
            {"params": [p for p in others if not hasattr(p, "no_weight_decay")]},
            {"params": [p for p in others if hasattr(p, "no_weight_decay")], "weight_decay": 0.0},
        ]
        self.parts = [euclidean(groups, lr=lr, weight_decay=weight_decay, **kwargs)]
        self.points = points
        if points:
            curvature = next(p for p in others if hasattr(p, "is_curvature"))
            self.parts.append(_riemannian_adam(points, curvature, lr))
        super().__init__(parameters, self.parts[0].defaults)
        self._share_groups()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform a step of both optimisers."""
        loss = None if closure is None else closure()
        for part in self.parts[1:]:
            # The twins share the memory of the parameters, but not their gradients.
            for twin, point in zip(part.param_groups[0]["params"], self.points, strict=True):
                twin.grad = point.grad
        for part in self.parts:
            part.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of all parameters."""
        super().zero_grad(set_to_none)
        for point in self.points:
            point.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both optimisers."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()

    def _share_groups(self) -> None:
        """Expose the groups of both optimisers, so that a scheduler changes them."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def _riemannian_adam(
    points: list[nn.Parameter], curvature: nn.Parameter, lr: float
) -> torch.optim.Optimizer:
    """Create geoopt's optimiser with twins of the points, which share their memory."""
    import geoopt

    ball = geoopt.PoincareBall()
    ball.isp_c = curvature
    twins = [geoopt.ManifoldParameter(point.data, manifold=ball) for point in points]
    return geoopt.optim.RiemannianAdam(twins, lr=lr)
