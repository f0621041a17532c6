"""Layers in the Poincare ball against slow NumPy formulas, and their gradients far out."""

import copy
import pickle

import geoopt
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skqos.graphs import N_BINS, BipartiteGraph, ContextGraph, SideScales
from skqos.sharp_qos.hyperbolic import (
    BOUNDARY,
    UNLIMITED_SHARE,
    GraphConvolution,
    HypergraphConvolution,
    PartLinear,
    PoincareBall,
    RiemannianAdamW,
    mobius_translate,
    soft_limit,
)
from skqos.training import seeded

N_USERS, N_SERVICES, IN, OUT = 4, 5, 3, 6
N_NODES = N_USERS + N_SERVICES
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
CONTEXT = [[0, 1], [1, 1], [1, 0], [-1, 0]]
COUNTS = [2, 1, 3, 1]
every_curvature = pytest.mark.parametrize("c", [0.1, 1.0, 5.0])


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


# --- The ball, slow and obvious -----------------------------------------------------------------


def exp0(v, c):
    norm = np.sqrt(sum(v**2))
    return v if norm == 0 else np.tanh(np.sqrt(c) * norm) * v / (np.sqrt(c) * norm)


def log0(y, c):
    norm = np.sqrt(sum(y**2))
    return y if norm == 0 else np.arctanh(np.sqrt(c) * norm) * y / (np.sqrt(c) * norm)


def mobius_add(x, y, c):
    xy, xx, yy = sum(x * y), sum(x**2), sum(y**2)
    above = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
    return above / (1 + 2 * c * xy + c**2 * xx * yy)


def mobius_matvec(W, x, c):
    Wx = W @ x
    norm, length = np.sqrt(sum(x**2)), np.sqrt(sum(Wx**2))
    if length == 0:
        return Wx
    stretched = length / norm * np.arctanh(np.sqrt(c) * norm)
    return np.tanh(stretched) * Wx / (np.sqrt(c) * length)


def tangents(n, dim, c, seed=0, longest=1.5):
    """Vectors of all lengths up to `longest` / sqrt(c), the first of them 0."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(n, dim))
    lengths = np.linspace(0, longest / np.sqrt(c), n)
    return v / np.linalg.norm(v, axis=1, keepdims=True) * lengths[:, None]


def make_ball(c, learnable=False):
    """Return geoopt's ball."""
    return geoopt.PoincareBall(torch.tensor(c, dtype=torch.float64), learnable=learnable)


# --- geoopt -------------------------------------------------------------------------------------


@every_curvature
def test_maps_are_those_of_geoopt(c):
    v = tangents(8, OUT, c)
    points = make_ball(c).expmap0(torch.tensor(v))
    assert_allclose(points, [exp0(row, c) for row in v], **CLOSE)
    assert_allclose(make_ball(c).logmap0(points), [log0(row, c) for row in points.numpy()], **CLOSE)


@every_curvature
def test_addition_is_that_of_geoopt(c):
    x, y = (np.array([exp0(row, c) for row in tangents(8, OUT, c, seed)]) for seed in (0, 1))
    y = y[::-1].copy()
    found = make_ball(c).mobius_add(torch.tensor(x), torch.tensor(y))
    expected = [mobius_add(a, b, c) for a, b in zip(x, y, strict=True)]
    assert_allclose(found, expected, **CLOSE)


@every_curvature
def test_matrix_product_is_that_of_geoopt(c):
    x = np.array([exp0(row, c) for row in tangents(8, IN, c)])
    W = np.random.default_rng(1).normal(size=(OUT, IN)) / 2
    found = make_ball(c).mobius_matvec(torch.tensor(W), torch.tensor(x))
    assert_allclose(found, [mobius_matvec(W, row, c) for row in x], **CLOSE)


# --- Translation and the linear layer -----------------------------------------------------------


