"""The network against loops over members and rows: towers, gate, mixture, head; newcomers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skqos.entities import UNKNOWN, EntityTable, Interactions
from skqos.members import MemberBatchNorm
from skqos.prediction import encode, predict_interactions
from skqos.sa_moe.module import EMBEDDING_STD, EntityTower, SAMoEModule
from skqos.training import seeded
from tests.common import copy_member, part_of_member, weight_of

MEMBERS, EMBED, DIM, OUT, RANK = 3, 3, 8, 5, 4
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


def make_tower(
    n=N_USERS, n_categories=(3, 2), n_numeric=2, rank=RANK, seed=0, out_dim=DIM, **options
):
    factors = np.random.default_rng(seed).normal(size=(n, rank)) * 7
    return build_tower(
        make_table(n, n_categories, n_numeric, seed),
        n_categories,
        factors,
        out_dim=out_dim,
        **options,
    ).double()


def build_tower(table, n_categories, factors, **options):
    options = {
        "n_members": MEMBERS,
        "embedding_dim": EMBED,
        "out_dim": DIM,
        "activation": "identity",
        "dropout": 0.4,
        **options,
    }
    return EntityTower(table, n_categories, factors, **options)


def make_module(
    experts=EXPERTS,
    activation="identity",
    bound=1.5,
    n_members=MEMBERS,
    shared_projections=True,
    batch_norm=True,
    attention_dropout=0.5,
    tower_activation="identity",
    **tower,
):
    tower = {"n_members": n_members, "activation": tower_activation, **tower}
    module = SAMoEModule(
        make_tower(N_USERS, **{"seed": 1, **tower}),
        make_tower(N_SERVICES, **{"n_categories": (4,), "n_numeric": 1, "seed": 2, **tower}),
        n_members=n_members,
        hidden_sizes=(7, 6, OUT),
        experts=experts,
        attention_dim=6,
        n_heads=2,
        attention_dropout=attention_dropout,
        shared_projections=shared_projections,
        batch_norm=batch_norm,
        activation=activation,
        bound=bound,
    ).double()
    for part in module.modules():
        if isinstance(part, MemberBatchNorm):
            part.norm.running_mean.normal_()
            part.norm.running_var.uniform_(0.5, 2.0)
    for tower in (module.user_tower, module.service_tower):
        # As after training: entities differ.
        nn.init.normal_(tower.features.vectors)
    return module.eval()


def pairs(n=30):
    return torch.randint(N_USERS, (n,)), torch.randint(N_SERVICES, (n,))


def numpy(tensor):
    return tensor.detach().numpy()


def linear(layer, x, member):
    return x @ numpy(weight_of(layer))[member] + numpy(layer.bias)[member, 0]


def relu(x):
    return np.maximum(x, 0)


def new_table(categories, numerics):
    return EntityTable(np.array(categories, dtype=np.int64), np.array(numerics, dtype=np.float64))


NO_USERS = new_table(np.empty((0, 2)), np.empty((0, 2)))
NO_SERVICES = new_table(np.empty((0, 1)), np.empty((0, 1)))
NEW_USERS = new_table([[1, UNKNOWN], [UNKNOWN, UNKNOWN]], [[0.1, NAN], [NAN, NAN]])
NEW_SERVICES = new_table([[2]], [[0.4]])


# --- Towers (eq. 11) ----------------------------------------------------------------------------


def own_vectors(tower, member):
    """Return a member's vectors of ids and codes."""
    return numpy(tower.features.vectors)[:, member * EMBED : (member + 1) * EMBED]


def project(tower, numbers, member):
    """Project numeric context by a member's layer."""
    own = slice(member * EMBED, (member + 1) * EMBED)
    layer = tower.features.numeric_layer
    return numpy(layer.weight)[own] @ numbers + numpy(layer.bias)[own]


def slow_inputs(tower, code, member):
    """Return id embedding, one embedding per category, projected numbers and factors."""
    parts = [own_vectors(tower, member)[row] for row in numpy(tower.features.rows)[code]]
    if tower.features.numeric_layer is not None:
        parts.append(project(tower, numpy(tower.features.numerics)[code], member))
    return [*parts, numpy(tower.factors)[code]]


def mix(tower, parts, member):
    """Mix the parts of an entity's input linearly."""
    return linear(tower.mixer[0], np.concatenate(parts), member)


