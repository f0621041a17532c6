"""The network against a convolution of the map itself, cell by cell; and newcomers."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.entities import UNKNOWN, EntityTable, Interactions
from skqos.prediction import encode, predict_interactions
from skqos.r2sl.module import KERNEL_WIDTHS, MIN_DEVIATION, EntityRows, R2SLModule
from skqos.training import seeded

EMBED, FILTERS, N_USERS, N_SERVICES = 3, 2, 6, 9
EXACT = {"rtol": 1e-10, "atol": 1e-10}
NAN = np.nan


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def make_rows(n, n_categories, n_numeric, n_kinds, m, seed, dropout=0.0):
    """Return the rows of n entities; kind k belongs to categorical column n_kinds - 1 - k."""
    rng = np.random.default_rng(seed)
    categories = np.empty((n, len(n_categories)), dtype=np.int64)
    for k, size in enumerate(n_categories):
        categories[:, k] = rng.permutation(np.arange(n) % size)
    table = EntityTable(categories, rng.normal(size=(n, n_numeric)))
    columns = range(n_kinds - 1, -1, -1)
    states = [(k, rng.dirichlet(np.ones(m), size=n_categories[k] + 1)) for k in columns]
    rows = EntityRows(table, n_categories, states, m, EMBED, dropout)
    torch.nn.init.normal_(rows.state_vectors)
    torch.nn.init.normal_(rows.features.id_embedding.weight)
    return rows.double(), states


def make_module(n_kinds=2, m=3, dropout=0.0, n_service_features=2):
    users, _ = make_rows(N_USERS, (3, 2), 1, n_kinds, m, 1, dropout)
    services, _ = make_rows(N_SERVICES, (4,) * n_service_features, 0, n_kinds, m, 2, dropout)
    module = R2SLModule(users, services, n_filters=FILTERS, hidden_size=32)
    return module.double().eval()


def numpy(tensor):
    return tensor.detach().numpy()


def slow_map(module, user, service):
    """Fill the map of a pair, (rows, width, channels), from the sides' features and shares."""
    fused = np.zeros((module.n_rows, module.width, EMBED))
    for side, (rows, entity) in enumerate(zip(module.sides, (user, service), strict=True)):
        features, shares = (numpy(part)[0] for part in rows(torch.tensor([entity])))
        fused[side, : len(features)] = features
        for kind, of_states in enumerate(shares):
            for state, share in enumerate(of_states):
                vector = numpy(rows.state_vectors)[kind, state]
                fused[2 + 2 * kind + side, state] = share * vector
    return fused


def slow_prediction(module, user, service):
    """Predict a pair: each output cell of each filter is a sum over the kernel's window."""
    fused = slow_map(module, user, service)
    hidden = []
    for kernel in module.kernels:
        weight, bias = numpy(kernel.weight), numpy(kernel.bias)
        _, _, height, width = weight.shape
        for weights, constant in zip(weight, bias, strict=True):
            for row in range(module.n_rows):
                for column in range(module.width):
                    total = constant
                    for h in range(height):
                        for w in range(width):
                            at = row + h - (height - 1) // 2, column + w - (width - 1) // 2
                            if 0 <= at[0] < module.n_rows and 0 <= at[1] < module.width:
                                total += weights[:, h, w] @ fused[at]
                    hidden.append(total)
    for layer in module.layers:
        hidden = numpy(layer.weight) @ np.maximum(hidden, 0) + numpy(layer.bias)
    return hidden[0]


def pairs(n=8):
    return torch.randint(N_USERS, (n,)), torch.randint(N_SERVICES, (n,))


@pytest.mark.parametrize(
    ("n_kinds", "m", "n_service_features"),
    [(2, 5, 2), (2, 3, 2), (1, 8, 1), (0, 5, 2), (2, 4, 6), (1, 1, 2), (2, 2, 2)],
)
def test_predictions_are_those_of_the_convolved_map(n_kinds, m, n_service_features):
    module = make_module(n_kinds, m, n_service_features=n_service_features)
    users, services = pairs()
    expected = [
        slow_prediction(module, user, service)
        for user, service in zip(users.tolist(), services.tolist(), strict=True)
    ]
    assert np.ptp(expected) > 1e-3
    assert_allclose(numpy(module(users, services)), expected, **EXACT)


def test_five_states_and_two_kinds_are_the_papers_map():
    module = make_module(n_kinds=2, m=5)
    assert (module.n_rows, module.width) == (6, 5)
    assert [kernel.kernel_size for kernel in module.kernels] == [(5, 1), (5, 3), (5, 5)]
    assert len(KERNEL_WIDTHS) * FILTERS * 30 == module.layers[0].in_features
    assert [layer.out_features for layer in module.layers] == [32, 16, 8, 1]


