"""Columns of context matched between the sides, their codes, and the features of these."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal

from skqos.entities import EntityEncoder
from skqos.sharp_qos.context import autoencode, match_columns
from skqos.training import seeded

NAN = np.nan


def encoder(side, **columns):
    """Fit an encoder to one entity a row."""
    frame = pd.DataFrame(
        {name: pd.Series(values, dtype=object) for name, values in columns.items()}
    )
    fitted = EntityEncoder(side)
    fitted.fit(np.arange(len(frame)), frame)
    return fitted


def match_as(users, services):
    """Match a single column that both sides have."""
    (column,) = match_columns(
        encoder("user", user_as=users), encoder("service", service_as=services)
    )
    return column


def table(**columns):
    return encoder("user", **columns).table_


# --- Matching -----------------------------------------------------------------------------------


def test_a_name_of_both_sides_makes_one_column():
    users = encoder("user", user_region=["x", "y"], user_as=["a", "b"])
    services = encoder("service", service_as=["b", "c"])
    found = [
        (c.user_column, c.service_column, c.n_user_categories)
        for c in match_columns(users, services)
    ]
    assert found == [(0, None, 2), (1, 0, 2)]


def test_a_name_of_one_side_makes_a_column_of_that_side():
    users = encoder("user", user_region=["x", "y"])
    services = encoder("service", service_provider=["p", "q", "p"])
    region, provider = match_columns(users, services)
    assert (region.user_column, region.service_column) == (0, None)
    assert (provider.user_column, provider.service_column) == (None, 0)
    assert provider.n_user_categories == 0
    assert len(provider.groups) == 2


@pytest.mark.parametrize(("user_name", "service_name"), [(2, 2), ("2", "2"), ("as", "as")])
def test_columns_without_a_prefix_match_nothing(user_name, service_name):
    users = encoder("user", **{"x": ["a", "b"]})
    services = encoder("service", **{"x": ["b", "c"]})
    users.categorical_, services.categorical_ = [user_name], [service_name]
    found = match_columns(users, services)
    assert [(c.user_column, c.service_column) for c in found] == [(0, None), (None, 0)]


def test_only_the_prefix_of_its_own_side_counts():
    users = encoder("user", service_as=["a", "b"])
    services = encoder("service", service_as=["b", "c"])
    assert len(match_columns(users, services)) == 2


def test_numbers_are_no_categories():
    users = EntityEncoder("user")
    users.fit(np.arange(2), pd.DataFrame({"user_latitude": [0.5, 1.5]}))
    assert match_columns(users, users) == []


def test_no_context_makes_no_column():
    nothing = EntityEncoder("user")
    nothing.fit(np.arange(3), pd.DataFrame(index=range(3)))
    assert match_columns(nothing, nothing) == []


# --- Codes and groups ---------------------------------------------------------------------------


def test_equal_categories_of_both_sides_share_a_group_but_no_code():
    column = match_as(["a", "b"], ["b", "c", "a"])
    assert len(column.groups) == 5
    groups = dict(zip(["ua", "ub", "sb", "sc", "sa"], column.groups.tolist(), strict=True))
    assert groups["ua"] == groups["sa"] != groups["ub"] == groups["sb"]
    assert len(set(groups.values())) == 3
    assert min(groups.values()) >= 0


def test_an_unknown_category_of_training_has_codes_of_its_own_but_no_group():
    column = match_as(["a", NAN, "b"], [NAN, "b"])
    users = encoder("user", user_as=["a", NAN, "b"]).table_
    services = encoder("service", service_as=[NAN, "b"]).table_
    codes = [*column.user_codes(users), *column.service_codes(services)]
    assert sorted(codes) == [0, 1, 2, 3, 4]
    groups = column.groups[codes]
    assert groups[1] == groups[3] == -1
    assert groups[2] == groups[4]
    assert min(groups[[0, 2, 4]]) >= 0


def test_codes_of_users_come_first():
    users = encoder("user", user_as=["a", "b", "a"])
    services = encoder("service", service_as=["b", "c", "b", "d"])
    (column,) = match_columns(users, services)
    assert_array_equal(column.user_codes(users.table_), [0, 1, 0])
    assert_array_equal(column.service_codes(services.table_), [2, 3, 2, 4])


def test_a_category_that_training_did_not_see_has_code_minus_1():
    users = encoder("user", user_as=["a", "b"])
    services = encoder("service", service_as=["a", "c"])
    (column,) = match_columns(users, services)
    newcomers = np.array([7, 8, 9])
    for side, name, expected in ((users, "user_as", 1), (services, "service_as", -1)):
        frame = pd.DataFrame({name: pd.Series(["x", "b", NAN], dtype=object)})
        _, unseen = side.transform(newcomers, frame)
        codes = column.user_codes(unseen) if side is users else column.service_codes(unseen)
        # Newcomers of equal context share a row.
        assert set(codes) == {-1, expected}


def test_a_side_without_the_column_has_code_minus_1():
    users = encoder("user", user_region=["x", "y"])
    services = encoder("service", service_provider=["p", "q", "p"])
    region, provider = match_columns(users, services)
    assert_array_equal(region.service_codes(services.table_), [-1, -1, -1])
    assert_array_equal(provider.user_codes(users.table_), [-1, -1])
    assert_array_equal(provider.service_codes(services.table_), [0, 1, 0])


# --- Autoencoder --------------------------------------------------------------------------------

COUNTS = np.array([5, 1, 3, 2, 7, 1])


def encode(counts=COUNTS, n_components=3, n_epochs=100, seed=0):
    with seeded(seed, torch.device("cpu")):
        return autoencode(counts, n_components, n_epochs)


def test_features_have_one_row_a_code_within_minus_1_and_1():
    features = encode()
    assert features.shape == (6, 3)
    assert features.dtype == np.float32
    assert np.abs(features).max() < 1


def test_distinct_codes_have_distinct_features():
    features = encode()
    distances = np.linalg.norm(features[:, None] - features, axis=2)
    assert distances[~np.eye(6, dtype=bool)].min() > 0.1


def test_features_are_seeded_by_torch():
    assert_array_equal(encode(seed=1), encode(seed=1))
    assert (encode(seed=1) != encode(seed=2)).any()


def test_one_code_is_enough():
    assert np.isfinite(encode(np.array([4]))).all()


def test_the_gradient_is_that_of_the_squared_error_of_one_hot_rows(monkeypatch):
    """One row an entity, encoded, decoded and compared with itself."""
    steps = []

    class Spy(torch.optim.Adam):
        def step(self, closure=None):
            parameters = self.param_groups[0]["params"]
            steps.append([(p.detach().clone(), p.grad.clone()) for p in parameters])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Spy)
    encode(n_epochs=60)
    assert len(steps) == 60
    one_hot = F.one_hot(torch.arange(6).repeat_interleave(torch.tensor(COUNTS))).float()
    for step in (steps[0], steps[50]):
        E, W, b, D = (p.requires_grad_() for p, _ in step)
        decoded = torch.tanh(torch.tanh(one_hot @ E) @ W.T + b) @ D.T
        loss = (decoded - one_hot).square().sum(1).mean()
        gradients = torch.autograd.grad(loss, [E, W, b, D])
        for gradient, (_, found) in zip(gradients, step, strict=True):
            assert gradient.abs().max() > 1e-4
            assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)


def test_common_codes_are_reconstructed_best():
    """The best linear decoder of the features, weighted as they were."""
    counts = np.array([1000, 1000, 1, 1, 1, 1])
    features = encode(counts, n_components=2)
    root = np.sqrt(counts)[:, None]
    decoder, *_ = np.linalg.lstsq(root * features, root * np.eye(6), rcond=None)
    errors = ((features @ decoder - np.eye(6)) ** 2).sum(1)
    assert errors[:2].max() < 0.1 < errors[2:].min()