@pytest.mark.parametrize(
    ("n_categories", "n_numeric", "rank"),
    [((3, 2), 2, 4), ((), 0, 4), ((3,), 0, 0), ((), 2, 0), ((), 0, 0)],
)
@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_towers_mix_concatenated_inputs(n_categories, n_numeric, rank, activation):
    tower = make_tower(
        n_categories=n_categories, n_numeric=n_numeric, rank=rank, activation=activation
    ).eval()
    codes = [4, 0, 4, 5]
    found = numpy(tower(torch.tensor(codes)))
    assert found.shape == (MEMBERS, 4, DIM)
    assert tower.out_dim == DIM
    for member in range(MEMBERS):
        expected = [mix(tower, slow_inputs(tower, code, member), member) for code in codes]
        expected = relu(np.array(expected)) if activation == "relu" else expected
        assert_allclose(found[member], expected, **EXACT)


@pytest.mark.parametrize(
    ("n_categories", "n_numeric", "rank"), [((3, 2), 2, 4), ((), 0, 4), ((), 2, 0), ((), 0, 0)]
)
def test_a_tower_without_a_width_lays_its_inputs_side_by_side(n_categories, n_numeric, rank):
    tower = make_tower(
        n_categories=n_categories, n_numeric=n_numeric, rank=rank, out_dim=None, activation="relu"
    ).eval()
    found = numpy(tower(torch.arange(N_USERS)))
    assert tower.out_dim == EMBED * (1 + len(n_categories) + bool(n_numeric)) + rank
    assert not list(tower.mixer.parameters())
    for member in range(MEMBERS):
        inputs = [np.concatenate(slow_inputs(tower, code, member)) for code in range(N_USERS)]
        assert_allclose(found[member], inputs, **EXACT)
    assert found.min() < 0


def test_unknown_numbers_count_as_the_mean():
    table = EntityTable(np.empty((3, 0), dtype=np.int64), np.array([[-1.0], [NAN], [1.0]]))
    tower = build_tower(table, [], np.empty((3, 0)))
    assert tower.features.numerics.tolist() == [[-1.0], [0.0], [1.0]]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_factors_are_scaled_to_the_size_of_a_fresh_embedding(scale):
    factors = scale * np.random.default_rng(0).normal(size=(N_USERS, RANK))
    before = factors.copy()
    tower = build_tower(make_table(N_USERS), (3, 2), factors)
    expected = EMBEDDING_STD * factors / np.sqrt(((factors - factors.mean()) ** 2).mean())
    assert_allclose(tower.factors, expected, rtol=1e-6)
    np.testing.assert_array_equal(factors, before)


def test_factors_of_a_matrix_of_zeros_stay_0():
    tower = build_tower(make_table(N_USERS), (3, 2), np.zeros((N_USERS, 2)))
    assert torch.equal(tower.factors, torch.zeros(N_USERS, 2))


def test_factors_and_context_are_no_parameters():
    """All members share them."""
    tower = make_tower()
    buffers = {name.split(".")[-1]: values.shape for name, values in tower.named_buffers()}
    assert buffers == {
        "rows": (N_USERS, 3),
        "numerics": (N_USERS, 2),
        "factors": (N_USERS, RANK),
    }


def test_embeddings_start_at_the_size_of_the_factors():
    table = EntityTable(np.empty((2000, 0), dtype=np.int64), np.empty((2000, 0)))
    tower = build_tower(table, [], np.empty((2000, 0)), embedding_dim=8)
    assert tower.features.vectors.std().item() == pytest.approx(EMBEDDING_STD, rel=0.05)


def test_dropout_falls_on_the_inputs_of_the_mixer_in_training_only():
    tower = make_tower(dropout=0.5).train()
    seen = []
    tower.mixer.register_forward_pre_hook(lambda _, args: seen.append(numpy(args[0])))
    codes = torch.arange(N_USERS)
    tower(codes)
    inputs = np.array(
        [
            [np.concatenate(slow_inputs(tower, code, member)) for code in range(N_USERS)]
            for member in range(MEMBERS)
        ]
    )
    kept = seen[0] != 0
    assert 0.3 < kept.mean() < 0.7
    assert (kept[0] != kept[1]).any()
    assert_allclose(seen[0][kept], 2 * inputs[kept], **EXACT)
    tower.eval()(codes)
    assert_allclose(seen[1], inputs, **EXACT)


