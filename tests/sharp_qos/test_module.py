"""The network of SHARP-QoS: its parts against loops, training pass against prediction."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skqos.entities import UNKNOWN, EntityTable
from skqos.graphs import BipartiteGraph
from skqos.prediction import encode
from skqos.sharp_qos import module as sharp_qos_module
from skqos.sharp_qos.context import ContextColumn
from skqos.sharp_qos.hyperbolic import PoincareBall, mobius_translate
from skqos.sharp_qos.module import ContextConvolution, NumericContext, SharpQoSModule
from skqos.sharp_qos.qos_graph import QoSGraph
from skqos.training import seeded

N_USERS, N_SERVICES, TASKS = 5, 6, 2
FACTORS, DIM, HIDDEN, OUT = 4, 3, 6, 5
SINGLE = {"rtol": 1e-4, "atol": 1e-6}
NAN = np.nan


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def numpy(tensor):
    return tensor.detach().numpy()


def table(categories, numerics=None):
    categories = np.array(categories, dtype=np.int64)
    if numerics is None:
        numerics = np.empty((len(categories), 0))
    return EntityTable(categories, np.array(numerics, dtype=np.float32))


# Users and services share one column (categories of users: x, y, z; of services: y, w) and have
# one more each.
USERS = table(
    [[0, 0], [0, 1], [1, 0], [2, 1], [0, 0]], [[1, NAN], [0, 2], [-1, 0], [1, -2], [0, 0]]
)
SERVICES = table([[0, 0], [1, 0], [1, 1], [0, 0], [1, 2], [1, 0]], np.linspace(-2, 2, 6)[:, None])
SHARED = ContextColumn(0, 0, 3, np.array([0, 1, 2, 1, 3]))
OF_USERS = ContextColumn(1, None, 2, np.array([0, 1]))
OF_SERVICES = ContextColumn(None, 1, 0, np.array([0, 1, 2]))
NO_USERS = table(np.empty((0, 2)), np.empty((0, 2)))
NO_SERVICES = table(np.empty((0, 2)), np.empty((0, 1)))
NEW_USERS = table([[1, UNKNOWN], [UNKNOWN, UNKNOWN]], [[0.5, NAN], [NAN, NAN]])
NEW_SERVICES = table([[UNKNOWN, 2]], [[NAN]])


def random_codes(column, dim=3):
    return np.random.default_rng(len(column.groups)).normal(size=(len(column.groups), dim))


def make_context(graphs, n_layers=2, curvature=1.0, n_members=1):
    """Return context convolutions whose biases are not 0."""
    context = ContextConvolution(
        graphs,
        [[random_codes(column) for column in columns] for columns in graphs],
        USERS,
        SERVICES,
        n_members=n_members,
        dim=DIM,
        n_layers=n_layers,
        ball=None if curvature is None else PoincareBall(curvature),
        fine_tune=True,
    )
    with torch.no_grad():
        context.features.normal_()
        for layer in context.layers:
            layer.linear.bias.uniform_(0.0, 0.05)
    return context


# --- The module ---------------------------------------------------------------------------------

# Each node keeps an edge where the first two of either task are left out.
PAIRS = [
    [(0, 0), (1, 1), (0, 1), (1, 0), (2, 2), (3, 3), (4, 4), (2, 5), (3, 2), (4, 3)],
    [(1, 1), (2, 0), (1, 0), (2, 1), (0, 3), (3, 4), (4, 5), (0, 4), (3, 2), (4, 2)],
]


def make_module(pairs=PAIRS, convolution="hhgcn", context=True, n_members=1, **params):
    """Return a module in evaluation mode, the same weights for the same shapes; no dropout."""
    torch.manual_seed(0)
    ball = PoincareBall(1.0) if convolution in ("hhgcn", "hygcn") else None
    graphs = [
        QoSGraph(
            BipartiteGraph(
                *np.array(cells).T,
                N_USERS,
                N_SERVICES,
                values=params["values"][task] if "values" in params else None,
            ),
            np.random.default_rng(task).random(
                (*params.get("n_folds", ()), N_USERS + N_SERVICES, FACTORS)
            ),
            n_members=n_members,
            dim=DIM,
            n_layers=2,
            convolution=convolution,
            ball=ball,
            dropout=params.get("feature_dropout", 0.0),
            edge_dropout=params.get("edge_dropout", 0.0),
            side_scales=params.get("side_scales", False),
            newcomer_share=0.0,
            fine_tune=True,
            context_dim=4 * DIM if params.get("sends_context") else 0,
        )
        for task, cells in enumerate(pairs)
    ]
    with torch.no_grad():
        for graph in graphs:
            # As after training: entities differ.
            graph.features.normal_()
    columns = [[SHARED], [OF_USERS], [OF_SERVICES]]
    numbers = [NumericContext(table, n_members, DIM) for table in (USERS, SERVICES)]
    return SharpQoSModule(
        graphs,
        make_context(columns, n_members=n_members) if context else None,
        tuple(numbers) if context else None,
        context_dim=4 * DIM if context else 0,
        n_members=n_members,
        hidden_dim=HIDDEN,
        out_dim=OUT,
        routing=params.get("routing", True),
        cross_routing=params.get("cross_routing", True),
        n_blocks=2,
        n_cross_blocks=3,
        gate_temperature=2 / 3,
        gate_log_odds=0.0,
        l0_penalty=params.get("l0_penalty", 0.25),
        context_dropout=params.get("context_dropout", 0.0),
        newcomer_share=params.get("newcomer_share", 0.0),
        sends_context=params.get("sends_context", False),
        start=np.array([0.3, -0.2, 0.1])[: len(pairs)],
    ).eval()


def train_without_chance(module):
    """Set to training mode all but the gates, which would draw."""
    module.train()
    for name in ("router", "cross_router"):
        if getattr(module, name) is not None:
            getattr(module, name).gates.eval()
    return module


def predict(module, *pairs):
    """Average over the members."""
    return numpy(module(*pairs).mean(0))


def all_pairs():
    users, services = np.indices((N_USERS, N_SERVICES)).reshape(2, -1)
    return torch.tensor(users), torch.tensor(services)


VARIANTS = [
    {},
    {"convolution": "hygcn"},
    {"convolution": "gcn"},
    {"convolution": "none"},
    {"context": False},
    {"routing": False},
    {"cross_routing": False},
    {"context": False, "cross_routing": False},
    {"pairs": PAIRS[:1]},
    {"pairs": [*PAIRS, PAIRS[0]]},
    {"n_members": 3},
    {"sends_context": True},
    {"convolution": "hygcn", "sends_context": True, "n_folds": (3,)},
    {"convolution": "none", "n_folds": (3,)},
]
every_variant = pytest.mark.parametrize("params", VARIANTS, ids=str)


@every_variant
def test_encode_and_score_equal_the_training_pass_in_evaluation_mode(params):
    module = make_module(**params)
    users, services = all_pairs()
    expected = predict(module, users, services)
    assert expected.shape == (len(users), len(module.graphs))
    assert np.ptp(expected, axis=0).min() > 1e-3
    encoded = encode(module, NEW_USERS, NEW_SERVICES)
    stack = len(module.graphs), module.n_members
    assert encoded.users.shape[:3] == (*stack, N_USERS + 2)
    assert encoded.services.shape[:3] == (*stack, N_SERVICES + 1)
    assert_allclose(numpy(module.score(encoded, users, services)), expected, **SINGLE)


@every_variant
def test_a_prediction_is_the_product_of_its_two_sides_and_a_constant(params):
    module = make_module(**params)
    encoded = encode(module, NEW_USERS, NEW_SERVICES)
    users, services = encoded.users, encoded.services
    pair = torch.tensor([N_USERS + 1]), torch.tensor([N_SERVICES])
    expected = [
        np.mean(
            [
                numpy(users[task, k, -1]) @ numpy(services[task, k, -1])
                + numpy(module.bias)[k, task]
                for k in range(module.n_members)
            ]
        )
        for task in range(len(module.graphs))
    ]
    assert_allclose(numpy(module.score(encoded, *pair))[0], expected, **SINGLE)


def test_predictions_of_a_batch_do_not_depend_on_the_other_rows():
    module = make_module()
    users, services = all_pairs()
    expected = predict(module, users, services)
    shuffled = torch.randperm(len(users))[:13]
    found = predict(module, users[shuffled], services[shuffled])
    assert_allclose(found, expected[shuffled], **SINGLE)


def test_the_start_is_what_it_predicts_beside_the_product():
    module = make_module()
    with torch.no_grad():
        for parameter in module.user_head[-1].parameters():
            parameter.zero_()
    assert_allclose(predict(module, *all_pairs()), np.tile([0.3, -0.2], (30, 1)), rtol=1e-6)


# --- Disjoint supervision -----------------------------------------------------------------------


def held_out_edges():
    """A batch of three pairs: the first two edges of either task, and a pair that has none."""
    users, services = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 0])
    edges = torch.tensor([[0, -1], [1, 0], [-1, 1]])
    return users, services, edges


@pytest.mark.parametrize("convolution", ["hhgcn", "hygcn", "gcn"])
def test_supervising_edges_might_as_well_not_be_there(convolution):
    users, services, edges = held_out_edges()
    full = train_without_chance(make_module(convolution=convolution))
    lacking = [cells[2:] for cells in PAIRS]
    reduced = train_without_chance(make_module(lacking, convolution=convolution))
    found = predict(full, users, services, edges)
    assert_allclose(found, predict(reduced, users, services), **SINGLE)
    with_all_edges = predict(full, users, services)
    assert np.abs(found - with_all_edges).max(axis=0).min() > 1e-3


@pytest.mark.parametrize("convolution", ["hhgcn", "hygcn", "gcn"])
def test_predictions_do_not_see_the_values_of_their_own_edges(convolution):
    users, services, edges = held_out_edges()
    values = [np.linspace(0, 1, len(cells)) for cells in PAIRS]
    others = [of_task.copy() for of_task in values]
    for task, of_task in enumerate(others):
        of_task[edges[edges[:, task] >= 0, task]] = [9.0, -9.0]
    found, expected = (make_module(convolution=convolution, values=v) for v in (others, values))
    assert_array_equal(
        predict(found, users, services, edges), predict(expected, users, services, edges)
    )
    # Where all edges carry messages, values matter.
    assert (predict(found, users, services) != predict(expected, users, services)).any()


def test_edges_are_held_out_of_the_graph_of_their_own_task_alone():
    module = train_without_chance(make_module(cross_routing=False))
    users, services, edges = held_out_edges()
    edges[:, 1] = -1
    found = predict(module, users, services, edges) - predict(module, users, services)
    assert np.abs(found[:, 0]).min() > 1e-4
    assert_allclose(found[:, 1], 0, atol=1e-6)


def test_pairs_are_predicted_from_the_factors_of_their_fold_alone():
    module = make_module(n_folds=(3,))
    users, services, edges = held_out_edges()
    folds = torch.full((3,), 1)
    expected = predict(module, users, services, edges, folds)
    for graph in module.graphs:
        graph.fold_features[[0, 2]] = NAN
    assert_array_equal(predict(module, users, services, edges, folds), expected)
    for graph in module.graphs:
        graph.fold_features[1] += 0.1
    assert (predict(module, users, services, edges, folds) != expected).all()


@pytest.mark.parametrize("sends", [True, False])
def test_the_context_of_neighbours_travels_over_the_graph_or_not(sends):
    """The context of all services changes, and that of no user."""
    module = make_module(convolution="gcn", sends_context=sends)
    before = encode(module, NEW_USERS, NEW_SERVICES)
    with torch.no_grad():
        module.numbers[1].bias.add_(1.0)
    after = encode(module, NEW_USERS, NEW_SERVICES)
    is_changed = (before.users != after.users).flatten(0, 1).any(dim=-1).all(dim=0)
    # Unknown users, the last ones, have the average structural features of the known ones.
    assert is_changed.tolist() == [sends] * (N_USERS + 2)


@pytest.mark.parametrize("training", [False, True])
def test_no_edges_given_means_that_all_carry_messages(training):
    module = make_module()
    if training:
        train_without_chance(module)
    users, services, edges = held_out_edges()
    none_held_out = predict(module, users, services, torch.full_like(edges, -1))
    assert_allclose(predict(module, users, services), none_held_out, **SINGLE)


def test_entities_need_not_be_counted_where_that_would_wait(monkeypatch):
    """What is done beside a CPU predicts the same; tensors of "meta" have no values to count."""
    codes, positions = sharp_qos_module._distinct(torch.tensor([3, 1, 3], device="meta"))
    assert codes.shape == positions.shape == (3,)
    module = make_module()
    expected = predict(module, *all_pairs())
    monkeypatch.setattr(
        sharp_qos_module, "_distinct", lambda codes: (codes, torch.arange(len(codes)))
    )
    assert_allclose(predict(module, *all_pairs()), expected, **SINGLE)


# --- Chance in training -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["feature_dropout", "context_dropout", "newcomer_share"])
def test_regularisers_act_in_training_alone(name):
    module = make_module(**{name: 0.5})
    plain = make_module()
    assert_allclose(predict(module, *all_pairs()), predict(plain, *all_pairs()), **SINGLE)
    train_without_chance(module)
    first, second = (predict(module, *all_pairs()) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_a_share_of_the_entities_is_trained_on_as_newcomers():
    """All of them as newcomers, without context: all pairs are the pair of two newcomers."""
    module = train_without_chance(make_module(context=False, newcomer_share=1.0 - 1e-9))
    found = predict(module, *all_pairs())
    newcomers = encode(module.eval(), NEW_USERS, NEW_SERVICES)
    pair = torch.tensor([N_USERS]), torch.tensor([N_SERVICES])
    assert_allclose(found, np.tile(numpy(module.score(newcomers, *pair)), (30, 1)), **SINGLE)
    assert np.ptp(predict(module, *all_pairs()), axis=0).min() > 1e-3


# --- Structure ----------------------------------------------------------------------------------


def test_outputs_of_a_graph_are_parted_by_side():
    """User 4 and service 5 have no edge in this task."""
    graph = make_module([PAIRS[0][:6], PAIRS[1]]).graphs[0]
    outputs = graph()
    of_users, of_services = graph.split(outputs)
    assert [x.shape[1] for x in outputs] == [FACTORS, DIM, DIM]
    assert graph.out_dim == FACTORS + 2 * DIM
    assert of_users.connected.flatten().tolist() == [True] * 4 + [False]
    assert of_services.connected.flatten().tolist() == [True] * 4 + [False] * 2
    joined = np.hstack([numpy(x) for x in outputs])
    third = torch.tensor([2])
    assert_allclose(numpy(of_users.take(third))[0, 0], joined[2], **SINGLE)
    assert_allclose(numpy(of_services.take(third))[0, 0], joined[N_USERS + 2], **SINGLE)


def test_a_known_service_without_edges_in_a_task_is_predicted_from_the_average():
    """Nothing told training what its own features would do to that task's predictions."""
    module = make_module([PAIRS[0][:6], PAIRS[1]], context=False, cross_routing=False)
    user = torch.tensor([0])
    before = predict(module, user, torch.tensor([5]))[0]
    with torch.no_grad():
        module.graphs[0].features[N_USERS + 5] = 1e3
    after = predict(module, user, torch.tensor([5]))[0]
    assert_allclose(after[0], before[0], **SINGLE)


