"""The network of quantiles: what it learns, that it never crosses, what its folds have not seen."""

import numpy as np
import torch

from skqos.distribution.network import N_MEMBERS, QuantileNetwork, train_quantile_network
from skqos.distribution.quantiles import LEVELS


def _rows(n=3000, seed=0):
    """Errors whose spread grows with the first feature."""
    rng = np.random.default_rng(seed)
    features = rng.random((n, 3)).astype(np.float32)
    error = (0.2 + 2 * features[:, 0]) * rng.normal(size=n)
    return features, error, rng.integers(N_MEMBERS, size=n)


def test_quantiles_follow_the_spread():
    network = train_quantile_network(*_rows(), seed=0)
    features = np.array([[0.1, 0.5, 0.5], [0.9, 0.5, 0.5]], dtype=np.float32)
    found = network.predict(features)
    expected = np.outer(0.2 + 2 * features[:, 0], [-1.645, 0.0, 1.645])
    at = [np.flatnonzero(level == LEVELS)[0] for level in (0.05, 0.5, 0.95)]
    np.testing.assert_allclose(found[:, at], expected, atol=0.35)


def test_quantiles_do_not_cross_anywhere():
    features, error, fold = _rows(300)
    network = train_quantile_network(features, error, fold, seed=0)
    wild = np.random.default_rng(1).normal(scale=1e6, size=(500, 3)).astype(np.float32)
    for rows in (features, wild):
        found = network.predict(rows)
        assert np.isfinite(found).all()
        assert (np.diff(found, axis=1) >= 0).all()


def test_features_beyond_training_are_taken_to_its_ends():
    features, error, fold = _rows(300)
    network = train_quantile_network(features, error, fold, seed=0)
    beyond = np.array([[9.0, 9.0, -9.0]], dtype=np.float32)
    highest, lowest = features.max(0), features.min(0)
    ends = np.array([[highest[0], highest[1], lowest[2]]])
    np.testing.assert_array_equal(network.predict(beyond), network.predict(ends))


def test_a_member_has_not_seen_its_fold():
    features, error, fold = _rows(300)
    network = train_quantile_network(features, error, fold, seed=0)
    # Errors change places: their unit and quantiles, from which members start, stay.
    other = error.copy()
    other[fold == 2] = other[fold == 2][::-1]
    changed = train_quantile_network(features, other, fold, seed=0)
    for member in range(N_MEMBERS):
        before, after = (net.first.weight[member] for net in (network, changed))
        assert torch.equal(before, after) == (member == 2)


def test_out_of_fold_quantiles_are_those_of_the_member_that_left_the_row_out():
    features, error, fold = _rows(300)
    network = train_quantile_network(features, error, fold, seed=0)
    found = network.predict_out_of_fold(features, fold)
    with torch.no_grad():
        members = network(torch.as_tensor(features)).numpy()
    for row in (0, 17, 299):
        np.testing.assert_array_equal(found[row], members[fold[row], row].astype(np.float64))


def test_constant_errors_and_features():
    features = torch.ones(10, 2)
    network = QuantileNetwork(features, torch.zeros(10))
    assert torch.isfinite(network(features)).all()
    trained = train_quantile_network(
        features.numpy(), np.zeros(10), np.arange(10) % N_MEMBERS, seed=0
    )
    assert np.abs(trained.predict(features.numpy())).max() < 0.1