# --- Newcomers ----------------------------------------------------------------------------------


def encode_side(tower, new):
    known, average = tower.encode_known()
    return torch.cat([known, tower.encode_new(average, new)], dim=1)


@pytest.mark.parametrize("out_dim", [DIM, None])
def test_encode_gives_the_known_entities_first(out_dim):
    tower = make_tower(out_dim=out_dim).eval()
    encoded = encode_side(tower, new_table([[0, 1], [1, 1]], [[0.5, NAN], [1.0, 2.0]]))
    assert encoded.shape == (MEMBERS, N_USERS + 2, tower.out_dim)
    assert_allclose(numpy(encoded[:, :N_USERS]), numpy(tower(torch.arange(N_USERS))), **EXACT)


@pytest.mark.parametrize("out_dim", [DIM, None])
@pytest.mark.parametrize(("n_categories", "n_numeric"), [((3, 2), 2), ((3,), 0), ((), 1), ((), 0)])
def test_a_newcomer_without_context_is_the_average_entity(n_categories, n_numeric, out_dim):
    tower = make_tower(n_categories=n_categories, n_numeric=n_numeric, out_dim=out_dim).eval()
    nothing = np.full((1, len(n_categories)), UNKNOWN), np.full((1, n_numeric), NAN)
    encoded = numpy(encode_side(tower, new_table(*nothing)))
    assert_allclose(encoded[:, -1], encoded[:, :-1].mean(axis=1), **EXACT)
    assert np.ptp(encoded[:, :-1], axis=1).min() > 0.001


def test_an_activation_acts_on_the_average_input_of_a_newcomer():
    tower = make_tower(activation="relu").eval()
    nobody = new_table([[UNKNOWN, UNKNOWN]], [[NAN, NAN]])
    found = numpy(encode_side(tower, nobody))
    for member in range(MEMBERS):
        known = [mix(tower, slow_inputs(tower, code, member), member) for code in range(N_USERS)]
        assert_allclose(found[member, -1], relu(np.mean(known, axis=0)), **EXACT)
        assert (found[member, -1] != relu(np.array(known)).mean(axis=0)).any()


def test_newcomers_use_what_context_they_have_and_the_average_for_the_rest():
    tower = make_tower(n=7, n_categories=(3, 4)).eval()
    categories = [[2, UNKNOWN], [UNKNOWN, 3], [0, 0], [UNKNOWN, UNKNOWN]]
    numerics = [[NAN, NAN], [1.5, NAN], [-1.0, 2.0], [NAN, 0.3]]
    encoded = numpy(encode_side(tower, new_table(categories, numerics)))
    # Where the vectors of each column's codes start: behind the ids, and behind the first column.
    starts = 7, 7 + 3
    for member in range(MEMBERS):
        known = [slow_inputs(tower, code, member) for code in range(7)]
        averages = [np.mean(part, axis=0) for part in zip(*known, strict=True)]
        for row, (codes, numbers) in enumerate(zip(categories, numerics, strict=True)):
            parts = list(averages)
            for k, code in enumerate(codes):
                if code != UNKNOWN:
                    parts[1 + k] = own_vectors(tower, member)[starts[k] + code]
            parts[3] = project(tower, np.nan_to_num(numbers), member)
            assert_allclose(encoded[member, 7 + row], mix(tower, parts, member), **EXACT)


def test_the_average_weighs_categories_by_how_many_entities_have_them():
    table = EntityTable(np.array([[0], [0], [0], [1]]), np.empty((4, 0)))
    tower = build_tower(table, (2,), np.empty((4, 0))).double().eval()
    encoded = numpy(encode_side(tower, new_table([[UNKNOWN]], np.empty((1, 0)))))
    for member in range(MEMBERS):
        vectors = own_vectors(tower, member)
        parts = vectors[:4].mean(0), 0.75 * vectors[4] + 0.25 * vectors[5]
        assert_allclose(encoded[member, -1], mix(tower, parts, member), **EXACT)


def test_no_newcomers_are_no_rows():
    assert encode_side(make_tower(), NO_USERS).shape == (MEMBERS, N_USERS, DIM)