@every_curvature
def test_translation(c):
    v = tangents(8, OUT, c, longest=2.5)
    bias = exp0(tangents(3, OUT, c, seed=1)[1], c)
    found = mobius_translate(torch.tensor(v), torch.tensor(bias), torch.tensor(c).double())
    expected = [log0(mobius_add(exp0(row, c), bias, c), c) for row in v]
    assert np.abs(found.numpy() - v).max() > 0.1
    assert_allclose(found, expected, **CLOSE)


@every_curvature
def test_translation_by_the_origin_is_none(c):
    v = torch.tensor(tangents(8, OUT, c, longest=2.5))
    found = mobius_translate(v, torch.zeros(OUT).double(), torch.tensor(c).double())
    assert_allclose(found, v, **CLOSE)


def linear_layer(n_members, in_dim, out_dim, ball):
    return PartLinear(1, n_members, in_dim, out_dim, ball)


def make_layer(kind, c, n_members=1, **ball):
    """Return a layer in float64 whose biases are not at the origin; Euclidean without c."""
    layer = kind(n_members, IN, OUT, None if c is None else PoincareBall(c, **ball)).double()
    with torch.no_grad():
        for linear in linears(layer):
            points = linear.bias.view(-1, OUT)
            for k, point in enumerate(points):
                bias = tangents(3, OUT, c or 1, seed=k)[1]
                point.copy_(torch.tensor(bias if c is None else exp0(bias, c)))
    return layer


def linears(layer):
    return [part for part in layer.modules() if isinstance(part, PartLinear)]


def in_numpy(linear, part=0, member=0):
    W, b = linear.weight[part, member], linear.bias[part, member]
    return W.T.detach().numpy(), b.detach().numpy()


def fold(members):
    """Lay the features of members side by side."""
    return np.concatenate(members, axis=1)


@every_curvature
def test_linear_layer(c):
    layer = make_layer(linear_layer, c)
    W, b = in_numpy(layer)
    x = tangents(8, IN, c)
    points = [mobius_add(mobius_matvec(W, exp0(row, c), c), b, c) for row in x]
    expected = [log0(point, c) for point in points]
    assert_allclose(layer([torch.tensor(x)]).detach(), expected, **CLOSE)


@every_curvature
def test_linear_layer_by_way_of_geoopt(c):
    layer, ball = make_layer(linear_layer, c), make_ball(c)
    x = torch.tensor(tangents(8, IN, c))
    product = ball.mobius_matvec(layer.weight[0, 0].T, ball.expmap0(x))
    expected = ball.logmap0(ball.mobius_add(product, layer.bias[0, 0]))
    assert_allclose(layer([x]).detach(), expected.detach(), **CLOSE)


@pytest.mark.parametrize("c", [None, 0.1, 1.0])
def test_every_part_and_member_has_weights_of_its_own(c):
    ball = None if c is None else PoincareBall(c)
    layer = make_layer(lambda *shape: PartLinear(3, *shape[:-1], ball), c, n_members=2)
    parts = [[tangents(n, IN, c or 1, seed=n + k) for k in range(2)] for n in (4, 2, 5)]
    found = layer([torch.tensor(fold(members)) for members in parts]).detach()
    expected = [
        fold([slow_linear(layer, x, c, part, k) for k, x in enumerate(members)])
        for part, members in enumerate(parts)
    ]
    assert_allclose(found, np.concatenate(expected), **CLOSE)


@pytest.mark.parametrize("c", [None, 1.0])
def test_weights_start_as_they_do_elsewhere(c):
    linear = PartLinear(2, 3, 100, 50, None if c is None else PoincareBall(c))
    largest = 0.1 if c is None else np.sqrt(2 * 6 / 150)
    assert linear.weight.abs().max().item() == pytest.approx(largest, rel=1e-3)
    assert linear.bias.abs().max().item() == pytest.approx(0.1 if c is None else 0, rel=0.02)


def test_gradients_of_a_translation_pass_gradcheck():
    v = torch.tensor(tangents(5, 3, 1.0, longest=2.5)[1:], requires_grad=True)
    bias = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    c = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mobius_translate, (v, bias, c))