def test_a_graph_that_nothing_convolves_is_not_kept():
    module = make_module(convolution="none")
    assert all(graph.graph is None for graph in module.graphs)
    new = BipartiteGraph(np.array([1]), np.array([N_SERVICES]), N_USERS, N_SERVICES + 1)
    graph = module.graphs[0]
    before = graph.services_connected.clone()
    graph.grow(new)
    assert graph.graph is None
    assert torch.equal(graph.services_connected[:-1], before)
    assert graph.services_connected[-1]


# --- Context graphs -----------------------------------------------------------------------------


def slow_context(context, graph, columns, new_codes, member=0):
    """Convolve nodes one by one, newcomers after users and services; newcomers send nothing.

    graph : the position of the columns among the graphs.
    new_codes : one row a newcomer, one column per context column.
    """
    codes = np.vstack(
        [
            np.column_stack([column.user_codes(USERS) for column in columns]),
            np.column_stack([column.service_codes(SERVICES) for column in columns]),
            np.array(new_codes, dtype=np.int64).reshape(-1, len(columns)),
        ]
    )
    n, n_known = len(codes), N_USERS + N_SERVICES
    adjacency = np.eye(n)
    for i in range(n):
        for j in range(n_known):
            for column, ours, theirs in zip(columns, codes[i], codes[j], strict=True):
                if i != j and min(ours, theirs) >= 0:
                    adjacency[i, j] += column.groups[ours] == column.groups[theirs] >= 0
    degrees = adjacency.sum(1)
    operator = torch.tensor(adjacency / np.sqrt(np.outer(degrees, degrees)), dtype=torch.float32)
    sizes = [[len(column.groups) for column in columns] for columns in context.graphs]
    of_member = context.features.detach().unflatten(1, (context.n_members, -1))[:, member]
    of_graph = of_member.split([sum(lengths) for lengths in sizes])[graph]
    features = [numpy(feature) for feature in of_graph.split(sizes[graph])]
    x = torch.tensor(
        np.array(
            [
                np.concatenate(
                    [
                        feature[code] if code >= 0 else feature.mean(0)
                        for feature, code in zip(features, row, strict=True)
                    ]
                )
                for row in codes
            ]
        )
    )
    for layer in context.layers:
        W, b = layer.linear.weight[graph, member], layer.linear.bias[graph, member]
        ball = layer.linear.ball
        v = x @ W
        x = torch.relu(operator @ (v + b if ball is None else mobius_translate(v, b, ball.c)))
    return np.split(numpy(x), [N_USERS, n_known])


