"""One vector per known feature; SA-MoE's towers test newcomers in full."""

import numpy as np
import pytest
import torch

from skqos.embeddings import EMBEDDING_STD, FeatureEmbedding
from skqos.entities import UNKNOWN, EntityTable


def make(n=6, dim=3):
    table = EntityTable(np.arange(n)[:, None] % 2, np.linspace(-1, 1, n)[:, None].astype("f"))
    return FeatureEmbedding(table, [2], dim)


def test_id_categories_and_numbers_have_a_vector_each():
    features = make()
    vectors = features(torch.tensor([4, 1])).unflatten(1, (features.n_features, -1))
    assert vectors.shape == (2, 3, 3)
    torch.testing.assert_close(vectors[0, 0], features.id_embedding.weight[4])
    torch.testing.assert_close(vectors[1, 1], features.category_embeddings[0].weight[1])
    number = features.numerics[[4, 1]]
    torch.testing.assert_close(vectors[:, 2], features.numeric_layer(number))


def encode(features, new):
    known = features.encode_known()
    return torch.cat([known, features.encode_new(known.mean(0), new)])


def test_newcomers_get_the_average_for_what_they_lack():
    features = make()
    new = EntityTable(np.array([[1], [UNKNOWN]]), np.array([[np.nan], [0.5]], dtype="f"))
    encoded = encode(features, new).unflatten(1, (3, -1))
    known, first, second = encoded[:6], encoded[6], encoded[7]
    torch.testing.assert_close(known, features(torch.arange(6)).unflatten(1, (3, -1)))
    torch.testing.assert_close(first[0], known[:, 0].mean(0))
    torch.testing.assert_close(first[1], features.category_embeddings[0].weight[1])
    torch.testing.assert_close(first[2], features.numeric_layer.bias)
    torch.testing.assert_close(second[1], known[:, 1].mean(0))


@pytest.mark.parametrize(("n_categories", "n_numeric"), [(0, 0), (2, 0), (0, 3)])
def test_any_context(n_categories, n_numeric):
    table = EntityTable(np.zeros((4, n_categories), dtype=int), np.zeros((4, n_numeric), "f"))
    features = FeatureEmbedding(table, [1] * n_categories, 5)
    assert features.n_features == 1 + n_categories + bool(n_numeric)
    assert features(torch.arange(4)).shape == (4, features.out_dim)


def test_embeddings_start_small():
    features = make(n=2000)
    assert features.id_embedding.weight.std().item() == pytest.approx(EMBEDDING_STD, rel=0.05)


def test_grown_embeddings_represent_what_is_new_as_they_did_before():
    features = make()
    new = EntityTable(np.array([[1], [UNKNOWN]]), np.array([[np.nan], [0.5]], dtype="f"))
    expected = encode(features, new).detach()
    known = features.categories.numpy(), features.numerics.numpy()
    n = len(features.category_embeddings[0].weight)
    # The unknown category of the second newcomer gets the next code.
    categories = np.concatenate([known[0], [[1], [n]]])
    numerics = np.concatenate([known[1], new.numerics])
    features.grow(EntityTable(categories, numerics), [n + 1])
    torch.testing.assert_close(features(torch.arange(8)), expected)
    assert features.id_embedding.weight.requires_grad
    assert len(features.category_embeddings[0].weight) == n + 1
