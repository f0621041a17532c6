"""Graph operators against dense NumPy matrices; none of them forms a dense matrix itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skqos import SharpQoSRegressor
from skqos.datasets import make_qos
from skqos.graphs import (
    MEAN_DAMPING,
    N_BINS,
    BipartiteGraph,
    BipartiteOperators,
    ContextGraph,
    SideScales,
    to_hetero_data,
)
from skqos.prediction import encode
from skqos.preprocessing import ContextJoiner

N_USERS, N_SERVICES, DIM = 7, 9, 3
N_NODES = N_USERS + N_SERVICES
EXACT = {"rtol": 1e-12, "atol": 1e-12}
# Normalisations of a context graph are float32.
SINGLE = {"rtol": 1e-6, "atol": 1e-6}


def some_edges(seed=0, n_users=N_USERS, n_services=N_SERVICES, share=0.4):
    """Draw distinct pairs; the last user and the last two services have none."""
    present = np.random.default_rng(seed).random((n_users, n_services)) < share
    present[-1] = False
    present[:, -2:] = False
    return np.nonzero(present)


def features(n, dim=DIM, seed=1):
    return np.random.default_rng(seed).normal(size=(n, dim))


def inverse(x, power=1.0):
    """1 / x^power, and 0 where x is 0."""
    return np.where(x > 0, np.where(x > 0, x, 1) ** -power, 0)


def incidence(users, services, weights):
    """Return the dense H of shape (n_users, n_services)."""
    h = np.zeros((N_USERS, N_SERVICES))
    for user, service, weight in zip(users, services, weights, strict=True):
        h[user, service] = weight
    return h


def both_ways(h):
    """Return the dense adjacency of all nodes."""
    adjacency = np.zeros((N_NODES, N_NODES))
    adjacency[:N_USERS, N_USERS:] = h
    adjacency[N_USERS:, :N_USERS] = h.T
    return adjacency


def dense_first_hop(h, normalization="symmetric"):
    """D^-1/2 (A + I) D^-1/2 or D^-1 (A + I)."""
    with_self = both_ways(h) + np.eye(N_NODES)
    degrees = with_self.sum(1)
    if normalization == "row":
        return with_self / degrees[:, None]
    return with_self / np.sqrt(np.outer(degrees, degrees))


def dense_second_hop(h, normalization="symmetric"):
    """D_v^-1/2 H D_e^-1 H^T D_v^-1/2 or D_v^-1 H D_e^-1 H^T, of users, and of services."""
    return typed_second_hop([h], normalization)[0]


def typed_second_hop(typed, normalization):
    """Return the operator of each type of hyperedge; degrees of nodes count all types."""
    operators = [np.zeros((N_NODES, N_NODES)) for _ in typed]
    for operator, h in zip(operators, typed, strict=True):
        for part, side, whole in (
            (slice(N_USERS), h, sum(typed)),
            (slice(N_USERS, None), h.T, sum(typed).T),
        ):
            degrees = whole.sum(1)
            power = 0.5 if normalization == "symmetric" else 1.0
            received = np.diag(inverse(degrees, power))
            sent = np.diag(inverse(degrees, 1 - power)) if power < 1 else np.eye(len(degrees))
            operator[part, part] = received @ side @ np.diag(inverse(side.sum(0))) @ side.T @ sent
    return operators


def first_hop(operators, x):
    return operators.convolve(x)


def second_hop(operators, x):
    return operators.convolve_second_hop(*x.split([N_USERS, N_SERVICES]))


both_hops = pytest.mark.parametrize(
    ("convolve", "dense"),
    [(first_hop, dense_first_hop), (second_hop, dense_second_hop)],
    ids=["first", "second"],
)


def some_weights(n_edges, carrying):
    if carrying == "all":
        return np.ones(n_edges)
    return (np.random.default_rng(2).random(n_edges) < 0.5).astype(float)


def make_operators(users, services, weights, **params):
    graph = BipartiteGraph(users, services, N_USERS, N_SERVICES, **params)
    return graph(torch.tensor(weights))


# --- Bipartite graph and its hypergraphs --------------------------------------------------------


both_normalizations = pytest.mark.parametrize("normalization", ["symmetric", "row"])


@both_hops
@both_normalizations
@pytest.mark.parametrize("carrying", ["all", "some"])
def test_products_are_those_of_the_dense_operator(convolve, dense, carrying, normalization):
    users, services = some_edges()
    weights = some_weights(len(users), carrying)
    x = features(N_NODES)
    operators = make_operators(users, services, weights, normalization=normalization)
    expected = dense(incidence(users, services, weights), normalization) @ x
    assert_allclose(convolve(operators, torch.tensor(x)), expected, **EXACT)


@both_hops
@both_normalizations
@pytest.mark.parametrize("carrying", ["all", "some"])
def test_gradients_are_those_of_the_dense_operator(convolve, dense, carrying, normalization):
    users, services = some_edges()
    weights = some_weights(len(users), carrying)
    x = torch.tensor(features(N_NODES), requires_grad=True)
    upstream = features(N_NODES, seed=3)
    operators = make_operators(users, services, weights, normalization=normalization)
    found = convolve(operators, x)
    found.backward(torch.tensor(upstream))
    expected = dense(incidence(users, services, weights), normalization)
    assert_allclose(x.grad, expected.T @ upstream, **EXACT)
    # The product that keeps no gradient is another one.
    assert_allclose(found.detach(), convolve(operators, x.detach()), **EXACT)


@both_hops
def test_gradients_pass_gradcheck(convolve, dense):
    users, services = some_edges()
    operators = make_operators(users, services, np.ones(len(users)))
    x = torch.tensor(features(N_NODES, dim=2), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: convolve(operators, x), x)


@both_hops
def test_an_edge_of_weight_0_might_as_well_not_be_there(convolve, dense):
    users, services = some_edges()
    carries = some_weights(len(users), "some") == 1
    assert 0 < carries.sum() < len(users)
    x = torch.tensor(features(N_NODES))
    left_out = make_operators(users, services, carries.astype(float))
    built_without = make_operators(users[carries], services[carries], np.ones(carries.sum()))
    assert_allclose(convolve(left_out, x), convolve(built_without, x), **EXACT)


def test_degrees_count_edges_that_carry_messages():
    users, services = some_edges()
    weights = some_weights(len(users), "some")
    operators = make_operators(users, services, weights)
    h = incidence(users, services, weights)
    assert_array_equal(operators.user_degrees, h.sum(1))
    assert_array_equal(operators.service_degrees, h.sum(0))


@both_hops
def test_without_weights_all_edges_carry_messages(convolve, dense):
    users, services = some_edges()
    graph = BipartiteGraph(users, services, N_USERS, N_SERVICES)
    x = torch.tensor(features(N_NODES), dtype=torch.float32)
    assert torch.equal(convolve(graph(), x), convolve(graph(torch.ones(graph.n_edges)), x))


@both_hops
def test_the_order_of_edges_does_not_matter(convolve, dense):
    users, services = some_edges()
    weights = some_weights(len(users), "some")
    order = np.random.default_rng(4).permutation(len(users))
    x = torch.tensor(features(N_NODES))
    found = [
        convolve(make_operators(users[rows], services[rows], weights[rows]), x)
        for rows in (slice(None), order)
    ]
    assert_allclose(found[0], found[1], **EXACT)


def test_a_node_without_edges_keeps_its_features_in_the_first_hop():
    users, services = some_edges()
    x = torch.tensor(features(N_NODES))
    found = make_operators(users, services, np.ones(len(users))).convolve(x)
    lonely = [N_USERS - 1, N_NODES - 2, N_NODES - 1]
    assert_allclose(found[lonely], x[lonely], **EXACT)


def test_a_node_without_edges_gets_0_in_the_second_hop():
    users, services = some_edges()
    x = torch.tensor(features(N_NODES))
    found = second_hop(make_operators(users, services, np.ones(len(users))), x)
    lonely = [N_USERS - 1, N_NODES - 2, N_NODES - 1]
    assert (found[lonely] == 0).all()


@pytest.mark.parametrize("convolve", [first_hop, second_hop])
def test_no_edge_at_all_gives_finite_products_and_gradients(convolve):
    users, services = some_edges()
    x = torch.tensor(features(N_NODES), requires_grad=True)
    found = convolve(make_operators(users, services, np.zeros(len(users))), x)
    found.sum().backward()
    expected = x.detach() if convolve is first_hop else torch.zeros_like(x)
    assert torch.equal(found, expected)
    assert x.grad.isfinite().all()


# --- Edges with values --------------------------------------------------------------------------


def some_values(n_edges, seed=5):
    return np.random.default_rng(seed).gamma(1.0, size=n_edges)


def slow_bins(users, services, values, weights, residuals):
    """Return the types of each edge for users and for services: residuals cut at three of them."""
    carrying = [k for k, weight in enumerate(weights) if weight]

    def less_means(values, nodes):
        means = {}
        for node in set(nodes):
            mine = [values[k] for k in carrying if nodes[k] == node]
            means[node] = sum(mine) / (len(mine) + MEAN_DAMPING)
        return np.array([v - means[node] for v, node in zip(values, nodes, strict=True)])

    def cut(values):
        ranked = sorted(values[k] for k in carrying)
        bounds = [ranked[b * len(ranked) // N_BINS - 1] for b in range(1, N_BINS)]
        return np.array([sum(bound < v for bound in bounds) for v in values])

    centred = values - np.mean([values[k] for k in carrying])
    if residuals == "both":
        return [cut(less_means(less_means(centred, services), users))] * 2
    return [cut(less_means(centred, senders)) for senders in (services, users)]


def make_typed(weights=None, values=None, residuals="both", **params):
    """Return operators of a graph with values, types, and incidences by type for either side."""
    users, services = some_edges()
    values = some_values(len(users)) if values is None else values
    weights = np.ones(len(users)) if weights is None else weights
    params |= {"values": values, "residuals": residuals}
    operators = make_operators(users, services, weights, **params)
    bins = slow_bins(users, services, values, weights, residuals)
    typed = [
        [incidence(users, services, weights * (of_side == b)) for b in range(N_BINS)]
        for of_side in bins
    ]
    return operators, bins, typed


both_residuals = pytest.mark.parametrize("residuals", ["both", "sender"])


def typed_features(n_parts, dim=DIM):
    return features(n_parts * N_NODES, dim).reshape(n_parts, N_NODES, dim)


def by_blocks(x, part):
    """Lay the rows of one side for each type below each other."""
    return torch.tensor(x[:, part]).flatten(0, 1)


def typed_hops(operators, x):
    """Return both products of features (N_BINS + 1, n_nodes, dim)."""
    sides = by_blocks(x[:-1], slice(N_USERS)), by_blocks(x[:-1], slice(N_USERS, None))
    return operators.convolve(torch.tensor(x).flatten(0, 1)), operators.convolve_second_hop(*sides)


@both_residuals
@pytest.mark.parametrize("carrying", ["all", "some"])
def test_types_are_quantiles_of_residuals(carrying, residuals):
    weights = some_weights(len(some_edges()[0]), carrying)
    operators, bins, _ = make_typed(weights, residuals=residuals)
    for found, expected in zip(operators.bins, bins, strict=True):
        assert_array_equal(found, expected)
        counts = np.bincount(expected[weights > 0])
        assert len(counts) == N_BINS
        assert counts.max() - counts.min() <= 2
    assert torch.equal(*operators.bins) == (residuals == "both")


def test_types_depend_neither_on_the_unit_nor_on_an_offset():
    values = some_values(len(some_edges()[0]))
    operators, bins, _ = make_typed(values=1000 * values + 7)
    assert_array_equal(operators.bins[0], bins[0])
    assert_array_equal(bins[0], make_typed(values=values)[1][0])


@both_residuals
def test_a_graph_without_edges_has_no_types(residuals):
    nobody = np.arange(0)
    graph = BipartiteGraph(nobody, nobody, 3, 2, values=np.zeros(0), residuals=residuals)
    for bins in graph.bins(torch.ones(0)):
        assert (bins.shape, bins.dtype) == ((0,), torch.int64)


def test_types_by_the_sender_tell_the_level_of_the_receiver():
    users, services = np.divmod(np.arange(48), 6)
    values = users + np.random.default_rng(0).normal(scale=0.1, size=48)
    graph = BipartiteGraph(users, services, 8, 6, values=values, residuals="sender")
    of_users, of_services = graph.bins(torch.ones(48))
    assert_array_equal(of_users, users * N_BINS // 8)
    # No service is better than another.
    assert np.ptp(np.bincount(services, of_services, 6)) < 8


@both_residuals
@both_normalizations
@pytest.mark.parametrize("carrying", ["all", "some"])
def test_typed_products_are_those_of_dense_operators(carrying, normalization, residuals):
    weights = some_weights(len(some_edges()[0]), carrying)
    operators, _, typed = make_typed(weights, residuals=residuals, normalization=normalization)
    x = typed_features(N_BINS + 1)
    degrees = both_ways(sum(typed[0])).sum(1) + 1
    scale = degrees[:, None] if normalization == "row" else np.sqrt(np.outer(degrees, degrees))
    found = typed_hops(operators, x)
    sides = slice(N_USERS), slice(N_USERS, None)
    for rows, of_side in zip(sides, typed, strict=True):
        first = x[-1] + sum(both_ways(h) / scale @ x[b] for b, h in enumerate(of_side))
        dense = typed_second_hop(of_side, normalization)
        second = sum(operator @ x[b] for b, operator in enumerate(dense))
        for product, expected in zip(found, (first, second), strict=True):
            assert_allclose(product[rows], expected[rows], **EXACT)


def test_gradients_of_typed_products_pass_gradcheck():
    operators, _, _ = make_typed()
    x = torch.tensor(typed_features(N_BINS + 1, dim=1), requires_grad=True)

    def both(x):
        sides = x[:-1].split([N_USERS, N_SERVICES], dim=1)
        second = operators.convolve_second_hop(*(side.flatten(0, 1) for side in sides))
        return operators.convolve(x.flatten(0, 1)), second

    assert torch.autograd.gradcheck(both, x)


@both_residuals
def test_an_edge_that_is_left_out_tells_nothing_of_its_value(residuals):
    """Neither as a message nor by the means and bins that type the other edges."""
    n_edges = len(some_edges()[0])
    weights = some_weights(n_edges, "some")
    x = typed_features(N_BINS + 1)
    values = some_values(n_edges)
    other = np.where(weights > 0, values, 100 * some_values(n_edges, seed=6))
    found, expected = (typed_hops(make_typed(weights, v, residuals)[0], x) for v in (other, values))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    # With all edges the values matter.
    found, expected = (typed_hops(make_typed(None, v, residuals)[0], x) for v in (other, values))
    assert not any(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_without_edges_typed_products_are_the_own_features():
    users, _ = some_edges()
    operators = make_operators(*some_edges(), np.zeros(len(users)), values=some_values(len(users)))
    x = typed_features(N_BINS + 1)
    first, second = typed_hops(operators, x)
    assert_array_equal(first, x[-1])
    assert (second == 0).all()


@pytest.mark.parametrize("values", [None, some_values(2000)], ids=["binary", "values"])
def test_dropout_drops_a_share_of_the_edges_but_no_statistics(values):
    cells = np.random.default_rng(0).permutation(100 * 80)[:2000]
    graph = BipartiteGraph(*np.divmod(cells, 80), 100, 80, values=values)
    held_out = (torch.arange(2000) % 2).float()
    torch.manual_seed(0)
    dropped, again, whole = graph(held_out, 0.3), graph(held_out, 0.3), graph(held_out)
    if values is not None:
        assert torch.equal(dropped.bins[0], whole.bins[0])
        dropped, again, whole = dropped.untyped, again.untyped, whole.untyped
    assert (dropped.weights[held_out == 0] == 0).all()
    assert dropped.weights.sum().item() == pytest.approx(700, abs=50)
    assert dropped.user_degrees.sum() == dropped.weights.sum()
    assert not torch.equal(dropped.weights, again.weights)
    assert torch.equal(whole.weights, held_out)


# --- Learnt scales of the sides -----------------------------------------------------------------


def test_side_scales_multiply_the_sides_of_each_member():
    scales = SideScales(2)
    with torch.no_grad():
        scales.factors.copy_(torch.tensor([[2.0, 3.0], [5.0, 7.0]]))
    x = np.arange(12.0).reshape(3, 4)
    expected = x * np.array([[2, 2, 3, 3], [5, 5, 7, 7], [5, 5, 7, 7]])
    assert_allclose(scales(torch.tensor(x), (1, 2)).detach(), expected)
    # The same, one side at a time and members first.
    for side, rows in enumerate((slice(0, 1), slice(1, 3))):
        members_first = torch.tensor(x[rows]).unflatten(1, (2, 2)).transpose(0, 1)
        found = scales.of_side(members_first, side).transpose(0, 1).flatten(1)
        assert_allclose(found.detach(), expected[rows])


# --- Context graph ------------------------------------------------------------------------------

# Codes of each row, and how many nodes it stands for.
CONTEXTS = {
    "one column": ([[0], [1], [2], [1], [0]], [2, 1, 3, 2, 1]),
    "unknown": ([[0], [-1], [1], [-1], [0]], [2, 3, 1, 1, 2]),
    "all unknown": ([[-1], [-1]], [2, 3]),
    "two columns": ([[0, 1], [0, 0], [1, 1], [-1, 0], [1, -1], [-1, -1]], [2, 1, 3, 2, 1, 2]),
    "three columns": ([[0, 0, 0], [0, 1, 0], [2, 1, 0], [1, 0, -1]], [3, 1, 2, 2]),
    "newcomers": ([[0, 1], [1, 0], [0, 1], [0, -1], [-1, -1], [2, 1]], [2, 3, 0, 0, 0, 0]),
}
every_context = pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS.keys())


def dense_context(categories, counts):
    """Return the operator among rows, by way of one among all nodes that they stand for."""
    row_of_node, sends = [], []
    for row, count in enumerate(counts):
        row_of_node += [row] * max(count, 1)
        sends += [count > 0] * max(count, 1)
    n = len(row_of_node)
    adjacency = np.zeros((n, n))
    for column in np.transpose(categories):
        for i in range(n):
            for j in range(n):
                ours, theirs = column[row_of_node[i]], column[row_of_node[j]]
                if i != j and sends[j] and ours == theirs >= 0:
                    adjacency[i, j] += 1
    among_nodes = normalise_rows(adjacency)
    spread = np.eye(len(counts))[row_of_node]
    first_node = np.unique(row_of_node, return_index=True)[1]
    return among_nodes[first_node] @ spread


def normalise_rows(adjacency):
    """D^-1/2 (A + I) D^-1/2 with degrees of what a node receives."""
    degrees = adjacency.sum(1) + 1
    return (adjacency + np.eye(len(adjacency))) / np.sqrt(np.outer(degrees, degrees))


def make_context(categories, counts):
    return ContextGraph(torch.tensor(categories), torch.tensor(counts))


@every_context
def test_a_context_graph_multiplies_as_the_dense_operator_among_all_nodes(context):
    x = features(len(context[0]))
    found = make_context(*context).convolve(torch.tensor(x))
    assert_allclose(found, dense_context(*context) @ x, **SINGLE)


@every_context
def test_gradients_of_a_context_graph_are_those_of_the_dense_operator(context):
    x = torch.tensor(features(len(context[0])), requires_grad=True)
    upstream = features(len(context[0]), seed=3)
    make_context(*context).convolve(x).backward(torch.tensor(upstream))
    assert_allclose(x.grad, dense_context(*context).T @ upstream, **SINGLE)


def test_gradients_of_a_context_graph_pass_gradcheck():
    context = CONTEXTS["two columns"]
    x = torch.tensor(features(len(context[0]), dim=2), requires_grad=True)
    assert torch.autograd.gradcheck(make_context(*context).convolve, x)


def test_one_row_stands_for_equal_nodes():
    categories, counts = CONTEXTS["two columns"]
    x = torch.tensor(features(len(counts)))
    rows = np.repeat(np.arange(len(counts)), counts)
    apart = make_context(np.array(categories)[rows], np.ones(len(rows), dtype=int))
    together = make_context(categories, counts).convolve(x)
    assert_allclose(apart.convolve(x[rows]), together[rows], **SINGLE)


def test_a_row_that_stands_for_no_node_sends_nothing():
    categories, counts = CONTEXTS["newcomers"]
    known = [row for row, count in enumerate(counts) if count]
    x = torch.tensor(features(len(counts)))
    with_newcomers = make_context(categories, counts).convolve(x)
    alone = make_context([categories[row] for row in known], [counts[row] for row in known])
    assert_allclose(with_newcomers[known], alone.convolve(x[known]), **SINGLE)


def test_a_row_without_categories_keeps_its_features():
    categories, counts = CONTEXTS["two columns"]
    x = torch.tensor(features(len(counts)))
    assert_allclose(make_context(categories, counts).convolve(x)[-1], x[-1], **SINGLE)


# --- Both ---------------------------------------------------------------------------------------


def make_bipartite():
    return BipartiteGraph(*some_edges(), N_USERS, N_SERVICES)


@pytest.mark.parametrize("make", [make_bipartite, lambda: make_context(*CONTEXTS["two columns"])])
def test_every_tensor_is_a_buffer(make):
    graph = make()
    assert len(list(graph.buffers())) > 0
    for part in graph.modules():
        loose = [name for name, value in vars(part).items() if holds_a_tensor(value)]
        assert set(loose) <= {"_buffers"}


def holds_a_tensor(value):
    return any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(value))


# --- Nothing over pairs of nodes ----------------------------------------------------------------


class LargestTensor(TorchDispatchMode):
    """Record the most numbers that any tensor made in here holds, backward passes included."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.size = max(self.size, stored_numbers(leaf))
        return made