def slow_sides(context, new_users=None, new_services=None):
    """Users and services by member, the graphs side by side, newcomers last."""
    members = []
    for member in range(context.n_members):
        sides = [[], []]
        for graph, columns in enumerate(context.graphs):
            for side, new in enumerate((new_users, new_services)):
                kind = ("user_codes", "service_codes")[side]
                codes = np.empty((0, len(columns)))
                if new is not None:
                    codes = np.column_stack([getattr(column, kind)(new) for column in columns])
                *known, found = slow_context(context, graph, columns, codes, member)
                found[~(codes >= 0).any(1)] = known[side].mean(0)
                sides[side].append(np.vstack([known[side], found]))
        members.append([np.hstack(side) for side in sides])
    return [np.array(side) for side in zip(*members, strict=True)]


GRAPHS = {
    "separate": [[SHARED]],
    "one side": [[OF_USERS]],
    "merged": [[SHARED, OF_USERS, OF_SERVICES]],
    "many": [[SHARED], [OF_USERS], [OF_SERVICES]],
}
every_graph = pytest.mark.parametrize("graphs", GRAPHS.values(), ids=GRAPHS.keys())
either_space = pytest.mark.parametrize("curvature", [None, 1.0], ids=["Euclidean", "ball"])


@every_graph
@either_space
@pytest.mark.parametrize("n_members", [1, 2])
def test_context_graphs_convolve_among_all_entities(graphs, curvature, n_members):
    context = make_context(graphs, curvature=curvature, n_members=n_members)
    users, services = slow_sides(context)
    convolved = context()
    assert np.abs(users).max() > 1e-3
    assert_allclose(numpy(context.take(convolved, context.user_rows)), users, **SINGLE)
    assert_allclose(numpy(context.take(convolved, context.service_rows)), services, **SINGLE)


