"""The network against loops over rows: towers, gate, mixture, head; and newcomers."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skqos.entities import UNKNOWN, EntityTable, Interactions
from skqos.prediction import encode, predict_interactions
from skqos.sa_moe.module import EMBEDDING_STD, EntityTower, SAMoEModule
from skqos.training import seeded

EMBED, DIM, OUT, RANK = 3, 8, 5, 4
N_USERS, N_SERVICES = 6, 9
EXACT = {"rtol": 1e-10, "atol": 1e-10}
EXPERTS = ("attention", "lhuc", "mlp")
NAN = np.nan


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def make_table(n, n_categories=(3, 2), n_numeric=2, seed=0, missing=0.3):
    """Return the context of n entities, numbers standardised, some unknown."""
    rng = np.random.default_rng(seed)
    categories = [rng.permutation(np.arange(n) % k) for k in n_categories]
    numerics = rng.normal(size=(n, n_numeric))
    numerics[rng.random(numerics.shape) < missing] = NAN
    if n_numeric:
        numerics = (numerics - np.nanmean(numerics, 0)) / np.nanstd(numerics, 0)
    table = np.column_stack(categories) if categories else np.empty((n, 0))
    return EntityTable(table.astype(np.int64), numerics)


def make_tower(n=N_USERS, n_categories=(3, 2), n_numeric=2, rank=RANK, dropout=0.4, seed=0):
    factors = np.random.default_rng(seed).normal(size=(n, rank)) * 7
    table = make_table(n, n_categories, n_numeric, seed)
    return EntityTower(table, n_categories, factors, EMBED, DIM, dropout).double()


def make_module(experts=EXPERTS, activation="identity", bound=1.5, **tower):
    module = SAMoEModule(
        make_tower(N_USERS, seed=1, **tower),
        make_tower(N_SERVICES, n_categories=(4,), n_numeric=1, seed=2),
        dim=DIM,
        hidden_sizes=(7, 6, OUT),
        experts=experts,
        n_heads=2,
        attention_dropout=0.5,
        activation=activation,
        bound=bound,
    ).double()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
        elif isinstance(part, nn.Embedding):
            # As after training: entities differ.
            nn.init.normal_(part.weight)
    return module.eval()


def pairs(n=30):
    return torch.randint(N_USERS, (n,)), torch.randint(N_SERVICES, (n,))


def numpy(tensor):
    return tensor.detach().numpy()


def linear(layer, x):
    return numpy(layer.weight) @ x + numpy(layer.bias)


def new_table(categories, numerics):
    return EntityTable(np.array(categories, dtype=np.int64), np.array(numerics, dtype=np.float64))


NO_USERS = new_table(np.empty((0, 2)), np.empty((0, 2)))
NO_SERVICES = new_table(np.empty((0, 1)), np.empty((0, 1)))


# --- Towers (eq. 11) ----------------------------------------------------------------------------


def slow_inputs(tower, code):
    """Return id embedding, one embedding per category, projected numbers and factors."""
    parts = [numpy(tower.features.id_embedding.weight)[code]]
    for embedding, category in zip(
        tower.features.category_embeddings, numpy(tower.features.categories)[code], strict=True
    ):
        parts.append(numpy(embedding.weight)[category])
    if tower.features.numeric_layer is not None:
        parts.append(linear(tower.features.numeric_layer, numpy(tower.features.numerics)[code]))
    return [*parts, numpy(tower.factors)[code]]


@pytest.mark.parametrize(
    ("n_categories", "n_numeric", "rank"),
    [((3, 2), 2, 4), ((), 0, 4), ((3,), 0, 0), ((), 2, 0), ((), 0, 0)],
)
def test_towers_mix_concatenated_inputs_linearly(n_categories, n_numeric, rank):
    tower = make_tower(n_categories=n_categories, n_numeric=n_numeric, rank=rank).eval()
    codes = [4, 0, 4, 5]
    expected = [linear(tower.mixer, np.concatenate(slow_inputs(tower, code))) for code in codes]
    assert_allclose(numpy(tower(torch.tensor(codes))), expected, **EXACT)


def test_unknown_numbers_count_as_the_mean():
    table = EntityTable(np.empty((3, 0), dtype=np.int64), np.array([[-1.0], [NAN], [1.0]]))
    tower = EntityTower(table, [], np.empty((3, 0)), EMBED, DIM, 0.0)
    assert tower.features.numerics.tolist() == [[-1.0], [0.0], [1.0]]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_factors_are_scaled_to_the_size_of_a_fresh_embedding(scale):
    factors = scale * np.random.default_rng(0).normal(size=(N_USERS, RANK))
    before = factors.copy()
    tower = EntityTower(make_table(N_USERS), (3, 2), factors, EMBED, DIM, 0.0)
    expected = 0.05 * factors / np.sqrt(((factors - factors.mean()) ** 2).mean())
    assert EMBEDDING_STD == 0.05
    assert_allclose(tower.factors, expected, rtol=1e-6)
    np.testing.assert_array_equal(factors, before)


def test_factors_of_a_matrix_of_zeros_stay_0():
    tower = EntityTower(make_table(N_USERS), (3, 2), np.zeros((N_USERS, 2)), EMBED, DIM, 0.0)
    assert torch.equal(tower.factors, torch.zeros(N_USERS, 2))


def test_factors_and_context_are_no_parameters():
    tower = make_tower()
    buffers = {name.split(".")[-1] for name, _ in tower.named_buffers()}
    assert buffers == {"categories", "numerics", "factors"}


def test_embeddings_start_small():
    table = EntityTable(np.empty((2000, 0), dtype=np.int64), np.empty((2000, 0)))
    weight = EntityTower(table, [], np.empty((2000, 0)), 8, DIM, 0.0).features.id_embedding.weight
    assert weight.std().item() == pytest.approx(EMBEDDING_STD, rel=0.05)


def test_dropout_falls_on_the_inputs_of_the_mixer_in_training_only():
    tower = make_tower(dropout=0.5).train()
    seen = []
    tower.mixer.register_forward_pre_hook(lambda _, args: seen.append(numpy(args[0])))
    codes = torch.arange(N_USERS)
    tower(codes)
    inputs = np.array([np.concatenate(slow_inputs(tower, code)) for code in range(N_USERS)])
    kept = seen[0] != 0
    assert 0.3 < kept.mean() < 0.7
    assert_allclose(seen[0][kept], 2 * inputs[kept], **EXACT)
    tower.eval()(codes)
    assert_allclose(seen[1], inputs, **EXACT)


# --- Newcomers ----------------------------------------------------------------------------------


def encode_side(tower, new):
    known, average = tower.encode_known()
    return torch.cat([known, tower.encode_new(average, new)])


def test_encode_gives_the_known_entities_first():
    tower = make_tower().eval()
    encoded = encode_side(tower, new_table([[0, 1], [1, 1]], [[0.5, NAN], [1.0, 2.0]]))
    assert encoded.shape == (N_USERS + 2, DIM)
    assert_allclose(numpy(encoded[:N_USERS]), numpy(tower(torch.arange(N_USERS))), **EXACT)


@pytest.mark.parametrize(("n_categories", "n_numeric"), [((3, 2), 2), ((3,), 0), ((), 1), ((), 0)])
def test_a_newcomer_without_context_is_the_average_entity(n_categories, n_numeric):
    tower = make_tower(n_categories=n_categories, n_numeric=n_numeric).eval()
    nothing = np.full((1, len(n_categories)), UNKNOWN), np.full((1, n_numeric), NAN)
    encoded = numpy(encode_side(tower, new_table(*nothing)))
    assert_allclose(encoded[-1], encoded[:-1].mean(axis=0), **EXACT)
    assert np.ptp(encoded[:-1], axis=0).min() > 0.01


def test_newcomers_use_what_context_they_have_and_the_average_for_the_rest():
    tower = make_tower(n=7, n_categories=(3, 4)).eval()
    categories = [[2, UNKNOWN], [UNKNOWN, 3], [0, 0], [UNKNOWN, UNKNOWN]]
    numerics = [[NAN, NAN], [1.5, NAN], [-1.0, 2.0], [NAN, 0.3]]
    encoded = numpy(encode_side(tower, new_table(categories, numerics)))
    known = [slow_inputs(tower, code) for code in range(7)]
    averages = [np.mean(part, axis=0) for part in zip(*known, strict=True)]
    for row, (codes, numbers) in enumerate(zip(categories, numerics, strict=True)):
        parts = list(averages)
        for k, code in enumerate(codes):
            if code != UNKNOWN:
                parts[1 + k] = numpy(tower.features.category_embeddings[k].weight)[code]
        parts[3] = linear(tower.features.numeric_layer, np.nan_to_num(numbers))
        expected = linear(tower.mixer, np.concatenate(parts))
        assert_allclose(encoded[7 + row], expected, **EXACT)


def test_the_average_weighs_categories_by_how_many_entities_have_them():
    table = EntityTable(np.array([[0], [0], [0], [1]]), np.empty((4, 0)))
    tower = EntityTower(table, (2,), np.empty((4, 0)), EMBED, DIM, 0.0).double().eval()
    encoded = numpy(encode_side(tower, new_table([[UNKNOWN]], np.empty((1, 0)))))
    ids = numpy(tower.features.id_embedding.weight).mean(0)
    first, second = numpy(tower.features.category_embeddings[0].weight)
    expected = linear(tower.mixer, np.concatenate([ids, 0.75 * first + 0.25 * second]))
    assert_allclose(encoded[-1], expected, **EXACT)


def test_no_newcomers_are_no_rows():
    assert encode_side(make_tower(), NO_USERS).shape == (N_USERS, DIM)


# --- Mixture and head (eq. 15 to 17) ------------------------------------------------------------


def slow_prediction(module, users, services, activation, bound):
    """Return predictions, gates and each expert's own prediction, row by row."""
    u, s = module.user_tower(users), module.service_tower(services)
    outputs = [
        numpy(expert(expert.users(u), expert.services(s))) for expert in module.experts.values()
    ]

    def head(output):
        hidden = np.maximum(output, 0) if activation == "relu" else output
        return bound * np.tanh(linear(module.head, hidden)[0] / bound)

    mixed, gates, alone = [], [], []
    for row, (user, service) in enumerate(zip(numpy(u), numpy(s), strict=True)):
        exp = np.exp(linear(module.gate, np.concatenate([user, service])))
        gate = exp / exp.sum()
        total = np.zeros(OUT)
        for weight, output in zip(gate, outputs, strict=True):
            total += weight * output[row]
        mixed.append(head(total))
        gates.append(gate)
        alone.append([head(output[row]) for output in outputs])
    return np.array(mixed), np.array(gates), np.array(alone)


