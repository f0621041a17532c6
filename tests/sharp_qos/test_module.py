"""The network of SHARP-QoS: its parts against loops, training pass against prediction."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.entities import UNKNOWN, EntityTable
from skqos.graphs import BipartiteGraph
from skqos.prediction import encode
from skqos.sharp_qos.context import ContextColumn
from skqos.sharp_qos.hyperbolic import make_ball
from skqos.sharp_qos.module import (
    FEATURE_STD,
    ContextConvolution,
    NumericContext,
    QoSGraph,
    SharpQoSModule,
    Structure,
)
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


def make_context(columns, n_layers=2, curvature=1.0):
    """Return a context convolution whose biases are not 0."""
    context = ContextConvolution(
        columns,
        [random_codes(column) for column in columns],
        USERS,
        SERVICES,
        DIM,
        n_layers,
        None if curvature is None else make_ball(curvature, False),
        True,
    )
    with torch.no_grad():
        for layer in context.layers:
            layer.linear.bias.uniform_(0.0, 0.05)
    return context


# --- The module ---------------------------------------------------------------------------------

# Each node keeps an edge where the first two of either task are left out.
PAIRS = [
    [(0, 0), (1, 1), (0, 1), (1, 0), (2, 2), (3, 3), (4, 4), (2, 5), (3, 2), (4, 3)],
    [(1, 1), (2, 0), (1, 0), (2, 1), (0, 3), (3, 4), (4, 5), (0, 4), (3, 2), (4, 2)],
]


def make_module(pairs=PAIRS, convolution="hhgcn", context=True, **params):
    """Return a module in evaluation mode, the same weights for the same shapes; no dropout."""
    torch.manual_seed(0)
    ball = make_ball(1.0, False) if convolution in ("hhgcn", "hygcn") else None
    graphs = [
        QoSGraph(
            BipartiteGraph(*np.array(cells).T, N_USERS, N_SERVICES),
            np.random.default_rng(task).random((N_USERS + N_SERVICES, FACTORS)),
            DIM,
            2,
            convolution,
            ball,
            params.get("feature_dropout", 0.0),
            True,
        )
        for task, cells in enumerate(pairs)
    ]
    with torch.no_grad():
        for graph in graphs:
            # As after training: entities differ.
            graph.features.normal_()
    contexts = [make_context([SHARED]), make_context([OF_USERS, OF_SERVICES])] if context else []
    numbers = (NumericContext(USERS, DIM), NumericContext(SERVICES, DIM)) if context else None
    return SharpQoSModule(
        graphs,
        contexts,
        numbers,
        context_dim=3 * DIM if context else 0,
        hidden_dim=HIDDEN,
        out_dim=OUT,
        routing=params.get("routing", True),
        cross_routing=params.get("cross_routing", True),
        n_blocks=2,
        n_cross_blocks=3,
        gate_temperature=2 / 3,
        l0_penalty=params.get("l0_penalty", 0.25),
        context_dropout=params.get("context_dropout", 0.0),
        newcomer_share=params.get("newcomer_share", 0.0),
        start=np.array([0.3, -0.2, 0.1])[: len(pairs)],
    ).eval()


def train_without_chance(module):
    """Set to training mode all but the gates, which would draw."""
    module.train()
    for name in ("router", "cross_router"):
        if getattr(module, name) is not None:
            getattr(module, name).gates.eval()
    return module


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
]
every_variant = pytest.mark.parametrize("params", VARIANTS, ids=str)


@every_variant
def test_encode_and_score_equal_the_training_pass_in_evaluation_mode(params):
    module = make_module(**params)
    users, services = all_pairs()
    expected = numpy(module(users, services))
    assert expected.shape == (len(users), len(module.graphs))
    assert np.ptp(expected, axis=0).min() > 1e-3
    encoded = encode(module, NEW_USERS, NEW_SERVICES)
    assert encoded.users.shape[:2] == (len(module.graphs), N_USERS + 2)
    assert encoded.services.shape[:2] == (len(module.graphs), N_SERVICES + 1)
    assert_allclose(numpy(module.score(encoded, users, services)), expected, **SINGLE)


@every_variant
def test_a_prediction_is_the_product_of_its_two_sides_and_a_constant(params):
    module = make_module(**params)
    encoded = encode(module, NEW_USERS, NEW_SERVICES)
    users, services = encoded.users, encoded.services
    pair = torch.tensor([N_USERS + 1]), torch.tensor([N_SERVICES])
    expected = [
        numpy(users[task, -1]) @ numpy(services[task, -1]) + numpy(module.bias)[task]
        for task in range(len(module.graphs))
    ]
    assert_allclose(numpy(module.score(encoded, *pair))[0], expected, **SINGLE)


def test_predictions_of_a_batch_do_not_depend_on_the_other_rows():
    module = make_module()
    users, services = all_pairs()
    expected = module(users, services)
    shuffled = torch.randperm(len(users))[:13]
    found = module(users[shuffled], services[shuffled])
    assert_allclose(numpy(found), numpy(expected[shuffled]), **SINGLE)


def test_the_start_is_what_it_predicts_beside_the_product():
    module = make_module()
    with torch.no_grad():
        for head in module.user_heads:
            head[-1].weight.zero_()
            head[-1].bias.zero_()
    assert_allclose(numpy(module(*all_pairs())), np.tile([0.3, -0.2], (30, 1)), rtol=1e-6)


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
    found = numpy(full(users, services, edges))
    assert_allclose(found, numpy(reduced(users, services)), **SINGLE)
    with_all_edges = numpy(full(users, services))
    assert np.abs(found - with_all_edges).max(axis=0).min() > 1e-3


def test_edges_are_held_out_of_the_graph_of_their_own_task_alone():
    module = train_without_chance(make_module(cross_routing=False))
    users, services, edges = held_out_edges()
    edges[:, 1] = -1
    found = numpy(module(users, services, edges) - module(users, services))
    assert np.abs(found[:, 0]).min() > 1e-4
    assert_allclose(found[:, 1], 0, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_no_edges_given_means_that_all_carry_messages(training):
    module = make_module()
    if training:
        train_without_chance(module)
    users, services, edges = held_out_edges()
    none_held_out = module(users, services, torch.full_like(edges, -1))
    assert_allclose(numpy(module(users, services)), numpy(none_held_out), **SINGLE)


# --- Chance in training -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["feature_dropout", "context_dropout", "newcomer_share"])
def test_regularisers_act_in_training_alone(name):
    module = make_module(**{name: 0.5})
    plain = make_module()
    assert_allclose(numpy(module(*all_pairs())), numpy(plain(*all_pairs())), **SINGLE)
    train_without_chance(module)
    first, second = (numpy(module(*all_pairs())) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_a_share_of_the_entities_is_trained_on_as_newcomers():
    """All of them as newcomers, without context: all pairs are the pair of two newcomers."""
    module = train_without_chance(make_module(context=False, newcomer_share=1.0 - 1e-9))
    found = numpy(module(*all_pairs()))
    newcomers = encode(module.eval(), NEW_USERS, NEW_SERVICES)
    pair = torch.tensor([N_USERS]), torch.tensor([N_SERVICES])
    assert_allclose(found, np.tile(numpy(module.score(newcomers, *pair)), (30, 1)), **SINGLE)
    assert np.ptp(numpy(module(*all_pairs())), axis=0).min() > 1e-3


# --- Structure ----------------------------------------------------------------------------------


def make_structure(connected=(True, False, True, True)):
    layers = [torch.randn(len(connected), width) for width in (2, 3)]
    return Structure(layers, torch.tensor(connected).unsqueeze(1))


def test_the_average_is_over_connected_entities():
    structure = make_structure()
    joined = np.hstack([numpy(x) for x in structure.layers])
    assert_allclose(numpy(structure.average()), joined[[0, 2, 3]].mean(0), **SINGLE)


def test_an_entity_without_edges_is_the_average():
    structure = make_structure()
    joined = np.hstack([numpy(x) for x in structure.layers])
    found = numpy(structure.take(torch.tensor([3, 1, 0])))
    assert_allclose(found, [joined[3], numpy(structure.average()), joined[0]], **SINGLE)


def test_entities_taken_as_new_are_the_average():
    structure = make_structure()
    is_new = torch.tensor([[True], [False], [False]])
    found = numpy(structure.take(torch.tensor([3, 1, 0]), is_new))
    average, first = numpy(structure.average()), numpy(structure.take(torch.tensor([0])))[0]
    assert_allclose(found, [average, average, first], **SINGLE)


def test_all_known_entities_are_encoded_as_they_are_taken():
    structure = make_structure()
    encoded = numpy(structure.encode_known())
    assert_allclose(encoded, numpy(structure.take(torch.arange(4))), **SINGLE)


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
    assert_allclose(numpy(of_users.take(torch.tensor([2])))[0], joined[2], **SINGLE)
    assert_allclose(numpy(of_services.take(torch.tensor([2])))[0], joined[N_USERS + 2], **SINGLE)


def test_a_known_service_without_edges_in_a_task_is_predicted_from_the_average():
    """Nothing told training what its own features would do to that task's predictions."""
    module = make_module([PAIRS[0][:6], PAIRS[1]], context=False, cross_routing=False)
    user = torch.tensor([0])
    before = numpy(module(user, torch.tensor([5])))[0]
    with torch.no_grad():
        module.graphs[0].features[N_USERS + 5] = 1e3
    after = numpy(module(user, torch.tensor([5])))[0]
    assert_allclose(after[0], before[0], **SINGLE)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_features_come_to_a_common_size(scale):
    features = scale * np.random.default_rng(0).random((N_USERS + N_SERVICES, FACTORS))
    bipartite = BipartiteGraph(*np.array(PAIRS[0]).T, N_USERS, N_SERVICES)
    graph = QoSGraph(bipartite, features, DIM, 1, "gcn", None, 0.0, True)
    assert FEATURE_STD == 0.05
    assert_allclose(numpy(graph.features), 0.05 * features / features.std(), rtol=1e-5)