def encode_context(context, new_users, new_services):
    known = context.encode_known()
    new = context.encode_new([side.mean(1) for side in known], new_users, new_services)
    return [numpy(torch.cat(pair, dim=1)) for pair in zip(known, new, strict=True)]


@every_graph
@either_space
@pytest.mark.parametrize("n_members", [1, 2])
def test_newcomers_receive_from_all_and_send_nothing(graphs, curvature, n_members):
    context = make_context(graphs, curvature=curvature, n_members=n_members)
    # The first has the codes of user 2, the others something or nothing unknown.
    newcomers = table([[1, 0], [2, UNKNOWN], [UNKNOWN, 1], [1, 1]])
    expected = slow_sides(context, new_users=newcomers)
    for found, side in zip(encode_context(context, newcomers, NO_SERVICES), expected, strict=True):
        assert_allclose(found, side, **SINGLE)


@every_graph
def test_new_services_receive_likewise(graphs):
    context = make_context(graphs)
    newcomers = table([[1, 2], [0, UNKNOWN]])
    _, expected = slow_sides(context, new_services=newcomers)
    assert_allclose(encode_context(context, NO_USERS, newcomers)[1], expected, **SINGLE)


@every_graph
def test_entities_with_equal_categories_share_a_row(graphs):
    context = make_context(graphs)
    assert (context.user_rows[0] == context.user_rows[4]).all()
    assert (context.user_rows[0] != context.user_rows[3]).any()
    assert len(context.rows) < len(graphs) * (N_USERS + N_SERVICES)
    assert context.counts.sum() == len(graphs) * (N_USERS + N_SERVICES)
    assert len(context()) == len(context.rows)