# --- Mixture and head (eq. 15 to 17) ------------------------------------------------------------


def slow_prediction(module, users, services, activation, bound):
    """Return predictions, gates and each expert's own prediction, member by member, row by row."""
    u, s = module.user_tower(users), module.service_tower(services)
    outputs = [
        numpy(expert(expert.users(u), expert.services(s))) for expert in module.experts.values()
    ]

    def head(output, member):
        hidden = relu(output) if activation == "relu" else output
        return bound * np.tanh(linear(module.head, hidden, member)[0] / bound)

    shape = u.shape[:2]
    mixed = np.empty(shape)
    gates, alone = np.empty((2, *shape, len(outputs)))
    for member, row in np.ndindex(*shape):
        pair = np.concatenate([numpy(u)[member, row], numpy(s)[member, row]])
        exp = np.exp(linear(module.gate, pair, member))
        gate = exp / exp.sum()
        total = np.zeros(OUT)
        for weight, output in zip(gate, outputs, strict=True):
            total += weight * output[member, row]
        mixed[member, row] = head(total, member)
        gates[member, row] = gate
        alone[member, row] = [head(output[member, row], member) for output in outputs]
    return mixed, gates, alone


SUBSETS = [EXPERTS, EXPERTS[::-1], EXPERTS[1:], EXPERTS[::2], EXPERTS[:2], ("lhuc",)]


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("experts", SUBSETS, ids="-".join)
def test_gate_mixture_and_head(experts, activation):
    """All experts, and with some dropped: the gate shares out among those that are left."""
    module = make_module(experts, activation, bound=0.3)
    assert list(module.experts) == list(experts)
    assert weight_of(module.gate).shape[2] == len(experts)
    users, services = pairs()
    mixed, gates, alone = slow_prediction(module, users, services, activation, bound=0.3)
    assert_allclose(numpy(module(users, services)), mixed, rtol=1e-7)
    module.bound.fill_(0.3)
    assert_allclose(numpy(module(users, services)), mixed, **EXACT)
    encoded = encode(module, NO_USERS, NO_SERVICES)
    # Members are averaged in the unit of the predictions.
    assert_allclose(numpy(module.score(encoded, users, services)), mixed.mean(axis=0), **EXACT)
    scores = numpy(module.score_experts(encoded, users, services))
    assert scores.shape == (len(users), 2, len(experts))
    assert_allclose(scores[:, 0], alone.mean(axis=0), **EXACT)
    assert_allclose(scores[:, 1], gates.mean(axis=0), **EXACT)
    assert_allclose(scores[:, 1].sum(axis=1), np.ones(len(users)), **EXACT)
    assert np.ptp(mixed, axis=0).max() > 0.01, "members differ"


@pytest.mark.parametrize("expert", EXPERTS)
def test_a_single_experts_own_prediction_is_the_mixtures(expert):
    module = make_module((expert,))
    users, services = pairs()
    encoded = encode(module, NO_USERS, NO_SERVICES)
    scores = numpy(module.score_experts(encoded, users, services))
    assert_allclose(scores[:, 0, 0], numpy(module(users, services)).mean(axis=0), **EXACT)
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


NETWORKS = {
    "the paper's": {},
    "unmixed inputs": {"out_dim": None, "shared_projections": False, "batch_norm": False},
    "towers with an activation": {"tower_activation": "relu"},
}


@pytest.fixture(params=NETWORKS)
def network(request):
    """Options of a network: towers of one width or of two, with or without normalisation."""
    return NETWORKS[request.param]


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("experts", SUBSETS, ids="-".join)
def test_encode_and_score_equal_the_training_pass_in_evaluation_mode(experts, activation, network):
    module = make_module(experts, activation, **network)
    users, services = pairs()
    encoded = encode(module, NEW_USERS, NEW_SERVICES)
    expected = numpy(module(users, services))
    assert expected.shape == (MEMBERS, len(users))
    assert np.ptp(expected) > 1e-3
    found = numpy(module.score(encoded, users, services))
    assert_allclose(found, expected.mean(axis=0), **EXACT)


