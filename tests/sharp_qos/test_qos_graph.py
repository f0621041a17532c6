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


def make_gcn(
    bipartite, features, n_members=1, fine_tune=True, side_scales=False, newcomer_share=0.0
):
    return QoSGraph(
        bipartite,
        features,
        n_members=n_members,
        dim=DIM,
        n_layers=1,
        convolution="gcn",
        ball=None,
        dropout=0.0,
        edge_dropout=0.0,
        side_scales=side_scales,
        newcomer_share=newcomer_share,
        fine_tune=fine_tune,
    )


def test_learnt_factors_scale_what_either_side_receives():
    bipartite = BipartiteGraph(*np.array(CELLS).T, N_USERS, N_SERVICES)
    features = np.random.default_rng(0).random((N_USERS + N_SERVICES, FACTORS))
    graph = make_gcn(bipartite, features, side_scales=True)
    before = graph()[-1]
    with torch.no_grad():
        graph.layers[0].scales.factors.copy_(torch.tensor([[2.0], [3.0]]))
    expected = torch.cat([2 * before[:N_USERS], 3 * before[N_USERS:]])
    assert_allclose(numpy(graph()[-1]), numpy(expected), **SINGLE)


def test_newcomers_of_a_step_send_and_receive_with_average_features():
    bipartite = BipartiteGraph(*np.array(CELLS).T, N_USERS, N_SERVICES)
    features = np.random.default_rng(0).random((N_USERS + N_SERVICES, FACTORS))
    graph = make_gcn(bipartite, features, newcomer_share=1.0).train()
    x, found = graph()
    sides = zip(x.split([N_USERS, N_SERVICES]), bipartite.connected(), strict=True)
    averages = [side[mask[:, 0]].mean(0).expand(len(side), -1) for side, mask in sides]
    expected = graph.layers[0](torch.cat(averages), bipartite())
    assert_allclose(numpy(found), numpy(expected), **SINGLE)
    assert_allclose(numpy(x), numpy(graph.features), **SINGLE)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_features_come_to_a_common_size(scale):
    features = scale * np.random.default_rng(0).random((N_USERS + N_SERVICES, FACTORS))
    bipartite = BipartiteGraph(*np.array(CELLS).T, N_USERS, N_SERVICES)
    graph = make_gcn(bipartite, features, n_members=2)
    assert FEATURE_STD == 0.05
    expected = np.tile(0.05 * features / features.std(), 2)
    assert_allclose(numpy(graph.features), expected, rtol=1e-5)


@pytest.mark.parametrize("fine_tune", [True, False])
def test_features_are_trained_on_or_not(fine_tune):
    bipartite = BipartiteGraph(*np.array(CELLS).T, N_USERS, N_SERVICES)
    graph = make_gcn(bipartite, np.eye(11), fine_tune=fine_tune)
    graph()[-1].sum().backward()
    assert (graph.features.grad is not None) == fine_tune