# --- Convolutions -------------------------------------------------------------------------------


def some_edges():
    return np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 3])


def make_operators(dtype=torch.float64):
    users, services = some_edges()
    graph = BipartiteGraph(users, services, N_USERS, N_SERVICES)
    return graph(torch.ones(graph.n_edges, dtype=dtype))


def make_context():
    return ContextGraph(torch.tensor(CONTEXT), torch.tensor(COUNTS))


def normalised(adjacency):
    degrees = adjacency.sum(1) + 1
    return (adjacency + np.eye(len(adjacency))) / np.sqrt(np.outer(degrees, degrees))


def dense_first_hop():
    adjacency = np.zeros((N_NODES, N_NODES))
    for user, service in zip(*some_edges(), strict=True):
        adjacency[user, N_USERS + service] = adjacency[N_USERS + service, user] = 1
    return normalised(adjacency)


def dense_second_hop(side):
    h = np.zeros((N_USERS, N_SERVICES))
    h[some_edges()] = 1
    h = h if side == "user" else h.T
    node, edge = np.maximum(h.sum(1), 1), np.maximum(h.sum(0), 1)
    return (h / edge) @ h.T / np.sqrt(np.outer(node, node))


def dense_context():
    """Return the operator among rows: every row takes part as often as it counts."""
    rows = np.repeat(np.arange(len(COUNTS)), COUNTS)
    nodes = np.array(CONTEXT)[rows]
    adjacency = np.zeros((len(rows), len(rows)))
    for column in nodes.T:
        adjacency += (column[:, None] == column) & (column >= 0)
    np.fill_diagonal(adjacency, 0)
    first_node = np.unique(rows, return_index=True)[1]
    return normalised(adjacency)[first_node] @ np.eye(len(COUNTS))[rows]


def slow_linear(linear, x, c, part=0, member=0):
    """Transform tangent vectors: to the ball, multiply, add, and back."""
    W, b = in_numpy(linear, part, member)
    if c is None:
        return x @ W.T + b
    return np.array([log0(mobius_add(mobius_matvec(W, exp0(r, c), c), b, c), c) for r in x])


def slow_activation(x, c):
    """exp0 ends the layer; the next one starts with log0."""
    if c is None:
        return np.maximum(x, 0)
    return np.array([log0(exp0(np.maximum(row, 0), c), c) for row in x])


every_geometry = pytest.mark.parametrize("c", [None, 0.1, 1.0, 5.0])


every_number_of_members = pytest.mark.parametrize("n_members", [1, 2])


def some_features(n_nodes, n_members, c):
    return [tangents(n_nodes, IN, c or 1, seed=k) for k in range(n_members)]


def check_convolution(layer, graph, c, members, slow):
    """Compare the members, convolved in one pass, with a slow function of each."""
    expected = [slow_activation(slow(x, k), c) for k, x in enumerate(members)]
    assert (np.array(expected) > 0).any()
    found = layer(torch.tensor(fold(members)), graph)
    assert_allclose(found.detach(), fold(expected), **CLOSE)


# --- Edges with values --------------------------------------------------------------------------

VALUES = np.array([0.1, 2.0, 0.7, 1.5, 0.3, 4.0])


def typed_incidences(normalization):
    """Return operators of edges with types, and the edges of each type and receiving side."""
    users, services = some_edges()
    graph = BipartiteGraph(
        *some_edges(),
        N_USERS,
        N_SERVICES,
        values=VALUES,
        residuals="sender",
        normalization=normalization,
    )
    operators = graph(torch.ones(len(users), dtype=torch.float64))
    sides = np.zeros((2, N_BINS, N_USERS, N_SERVICES))
    for side, types in zip(sides, operators.bins, strict=True):
        side[types.numpy(), users, services] = 1
    return operators, sides