def test_newcomers_without_known_categories_are_the_average_of_their_side():
    context = make_context([[SHARED]])
    nothing = table([[UNKNOWN, UNKNOWN]])
    for side in encode_context(context, nothing, nothing):
        assert_allclose(side[0, -1], side[0, :-1].mean(0), **SINGLE)
        assert np.ptp(side[0, :-1], axis=0).max() > 1e-3


def test_what_is_encoded_does_not_depend_on_other_newcomers():
    context = make_context(GRAPHS["merged"])
    newcomers = table([[1, 0], [1, 1], [UNKNOWN, 1]])
    together = encode_context(context, newcomers, NO_SERVICES)[0][0, N_USERS:]
    alone = [
        encode_context(context, newcomers.take(np.array([k])), NEW_SERVICES)[0][0, -1]
        for k in range(3)
    ]
    assert_allclose(together, alone, **SINGLE)


# --- Numeric context ----------------------------------------------------------------------------


def slow_numbers(context, numbers, member=0):
    weight, bias = numpy(context.weight)[member], numpy(context.bias)[member]
    return np.maximum(np.nan_to_num(numbers) @ weight + bias, 0)


def test_numbers_are_projected_and_unknown_ones_count_as_the_mean():
    context = NumericContext(USERS, 2, 8)
    found = numpy(context(torch.tensor([3, 0])))
    for member in range(2):
        expected = slow_numbers(context, USERS.numerics[[3, 0]], member)
        assert_allclose(found[member], expected, **SINGLE)
    assert found.max() > 0.01