@pytest.mark.parametrize(
    ("n_kinds", "m", "n_service_features", "shape", "height"),
    [(0, 5, 2, (2, 5), 2), (2, 8, 2, (6, 8), 6), (2, 3, 7, (6, 8), 3), (1, 1, 2, (4, 5), 1)],
)
def test_the_map_grows_with_kinds_states_and_features(
    n_kinds, m, n_service_features, shape, height
):
    module = make_module(min(n_kinds, 2), m, n_service_features=n_service_features)
    assert (module.n_rows, module.width) == shape
    assert all(kernel.kernel_size[0] == height for kernel in module.kernels)


def test_shares_are_standardised_over_entities():
    rows, states = make_rows(N_USERS, (3, 2), 1, 2, 4, seed=3)
    categories = rows.features.categories
    _, shares = rows(torch.arange(N_USERS))
    for kind, (column, probabilities) in enumerate(states):
        plain = probabilities[numpy(categories)[:, column]]
        expected = (plain - plain.mean(0)) / np.maximum(plain.std(0), MIN_DEVIATION)
        assert_allclose(numpy(shares)[:, kind], expected, rtol=1e-4, atol=1e-5)


def test_shares_that_hardly_vary_are_not_blown_up():
    """Neither those of known regions nor, at a new entity, those of an unknown one."""
    table = EntityTable(np.zeros((4, 1), dtype=np.int64), np.empty((4, 0)))
    rows = EntityRows(table, [1], [(0, np.array([[0.3, 0.7], [0.4, 0.6]]))], 2, EMBED, 0.0)
    assert_allclose(numpy(rows(torch.arange(4))[1]), 0)
    _, average = rows.encode_known()
    new = EntityTable(np.array([[UNKNOWN]]), np.empty((1, 0)))
    _, shares = rows.encode_new(average, new)
    assert_allclose(numpy(shares)[-1, 0], [0.1 / MIN_DEVIATION, -0.1 / MIN_DEVIATION], rtol=1e-5)


def new_table(categories, numerics):
    return EntityTable(np.array(categories, dtype=np.int64), np.array(numerics, dtype=np.float64))


def test_newcomers_have_the_states_of_their_region_or_the_priors():
    rows, states = make_rows(N_USERS, (3, 2), 1, 2, 4, seed=3)
    new = new_table([[2, UNKNOWN], [UNKNOWN, 1]], [[NAN], [0.5]])
    known, average = rows.eval().encode_known()
    known_features, known_shares = rows(torch.arange(N_USERS))
    assert_allclose(numpy(known[0]), numpy(known_features))
    assert_allclose(numpy(known[1]), numpy(known_shares))
    features, shares = rows.encode_new(average, new)
    for kind, (column, probabilities) in enumerate(states):
        scaled = numpy(getattr(rows, f"shares_{kind}"))
        assert len(scaled) == len(probabilities)
        for row, code in enumerate(new.categories[:, column]):
            expected = scaled[-1] if code == UNKNOWN else scaled[code]
            assert_allclose(numpy(shares)[row, kind], expected)
    assert_allclose(numpy(features[0, 0]), numpy(known_features[:, 0]).mean(0), rtol=1e-5)


@pytest.mark.parametrize("n_kinds", [0, 1, 2])
def test_encode_and_score_equal_the_training_pass_in_evaluation_mode(n_kinds):
    module = make_module(n_kinds)
    users, services = pairs(30)
    encoded = encode(
        module, new_table([[1, UNKNOWN]], [[0.1]]), new_table([[2, 0]], np.empty((1, 0)))
    )
    assert (len(encoded.users), len(encoded.services)) == (N_USERS + 1, N_SERVICES + 1)
    expected = numpy(module(users, services))
    assert_allclose(numpy(module.score(encoded, users, services)), expected, **EXACT)
    newcomer = module.score(encoded, torch.tensor([N_USERS]), torch.tensor([N_SERVICES]))
    assert newcomer not in expected


def test_dropout_falls_on_features_and_shares_in_training_only():
    rows, _ = make_rows(40, (3, 2), 1, 2, 4, seed=3, dropout=0.5)
    codes = torch.arange(40)
    whole = [numpy(part) for part in rows.eval()(codes)]
    dropped = [numpy(part) for part in rows.train()(codes)]
    for part, full in zip(dropped, whole, strict=True):
        kept = part != 0
        assert 0.3 < kept.mean() < 0.7
        assert_allclose(part[kept], 2 * full[kept], rtol=1e-5)


def test_shares_are_no_parameters_and_every_parameter_gets_a_gradient():
    module = make_module().train()
    assert {name.split(".")[-1] for name, _ in module.named_buffers()} == {
        "categories",
        "numerics",
        "shares_0",
        "shares_1",
    }
    module(*pairs(200)).square().sum().backward()
    assert not [name for name, p in module.named_parameters() if p.grad is None]


@pytest.mark.parametrize("n_kinds", [0, 2])
def test_no_pairs_at_all(n_kinds):
    module = make_module(n_kinds).float()
    nothing = np.arange(0)
    nobody = (EntityTable(np.empty((0, 2), dtype=np.int64), np.empty((0, k), "f")) for k in (1, 0))
    interactions = Interactions(nothing, nothing, None, *nobody)
    assert predict_interactions(module, interactions, torch.device("cpu")).shape == (0,)