def stored_numbers(tensor):
    if tensor.layout == torch.sparse_csr:
        parts = tensor.values(), tensor.col_indices(), tensor.crow_indices()
        return sum(part.numel() for part in parts)
    if tensor.layout == torch.sparse_coo:
        return tensor._values().numel() + tensor._indices().numel()
    assert tensor.layout == torch.strided
    return tensor.numel()


def dense_adjacency(operators):
    """Return the matrix that is never made: (n_users, n_services)."""
    graph = operators.graph
    found = torch.zeros(graph.n_users, graph.n_services)
    found[graph.users.long(), graph.services.long()] = operators.weights
    return found


def dense_second_hop_product(operators, x_users, x_services):
    """Do the work of `convolve_second_hop` the forbidden way."""
    h = dense_adjacency(operators)
    user, service = operators.user_degrees.clamp(min=1), operators.service_degrees.clamp(min=1)
    scaled = h / user.sqrt().unsqueeze(1)
    users = scaled @ ((scaled.T @ x_users) / service.unsqueeze(1))
    scaled = h / service.sqrt()
    services = scaled.T @ ((scaled @ x_services) / user.unsqueeze(1))
    return torch.cat([users, services])


def convolve_with_gradient(name, n_users=300, n_services=400, dim=2):
    """Return the largest tensor of a product and its gradient, and a bound that is linear."""
    users, services = some_edges(n_users=n_users, n_services=n_services, share=0.01)
    n_nodes = n_users + n_services
    x = torch.randn(n_nodes, dim, requires_grad=True)
    parts = n_users, n_services
    context = torch.arange(n_nodes).unsqueeze(1) % torch.tensor([5, 3])
    with LargestTensor() as largest:
        if name == "context":
            y = ContextGraph(context, torch.ones(n_nodes)).convolve(x)
        elif name == "first hop":
            y = BipartiteGraph(users, services, *parts)().convolve(x)
        elif name == "second hop":
            y = BipartiteGraph(users, services, *parts)().convolve_second_hop(*x.split(parts))
        elif name == "typed":
            graph = BipartiteGraph(users, services, *parts, values=some_values(len(users)))
            operators = graph()
            blocks = [part.repeat(N_BINS, 1) for part in x.split(parts)]
            y = operators.convolve_second_hop(*blocks) + operators.convolve(x.repeat(N_BINS + 1, 1))
        else:
            operators = BipartiteGraph(users, services, *parts)()
            y = dense_second_hop_product(operators, *x.split(parts))
        y.square().sum().backward()
    assert x.grad is not None
    return largest.size, 2 * len(users) + 2 * n_nodes * dim