def test_newcomers_use_what_numbers_they_have_or_else_the_average():
    context = NumericContext(USERS, 2, 8)
    encoded = context.encode_known()
    newcomers = table(np.empty((3, 0)), [[2, NAN], [NAN, NAN], [1, 1]])
    found = numpy(context.encode_new(encoded.mean(1), newcomers))
    for member in range(2):
        known = slow_numbers(context, USERS.numerics, member)
        assert_allclose(numpy(encoded)[member], known, **SINGLE)
        new = slow_numbers(context, np.array([[2, NAN], [1, 1]]), member)
        assert_allclose(found[member], np.vstack([new[:1], known.mean(0), new[1:]]), **SINGLE)
        assert np.abs(known.mean(0) - slow_numbers(context, np.zeros(2), member)).max() > 0.01


def test_a_side_without_numbers_is_projected_from_nothing():
    context = NumericContext(table(np.empty((3, 0))), 1, 4)
    known = context.encode_known()
    new = context.encode_new(known.mean(1), table(np.empty((2, 0))))
    assert (known.shape, new.shape) == ((1, 3, 4), (1, 2, 4))
    assert_allclose(numpy(torch.cat([known, new], dim=1)), 0)


# --- Newcomers of the whole module --------------------------------------------------------------


def test_a_newcomer_without_context_has_average_features_in_every_part():
    """Its representation is that of the averages: heads see nothing else of it."""
    module = make_module()
    nobody = table([[UNKNOWN, UNKNOWN]], [[NAN, NAN]])
    known_context = module.context.encode_known()[0], module.numbers[0].encode_known()
    context = [part.mean(1, keepdim=True) for part in known_context]
    structural = torch.stack([graph.split(graph())[0].average() for graph in module.graphs])
    expected = numpy(module._represent(context, structural, module.user_head))
    found = numpy(encode(module, nobody, NO_SERVICES).users)[:, :, -1:]
    assert_allclose(found, expected, **SINGLE)


