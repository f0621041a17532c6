"""Vectors of new users and services, learnt from their first measurements."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from skorch.callbacks import Freezer
from torch import nn

from skqos import SAMoERegressor, SharpQoSRegressor
from skqos import newcomers as tested
from skqos.datasets import make_qos
from skqos.losses import ObservedLoss
from skqos.newcomers import find_new_vectors, has_vectors, learn_vectors, select_rows
from skqos.preprocessing import ContextJoiner
from skqos.training import InteractionDataset
from tests.common import CONTRACTS
from tests.conftest import N_STEPS

N_SERVICES = 30


class Product(nn.Module):
    """The product of a user's vector and fixed services; there is one member."""

    def __init__(self, vectors, services):
        super().__init__()
        self.vectors = nn.Parameter(torch.tensor(vectors, dtype=torch.float32))
        self.services = nn.Parameter(torch.tensor(services, dtype=torch.float32))

    def vector_blocks(self):
        return self.vectors, [len(self.vectors)]

    def forward(self, users, services):
        return (self.vectors[users] * self.services[services]).sum(1).unsqueeze(0)


def make_product(n_users):
    rng = np.random.default_rng(0)
    return Product(np.zeros((n_users, 3)), rng.normal(size=(N_SERVICES, 3)))


def make_dataset(users, services, target, weights=None):
    return InteractionDataset({"users": users, "services": services}, target, weights)


def test_new_rows_are_found_in_every_block():
    qos = make_qos(12, 15, density=0.6, random_state=0)
    model = SAMoERegressor(max_epochs=1, first_stage_epochs=1, device="cpu", random_state=0)
    model.set_params(partial_fit_epochs=0).fit(qos.X, qos.y)
    before = copy.deepcopy(model.module_)
    assert find_new_vectors(before, model.module_) == []
    model.partial_fit([[100, 0], [101, 0]], [1.0, 2.0])
    (found,) = find_new_vectors(before, model.module_)
    assert found.table is model.module_.user_tower.features.vectors
    assert found.rows.tolist() == [12, 13]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.estimator_class.__name__)
def test_one_user_without_context_tells_nothing_of_others(contract):
    """The missing value becomes a category with one row, which others without context share."""
    data = contract.make_data(30, 40, density=0.5, unknown_rate=0.0)
    joiner = ContextJoiner(data.users, data.services).fit(data.X)
    row, other = (joiner.transform(contract.rows([[user, 0]])) for user in (9000, 9999))
    model = contract.make().fit(joiner.transform(data.X), data.y)
    before = model.predict(other)
    model.partial_fit(row, 5 * model.predict(row))
    assert model.predict(other) == pytest.approx(before, rel=0.1)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.estimator_class.__name__)
def test_frozen_vectors_stay_frozen(contract):
    data = contract.make_data(12, 15, density=0.9)
    model = contract.make(callbacks=[Freezer(["*vectors", "*features"])]).fit(data.X, data.y)
    model.set_params(callbacks=None)
    assert not has_vectors(model.module_)
    model.partial_fit(contract.rows([[0, 999], [999, 0]]), [1.0, 2.0])
    assert not has_vectors(model.module_)


def test_fixed_features_are_not_learnt():
    qos = make_qos(12, 15, density=0.6, random_state=0)
    params = {"max_epochs": 1, "autoencoder_epochs": 1, "device": "cpu", "random_state": 0}
    model = SharpQoSRegressor(fine_tune_features=False, **params).fit(qos.X, qos.y)
    before = copy.deepcopy(model.module_)
    model.partial_fit([[100, 0]], [1.0])
    assert find_new_vectors(before, model.module_) == []
    # Their rows count in full, because all weights have to learn what they tell.
    assert not has_vectors(model.module_)
    model.set_params(fine_tune_features=True).fit(qos.X, qos.y)
    assert has_vectors(model.module_)


def test_context_graphs_are_convolved_once_while_vectors_are_learnt(monkeypatch):
    """They do not depend on the vectors; the result is the same."""
    qos = make_qos(20, 30, density=0.6, random_state=0)
    X = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    is_new = X["user"] >= 15
    (contract,) = (one for one in CONTRACTS if one.estimator_class is SharpQoSRegressor)
    model = contract.make().fit(X[~is_new], qos.y[~is_new])
    n_calls = []
    # As many as the tests of other files have.
    monkeypatch.setattr(tested, "N_STEPS", N_STEPS)

    def count(convolution, *_):
        if not convolution.features.requires_grad:
            n_calls.append(1)

    handle = model.module_.context.register_forward_hook(count)
    counted = copy.deepcopy(model).partial_fit(X[is_new], qos.y[is_new])
    handle.remove()
    monkeypatch.setattr(tested, "_fixed_parts", lambda _: contextlib.nullcontext())
    plain = model.partial_fit(X[is_new], qos.y[is_new])
    np.testing.assert_allclose(counted.predict(X), plain.predict(X), rtol=1e-5)
    assert len(n_calls) == 1