def slow_valued(layer, x, k, c, sides, normalization, hyper):
    """A linear map for the node itself, for each type of edge, and for each type of hyperedge."""
    power = 1.0 if normalization == "row" else 0.5
    edges = sides[0].sum(0)
    degrees = np.concatenate([edges.sum(1), edges.sum(0)])
    users, services = slice(N_USERS), slice(N_USERS, None)

    def transform(part, rows):
        return slow_linear(layer.linear, rows, c, part, k)

    out = transform(N_BINS, x)
    for one in range(N_BINS):
        directions = (users, services, sides[0][one]), (services, users, sides[1][one].T)
        for receivers, senders, h in directions:
            sent = (degrees[senders] + 1) ** (power - 1)
            found = h @ (sent[:, None] * transform(one, x)[senders])
            out[receivers] += (degrees[receivers] + 1)[:, None] ** -power * found
        if hyper:
            first = (users, sides[0][one]), (services, sides[1][one].T)
            for k_side, (rows, h) in enumerate(first):
                part = (k_side + 1) * N_BINS + 1 + one
                node, edge = np.maximum(degrees[rows], 1), np.maximum(h.sum(0), 1)
                sent = node[:, None] ** (power - 1) * transform(part, x[rows])
                out[rows] += node[:, None] ** -power * (h / edge @ (h.T @ sent))
    scales = layer.scales.factors.detach().numpy()[:, k]
    return out * np.repeat(scales, [N_USERS, N_SERVICES])[:, None]


@pytest.mark.parametrize("normalization", ["symmetric", "row"])
@pytest.mark.parametrize("c", [None, 1.0])
@pytest.mark.parametrize("kind", [GraphConvolution, HypergraphConvolution])
def test_convolutions_over_edges_with_values(kind, c, normalization):
    scales = SideScales(2)
    layer = make_layer(
        lambda *sizes: kind(*sizes, n_parts=N_BINS + 1, scales=scales), c, n_members=2
    )
    with torch.no_grad():
        scales.factors.copy_(torch.tensor([[2.0, 3.0], [0.5, 1.5]]))
    operators, sides = typed_incidences(normalization)

    def slow(x, k):
        return slow_valued(layer, x, k, c, sides, normalization, kind is HypergraphConvolution)

    check_convolution(layer, operators, c, some_features(N_NODES, 2, c), slow)


# --- Binary edges -------------------------------------------------------------------------------


@every_geometry
@every_number_of_members
def test_graph_convolution(c, n_members):
    layer = make_layer(GraphConvolution, c, n_members)

    def slow(x, k):
        return dense_first_hop() @ slow_linear(layer.linear, x, c, 0, k)

    members = some_features(N_NODES, n_members, c)
    check_convolution(layer, make_operators(), c, members, slow)


@every_geometry
def test_graph_convolution_of_a_context_graph(c):
    layer = make_layer(GraphConvolution, c)

    def slow(x, k):
        return dense_context() @ slow_linear(layer.linear, x, c, 0, k)

    check_convolution(layer, make_context(), c, some_features(len(COUNTS), 1, c), slow)


@every_geometry
@every_number_of_members
def test_hypergraph_convolution(c, n_members):
    layer = make_layer(HypergraphConvolution, c, n_members)

    def slow(x, k):
        sides = x, x[:N_USERS], x[N_USERS:]
        nodes, users, services = (
            slow_linear(layer.linear, side, c, part, k) for part, side in enumerate(sides)
        )
        second_hop = dense_second_hop("user") @ users, dense_second_hop("service") @ services
        return dense_first_hop() @ nodes + np.concatenate(second_hop)

    members = some_features(N_NODES, n_members, c)
    check_convolution(layer, make_operators(), c, members, slow)


@pytest.mark.parametrize("kind", [GraphConvolution, HypergraphConvolution])
def test_curvature_near_0_is_euclidean(kind):
    euclidean, curved = make_layer(kind, None), make_layer(kind, 1e-6)
    with torch.no_grad():
        for flat, bent in zip(linears(euclidean), linears(curved), strict=True):
            flat.weight.copy_(bent.weight)
            flat.bias.copy_(0.1 * flat.bias)
            bent.bias.copy_(flat.bias)
    x = torch.tensor(tangents(N_NODES, IN, 1))
    found, expected = (layer(x, make_operators()).detach() for layer in (curved, euclidean))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# --- The limit of lengths -----------------------------------------------------------------------