SUBSETS = [EXPERTS, EXPERTS[::-1], EXPERTS[1:], EXPERTS[::2], EXPERTS[:2], ("lhuc",)]


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("experts", SUBSETS, ids="-".join)
def test_gate_mixture_and_head(experts, activation):
    """All experts, and with some dropped: the gate shares out among those that are left."""
    module = make_module(experts, activation, bound=0.3)
    assert list(module.experts) == list(experts)
    assert module.gate.out_features == len(experts)
    users, services = pairs()
    mixed, gates, alone = slow_prediction(module, users, services, activation, bound=0.3)
    assert_allclose(numpy(module(users, services)), mixed, rtol=1e-7)
    module.bound.fill_(0.3)
    assert_allclose(numpy(module(users, services)), mixed, **EXACT)
    encoded = encode(module, NO_USERS, NO_SERVICES)
    scores = numpy(module.score_experts(encoded, users, services))
    assert scores.shape == (len(users), 2, len(experts))
    assert_allclose(scores[:, 0], alone, **EXACT)
    assert_allclose(scores[:, 1], gates, **EXACT)
    assert_allclose(scores[:, 1].sum(axis=1), np.ones(len(users)), **EXACT)


@pytest.mark.parametrize("expert", EXPERTS)
def test_a_single_experts_own_prediction_is_the_mixtures(expert):
    module = make_module((expert,))
    users, services = pairs()
    encoded = encode(module, NO_USERS, NO_SERVICES)
    scores = numpy(module.score_experts(encoded, users, services))
    assert_allclose(scores[:, 0, 0], numpy(module(users, services)), **EXACT)
    np.testing.assert_array_equal(scores[:, 1, 0], 1.0)