@pytest.mark.parametrize("name", ["first hop", "second hop", "context", "typed"])
def test_products_form_nothing_larger_than_edges_and_features(name):
    size, linear = convolve_with_gradient(name)
    if name == "typed":
        linear *= N_BINS + 1
    assert linear < 300 * 400 / 2
    assert 700 * 2 <= size <= linear


def test_what_is_made_in_a_backward_pass_is_noticed():
    x = torch.ones(1, requires_grad=True)
    x.register_hook(lambda gradient: gradient * torch.ones(1000).sum())
    with LargestTensor() as largest:
        (2 * x).backward()
    assert largest.size == 1000


def test_a_dense_product_is_noticed():
    size, _ = convolve_with_gradient("dense")
    assert size >= 300 * 400


@pytest.fixture(scope="module")
def sparse_qos():
    data = make_qos(300, 400, density=0.01, n_qos=2, random_state=0)
    return ContextJoiner(data.users, data.services).fit_transform(data.X), data.y


def fit_tiny(data):
    """Fit for an epoch; return the largest tensor of it, and the fitted network."""
    model = SharpQoSRegressor(
        user_features=["user_as", "user_latitude"],
        service_features=["service_as"],
        convolution="hhgcn",
        n_members=1,
        max_epochs=1,
        batch_size=256,
        n_factors=2,
        context_dim=2,
        autoencoder_epochs=2,
        hidden_dim=3,
        n_blocks=2,
        n_cross_blocks=2,
        routed_dim=4,
        output_dim=4,
        random_state=0,
    )
    with LargestTensor() as largest:
        model.fit(*data)
    return largest.size, model