every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def limits(dtype):
    """Return where the limit starts to tell, and what it never reaches."""
    largest = np.arctanh(1 - BOUNDARY[dtype])
    return UNLIMITED_SHARE * largest, largest


@every_dtype
def test_short_lengths_are_left_alone(dtype):
    start, _ = limits(dtype)
    lengths = torch.linspace(0, start - 1e-4, 100, dtype=dtype)
    assert torch.equal(soft_limit(lengths), lengths)


@every_dtype
def test_the_limit_is_three_quarters_of_what_the_ball_holds_and_beyond(dtype):
    start, largest = limits(dtype)
    assert start == pytest.approx(0.75 * largest)
    lengths = torch.tensor([start + 0.1, largest, 10.0, 1e3], dtype=dtype)
    limited = soft_limit(lengths)
    assert (limited < lengths).all()
    assert (limited > start).all()
    assert (limited <= largest).all()


@every_dtype
def test_limited_lengths_keep_their_order(dtype):
    assert (soft_limit(torch.linspace(0, 50, 2000, dtype=dtype)).diff() > 0).all()


@every_dtype
def test_the_limit_sets_in_without_a_jump_or_a_kink(dtype):
    start, _ = limits(dtype)
    around = torch.tensor([start - 1e-3, start + 1e-3], dtype=dtype, requires_grad=True)
    limited = soft_limit(around)
    limited.sum().backward()
    assert limited.diff().item() == pytest.approx(2e-3, rel=1e-2)
    assert_allclose(around.grad, [1, 1], rtol=5e-3)


@every_dtype
def test_the_slope_of_the_limit_is_that_of_its_formula(dtype):
    start, largest = limits(dtype)
    lengths = torch.tensor([start / 2, largest, 10.0], dtype=dtype, requires_grad=True)
    soft_limit(lengths).sum().backward()
    excess = (np.array([0, largest, 10]) - start).clip(0) / (largest - start)
    assert_allclose(lengths.grad, (1 + excess) ** -2, rtol=1e-4)


# --- Gradients ----------------------------------------------------------------------------------

both_dtypes_and_curvatures = pytest.mark.parametrize(
    ("dtype", "c"), [(dtype, c) for dtype in BOUNDARY for c in (0.1, 1.0, 5.0)]
)


def vectors_of_norm(norm, n=N_NODES, dim=IN, dtype=torch.float32):
    v = torch.randn(n, dim, dtype=dtype)
    return v / v.norm(dim=1, keepdim=True) * norm


@both_dtypes_and_curvatures
def test_gradients_at_zero_are_finite_and_those_of_the_identity(dtype, c):
    v = torch.zeros(3, OUT, dtype=dtype, requires_grad=True)
    bias = torch.zeros(OUT, dtype=dtype, requires_grad=True)
    curvature = torch.tensor(c, dtype=dtype, requires_grad=True)
    mobius_translate(v, bias, curvature).sum().backward()
    assert_allclose(v.grad, np.ones((3, OUT)), rtol=1e-6)
    assert_allclose(bias.grad, np.full(OUT, 3), rtol=1e-6)
    assert curvature.grad.isfinite()


@both_dtypes_and_curvatures
def test_opposite_vectors_cancel_with_finite_gradients(dtype, c):
    """The sum is the origin, whose length has no slope."""
    v = torch.full((1, OUT), 0.3, dtype=dtype, requires_grad=True)
    ball = geoopt.PoincareBall(torch.tensor(c, dtype=dtype))
    bias = (-ball.expmap0(v[0].detach())).requires_grad_()
    found = mobius_translate(v, bias, ball.c)
    found.sum().backward()
    assert_allclose(found.detach(), np.zeros((1, OUT)), atol=1e-5)
    assert v.grad.isfinite().all()
    assert bias.grad.isfinite().all()
    assert v.grad.abs().min() > 0.1