def test_predictions_stay_within_the_bound_and_are_nearly_linear_around_0():
    module = make_module(bound=2.0)
    with torch.no_grad():
        module.head.weight.mul_(1e6)
    prediction = numpy(module(*pairs()))
    assert np.abs(prediction).max() == pytest.approx(2.0)
    with torch.no_grad():
        module.head.weight.zero_()
        module.head.bias.fill_(0.01)
    assert_allclose(numpy(module(*pairs())), 0.01, rtol=1e-4)


# --- Encoding once, scoring pairs ---------------------------------------------------------------


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("experts", SUBSETS, ids="-".join)
def test_encode_and_score_equal_the_training_pass_in_evaluation_mode(experts, activation):
    module = make_module(experts, activation)
    users, services = pairs()
    new_users = new_table([[1, UNKNOWN], [UNKNOWN, UNKNOWN]], [[0.1, NAN], [NAN, NAN]])
    encoded = encode(module, new_users, new_table([[2]], [[0.4]]))
    expected = numpy(module(users, services))
    assert np.ptp(expected) > 1e-3
    assert_allclose(numpy(module.score(encoded, users, services)), expected, **EXACT)


def test_newcomers_are_scored_as_pairs_like_others():
    module = make_module()
    new_users = new_table([[1, 0], [UNKNOWN, UNKNOWN]], [[0.1, 2.0], [NAN, NAN]])
    u = encode_side(module.user_tower, new_users)
    s = encode_side(module.service_tower, NO_SERVICES)
    expected = module._mix(module._project_users(u[[7, 6]]), module._project_services(s[[3, 3]]))
    encoded = encode(module, new_users, NO_SERVICES)
    score = module.score(encoded, torch.tensor([N_USERS + 1, N_USERS]), torch.tensor([3, 3]))
    assert_allclose(numpy(score), numpy(expected), **EXACT)
    assert score[0] != score[1]


@pytest.mark.parametrize("experts", SUBSETS, ids="-".join)
def test_no_pairs_at_all(experts):
    module = make_module(experts).float()
    nothing = np.arange(0)
    empty = EntityTable(np.empty((0, 2), dtype=np.int64), np.empty((0, 2), dtype=np.float32))
    nobody = EntityTable(np.empty((0, 1), dtype=np.int64), np.empty((0, 1), dtype=np.float32))
    interactions = Interactions(nothing, nothing, None, empty, nobody)
    cpu = torch.device("cpu")
    assert predict_interactions(module, interactions, cpu).shape == (0,)
    shape = predict_interactions(module, interactions, cpu, method="score_experts").shape
    assert shape == (0, 2, len(experts))


def test_every_parameter_gets_a_gradient():
    module = make_module().train()
    module(*pairs(200)).square().sum().backward()
    assert not [name for name, p in module.named_parameters() if p.grad is None]