def pairs_of(model):
    """Number of pairs of a user and a service, fewer than those of any two nodes."""
    n_users, n_services = model.module_.graphs[0].graph.by_user.shape
    assert n_users * n_services > 100_000
    return n_users * n_services


@pytest.fixture(scope="module")
def fitted(sparse_qos):
    return fit_tiny(sparse_qos)


def test_training_forms_no_matrix_over_pairs(fitted):
    size, model = fitted
    assert 0 < size < pairs_of(model) / 8


def test_encoding_forms_no_matrix_over_pairs(fitted):
    _, model = fitted
    newcomers = model.users_.table_.take([0, 1]), model.services_.table_.take([0, 1, 2])
    with LargestTensor() as largest, torch.no_grad():
        encoded = encode(model.module_, *newcomers)
    assert encoded.users.shape[-2] * encoded.services.shape[-2] > pairs_of(model)
    assert 0 < largest.size < pairs_of(model) / 8


def test_a_dense_product_in_training_is_noticed(sparse_qos, monkeypatch):
    monkeypatch.setattr(BipartiteOperators, "convolve_second_hop", dense_second_hop_product)
    size, model = fit_tiny(sparse_qos)
    assert size >= pairs_of(model)


# --- torch-geometric ----------------------------------------------------------------------------