# --- Gates --------------------------------------------------------------------------------------


def spread_gates(module):
    with torch.no_grad():
        for router in (module.router, module.cross_router):
            if router is not None:
                router.gates.log_odds.normal_(std=3.0)
    return module


@pytest.mark.parametrize("l0_penalty", [0.0, 0.25, 3.0])
def test_the_penalty_is_lambda_times_the_expected_number_of_open_gates(l0_penalty):
    module = spread_gates(make_module(l0_penalty=l0_penalty, n_members=2))
    snr, cross = module.router.gates.probabilities(), module.cross_router.gates.probabilities()
    expected = np.mean(
        [
            numpy(snr)[k].sum()
            + sum(numpy(cross)[k, i, j].sum() for i in range(TASKS) for j in range(TASKS) if i != j)
            for k in range(2)
        ]
    )
    assert expected > 1
    assert module.penalty().item() == pytest.approx(l0_penalty * expected, rel=1e-5, abs=1e-12)


def test_without_routing_there_is_no_penalty():
    module = make_module(routing=False, cross_routing=False)
    assert module.penalty() == 0
    assert module.gate_probabilities() == module.active_shares() == {}


def test_gates_of_a_task_for_itself_get_no_gradient():
    module = spread_gates(make_module())
    module.penalty().backward()
    gradient = numpy(module.cross_router.gates.log_odds.grad)[0]
    for task in range(TASKS):
        assert_allclose(gradient[task, task], 0)
        assert (gradient[task, 1 - task] != 0).all()


def test_active_shares_count_settled_gates_above_0():
    module = spread_gates(make_module([*PAIRS, PAIRS[0]], n_members=2))
    shares = module.active_shares()
    snr, cross = numpy(module.router.gates.settled()), numpy(module.cross_router.gates.settled())
    assert_allclose(shares["snr"], [np.mean(snr[:, task] > 0) for task in range(3)])
    expected = [np.mean(np.delete(cross[:, task], task, axis=1) > 0) for task in range(3)]
    assert_allclose(shares["cross_snr"], expected)
    assert 0 < shares["cross_snr"].mean() < 1


def test_with_all_gates_of_cross_snr_closed_a_task_ignores_the_others():
    module = make_module(context=False)
    with torch.no_grad():
        module.cross_router.gates.log_odds.fill_(-10.0)
    before = predict(module, *all_pairs())
    with torch.no_grad():
        module.graphs[1].features.normal_(std=3.0)
    after = predict(module, *all_pairs())
    assert_allclose(after[:, 0], before[:, 0], **SINGLE)
    assert np.abs(after[:, 1] - before[:, 1]).max() > 1e-3


def test_gate_probabilities_are_averages_over_members():
    module = spread_gates(make_module(n_members=3))
    found = module.gate_probabilities()
    of_members = numpy(module.router.gates.probabilities())
    assert np.ptp(of_members, axis=0).min() > 1e-3
    assert_allclose(numpy(found["snr"]), of_members.mean(0), **SINGLE)
    others = numpy(module.cross_router.gates.probabilities()).mean(0)
    assert_allclose(numpy(found["cross_snr"])[0, 1], others[0, 1], **SINGLE)
    assert (numpy(found["cross_snr"])[[0, 1], [0, 1]] == 0).all()


# --- Members ------------------------------------------------------------------------------------