def test_newcomers_are_scored_as_pairs_like_others(network):
    module = make_module(**network)
    u = encode_side(module.user_tower, NEW_USERS)
    s = encode_side(module.service_tower, NO_SERVICES)
    expected = module._mix(
        module._project_users(u[:, [7, 6]]), module._project_services(s[:, [3, 3]])
    )
    encoded = encode(module, NEW_USERS, NO_SERVICES)
    score = module.score(encoded, torch.tensor([N_USERS + 1, N_USERS]), torch.tensor([3, 3]))
    assert_allclose(numpy(score), numpy(expected).mean(axis=0), **EXACT)
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


def test_every_parameter_gets_a_gradient(network):
    module = make_module(**network).train()
    module(*pairs(200)).square().sum().backward()
    assert not [name for name, p in module.named_parameters() if p.grad is None]


# --- Members are networks of their own ----------------------------------------------------------


def grow(module):
    """Append a user with an unseen category, and one service."""
    old = make_table(N_USERS, seed=1), make_table(N_SERVICES, (4,), 1, seed=2)
    new = new_table([[1, 2]], [[0.3, -0.2]]), NEW_SERVICES
    users, services = (
        SimpleNamespace(
            table_=EntityTable(
                np.concatenate([before.categories, after.categories]),
                np.concatenate([before.numerics, after.numerics]),
            ),
            n_categories=n_categories,
        )
        for before, after, n_categories in zip(old, new, ([3, 3], [4]), strict=True)
    )
    module.grow(users, services, bound=2.5)


def make_with_singles(experts=EXPERTS, **options):
    """Return a network of members, and one network of one member with the weights of each."""
    options = {"dropout": 0.0, "attention_dropout": 0.0, **options}
    module = make_module(experts, **options)
    singles = []
    for member in range(MEMBERS):
        singles.append(make_module(experts, n_members=1, **options))
        copy_member(module, singles[-1], member)
    return module, singles


def close(found, expected):
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("experts", [EXPERTS, ("attention",), ("lhuc",), ("mlp",)], ids="-".join)
def test_members_train_as_networks_of_one_member_do(experts, training, network):
    module, singles = make_with_singles(experts, **network)
    users, services = pairs()
    found = module.train(training)(users, services)
    expected = torch.cat([single.train(training)(users, services) for single in singles])
    close(found, expected)
    loss_weights = torch.randn_like(found)
    (found * loss_weights).sum().backward()
    (expected * loss_weights).sum().backward()
    parameters = dict(module.named_parameters())
    for member, single in enumerate(singles):
        for name, of_single in single.named_parameters():
            gradient = parameters[name].grad
            close(part_of_member(gradient, of_single, member), of_single.grad)
    # Running statistics, too.
    buffers = dict(module.named_buffers())
    for member, single in enumerate(singles):
        for name, of_single in single.named_buffers():
            close(part_of_member(buffers[name], of_single, member), of_single)


@pytest.mark.parametrize("method", ["score", "score_experts"])
@pytest.mark.parametrize("is_grown", [False, True])
def test_scores_are_averages_over_networks_of_one_member(method, is_grown, network):
    module, singles = make_with_singles(**network)
    if is_grown:
        for part in (module, *singles):
            grow(part)
    n_users, n_services = N_USERS + is_grown, N_SERVICES + is_grown
    users = torch.randint(n_users + 2, (40,))
    services = torch.randint(n_services + 1, (40,))
    found, *expected = (
        getattr(part, method)(encode(part, NEW_USERS, NEW_SERVICES), users, services)
        for part in (module, *singles)
    )
    close(found, torch.stack(expected).mean(0))
    assert (expected[0] != expected[1]).any()


def test_a_grown_network_predicts_what_is_new_as_it_did_before(network):
    """A user with an unseen category and a service; the bound never falls."""
    module = make_module(**network, bound=3.0)
    new_users = new_table([[1, UNKNOWN]], [[0.3, -0.2]])
    encoded = encode(module, new_users, NEW_SERVICES)
    users = torch.arange(N_USERS + 1).repeat(N_SERVICES + 1)
    services = torch.arange(N_SERVICES + 1).repeat_interleave(N_USERS + 1)
    expected = module.score(encoded, users, services)
    grow(module)
    close(module(users, services).mean(0), expected)
    assert module.bound.item() == 3.0


def test_a_bound_rises_with_larger_targets():
    module = make_module(bound=1.5)
    grow(module)
    assert module.bound.item() == 2.5