@pytest.mark.parametrize("fine_tune", [True, False])
def test_features_are_trained_on_or_not(fine_tune):
    bipartite = BipartiteGraph(*np.array(PAIRS[0]).T, N_USERS, N_SERVICES)
    graph = QoSGraph(bipartite, np.eye(11), DIM, 1, "gcn", None, 0.0, fine_tune)
    graph()[-1].sum().backward()
    assert (graph.features.grad is not None) == fine_tune


# --- Context graphs -----------------------------------------------------------------------------


def slow_context(context, columns, new_codes):
    """Convolve nodes one by one, newcomers after users and services; newcomers send nothing.

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
    features = [numpy(feature) for feature in context.features]
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
        x = torch.relu(operator @ layer.linear(x))
    return np.split(numpy(x), [N_USERS, n_known])


GRAPHS = {"separate": [SHARED], "one side": [OF_USERS], "merged": [SHARED, OF_USERS, OF_SERVICES]}
every_graph = pytest.mark.parametrize("columns", GRAPHS.values(), ids=GRAPHS.keys())
either_space = pytest.mark.parametrize("curvature", [None, 1.0], ids=["Euclidean", "ball"])


@every_graph
@either_space
def test_context_graphs_convolve_among_all_entities(columns, curvature):
    context = make_context(columns, curvature=curvature)
    users, services, _ = slow_context(context, columns, [])
    rows = numpy(context())
    assert np.abs(users).max() > 1e-3
    assert_allclose(rows[context.user_rows], users, **SINGLE)
    assert_allclose(rows[context.service_rows], services, **SINGLE)


def encode_context(context, new_users, new_services):
    known = context.encode_known()
    new = context.encode_new([side.mean(0) for side in known], new_users, new_services)
    return [numpy(torch.cat(pair)) for pair in zip(known, new, strict=True)]


@every_graph
@either_space
def test_newcomers_receive_from_all_and_send_nothing(columns, curvature):
    context = make_context(columns, curvature=curvature)
    # The first has the codes of user 2, the others something or nothing unknown.
    newcomers = table([[1, 0], [2, UNKNOWN], [UNKNOWN, 1], [1, 1]])
    codes = np.column_stack([column.user_codes(newcomers) for column in columns])
    users, services, new = slow_context(context, columns, codes)
    has_context = (codes >= 0).any(1)
    new[~has_context] = users.mean(0)
    found_users, found_services = encode_context(context, newcomers, NO_SERVICES)
    assert_allclose(found_users, np.vstack([users, new]), **SINGLE)
    assert_allclose(found_services, services, **SINGLE)


@every_graph
def test_new_services_receive_likewise(columns):
    context = make_context(columns)
    newcomers = table([[1, 2], [0, UNKNOWN]])
    codes = np.column_stack([column.service_codes(newcomers) for column in columns])
    _, services, new = slow_context(context, columns, codes)
    new[~(codes >= 0).any(1)] = services.mean(0)
    assert_allclose(
        encode_context(context, NO_USERS, newcomers)[1], np.vstack([services, new]), **SINGLE
    )


@every_graph
def test_entities_with_equal_categories_share_a_row(columns):
    context = make_context(columns)
    assert context.user_rows[0] == context.user_rows[4]
    assert context.user_rows[0] != context.user_rows[3]
    assert len(context.rows) < N_USERS + N_SERVICES
    assert context.counts.sum() == N_USERS + N_SERVICES
    assert len(context()) == len(context.rows)


def test_newcomers_without_known_categories_are_the_average_of_their_side():
    context = make_context([SHARED])
    nothing = table([[UNKNOWN, UNKNOWN]])
    for side in encode_context(context, nothing, nothing):
        assert_allclose(side[-1], side[:-1].mean(0), **SINGLE)
        assert np.ptp(side[:-1], axis=0).max() > 1e-3


def test_what_is_encoded_does_not_depend_on_other_newcomers():
    context = make_context(GRAPHS["merged"])
    newcomers = table([[1, 0], [1, 1], [UNKNOWN, 1]])
    together = encode_context(context, newcomers, NO_SERVICES)[0][N_USERS:]
    alone = [
        encode_context(context, newcomers.take(np.array([k])), NEW_SERVICES)[0][-1]
        for k in range(3)
    ]
    assert_allclose(together, alone, **SINGLE)


# --- Numeric context ----------------------------------------------------------------------------


def slow_numbers(context, numbers):
    projected = np.nan_to_num(numbers) @ numpy(context.weight) + numpy(context.bias)
    return np.maximum(projected, 0)


def test_numbers_are_projected_and_unknown_ones_count_as_the_mean():
    context = NumericContext(USERS, 8)
    found = numpy(context(torch.tensor([3, 0])))
    assert_allclose(found, slow_numbers(context, USERS.numerics[[3, 0]]), **SINGLE)
    assert found.max() > 0.01


def test_newcomers_use_what_numbers_they_have_or_else_the_average():
    context = NumericContext(USERS, 8)
    encoded = context.encode_known()
    newcomers = table(np.empty((3, 0)), [[2, NAN], [NAN, NAN], [1, 1]])
    found = numpy(context.encode_new(encoded.mean(0), newcomers))
    known = slow_numbers(context, USERS.numerics)
    assert_allclose(numpy(encoded), known, **SINGLE)
    new = slow_numbers(context, np.array([[2, NAN], [1, 1]]))
    assert_allclose(found, np.vstack([new[:1], known.mean(0), new[1:]]), **SINGLE)
    assert np.abs(known.mean(0) - slow_numbers(context, np.zeros(2))).max() > 0.01


def test_a_side_without_numbers_is_projected_from_nothing():
    context = NumericContext(table(np.empty((3, 0))), 4)
    known = context.encode_known()
    new = context.encode_new(known.mean(0), table(np.empty((2, 0))))
    assert (known.shape, new.shape) == ((3, 4), (2, 4))
    assert_allclose(numpy(torch.cat([known, new])), 0)


# --- Newcomers of the whole module --------------------------------------------------------------


def test_a_newcomer_without_context_has_average_features_in_every_part():
    """Its representation is that of the averages: heads see nothing else of it."""
    module = make_module()
    nobody = table([[UNKNOWN, UNKNOWN]], [[NAN, NAN]])
    known_context = [numpy(graph.encode_known()[0]) for graph in module.context_graphs]
    known_context.append(numpy(module.numbers[0].encode_known()))
    context = [torch.tensor(part.mean(0, keepdims=True)) for part in known_context]
    structural = [graph.split(graph())[0].average().unsqueeze(0) for graph in module.graphs]
    expected = numpy(module._represent(context, structural, module.user_heads))
    assert_allclose(numpy(encode(module, nobody, NO_SERVICES).users)[:, -1:], expected, **SINGLE)


# --- Gates --------------------------------------------------------------------------------------


def spread_gates(module):
    with torch.no_grad():
        for router in (module.router, module.cross_router):
            if router is not None:
                router.gates.log_odds.normal_(std=3.0)
    return module


@pytest.mark.parametrize("l0_penalty", [0.0, 0.25, 3.0])
def test_the_penalty_is_lambda_times_the_expected_number_of_open_gates(l0_penalty):
    module = spread_gates(make_module(l0_penalty=l0_penalty))
    snr, cross = module.router.gates.probabilities(), module.cross_router.gates.probabilities()
    expected = numpy(snr).sum() + sum(
        numpy(cross)[i, j].sum() for i in range(TASKS) for j in range(TASKS) if i != j
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
    gradient = numpy(module.cross_router.gates.log_odds.grad)
    for task in range(TASKS):
        assert_allclose(gradient[task, task], 0)
        assert (gradient[task, 1 - task] != 0).all()


def test_active_shares_count_settled_gates_above_0():
    module = spread_gates(make_module([*PAIRS, PAIRS[0]]))
    shares = module.active_shares()
    snr, cross = numpy(module.router.gates.settled()), numpy(module.cross_router.gates.settled())
    assert_allclose(shares["snr"], [np.mean(row > 0) for row in snr])
    expected = [np.mean(np.delete(cross[task], task, axis=0) > 0) for task in range(3)]
    assert_allclose(shares["cross_snr"], expected)
    assert 0 < shares["cross_snr"].mean() < 1


def test_with_all_gates_of_cross_snr_closed_a_task_ignores_the_others():
    module = make_module(context=False)
    with torch.no_grad():
        module.cross_router.gates.log_odds.fill_(-10.0)
    before = numpy(module(*all_pairs()))
    with torch.no_grad():
        module.graphs[1].features.normal_(std=3.0)
    after = numpy(module(*all_pairs()))
    assert_allclose(after[:, 0], before[:, 0], **SINGLE)
    assert np.abs(after[:, 1] - before[:, 1]).max() > 1e-3


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