@both_dtypes_and_curvatures
def test_a_tangent_vector_of_norm_10_has_a_slope_along_its_radius(dtype, c):
    v = vectors_of_norm(10, dim=OUT, dtype=dtype)
    scale = torch.ones(N_NODES, 1, dtype=dtype, requires_grad=True)
    bias = torch.zeros(OUT, dtype=dtype)
    mobius_translate(scale * v, bias, torch.tensor(c, dtype=dtype)).norm(dim=1).sum().backward()
    assert scale.grad.isfinite().all()
    assert (scale.grad > 1e-3).all()


@every_curvature
@pytest.mark.parametrize("norm", [1e-30, 1e-12, 1e-3, 10.0, 1e4])
def test_translations_are_finite_and_not_dead_at_any_length(c, norm):
    v = vectors_of_norm(norm, dim=OUT).requires_grad_()
    ball = geoopt.PoincareBall(c)
    bias = ball.expmap0(vectors_of_norm(1.0, 1, OUT)[0]).requires_grad_()
    found = mobius_translate(v, bias, ball.c)
    found.sum().backward()
    assert found.isfinite().all()
    for gradient in (v.grad, bias.grad):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


class Network(nn.Module):
    """Two layers, one of either kind, and a product of the two sides."""

    def __init__(self, ball, norm):
        super().__init__()
        self.features = nn.Parameter(vectors_of_norm(norm))
        self.layers = nn.ModuleList(
            [HypergraphConvolution(1, IN, OUT, ball), GraphConvolution(1, OUT, OUT, ball)]
        )

    def forward(self, operators):
        x = self.features
        for layer in self.layers:
            x = layer(x, operators)
        users, services = x.split([N_USERS, N_SERVICES])
        return users @ services.T


def train(network, n_steps, target=2.0, lr=0.01):
    operators = make_operators(torch.float32)
    parameters = [{"params": list(network.parameters())}]
    optimizer = RiemannianAdamW(parameters, lr=lr, weight_decay=0.01, fused=True)
    for _ in range(n_steps):
        optimizer.zero_grad()
        (network(operators) - target).abs().mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    (network(operators) - target).abs().mean().backward()


def check_gradients(network):
    for layer in network.layers:
        check_some([linear.weight for linear in linears(layer)])
        check_some([linear.bias for linear in linears(layer)])
    check_some([network.features])


def check_some(parameters):
    assert all(p.isfinite().all() for p in parameters)
    assert all(p.grad.isfinite().all() for p in parameters)
    assert any(p.grad.abs().max() > 0 for p in parameters)


@every_curvature
def test_gradients_from_a_norm_of_10_are_finite_and_not_all_0(c):
    network = Network(PoincareBall(c), norm=10)
    train(network, 0)
    check_gradients(network)


@every_curvature
def test_200_steps_from_a_norm_of_10_keep_gradients_alive_and_biases_in_the_ball(c):
    network = Network(PoincareBall(c), norm=10)
    train(network, 200, target=50.0, lr=0.05)
    check_gradients(network)
    for linear in linears(network):
        lengths = linear.bias.norm(dim=-1)
        assert (lengths > 0).all()
        assert (lengths < 1 / c**0.5).all()


# --- Learnable curvature ------------------------------------------------------------------------


def test_fixed_curvature_stays():
    ball = PoincareBall(0.7)
    train(Network(ball, norm=1), 5, lr=0.1)
    assert ball.c.item() == pytest.approx(0.7, rel=1e-5)
    assert ball.isp_c.grad is None


def test_learnable_curvature_gets_a_gradient():
    ball = PoincareBall(0.7, learnable=True)
    train(Network(ball, norm=1), 0)
    assert ball.isp_c.grad.isfinite()
    assert ball.isp_c.grad != 0