def test_interactions_as_hetero_data():
    qos = make_qos(12, 15, density=0.4, n_qos=2, random_state=0)
    data = to_hetero_data(qos.X, qos.y, qos.users, qos.services)
    assert data.validate()
    edges = data["user", "measured", "service"]
    ids = [
        data[side].ids[codes] for side, codes in zip(data.node_types, edges.edge_index, strict=True)
    ]
    assert_array_equal(np.column_stack(ids), qos.X)
    assert_allclose(edges.edge_attr, qos.y, rtol=1e-6)
    numeric = qos.users.loc[data["user"].ids].select_dtypes("number").to_numpy()
    expected = np.nan_to_num((numeric - np.nanmean(numeric, 0)) / np.nanstd(numeric, 0))
    assert_allclose(data["user"].x, expected, rtol=1e-4, atol=1e-4)
    assert data["user"].categories.shape == (len(data["user"].ids), 3)
    codes = data["user"].categories
    assert codes.dtype == torch.int64
    for column, (_, values) in zip(
        codes.T, qos.users.loc[data["user"].ids].select_dtypes("category").items(), strict=True
    ):
        unknown = values.isna().to_numpy()
        assert_array_equal(column.numpy() == -1, unknown)
        # One code for each category, without gaps.
        known = pd.DataFrame({"code": column.numpy(), "value": values.astype(object)})[~unknown]
        assert known["code"].nunique() == known["value"].nunique() == len(known.drop_duplicates())
        assert set(known["code"]) == set(range(known["code"].nunique()))


def test_hetero_data_without_context():
    data = to_hetero_data([["a", 1], ["b", 2], ["a", 2]], [1.0, np.nan, 3.0])
    assert data["user"].ids.tolist() == ["a", "b"]
    assert data["service"].x.shape == (2, 0)
    assert data["user", "measured", "service"].edge_index.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert data["user", "measured", "service"].edge_attr.isnan().sum() == 1


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[1, 2], [3, 4]], [1.0], "numbers of samples"),
        ([[1], [3]], [1.0, 2.0], "minimum of 2 is required"),
        ([[1, 2], [3, 4]], [[[1.0]], [[2.0]]], "y"),
    ],
)
def test_hetero_data_of_bad_input(X, y, message):
    with pytest.raises(ValueError, match=message):
        to_hetero_data(X, y)
