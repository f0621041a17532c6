"""The plain network against a loop over pairs; what all estimators promise is in test_contract."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.baselines import EmbeddingMLPRegressor
from skqos.baselines.embedding_mlp_module import EmbeddingMLPModule
from skqos.embeddings import FeatureEmbedding
from skqos.entities import UNKNOWN, EntityTable
from skqos.prediction import encode
from skqos.training import seeded
from tests.common import weight_of

EXACT = {"rtol": 1e-10, "atol": 1e-10}
N_MEMBERS = 3


@pytest.fixture
def module():
    with seeded(0, torch.device("cpu")):
        users = EntityTable(np.array([[0], [1], [1]]), np.array([[0.5], [-1.0], [0.5]]))
        services = EntityTable(np.zeros((4, 0), dtype=np.int64), np.zeros((4, 0)))
        features = [
            FeatureEmbedding(users, [2], 3, N_MEMBERS),
            FeatureEmbedding(services, [], 3, N_MEMBERS),
        ]
        network = EmbeddingMLPModule(
            *features, n_members=N_MEMBERS, hidden_sizes=(5, 4), dropout=0.5
        )
    return network.double().eval()


def slow_predictions(vectors, module):
    """Predict from vectors (n_members, width), layer by layer."""
    result = []
    for member, hidden in enumerate(vectors):
        for k, layer in enumerate([module.first, *module.rest]):
            weight, bias = (p.detach().numpy()[member] for p in (weight_of(layer), layer.bias))
            hidden = (np.maximum(hidden, 0) if k else hidden) @ weight + bias[0]
        result.append(hidden[0])
    return result


def vectors_of(module, user, service):
    parts = [
        module.user_features(torch.tensor([user])),
        module.service_features(torch.tensor([service])),
    ]
    return torch.cat(parts, dim=2)[:, 0].detach().numpy()


def test_members_predict_by_dense_layers(module):
    users, services = torch.tensor([0, 2, 1, 1]), torch.tensor([3, 0, 0, 2])
    expected = np.array(
        [
            slow_predictions(vectors_of(module, u, s), module)
            for u, s in zip(users.tolist(), services.tolist(), strict=True)
        ]
    )
    assert_allclose(module(users, services).detach().T, expected, **EXACT)
    nobody = EntityTable(np.zeros((0, 1), dtype=np.int64), np.zeros((0, 1)))
    nothing = EntityTable(np.zeros((0, 0), dtype=np.int64), np.zeros((0, 0)))
    encoded = encode(module, nobody, nothing)
    score = module.score(encoded, users, services).detach()
    assert_allclose(score, expected.mean(axis=1), **EXACT)


def test_newcomers_have_their_context_and_average_vectors_for_the_rest(module):
    new = EntityTable(np.array([[0], [UNKNOWN]]), np.array([[np.nan], [2.0]]))
    new_service = EntityTable(np.zeros((1, 0), dtype=np.int64), np.zeros((1, 0)))
    encoded = encode(module, new, new_service)
    score = module.score(encoded, torch.tensor([3, 4]), torch.tensor([4, 4])).detach()
    known = module.user_features.encode_known().detach().numpy()
    average_service = module.service_features.encode_known().mean(1).detach().numpy()
    first, second = known.mean(1), known.mean(1)
    category = module.user_features.vectors.detach().numpy()[3].reshape(N_MEMBERS, 3)
    layer = module.user_features.numeric_layer
    weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
    first[:, 3:6], first[:, 6:] = category, bias.reshape(N_MEMBERS, 3)
    second[:, 6:] = (2.0 * weight[:, 0] + bias).reshape(N_MEMBERS, 3)
    for row, vectors in enumerate((first, second)):
        pair = np.concatenate([vectors, average_service], axis=1)
        assert_allclose(score[row], np.mean(slow_predictions(pair, module)), **EXACT)


def test_dropout_is_active_in_training_alone(module):
    pairs = torch.tensor([0, 1]), torch.tensor([2, 3])
    assert torch.equal(module(*pairs), module(*pairs))
    module.train()
    assert not torch.equal(module(*pairs), module(*pairs))


@pytest.mark.parametrize("sizes", [(), (8, 0), (8, 2.5), ("a",)])
def test_layers_have_a_width(sizes):
    with pytest.raises(ValueError, match="hidden_sizes"):
        EmbeddingMLPRegressor(hidden_sizes=sizes).fit([[0, 0], [1, 1]], [1.0, 2.0])