@pytest.mark.parametrize("sign", [1, -1])
def test_learnable_curvature_stays_positive(sign):
    ball = PoincareBall(0.1, learnable=True)
    layer = linear_layer(1, IN, OUT, ball)
    optimizer = RiemannianAdamW([{"params": list(layer.parameters())}], lr=0.3, weight_decay=0.0)
    x = vectors_of_norm(2.0)
    curvatures = []
    for _ in range(50):
        optimizer.zero_grad()
        (layer([x]).norm() + sign * 10 * ball.c).backward()
        optimizer.step()
        curvatures.append(ball.c.item())
        assert layer.bias.norm() < ball.c.item() ** -0.5
    assert min(curvatures) > 0
    assert (curvatures[-1] < 0.01) == (sign == 1)


def test_layers_share_one_learnable_curvature():
    ball = PoincareBall(0.7, learnable=True)
    network = Network(ball, norm=1)
    named = [name for name, _ in network.named_parameters() if "isp_c" in name]
    assert len(named) == 1


# --- The optimiser ------------------------------------------------------------------------------


def make_optimizer(layer, **params):
    params = {"lr": 0.1, "weight_decay": 0.5, **params}
    return RiemannianAdamW([{"params": list(layer.parameters())}], **params)


def set_gradients(layer, value=None):
    for p in layer.parameters():
        p.grad = torch.randn_like(p) if value is None else torch.full_like(p, value)


def test_points_of_the_manifold_go_to_geoopt_and_nothing_else():
    layer = HypergraphConvolution(1, IN, OUT, PoincareBall(1.0))
    optimizer = make_optimizer(layer)
    euclidean, riemannian = optimizer.parts
    assert type(euclidean) is torch.optim.AdamW
    assert type(riemannian) is geoopt.optim.RiemannianAdam
    points = {linear.bias.data_ptr() for linear in linears(layer)}
    assert {p.data_ptr() for g in riemannian.param_groups for p in g["params"]} == points
    others = {p.data_ptr() for g in euclidean.param_groups for p in g["params"]}
    assert others == {p.data_ptr() for p in layer.parameters()} - points


def test_the_euclidean_optimiser_can_be_chosen():
    optimizer = make_optimizer(
        linear_layer(1, IN, OUT, PoincareBall(1.0)), euclidean=torch.optim.Adam
    )
    assert type(optimizer.parts[0]) is torch.optim.Adam


