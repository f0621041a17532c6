"""Graph convolution of all steps against dense matrices of each; folds; freezing; newcomers."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.entities import EntityTable
from skqos.graphs import N_BINS, BipartiteGraph
from skqos.prediction import encode
from skqos.tpmcf.features import (
    MatrixFactors,
    NodeFeatures,
    SimilarityFactors,
    Statistics,
    StepCells,
    draw_folds,
    without_folds,
)
from skqos.tpmcf.gcmf import GCMF, convolve_steps, embedding_scales, last_steps
from skqos.training import seeded
from tests.tpmcf.members import check_members_alone
from tests.tpmcf.test_features import N_SERVICES, N_STEPS, N_USERS, NAN, cells_of, some_values

N_MEMBERS, IN_DIM, HIDDEN, N_FOLDS = 2, 4, 3, 3
TIMES = np.array([2, 5, 9])
SINGLE = {"rtol": 1e-4, "atol": 1e-5}
both_loops = pytest.mark.parametrize("whole_self", [False, True], ids=["normalised", "whole"])
both_normalizations = pytest.mark.parametrize("normalization", ["symmetric", "row"])
both_weights = pytest.mark.parametrize("own_weights", [False, True], ids=["shared", "own"])


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def numpy(tensor):
    return tensor.detach().numpy()


def nobody(n):
    return EntityTable(np.empty((n, 0), dtype=np.int64), np.empty((n, 0), dtype="f"))


def random_features(n_tables, dim=IN_DIM, seed=1):
    rng = np.random.default_rng(seed)
    return tuple(
        rng.normal(size=(n_tables, N_STEPS, n, dim)).astype("f") for n in (N_USERS, N_SERVICES)
    )


def make_gcmf(
    cells=None,
    folds=None,
    features=None,
    n_folds=N_FOLDS,
    own=False,
    whole=False,
    n_members=N_MEMBERS,
    **options,
):
    """Return the same weights for the same shapes; no bias is 0."""
    torch.manual_seed(0)
    cells = cells_of(some_values()) if cells is None else cells
    if folds is None:
        folds = draw_folds(len(cells), n_folds, np.random.RandomState(0))
    if features is None:
        features = random_features(n_folds or 1)
    gcmf = GCMF(
        IN_DIM if features is None else features[0].shape[3],
        n_members=n_members,
        hidden_dim=HIDDEN,
        n_weights=N_STEPS if own else 1,
        whole_self=whole,
        initial_prediction=0.3,
        **options,
    ).observe(TIMES, cells, folds, features)
    with torch.no_grad():
        for unit in gcmf.units:
            unit.bias.uniform_(0.0, 0.5)
    return gcmf.eval()


# --- The convolution ----------------------------------------------------------------------------


def dense_operator(cells, step, whole_self, normalization="symmetric"):
    """D^-1/2 (A + I) D^-1/2 or D^-1 (A + I) of one step, users first; or with 1 on the diagonal."""
    n_users, n_services = cells.shape[1:]
    n = n_users + n_services
    adjacency = np.zeros((n, n))
    for at, user, service in zip(cells.steps, cells.users, cells.services, strict=True):
        if at == step:
            adjacency[user, n_users + service] = adjacency[n_users + service, user] = 1
    degrees = np.diag(1 + adjacency.sum(axis=1))
    received = sent = np.linalg.inv(np.sqrt(degrees))
    if normalization == "row":
        received, sent = np.linalg.inv(degrees), np.eye(n)
    if whole_self:
        return received @ adjacency @ sent + np.eye(n)
    return received @ (adjacency + np.eye(n)) @ sent


def operators_of(cells, **params):
    n_steps, n_users, n_services = cells.shape
    graph = BipartiteGraph(
        cells.step_users, cells.step_services, n_steps * n_users, n_steps * n_services, **params
    )
    return graph(torch.ones(len(cells), dtype=torch.float64))


@both_loops
@both_normalizations
def test_steps_are_convolved_by_the_dense_operator_of_each(whole_self, normalization):
    cells = cells_of(some_values())
    users, services = (side[0].astype(float) for side in random_features(1))
    operators = operators_of(cells, normalization=normalization)
    found = convolve_steps(operators, [torch.tensor(users), torch.tensor(services)], whole_self)
    for step in range(N_STEPS):
        operator = dense_operator(cells, step, whole_self, normalization)
        # Some nodes have no edge.
        assert ((operator != 0).sum(axis=1) == 1).any()
        expected = operator @ np.concatenate([users[step], services[step]])
        assert_allclose(numpy(found[0][step]), expected[:N_USERS], rtol=1e-12, atol=1e-12)
        assert_allclose(numpy(found[1][step]), expected[N_USERS:], rtol=1e-12, atol=1e-12)


@both_loops
def test_a_node_hears_of_itself_and_of_those_it_was_measured_with_in_the_step(whole_self):
    """Each node says its name, so that rows of graph and features in two orders would show."""
    measured = {0: [(0, 2), (0, 0), (3, 1)], 1: [(1, 0)], 2: []}
    values = np.full((3, 4, 3), NAN)
    for step, pairs in measured.items():
        for user, service in pairs:
            values[step, user, service] = 1.0
    names = torch.eye(3 * (4 + 3), dtype=torch.float64)
    sides = names[:12].unflatten(0, (3, 4)), names[12:].unflatten(0, (3, 3))
    of_users, of_services = convolve_steps(operators_of(cells_of(values)), sides, whole_self)
    for step, pairs in measured.items():
        for user in range(4):
            heard = {4 * step + user} | {12 + 3 * step + s for u, s in pairs if u == user}
            assert set(of_users[step, user].nonzero().flatten().tolist()) == heard
        for service in range(3):
            heard = {12 + 3 * step + service} | {4 * step + u for u, s in pairs if s == service}
            assert set(of_services[step, service].nonzero().flatten().tolist()) == heard


@both_loops
def test_a_node_without_edges_keeps_its_features(whole_self):
    cells = cells_of(some_values())
    sides = [torch.tensor(side[0], dtype=torch.float64) for side in random_features(1)]
    found = convolve_steps(operators_of(cells), sides, whole_self)
    by_user = np.isfinite(some_values())
    for before, after, observed in zip(
        sides, found, (by_user.any(axis=2), by_user.any(axis=1)), strict=True
    ):
        assert not observed.all()
        assert_allclose(after[~observed], before[~observed])


# --- Embeddings ---------------------------------------------------------------------------------


def dense_embeddings(gcmf, member, cells, features, table, whole_self):
    """Both units step by step: ReLU(S A F W + b), their outputs side by side; S scales sides."""
    embedded = []
    for step in range(N_STEPS):
        operator = dense_operator(cells, step, whole_self, gcmf.normalization)
        layer = np.concatenate([side[table, step] for side in features]).astype(float)
        outputs = []
        for unit in gcmf.units:
            weight, bias = (
                numpy(values)[member, step if values.shape[1] > 1 else 0]
                for values in (unit.weight, unit.bias)
            )
            scales = np.ones(len(layer))
            if unit.scales is not None:
                scales = np.repeat(numpy(unit.scales.factors)[:, member], [N_USERS, N_SERVICES])
            layer = np.maximum(np.diag(scales) @ operator @ layer @ weight + bias, 0)
            outputs.append(layer)
        embedded.append(np.concatenate(outputs, axis=1))
    embedded = np.stack(embedded)
    return embedded[:, :N_USERS], embedded[:, N_USERS:]


@both_loops
@both_weights
@pytest.mark.parametrize("n_folds", [None, N_FOLDS])
def test_embeddings_are_those_of_dense_units_on_the_other_folds_edges(
    whole_self, own_weights, n_folds
):
    cells = cells_of(some_values())
    folds = draw_folds(len(cells), n_folds, np.random.RandomState(0))
    features = random_features(n_folds or 1)
    gcmf = make_gcmf(cells, folds, features, n_folds, own_weights, whole_self)
    assert [unit.weight.shape[1] for unit in gcmf.units] == [N_STEPS if own_weights else 1] * 2
    for table in range(n_folds or 1):
        edges = cells if n_folds is None else cells.take(folds != table)
        found = gcmf.embed(torch.tensor([table]))
        for member in range(N_MEMBERS):
            expected = dense_embeddings(gcmf, member, edges, features, table, whole_self)
            for side, of_side in zip(found, expected, strict=True):
                assert side.shape == (N_MEMBERS, *of_side.shape)
                assert side.shape[3] == 2 * HIDDEN
                # Both units say something, and the ReLU of both cuts something off.
                for part in np.split(of_side, 2, axis=2):
                    assert 0.1 < (part > 0).mean() < 1
                assert_allclose(numpy(side[member]), of_side, **SINGLE)


@both_loops
@both_normalizations
def test_embeddings_with_learnt_scales_of_the_sides(whole_self, normalization):
    cells = cells_of(some_values())
    folds = draw_folds(len(cells), N_FOLDS, np.random.RandomState(0))
    features = random_features(N_FOLDS)
    params = {"whole": whole_self, "normalization": normalization, "side_scales": True}
    gcmf = make_gcmf(cells, folds, features, **params)
    first, second = (unit.scales.factors for unit in gcmf.units)
    with torch.no_grad():
        first.copy_(torch.tensor([[2.0, 3.0], [0.5, 1.5]]))
        second.copy_(torch.tensor([[0.25, 1.0], [1.0, 4.0]]))
    found = gcmf.embed(torch.tensor([1]))
    for member in range(N_MEMBERS):
        edges = cells.take(folds != 1)
        expected = dense_embeddings(gcmf, member, edges, features, 1, whole_self)
        for side, of_side in zip(found, expected, strict=True):
            assert_allclose(numpy(side[member]), of_side, **SINGLE)


@pytest.mark.parametrize("n_folds", [None, N_FOLDS])
@both_loops
def test_dropped_edges_carry_no_messages_of_either_unit_and_have_no_degree(whole_self, n_folds):
    cells = cells_of(some_values())
    folds = draw_folds(len(cells), n_folds, np.random.RandomState(0))
    features = random_features(n_folds or 1)
    gcmf = make_gcmf(cells, folds, features, n_folds, whole=whole_self, edge_dropout=0.4)
    torch.manual_seed(5)
    found = gcmf.train().embed_training(torch.tensor([0]))
    torch.manual_seed(5)
    kept = numpy(torch.rand(len(cells)) >= 0.4)
    if n_folds is not None:
        kept &= folds != 0
    assert 0 < kept.sum() < 0.8 * len(cells)
    for member in range(N_MEMBERS):
        edges = cells.take(kept)
        expected = dense_embeddings(gcmf, member, edges, features, 0, whole_self)
        for side, of_side in zip(found, expected, strict=True):
            assert_allclose(numpy(side[member]), of_side, **SINGLE)


def test_edges_are_dropped_in_training_alone():
    gcmf, whole = make_gcmf(edge_dropout=0.4).train(), make_gcmf()
    fold, rows = torch.tensor([1]), some_rows()
    first, second = (gcmf(*rows, fold.expand(20)) for _ in range(2))
    assert (first - second).abs().max() > 0.01
    for found, expected in zip(gcmf.embed_all(), whole.embed_all(), strict=True):
        assert torch.equal(found, expected)
    gcmf.eval()
    for found, expected in zip(gcmf.embed_training(fold), whole.embed(fold), strict=True):
        assert torch.equal(found, expected)


def dense_typed_embeddings(gcmf, member, cells, features, fold):
    """Each unit has weights for each type of edge, and for the node itself."""
    kept = numpy(gcmf.folds) != fold
    types = numpy(gcmf.graph.bins(torch.tensor(kept, dtype=torch.float32))[0])
    embedded = []
    for step in range(N_STEPS):
        operator = dense_operator(cells.take(kept), step, True, gcmf.normalization)
        operator -= np.diag(np.diag(operator))
        layer = np.concatenate([side[fold, step] for side in features]).astype(float)
        outputs = []
        for unit in gcmf.units:
            weight, bias = (numpy(values)[member, 0] for values in unit.parameters())
            received = [
                operator * _adjacency(cells, step, kept & (types == one)) @ layer
                for one in range(N_BINS)
            ]
            layer = np.maximum(np.concatenate([*received, layer], axis=1) @ weight + bias, 0)
            outputs.append(layer)
        embedded.append(np.concatenate(outputs, axis=1))
    embedded = np.stack(embedded)
    return embedded[:, :N_USERS], embedded[:, N_USERS:]


@both_normalizations
def test_embeddings_with_values_on_the_edges_are_those_of_dense_units(normalization):
    cells = cells_of(some_values())
    folds = draw_folds(len(cells), N_FOLDS, np.random.RandomState(0))
    features = random_features(N_FOLDS)
    gcmf = make_gcmf(cells, folds, features, valued_edges=True, normalization=normalization)
    for fold in range(N_FOLDS):
        found = gcmf.embed(torch.tensor([fold]))
        for member in range(N_MEMBERS):
            expected = dense_typed_embeddings(gcmf, member, cells, features, fold)
            for side, of_side in zip(found, expected, strict=True):
                assert 0.1 < (of_side > 0).mean() < 1
                assert_allclose(numpy(side[member]), of_side, **SINGLE)


def test_bounded_predictions_are_sigmoids_of_the_products():
    gcmf, rows = make_gcmf(bounds=(0.2, 2.2)), some_rows()
    # 0.3, the approximate prediction without training, is a twentieth of the range.
    products = slow_products(gcmf.embed(torch.tensor([0])), *rows, np.log(0.05 / 0.95))
    found = gcmf(*rows, torch.zeros(20, dtype=torch.int64))
    assert_allclose(numpy(found), 0.2 + 2.0 / (1 + np.exp(-products)), **SINGLE)


def test_steps_have_one_start_of_their_own_weights_each():
    weight = make_gcmf(own=True).units[0].weight
    assert weight.shape == (N_MEMBERS, N_STEPS, IN_DIM, HIDDEN)
    assert np.abs(numpy(weight[:, 0] - weight[:, 1])).min() > 0
    assert np.abs(numpy(weight[0] - weight[1])).min() > 0
    # Glorot's bound is that of a matrix, not of the whole stack.
    bound = (6 / (IN_DIM + HIDDEN)) ** 0.5
    assert 0.7 * bound < np.abs(numpy(weight)).max() <= bound


@both_weights
def test_steps_do_not_influence_one_another(own_weights):
    features = random_features(N_FOLDS)
    changed = [side.copy() for side in features]
    for side in changed:
        side[:, 1] += 1
    before = make_gcmf(features=features, own=own_weights).embed(torch.tensor([0]))
    after = make_gcmf(features=changed, own=own_weights).embed(torch.tensor([0]))
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[:, [0, 2]], new[:, [0, 2]])
        assert (old[:, 1] - new[:, 1]).abs().max() > 0.1


def test_own_weights_of_a_step_are_of_that_step_alone():
    gcmf = make_gcmf(own=True)
    before = gcmf.embed(torch.tensor([0]))
    with torch.no_grad():
        for unit in gcmf.units:
            unit.weight[:, 1] *= -1
    for old, new in zip(before, gcmf.embed(torch.tensor([0])), strict=True):
        assert torch.equal(old[:, [0, 2]], new[:, [0, 2]])
        assert (old[:, 1] - new[:, 1]).abs().max() > 0.1


def test_permuted_codes_permute_graph_features_and_outputs_alike():
    """The codes of users and services are arbitrary: nothing may hang on their order."""
    values = some_values(share=0.9)
    rng = np.random.default_rng(0)
    users, services = rng.permutation(N_USERS), rng.permutation(N_SERVICES)
    outputs = []
    for array in (values, values[:, users][:, :, services]):
        cells = cells_of(array)
        families = [Statistics(), MatrixFactors(2, 0), SimilarityFactors(2, 0)]
        features = NodeFeatures(families).fit(cells)
        tables = without_folds(features.transform, cells, np.zeros(len(cells), int), None)
        gcmf = make_gcmf(cells, features=tables, n_folds=None)
        outputs.append([numpy(side) for side in gcmf.embed(torch.tensor([0]))])
    (of_users, of_services), permuted = outputs
    assert_allclose(permuted[0], of_users[:, :, users], **SINGLE)
    assert_allclose(permuted[1], of_services[:, :, services], **SINGLE)
    assert np.abs(permuted[0] - of_users).max() > 0.1


@pytest.mark.parametrize("valued_edges", [False, True])
def test_a_fold_is_predicted_without_its_own_cells(valued_edges):
    """Neither from their values nor from their edges: put other cells in their place."""
    values = some_values()
    cells = cells_of(values)
    folds = draw_folds(len(cells), N_FOLDS, np.random.RandomState(0))
    features = NodeFeatures([Statistics()]).fit(cells)
    of_fold = np.flatnonzero(folds == 1)
    codes = np.stack([cells.steps, cells.users, cells.services])
    codes[:, of_fold] = np.argwhere(np.isnan(values))[::3][: len(of_fold)].T
    others = StepCells(*codes, cells.values + 10 * (folds == 1), cells.shape)
    before, after = (
        make_gcmf(
            edges,
            folds,
            without_folds(features.transform, edges, folds, N_FOLDS),
            valued_edges=valued_edges,
        )
        for edges in (cells, others)
    )
    for old, new in zip(
        before.embed(torch.tensor([1])), after.embed(torch.tensor([1])), strict=True
    ):
        assert_allclose(numpy(old), numpy(new), rtol=1e-5, atol=1e-6)
    for old, new in zip(
        before.embed(torch.tensor([0])), after.embed(torch.tensor([0])), strict=True
    ):
        assert (old - new).abs().max() > 0.1


# --- Edges with values --------------------------------------------------------------------------


def test_types_of_edges_are_convolved_side_by_side():
    cells = cells_of(some_values())
    users, services = (side[0] for side in random_features(1))
    n_steps, n_users, n_services = cells.shape
    graph = BipartiteGraph(
        cells.step_users,
        cells.step_services,
        n_steps * n_users,
        n_steps * n_services,
        values=cells.values,
    )
    types, _ = graph.bins(torch.ones(len(cells)))
    found = convolve_steps(graph(), [torch.tensor(users), torch.tensor(services)], True)
    assert found[0].shape == (N_STEPS, N_USERS, (N_BINS + 1) * IN_DIM)
    for step in range(N_STEPS):
        nodes = np.concatenate([users[step], services[step]])
        whole = dense_operator(cells, step, whole_self=True)
        expected = [
            (whole - np.eye(len(nodes))) * _adjacency(cells, step, numpy(types) == one) @ nodes
            for one in range(N_BINS)
        ]
        expected = np.concatenate([*expected, nodes], axis=1)
        of_step = np.concatenate([numpy(side[step]) for side in found])
        assert_allclose(of_step, expected, **SINGLE)


def _adjacency(cells, step, kept):
    """Return which nodes of a step have an edge that is kept, users first."""
    n_users, n_services = cells.shape[1:]
    adjacency = np.zeros((n_users + n_services,) * 2)
    at = (cells.steps == step) & kept
    adjacency[cells.users[at], n_users + cells.services[at]] = 1
    return adjacency + adjacency.T


def test_units_have_weights_for_each_type_of_edges():
    gcmf = make_gcmf(valued_edges=True)
    assert [unit.weight.shape[2] for unit in gcmf.units] == [5 * IN_DIM, 5 * HIDDEN]
    single = make_gcmf(valued_edges=True, n_members=1)
    for whole, part in zip(gcmf.units, single.units, strict=True):
        part.weight.data, part.bias.data = whole.weight.data[1:2], whole.bias.data[1:2]
    fold = torch.tensor([0])
    for whole, part in zip(gcmf.embed(fold), single.embed(fold), strict=True):
        assert_allclose(numpy(whole[1]), numpy(part[0]), **SINGLE)
        assert (whole[1] - whole[0]).abs().max() > 0.1


def test_bounds_hold_whatever_the_embeddings_are():
    gcmf = make_gcmf(bounds=(0.2, 2.2))
    rows = some_rows()
    with torch.no_grad():
        gcmf.units[0].weight.mul_(100)
    found = numpy(gcmf(*rows, torch.zeros(20, dtype=torch.int64)))
    assert found.min() >= 0.2
    assert found.max() == pytest.approx(2.2)
    with torch.no_grad():
        for unit in gcmf.units:
            unit.bias.zero_()
            unit.weight.zero_()
    # Without embeddings, what training starts from.
    assert_allclose(numpy(gcmf(*rows, torch.zeros(20, dtype=torch.int64))), 0.3, rtol=1e-5)


# --- Prediction ---------------------------------------------------------------------------------


def some_rows(n=20, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.integers(size, size=n)) for size in (N_USERS, N_SERVICES, N_STEPS)]


def slow_products(embedded, users, services, steps, start):
    """A start, and the mean of the products that varies as one product does; members first."""
    return np.array(
        [
            [
                start + of_users[step, user] @ of_services[step, service] / np.sqrt(2 * HIDDEN)
                for user, service, step in zip(*map(numpy, (users, services, steps)), strict=True)
            ]
            for of_users, of_services in zip(*map(numpy, embedded), strict=True)
        ]
    )


@pytest.mark.parametrize("table", range(N_FOLDS))
def test_training_rows_are_products_of_the_embeddings_of_their_table(table):
    gcmf = make_gcmf()
    rows = some_rows()
    expected = slow_products(gcmf.embed(torch.tensor([table])), *rows, 0.3)
    assert np.ptp(expected) > 0.1
    found = gcmf(*rows, torch.full((20,), table))
    assert_allclose(numpy(found), expected, **SINGLE)


def test_prediction_takes_the_mean_of_the_embeddings_over_folds():
    gcmf = make_gcmf()
    tables = [gcmf.embed(torch.tensor([table])) for table in range(N_FOLDS)]
    for k, (every, mean) in enumerate(
        zip(gcmf.embed_all(), gcmf.prediction_embeddings(), strict=True)
    ):
        expected = np.stack([numpy(table[k]) for table in tables], axis=1)
        assert np.ptp(expected, axis=1).max() > 0.1
        assert_allclose(numpy(every), expected)
        assert_allclose(numpy(mean), expected.mean(axis=1), **SINGLE)
        assert not every.requires_grad


@pytest.mark.parametrize(
    ("target", "step"),
    [(-7, 0), (1, 0), (2, 0), (4, 0), (5, 1), (8, 1), (9, 2), (10, 2), (10**12, 2)],
)
def test_the_last_step_not_after_a_time(target, step):
    assert last_steps(torch.tensor(TIMES), torch.tensor([target])).tolist() == [step]


def test_scores_are_products_at_the_last_step_not_after_the_time():
    gcmf = make_gcmf()
    users, services, _ = some_rows(6)
    times = torch.tensor([0, 2, 3, 5, 9, 30])
    encoded = encode(gcmf, nobody(0), nobody(0))
    steps = torch.tensor([0, 0, 0, 1, 2, 2])
    expected = slow_products(gcmf.prediction_embeddings(), users, services, steps, 0.3)
    assert np.ptp(expected, axis=0).max() > 0.1
    expected = expected.mean(axis=0)
    assert_allclose(numpy(gcmf.score(encoded, users, services, times)), expected, **SINGLE)


def test_without_folds_training_and_prediction_are_the_same():
    gcmf = make_gcmf(n_folds=None)
    users, services, steps = some_rows()
    encoded = encode(gcmf, nobody(0), nobody(0))
    found = gcmf.score(encoded, users, services, torch.tensor(TIMES)[steps])
    expected = gcmf(users, services, steps, torch.zeros(20, dtype=torch.int64))
    assert_allclose(numpy(found), numpy(expected).mean(0), **SINGLE)


def test_newcomers_are_the_average_node_of_each_step():
    gcmf = make_gcmf()
    known = gcmf.prediction_embeddings()
    encoded = encode(gcmf, nobody(2), nobody(1))
    sides = encoded.users, encoded.services
    for side, before, n_new in zip(sides, known, (2, 1), strict=True):
        n = before.shape[2]
        assert side.shape[2] == n + n_new
        assert torch.equal(side[:, :, :n], before)
        for newcomer in range(n, n + n_new):
            expected = numpy(before).mean(axis=2)
            assert np.ptp(expected, axis=1).max() > 0.01
            assert_allclose(numpy(side[:, :, newcomer]), expected, **SINGLE)


@pytest.mark.parametrize("n_folds", [None, N_FOLDS])
def test_a_frozen_network_predicts_the_same_to_the_last_bit(n_folds):
    gcmf = make_gcmf(n_folds=n_folds).eval()
    users, services, steps = some_rows()
    times = torch.tensor(TIMES)[steps]
    newcomers = nobody(2), nobody(1)
    users[:2], services[1:3] = N_USERS + 1, N_SERVICES
    before = gcmf.score(encode(gcmf, *newcomers), users, services, times)
    gcmf.freeze()
    assert torch.equal(gcmf.score(encode(gcmf, *newcomers), users, services, times), before)
    kept = {name for name, value in gcmf.named_buffers() if value is not None}
    assert kept == {"times", "user_frozen", "service_frozen"}
    assert not gcmf.user_frozen.requires_grad
    assert not any(name.startswith("graph") for name in gcmf.state_dict())


@both_weights
@both_loops
@pytest.mark.parametrize("side_scales", [False, True])
def test_members_are_networks_of_their_own(own_weights, whole_self, side_scales):
    params = {"own": own_weights, "whole": whole_self, "side_scales": side_scales}
    rows = some_rows(200)
    check_members_alone(
        make_gcmf(**params, n_members=3),
        lambda: make_gcmf(**params, n_members=1),
        lambda module: module(*rows, torch.ones(200, dtype=torch.int64)),
    )


# --- As a module --------------------------------------------------------------------------------


@both_weights
@both_loops
def test_every_parameter_gets_a_gradient(own_weights, whole_self):
    gcmf = make_gcmf(own=own_weights, whole=whole_self, side_scales=True)
    rows = some_rows(200)
    gcmf(*rows, torch.ones(200, dtype=torch.int64)).square().sum().backward()
    for name, parameter in gcmf.named_parameters():
        # Members and steps, or sides and members.
        of_each_step = parameter.grad.reshape(*parameter.shape[:2], -1)
        assert of_each_step.abs().sum(2).min() > 0, name


@pytest.mark.parametrize("frozen", [False, True])
def test_every_tensor_is_a_parameter_or_a_buffer(frozen):
    gcmf = make_gcmf(edge_dropout=0.4, side_scales=True)
    gcmf(*some_rows(), torch.zeros(20, dtype=torch.int64))
    if frozen:
        gcmf.freeze()
    for part in gcmf.modules():
        assert not loose_tensors(part)


def loose_tensors(part):
    """Names of tensors, or of lists and tuples of them, that `.to(device)` would not move."""
    # torch's recurrent layers keep a list of their parameters.
    registered = {id(parameter) for parameter in part.parameters()}
    found = []
    for name, value in vars(part).items():
        values = value if isinstance(value, list | tuple) else [value]
        tensors = [one for one in values if isinstance(one, torch.Tensor)]
        if any(id(tensor) not in registered for tensor in tensors):
            found.append(name)
    return found


def test_a_loose_tensor_is_noticed():
    gcmf = make_gcmf()
    gcmf.kept = [torch.ones(1)]
    assert loose_tensors(gcmf) == ["kept"]


# --- Standardising ------------------------------------------------------------------------------


def test_features_of_a_member_are_standardised_over_tables_steps_and_nodes():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 5, size=(2, 3, 5, 40, 4)) * rng.uniform(1, 9, size=(2, 1, 1, 1, 4))
    mean, deviation = map(numpy, embedding_scales(torch.tensor(values)))
    for of_member, member in zip((values - mean) / deviation, values, strict=True):
        rows = member.reshape(-1, 4)
        expected = (rows - rows.mean(0)) / rows.std(0)
        assert_allclose(of_member, expected.reshape(member.shape), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7e5])
def test_constant_features_become_0(value):
    values = torch.randn(2, 3, 41, 2)
    values[..., 1] = value
    mean, deviation = embedding_scales(values)
    found = (values - mean) / deviation
    assert_allclose(numpy(found[..., 1]), 0, atol=1e-5)
    assert_allclose(numpy(found[..., 0]).std(), 1, rtol=1e-4)
