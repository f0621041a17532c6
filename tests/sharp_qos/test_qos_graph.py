"""The structural features of one QoS parameter: factors, messages and averages."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.graphs import BipartiteGraph
from skqos.sharp_qos.qos_graph import FEATURE_STD, QoSGraph, Structure
from skqos.training import seeded

N_USERS, N_SERVICES = 5, 6
FACTORS, DIM = 4, 3
SINGLE = {"rtol": 1e-4, "atol": 1e-6}
CELLS = [(0, 0), (1, 1), (0, 1), (1, 0), (2, 2), (3, 3), (4, 4), (2, 5), (3, 2), (4, 3)]


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def numpy(tensor):
    return tensor.detach().numpy()


def make_structure(connected=(True, False, True, True), n_members=1):
    layers = [torch.randn(len(connected), n_members * width) for width in (2, 3)]
    return Structure(layers, torch.tensor(connected).unsqueeze(1), n_members)


def slow_structures(structure):
    """Outputs of all layers by member, side by side."""
    members = zip(
        *(np.split(numpy(x), structure.n_members, 1) for x in structure.layers), strict=True
    )
    return [np.hstack(layers) for layers in members]


@pytest.mark.parametrize("n_members", [1, 3])
class TestStructure:
    def test_the_average_is_over_connected_entities(self, n_members):
        structure = make_structure(n_members=n_members)
        expected = [[joined[[0, 2, 3]].mean(0)] for joined in slow_structures(structure)]
        assert_allclose(numpy(structure.average()), expected, **SINGLE)

    def test_an_entity_without_edges_is_the_average(self, n_members):
        structure = make_structure(n_members=n_members)
        found = numpy(structure.take(torch.tensor([3, 1, 0])))
        average = numpy(structure.average())
        for k, joined in enumerate(slow_structures(structure)):
            assert_allclose(found[k], [joined[3], average[k, 0], joined[0]], **SINGLE)

    def test_entities_taken_as_new_are_the_average(self, n_members):
        """Each member takes others as new."""
        structure = make_structure(n_members=n_members)
        is_new = torch.zeros(n_members, 3, 1, dtype=torch.bool)
        is_new[:, 0], is_new[0, 0], is_new[0, 2] = True, False, True
        codes = torch.tensor([3, 1, 0])
        found, known = (numpy(structure.take(codes, *new)) for new in ((is_new,), ()))
        average = numpy(structure.average())
        expected = np.where(is_new, average, known)
        assert_allclose(found, expected, **SINGLE)
        assert_allclose(found[0], [known[0, 0], average[0, 0], average[0, 0]], **SINGLE)

    def test_all_known_entities_are_encoded_as_they_are_taken(self, n_members):
        structure = make_structure(n_members=n_members)
        encoded = numpy(structure.encode_known())
        assert_allclose(encoded, numpy(structure.take(torch.arange(4))), **SINGLE)


BIPARTITE = BipartiteGraph(*np.array(CELLS).T, N_USERS, N_SERVICES)


def random_features(*stack):
    return np.random.default_rng(0).random((*stack, N_USERS + N_SERVICES, FACTORS))


def make_gcn(bipartite=BIPARTITE, features=None, **params):
    defaults = {
        "n_members": 1,
        "dim": DIM,
        "n_layers": 1,
        "convolution": "gcn",
        "ball": None,
        "dropout": 0.0,
        "edge_dropout": 0.0,
        "side_scales": False,
        "newcomer_share": 0.0,
        "fine_tune": True,
    }
    features = random_features() if features is None else features
    return QoSGraph(bipartite, features, **{**defaults, **params})


def test_learnt_factors_scale_what_either_side_receives():
    graph = make_gcn(side_scales=True)
    before = graph()[-1]
    with torch.no_grad():
        graph.layers[0].scales.factors.copy_(torch.tensor([[2.0], [3.0]]))
    expected = torch.cat([2 * before[:N_USERS], 3 * before[N_USERS:]])
    assert_allclose(numpy(graph()[-1]), numpy(expected), **SINGLE)


def test_newcomers_of_a_step_send_and_receive_with_average_features():
    graph = make_gcn(newcomer_share=1.0).train()
    x, found = graph()
    sides = zip(x.split([N_USERS, N_SERVICES]), BIPARTITE.connected(), strict=True)
    averages = [side[mask[:, 0]].mean(0).expand(len(side), -1) for side, mask in sides]
    expected = graph.layers[0](torch.cat(averages), BIPARTITE())
    assert_allclose(numpy(found), numpy(expected), **SINGLE)
    assert_allclose(numpy(x), numpy(graph.features), **SINGLE)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_features_come_to_a_common_size(scale):
    features = scale * random_features()
    graph = make_gcn(features=features, n_members=2)
    assert FEATURE_STD == 0.05
    expected = np.tile(0.05 * features / features.std(), 2)
    assert_allclose(numpy(graph.features), expected, rtol=1e-5)


@pytest.mark.parametrize("fine_tune", [True, False])
def test_features_are_trained_on_or_not(fine_tune):
    graph = make_gcn(features=np.eye(11), fine_tune=fine_tune)
    graph()[-1].sum().backward()
    assert (graph.features.grad is not None) == fine_tune


# --- Messages of the context --------------------------------------------------------------------

CONTEXT_DIM = 2


@pytest.mark.parametrize("n_members", [1, 3])
def test_factors_and_context_of_each_member_are_convolved(n_members):
    graph = make_gcn(n_members=n_members, context_dim=CONTEXT_DIM)
    context = torch.randn(n_members, N_USERS + N_SERVICES, CONTEXT_DIM)
    x, found = graph(context=context)
    assert_allclose(numpy(x), numpy(graph.features), **SINGLE)
    members = np.split(numpy(graph.features), n_members, axis=1)
    sent = np.hstack([np.hstack(both) for both in zip(members, numpy(context), strict=True)])
    expected = graph.layers[0](torch.tensor(sent), BIPARTITE())
    assert_allclose(numpy(found), numpy(expected), **SINGLE)
    assert graph.out_dim == FACTORS + DIM


def test_newcomers_of_a_step_send_their_own_context():
    graph = make_gcn(newcomer_share=1.0, context_dim=CONTEXT_DIM).train()
    context = torch.randn(1, N_USERS + N_SERVICES, CONTEXT_DIM)
    sides = zip(graph.features.split([N_USERS, N_SERVICES]), BIPARTITE.connected(), strict=True)
    averages = [side[mask[:, 0]].mean(0).expand(len(side), -1) for side, mask in sides]
    sent = torch.cat([torch.cat(averages), context[0]], dim=1)
    expected = graph.layers[0](sent, BIPARTITE())
    assert_allclose(numpy(graph(context=context)[1]), numpy(expected), **SINGLE)


# --- Factors without the pairs of a fold --------------------------------------------------------


def make_folded(n_members=2):
    """Return a graph with features of three folds and a correction as after training."""
    graph = make_gcn(features=random_features(3), n_members=n_members)
    assert not graph.features.any()
    with torch.no_grad():
        graph.features.normal_()
    return graph


def test_a_fold_has_its_own_features_and_the_common_correction():
    graph, features = make_folded(), random_features(3)
    assert graph.n_folds == 3
    for fold in range(3):
        fixed = FEATURE_STD * features[fold] / features[fold].std()
        found = graph(fold=torch.tensor([fold]))[0]
        assert_allclose(numpy(found), np.tile(fixed, 2) + numpy(graph.features), **SINGLE)


def test_in_prediction_features_are_averages_over_the_folds():
    graph = make_folded()
    of_folds = [numpy(graph(fold=torch.tensor([fold]))[0]) for fold in range(3)]
    assert_allclose(numpy(graph()[0]), np.mean(of_folds, axis=0), **SINGLE)


def test_new_nodes_have_the_average_features_in_every_fold():
    graph = make_folded()
    before = [numpy(graph(fold=torch.tensor([fold]))[0]) for fold in range(3)]
    more = [*CELLS, (N_USERS, N_SERVICES)]
    graph.grow(BipartiteGraph(*np.array(more).T, N_USERS + 1, N_SERVICES + 1))
    for fold, x in enumerate(before):
        users, services = x[:N_USERS], x[N_USERS:]
        expected = np.vstack([users, users.mean(0), services, services.mean(0)])
        assert_allclose(numpy(graph(fold=torch.tensor([fold]))[0]), expected, **SINGLE)
    assert graph.vector_blocks()[1] == [N_USERS + 1, N_SERVICES + 1]


def test_without_folds_there_is_one_table():
    graph = make_gcn()
    assert graph.n_folds is None
    assert graph.fold_features is None