def of_member(name, values, k, n_members):
    """Take what a member has of a parameter, or of its gradient."""
    if name.endswith("features"):
        return values.unflatten(1, (n_members, -1))[:, k]
    if "layers" in name:
        return values[:, k : k + 1]
    is_of_tasks = name.startswith(("cross_router.blocks", "fusion", "user_head", "service_head"))
    if is_of_tasks:
        return values.unflatten(0, (-1, n_members))[:, k]
    return values[k : k + 1]


def single(module, k, **params):
    """Make a module of one member that holds the weights of another's member k."""
    alone = make_module(**params)
    stacked = dict(module.named_parameters())
    with torch.no_grad():
        for name, parameter in alone.named_parameters():
            if not name.endswith("isp_c"):
                parameter.copy_(of_member(name, stacked[name], k, module.n_members))
    return alone


MEMBERS = 3


@every_variant
class TestMembers:
    def test_train_as_each_would_alone(self, params):
        params = {**params, "n_members": 1}
        module = train_without_chance(make_module(**{**params, "n_members": MEMBERS}))
        users, services = all_pairs()
        edges = torch.arange(len(users)).unsqueeze(1).repeat(1, len(module.graphs)) % 7 - 1
        module(users, services, edges).square().sum().backward()
        for k in range(MEMBERS):
            alone = train_without_chance(single(module, k, **params))
            found = numpy(module(users, services, edges))[k]
            expected = alone(users, services, edges)
            assert_allclose(found, numpy(expected)[0], **SINGLE)
            expected.square().sum().backward()
            for name, parameter in alone.named_parameters():
                if parameter.grad is not None:
                    stacked = module.get_parameter(name).grad
                    gradient = numpy(of_member(name, stacked, k, MEMBERS))
                    assert_allclose(gradient, numpy(parameter.grad), rtol=1e-3, atol=1e-4)

    def test_predict_the_average_of_what_each_would_alone(self, params):
        params = {**params, "n_members": 1}
        module = make_module(**{**params, "n_members": MEMBERS})
        modules = [module, *(single(module, k, **params) for k in range(MEMBERS))]
        found, *expected = (score_everybody(part) for part in modules)
        assert np.ptp(expected, axis=0).max() > 1e-3
        assert_allclose(found, np.mean(expected, axis=0), **SINGLE)

    def test_grow_as_each_would_alone(self, params):
        params = {**params, "n_members": 1}
        module = make_module(**{**params, "n_members": MEMBERS})
        modules = [module, *(single(module, k, **params) for k in range(MEMBERS))]
        for part in modules:
            grow(part)
        found, *expected = (score_everybody(part) for part in modules)
        assert_allclose(found, np.mean(expected, axis=0), **SINGLE)


def score_everybody(module):
    """Predict all pairs, of newcomers too."""
    encoded = encode(module, NEW_USERS, NEW_SERVICES)
    n_users, n_services = encoded.users.shape[-2], encoded.services.shape[-2]
    users, services = np.indices((n_users, n_services)).reshape(2, -1)
    return numpy(module.score(encoded, torch.tensor(users), torch.tensor(services)))


def grow(module):
    """Append a user and two services, with edges and a new category of services' own column."""
    users = table([*USERS.categories, [1, 1]], [*USERS.numerics, [0.5, 0.5]])
    services = table([*SERVICES.categories, [1, 3], [0, 1]], [*SERVICES.numerics, [1], [-1]])
    graphs = [
        BipartiteGraph(*np.array([*cells, (5, 6), (0, 7)]).T, N_USERS + 1, N_SERVICES + 2)
        for cells in [*PAIRS, PAIRS[0]][: len(module.graphs)]
    ]
    more = ContextColumn(None, 1, 0, np.array([0, 1, 2, 3]))
    module.grow(graphs, [[SHARED], [OF_USERS], [more]], users, services)


# --- Tensors ------------------------------------------------------------------------------------


@every_variant
def test_every_tensor_is_a_parameter_or_a_buffer(params):
    module = make_module(**params)
    assert list(module.parameters())
    for part in module.modules():
        held = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
        assert not held


@every_variant
def test_every_parameter_that_is_trained_gets_a_gradient(params):
    module = make_module(**params).train()
    module(*all_pairs()).square().sum().backward()
    trained = [p for p in module.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None for p in trained)