def test_rows_of_new_users_or_services_are_selected():
    rows = make_dataset(np.array([0, 1, 2, 0]), np.array([0, 0, 1, 2]), np.arange(4.0))
    selected = select_rows(rows, n_users=2, n_services=2)
    assert selected.target.tolist() == [2, 3]
    assert selected.inputs["users"].tolist() == [2, 0]
    assert len(rows) == 4


def learn(module, n_rows):
    """Learn the last vector of a product; all targets are those of the vector (1, 1, 1)."""
    services = np.random.default_rng(1).permutation(N_SERVICES)[:n_rows]
    target = module.services.detach().numpy()[services].sum(1)
    users = np.full(n_rows, len(module.vectors) - 1)
    found = [tested.NewVectors(module.vectors, torch.tensor([len(module.vectors) - 1]))]
    rows = make_dataset(users, services, target)
    learn_vectors(module, found, rows, ObservedLoss("absolute_error"), n_rows)
    return module.vectors.detach().numpy()


def test_only_new_vectors_move():
    module = make_product(4)
    services = module.services.detach().clone()
    vectors = learn(module, 20)
    assert (vectors[:-1] == 0).all()
    assert np.abs(vectors[-1]).min() > 0.5
    assert torch.equal(module.services, services)
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_a_vector_moves_the_further_the_more_rows_it_has():
    distances = [np.abs(learn(make_product(2), n_rows)[-1] - 1).mean() for n_rows in (1, 5, 20)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.2 < distances[0]


def test_the_prior_keeps_a_vector_at_its_start(monkeypatch):
    monkeypatch.setattr(tested, "PRIOR", 1e6)
    assert np.abs(learn(make_product(2), 5)[-1]).max() < 0.05


@pytest.mark.parametrize("n_rows", [1, 2, 8])
def test_the_objective_is_the_loss_and_the_prior_of_one_row(n_rows):
    """With one direction, the minimum of mean (v - t)^2 / 2 + PRIOR / n v^2 is known."""
    module = Product(np.zeros((1, 1)), np.ones((N_SERVICES, 1)))
    found = [tested.NewVectors(module.vectors, torch.tensor([0]))]
    rows = make_dataset(np.zeros(n_rows, dtype=np.int64), np.arange(n_rows), np.full(n_rows, 0.5))
    learn_vectors(module, found, rows, ObservedLoss("squared_error"), n_rows)
    expected = 0.5 / (1 + 2 * tested.PRIOR / n_rows)
    assert module.vectors.item() == pytest.approx(expected, abs=0.003)


def test_rows_count_by_their_weights():
    weights = np.where(np.arange(8) < 4, 1.0, 1e-6)
    services = np.zeros((N_SERVICES, 1)) + 1
    module = Product(np.zeros((1, 1)), services)
    found = [tested.NewVectors(module.vectors, torch.tensor([0]))]
    target = np.where(np.arange(8) < 4, 1.0, -1.0)
    rows = make_dataset(np.zeros(8, dtype=np.int64), np.arange(8), target, weights)
    learn_vectors(module, found, rows, ObservedLoss("absolute_error"), weights.sum())
    assert module.vectors.item() > 0.9


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.estimator_class.__name__)
def test_updates_learn_new_users_that_differ_from_all_others(contract, monkeypatch):
    """Their values are five times as large; thirty measurements of each tell so."""
    data = contract.make_data(40, 60, density=0.9)
    is_new = data.X[:, 0] >= 34
    y = np.where(is_new, 5, 1) * data.y
    is_given = is_new & (np.cumsum(is_new) % 2 == 0)
    is_asked = is_new & ~is_given
    half = {"max_epochs": contract.learning["max_epochs"] // 2}
    model = contract.make(**contract.learning | half).fit(data.X[~is_new], y[~is_new])

    def error(model):
        return np.abs(model.predict(data.X[is_asked]) - y[is_asked]).mean()

    before, updated = error(model), copy.deepcopy(model).partial_fit(data.X[is_given], y[is_given])
    assert error(updated) < 0.9 * before
    monkeypatch.setattr(tested, "find_new_vectors", lambda *_: [])
    without = model.partial_fit(data.X[is_given], y[is_given])
    assert error(updated) < 0.98 * error(without)
