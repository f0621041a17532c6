"""One vector per known feature and member; SA-MoE's towers test newcomers in full."""

import numpy as np
import pytest
import torch
from torch import nn

from skqos.embeddings import EMBEDDING_STD, FeatureEmbedding
from skqos.entities import UNKNOWN, EntityTable
from skqos.training import seeded
from tests.common import copy_member, part_of_member

N, DIM = 6, 3
N_CATEGORIES = (2, 3)
every_number_of_members = pytest.mark.parametrize("n_members", [1, 3])


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def make_table(n=N):
    """Return two columns of categories, of which some are rarer, and one of numbers."""
    first, second = np.array([0, 1, 0, 0, 1, 0]), np.array([1, 0, 0, 2, 1, 0])
    categories = np.column_stack([np.resize(first, n), np.resize(second, n)])
    return EntityTable(categories, np.linspace(-1, 1, n)[:, None].astype("f"))


def make(n=N, dim=DIM, n_members=1, **options):
    return FeatureEmbedding(make_table(n), N_CATEGORIES, dim, n_members, **options)


def parts_of(features, member):
    """Return a member's vectors of ids, its vectors of each column's codes, and of numbers."""
    own = slice(member * features.dim, (member + 1) * features.dim)
    vectors = features.vectors.detach()[:, own]
    layer = features.numeric_layer
    numbers = nn.Linear(layer.in_features, features.dim)
    with torch.no_grad():
        numbers.weight.copy_(layer.weight[own])
        numbers.bias.copy_(layer.bias[own])
    return *vectors.split(features.sizes), numbers.requires_grad_(False)


def unflatten(features, encoded):
    """Take an entity's vectors apart; (n_members, n, n_features, dim)."""
    return encoded.detach().unflatten(2, (features.n_features, -1))


@every_number_of_members
def test_id_categories_and_numbers_have_a_vector_each(n_members):
    features = make(n_members=n_members)
    found = unflatten(features, features(torch.tensor([4, 1])))
    assert found.shape == (n_members, 2, 4, DIM)
    for member, (first, second) in enumerate(found):
        ids, of_two, of_three, numbers = parts_of(features, member)
        expected = [ids[4], of_two[1], of_three[1], numbers(torch.tensor([0.6]))]
        torch.testing.assert_close(first, torch.stack(expected))
        expected = [ids[1], of_two[1], of_three[0], numbers(torch.tensor([-0.6]))]
        torch.testing.assert_close(second, torch.stack(expected))


def encode(features, new):
    known = features.encode_known()
    return torch.cat([known, features.encode_new(known.mean(1), new)], dim=1)


NEWCOMERS = EntityTable(
    np.array([[1, UNKNOWN], [UNKNOWN, 2], [UNKNOWN, UNKNOWN]]),
    np.array([[np.nan], [0.5], [np.nan]], dtype="f"),
)


@every_number_of_members
def test_newcomers_get_the_average_for_what_they_lack(n_members):
    features = make(n_members=n_members)
    encoded = unflatten(features, encode(features, NEWCOMERS))
    known, new = encoded[:, :N], encoded[:, N:]
    torch.testing.assert_close(known, unflatten(features, features(torch.arange(N))))
    for member in range(n_members):
        _, of_two, of_three, numbers = parts_of(features, member)
        averages = known[member].mean(0)
        nothing = numbers(torch.zeros(1))
        expected = [
            [averages[0], of_two[1], averages[2], nothing],
            [averages[0], averages[1], of_three[2], numbers(torch.tensor([0.5]))],
            [averages[0], averages[1], averages[2], nothing],
        ]
        torch.testing.assert_close(new[member], torch.stack([torch.stack(row) for row in expected]))


def test_no_newcomers():
    features = make(n_members=3)
    nobody = EntityTable(np.empty((0, 2), dtype=int), np.empty((0, 1), "f"))
    average = features.encode_known().mean(1)
    assert features.encode_new(average, nobody).shape == (3, 0, features.out_dim)


@every_number_of_members
@pytest.mark.parametrize(("n_categories", "n_numeric"), [(0, 0), (2, 0), (0, 3), (1, 1)])
def test_any_context(n_categories, n_numeric, n_members):
    table = EntityTable(np.zeros((4, n_categories), dtype=int), np.zeros((4, n_numeric), "f"))
    features = FeatureEmbedding(table, [1] * n_categories, 5, n_members)
    assert features.n_features == 1 + n_categories + bool(n_numeric)
    assert features.out_dim == 5 * features.n_features
    assert features.vectors.shape == (4 + n_categories, 5 * n_members)
    assert features(torch.arange(4)).shape == (n_members, 4, features.out_dim)


@every_number_of_members
def test_the_average_of_the_ids(n_members):
    features = make(n_members=n_members)
    found = features.average_id()
    assert found.shape == (n_members, DIM)
    for member in range(n_members):
        torch.testing.assert_close(found[member], parts_of(features, member)[0].mean(0))


@pytest.mark.parametrize(("options", "std"), [({}, EMBEDDING_STD), ({"std": 0.4}, 0.4)])
def test_vectors_start_at_the_size_asked_for(options, std):
    features = make(n=2000, n_members=2, **options)
    for member in range(2):
        ids = parts_of(features, member)[0]
        assert ids.std().item() == pytest.approx(std, rel=0.05)
    assert EMBEDDING_STD == 0.05


@every_number_of_members
def test_grown_embeddings_represent_what_is_new_as_they_did_before(n_members):
    features = make(n_members=n_members)
    with torch.no_grad():
        features.vectors.normal_()
    expected = encode(features, NEWCOMERS).detach()
    # The unknown categories get the next codes, in the first column one and two in the second.
    n_two, n_three = N_CATEGORIES
    new = [[1, n_three], [n_two, 2], [n_two, n_three + 1]]
    old = make_table()
    sizes = [n_two + 1, n_three + 2]
    grown = EntityTable(
        np.concatenate([old.categories, new]), np.concatenate([old.numerics, NEWCOMERS.numerics])
    )
    features.grow(grown, sizes)
    torch.testing.assert_close(features(torch.arange(N + 3)), expected)
    assert features.vectors.requires_grad
    assert features.sizes == [N + 3, *sizes]
    assert features.vectors.shape == (N + 3 + sum(sizes), n_members * DIM)


def test_three_members_are_three_embeddings_of_one_member():
    features = make(n_members=3)
    codes = torch.tensor([5, 0, 5])
    found = features(codes)
    loss_weights = torch.randn_like(found)
    (found * loss_weights).sum().backward()
    for member in range(3):
        single = make()
        copy_member(features, single, member)
        expected = single(codes)
        torch.testing.assert_close(found[member : member + 1], expected)
        (expected[0] * loss_weights[member]).sum().backward()
        gradients = dict(single.named_parameters())
        for name, values in features.named_parameters():
            like = gradients[name].grad
            torch.testing.assert_close(part_of_member(values.grad, like, member), like)