def test_without_points_it_is_adamw():
    layers = [nn.Linear(IN, OUT) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    found = make_optimizer(layers[0], betas=(0.8, 0.9))
    expected = torch.optim.AdamW(layers[1].parameters(), 0.1, (0.8, 0.9), weight_decay=0.5)
    assert len(found.parts) == 1
    for _ in range(3):
        set_gradients(layers[0])
        for p, q in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
            q.grad = p.grad.clone()
        found.step()
        expected.step()
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert torch.equal(layers[0].bias, layers[1].bias)


def test_points_do_not_decay():
    layer = make_layer(linear_layer, 1.0)
    before = copy.deepcopy(layer)
    set_gradients(layer, 0.0)
    make_optimizer(layer, lr=0.1, weight_decay=5.0).step()
    assert_allclose(layer.weight.detach(), before.weight.detach() / 2, rtol=1e-12)
    assert torch.equal(layer.bias, before.bias)


def test_points_move_along_the_manifold():
    layer = make_layer(linear_layer, 1.0)
    point = layer.bias.detach().numpy()[0, 0].copy()
    set_gradients(layer)
    # The first step of Adam has the same length in every direction of a Riemannian gradient.
    gradient = ((1 - sum(point**2)) / 2) ** 2 * layer.bias.grad.numpy()[0, 0]
    make_optimizer(layer, lr=1e-3).step()
    moved = layer.bias.detach().numpy()[0, 0] - point
    assert (np.sign(moved) == -np.sign(gradient)).all()


def test_stacked_points_move_as_each_would_alone():
    stacked = PartLinear(3, 2, IN, OUT, PoincareBall(0.7)).double()
    alone = [PartLinear(1, 1, IN, OUT, PoincareBall(0.7)).double() for _ in range(6)]
    points = np.array([exp0(row, 0.7) for row in tangents(6, OUT, 0.7)])
    gradients = np.random.default_rng(0).normal(size=(4, 6, OUT))
    layers = [stacked, *alone]
    optimizers = [make_optimizer(layer) for layer in layers]
    values = [points, *points[:, None]]
    with torch.no_grad():
        for layer, value in zip(layers, values, strict=True):
            layer.bias.copy_(torch.tensor(value).view_as(layer.bias))
    for step in gradients:
        for layer, optimizer, part in zip(layers, optimizers, [step, *step], strict=True):
            set_gradients(layer, 0.0)
            layer.bias.grad = torch.tensor(part).view_as(layer.bias)
            optimizer.step()
    expected = np.concatenate([layer.bias.detach()[0] for layer in alone])
    found = stacked.bias.detach().reshape(6, OUT)
    assert np.abs(found.numpy() - points).max() > 0.01
    assert_allclose(found, expected, rtol=1e-12)


def test_a_step_returns_the_loss_of_its_closure():
    layer = linear_layer(1, IN, OUT, PoincareBall(1.0))
    set_gradients(layer)
    assert make_optimizer(layer).step(lambda: 1.5) == 1.5


def test_zero_grad_reaches_both_parts():
    layer = linear_layer(1, IN, OUT, PoincareBall(1.0))
    set_gradients(layer)
    make_optimizer(layer).zero_grad()
    assert layer.weight.grad is None
    assert layer.bias.grad is None


def test_a_schedule_changes_the_learning_rate_of_both_parts():
    layer = linear_layer(1, IN, OUT, PoincareBall(1.0))
    optimizer = make_optimizer(layer, lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
    rates = []
    for _ in range(10):
        rates.append([part.param_groups[0]["lr"] for part in optimizer.parts])
        set_gradients(layer)
        optimizer.step()
        if len(rates) < 10:
            schedule.step()
    rates = np.array(rates)
    assert_allclose(rates[:, 0], rates[:, 1])
    assert rates.max() == pytest.approx(1.0)
    assert rates[-1].max() < 1e-3


def test_a_learning_rate_of_0_moves_nothing():
    layer = make_layer(linear_layer, 1.0)
    before = copy.deepcopy(layer.state_dict())
    optimizer = make_optimizer(layer)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    set_gradients(layer)
    optimizer.step()
    for name, value in layer.state_dict().items():
        assert_allclose(value, before[name], rtol=1e-12, atol=1e-15)


def test_our_ball_has_the_curvature_of_geoopts():
    for c in (0.001, 0.7, 50.0):
        assert PoincareBall(c).c.item() == pytest.approx(geoopt.PoincareBall(c).c.item(), rel=1e-4)
        assert PoincareBall(c).c.item() == pytest.approx(c, rel=1e-4)


# --- Copies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["deepcopy", "pickle"],
)
class TestCopies:
    def test_give_the_same_outputs(self, duplicate):
        layer = make_layer(HypergraphConvolution, 0.7)
        x = torch.tensor(tangents(N_NODES, IN, 1))
        assert torch.equal(duplicate(layer)(x, make_operators()), layer(x, make_operators()))

    def test_keep_points_on_the_ball_of_the_copy(self, duplicate):
        copied = duplicate(make_layer(HypergraphConvolution, 0.7, learnable=True))
        for linear in linears(copied):
            assert linear.bias.is_on_ball
            assert linear.ball is copied.linear.ball
        optimizer = make_optimizer(copied)
        assert optimizer.points == [linear.bias for linear in linears(copied)]
        (twin,) = optimizer.parts[1].param_groups[0]["params"]
        assert twin.manifold.isp_c is copied.linear.ball.isp_c

    def test_can_be_trained(self, duplicate):
        layer = make_layer(linear_layer, 0.7)
        copied = duplicate(layer)
        set_gradients(copied)
        make_optimizer(copied).step()
        assert not torch.equal(copied.bias, layer.bias)
