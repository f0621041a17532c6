"""Updates of TPMCF: new steps, new entities and late measurements, with and without training."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skqos.datasets import make_qos
from skqos.tpmcf.features import MatrixFactors, NodeFeatures, SimilarityFactors, Statistics
from skqos.tpmcf.recent_cells import RecentCells
from skqos.tpmcf.step_features import StepFeatures
from skqos.tpmcf.updating import StepUpdate
from tests.tpmcf.test_estimator import make
from tests.tpmcf.test_features import NAN, cells_of, some_values

NEW_USER, NEW_SERVICE = 900, 901
every_module = pytest.mark.parametrize("modules", ["both", "gcmf", "pte"])


@pytest.fixture(scope="module")
def data():
    """Return measurements of 8 steps, the last of which are to come later."""
    return make_qos(20, 25, density=0.3, n_time_steps=8, random_state=0)


def slots(data, first, last):
    rows = (data.X[:, 2] >= first) & (data.X[:, 2] <= last)
    return data.X[rows], data.y[rows]


def features_of(model):
    return [model.module_.user_features[0].numpy(), model.module_.service_features[0].numpy()]


# --- Features of further steps --------------------------------------------------------------------


@pytest.fixture(params=["statistics", "all"])
def families(request):
    return (
        [Statistics()]
        if request.param == "statistics"
        else [*(Statistics(), MatrixFactors(3, 0), SimilarityFactors(2, 0))]
    )


def split_cells(values, first):
    """Return cells of all steps, and of those up to a step, over the same steps."""
    earlier = values.copy()
    earlier[first:] = NAN
    return cells_of(earlier), cells_of(values)


def test_extended_features_are_those_of_all_cells_in_the_basis_of_fit(families):
    values = some_values(shape=(6, 7, 5), share=0.8)
    before, after = split_cells(values, 4)
    fitted = StepFeatures(NodeFeatures(families), None).fit(cells_of(values[:4]))
    last = [cells_of(part) for part in (np.full_like(values[4:], NAN), values[4:])]
    extended = fitted.extend(*last)
    found = extended.of_steps(np.array([4, 5]), last[1], np.zeros(len(last[1]), dtype=int))
    expected = extended.nodes.transform(after)
    for side, of_all in zip(found, expected, strict=True):
        assert_allclose(side[0, 0], of_all[4:], rtol=1e-4, atol=1e-5)
    assert len(before) < len(after)


def test_a_late_measurement_replaces_what_was_known_of_its_step():
    values = some_values(shape=(3, 7, 5), share=0.8)
    late = values.copy()
    late[1, 0, 0] = 7.0
    fitted = StepFeatures(NodeFeatures([Statistics()]), None).fit(cells_of(values))
    extended = fitted.extend(cells_of(values[1:2]), cells_of(late[1:2]))
    whole = NodeFeatures([Statistics()]).fit(cells_of(late))
    for found, expected in zip(extended.nodes.known_, whole.known_, strict=True):
        assert_allclose(found.sums, expected.sums, atol=1e-12)
        assert_array_equal(found.counts, expected.counts)


def test_factors_of_a_further_user_are_folded_in():
    """A copy of a known user gets that user's factors, and the basis its row."""
    values = np.random.default_rng(0).normal(size=(1, 6, 5))
    family = MatrixFactors(3, 0).fit(cells_of(values))
    copied = np.concatenate([values, values[:, 2:3]], axis=1)
    extended = family.extend(cells_of(copied))
    assert_allclose(extended.bases_[0][6], family.bases_[0][2], rtol=1e-8)
    assert_array_equal(extended.bases_[1], family.bases_[1])
    users, _ = extended.transform(cells_of(copied))
    assert_allclose(users[0, 6], users[0, 2], rtol=1e-8)


# --- What is taken in -----------------------------------------------------------------------------


@every_module
@pytest.mark.parametrize("n_epochs", [0, 2])
def test_new_steps_are_known_after_an_update(data, modules, n_epochs):
    model = make(modules=modules, partial_fit_epochs=n_epochs).fit(*slots(data, 0, 5))
    X, y = slots(data, 6, 6)
    forecast, n_rows = model.predict(X), len(model.history_)
    assert model.partial_fit(X, y) is model
    assert_array_equal(model.times_, range(7))
    assert (model.predict(X) != forecast).all()
    assert np.isfinite(model.predict(slots(data, 7, 7)[0])).all()
    # The graph convolution alone is not trained on.
    assert len(model.history_) == n_rows + n_epochs * (modules != "gcmf")


@every_module
def test_without_training_weights_and_earlier_steps_stay(data, modules):
    model = make(modules=modules, partial_fit_epochs=0).fit(*slots(data, 0, 5))
    X = slots(data, 0, 5)[0]
    before, weights = model.predict(X), model.module_.state_dict()
    nets, n_epochs = model.stage_nets_, model.n_iter_
    model.partial_fit(*slots(data, 6, 7))
    # Further measurements of a pair tell more of its other steps.
    further = {tuple(pair) for pair in slots(data, 6, 7)[0][:, :2].tolist()}
    is_measured_again = np.array([tuple(pair) in further for pair in X[:, :2].tolist()])
    is_other = ~np.isclose(model.predict(X), before, rtol=1e-4, atol=1e-5)
    assert not is_other[~is_measured_again].any()
    assert is_other[is_measured_again].any() == (modules != "gcmf")
    for name, parameter in model.module_.named_parameters():
        assert torch.equal(parameter, weights[name])
    assert model.n_iter_ == n_epochs
    assert model.net_.module_ is model.module_
    assert nets is not model.stage_nets_


def test_horizons_grow_with_the_time_measured(data):
    """After a fit to one step, forecasts of all distances are equal; updates learn to tell them."""
    model = make(modules="pte", max_horizon=3).fit(*slots(data, 0, 0))
    assert model.module_.max_horizon == 1
    for slot, expected in ((1, 1), (3, 2), (5, 3), (7, 3)):
        model.partial_fit(*slots(data, slot, slot))
        assert model.module_.max_horizon == expected
    forecasts = model.predict([[3, 4, time] for time in (8, 9, 10, 11)])
    assert len(set(forecasts[:3].round(6))) == 3
    assert forecasts[2] == pytest.approx(forecasts[3], rel=1e-5)


def test_only_touched_steps_are_computed_again(data):
    model = make(partial_fit_epochs=0, n_folds=None).fit(*slots(data, 0, 7))
    before = features_of(model)
    model.partial_fit([[3, 4, 2]], [5.0])
    for old, new, entity in zip(before, features_of(model), (3, 4), strict=True):
        changed = (old != new).any(axis=2)
        assert changed[2, entity]
        assert not np.delete(changed, 2, axis=0).any()


@every_module
def test_new_users_and_services(data, modules):
    model = make(modules=modules).fit(*slots(data, 0, 5))
    rows = [[NEW_USER, 3, 6], [5, NEW_SERVICE, 6], [NEW_USER, NEW_SERVICE, 2]]
    model.partial_fit(rows, [1.0, 2.0, 3.0])
    assert model.is_known(rows).all()
    assert np.isfinite(model.predict([*rows, [NEW_USER, NEW_SERVICE, 9]])).all()


def test_a_new_user_is_the_average_one_where_it_was_not_measured(data):
    model = make(partial_fit_epochs=0).fit(*slots(data, 0, 5))
    averages = features_of(model)[0].mean(axis=1)
    model.partial_fit([[NEW_USER, 3, 6]], [1.0])
    assert_allclose(features_of(model)[0][:6, -1], averages, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("edges", ["binary", "quantile"])
def test_an_update_of_steps_without_known_cells_is_possible_with_edges_of_any_kind(data, edges):
    model = make(modules="both", gcmf_edges=edges, replay_buffer_size=0, partial_fit_epochs=1)
    model.fit(*slots(data, 0, 5))
    X, y = slots(data, 2, 3)
    predicted = model.predict(X)
    model.partial_fit(X[:9], y[:9])
    assert (model.predict(X) != predicted).any()


def test_a_late_measurement_of_a_step_that_was_not_kept_trains_and_that_is_all(data):
    model = make(replay_buffer_size=100, n_folds=None).fit(*slots(data, 0, 7))
    before = features_of(model)
    model.partial_fit([[3, 4, 1]], [50.0])
    for old, new in zip(before, features_of(model), strict=True):
        assert_array_equal(old, new)
    assert len(model._replay_buffer) == 100


def test_a_step_before_all_others_and_one_in_a_gap(data):
    X, y = slots(data, 0, 5)
    X[:, 2] += 3 * (X[:, 2] > 2)
    model = make().fit(X, y)
    model.partial_fit([[3, 4, 4], [3, 5, -2]], [1.0, 2.0])
    assert_array_equal(model.times_, [-2, 0, 1, 2, 4, 6, 7, 8])
    assert np.isfinite(model.predict(X)).all()


def test_updates_slot_by_slot_follow_a_rising_level():
    """Every step is a fifth above the one before; forecasts of the first fit fall behind."""
    rng = np.random.default_rng(0)
    X = np.argwhere(rng.uniform(size=(10, 12, 10)) < 0.5)
    y = (1 + X[:, 1] % 4) * 1.2 ** X[:, 2]
    params = {"modules": "pte", "features": ["statistics"], "max_epochs": 6, "batch_size": 64}
    errors = {}
    for n_epochs in (0, 2, None):
        model = make(**params, partial_fit_epochs=n_epochs or 0)
        model.fit(X[X[:, 2] < 6], y[X[:, 2] < 6])
        found = []
        for slot in range(6, 10):
            rows = X[:, 2] == slot
            found.append(np.abs(model.predict(X[rows]) / y[rows] - 1).mean())
            if n_epochs is not None:
                model.partial_fit(X[rows], y[rows])
        errors[n_epochs] = np.mean(found)
    assert errors[2] < errors[None]
    assert errors[0] < errors[None]


def test_an_update_of_one_step_of_training_keeps_what_fit_learned():
    """All rows of the update fit into one batch; the level of the measurements stays as it was."""
    rng = np.random.default_rng(0)
    X = np.argwhere(rng.uniform(size=(10, 12, 12)) < 0.5)
    y = (1 + X[:, 1] % 4) * (1 + X[:, 0] % 3) * rng.lognormal(0, 0.1, len(X))
    model = make(modules="pte", features=["statistics"], max_epochs=20, batch_size=64)
    earlier, new, later = X[:, 2] < 8, np.isin(X[:, 2], [8, 9]), X[:, 2] > 9
    model.fit(X[earlier], y[earlier])
    before = np.abs(model.predict(X[later]) / y[later] - 1).mean()
    model.set_params(batch_size=1024, partial_fit_epochs=1).partial_fit(X[new], y[new])
    after = np.abs(model.predict(X[later]) / y[later] - 1).mean()
    assert after < 1.25 * before


def test_weights_of_each_step_cannot_be_updated(data):
    model = make(gcmf_weights="own").fit(*slots(data, 0, 5))
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match="partial_fit needs gcmf_weights='shared'"):
        model.partial_fit(*slots(data, 6, 6))
    assert pickle.dumps(model) == before


# --- Replay ---------------------------------------------------------------------------------------


def test_the_last_steps_are_replayed(data):
    model = make(n_folds=4).fit(*slots(data, 0, 5))
    X, y = slots(data, 6, 6)
    columns = model._read_again(X)
    users, user_codes = model.users_.extend(columns.users, columns.user_context)
    services, service_codes = model.services_.extend(columns.services, columns.service_context)
    from skqos.base import TrainingRows

    rows = TrainingRows(
        users, services, user_codes, service_codes, y, np.ones(len(y)), times=X[:, 2]
    )
    update = StepUpdate.of_rows(
        rows,
        model._step_features,
        model._replay_buffer,
        np.arange(6),
        np.random.RandomState(0),
    )
    assert update.touched.tolist() == [6]
    n_last = (data.X[:, 2] == 5).sum()
    for n_cells, first in ((1, 5), (n_last, 5), (n_last + 1, 4), (10**6, 0)):
        drawn = update.replayed(n_cells, np.random.RandomState(0))
        assert len(set(drawn)) == len(drawn) == min(n_cells, update.n_earlier)
        assert update.cells.times[drawn].min() >= first
    inputs = update.inputs(update.further())
    assert set(inputs["steps"]) == {6}
    assert set(inputs["folds"]) == {0, 1, 2, 3}
    assert_array_equal(np.sort(update.cells.target[update.further()]), np.sort(y.astype("f")))


def test_cells_of_a_step_that_is_partly_kept_are_not_replayed(data):
    """Without all cells of its step, a cell has no features that leave it out."""
    X, y = slots(data, 0, 5)
    n_last = (X[:, 2] == 5).sum()
    model = make(replay_buffer_size=n_last + 20).fit(X, y)
    assert set(model._replay_buffer.times) == {4, 5}
    assert model._replay_buffer.whole.tolist() == [5]
    seen = []

    def spy(update, *arguments):
        drawn = original(update, *arguments)
        seen.append(update.cells.times[drawn])
        return drawn

    original = StepUpdate.replayed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepUpdate, "replayed", spy)
        model.partial_fit(*slots(data, 6, 6))
    assert set(np.concatenate(seen)) == {5}


def test_an_update_that_can_replay_nothing_takes_small_steps(data, monkeypatch):
    """The last step alone has more rows than are kept."""
    from skqos.tpmcf import estimator

    model = make(replay_buffer_size=5).fit(*slots(data, 0, 5))
    assert model._replay_buffer.whole.tolist() == []
    seen = []

    def spy(*arguments):
        seen.append(original(*arguments))
        return seen[-1]

    original = estimator.plan_update
    monkeypatch.setattr(estimator, "plan_update", spy)
    model.partial_fit(*slots(data, 6, 6))
    assert seen == [(0, pytest.approx(2.0 * 0.05))]


def test_kept_cells_are_those_of_all_rows_where_there_is_room(data):
    model = make().fit(*slots(data, 0, 5)).partial_fit(*slots(data, 6, 7))
    buffer = model._replay_buffer
    assert isinstance(buffer, RecentCells)
    assert buffer.whole.tolist() == list(range(8))
    found = zip(
        model.users_.ids_[buffer.user_codes],
        model.services_.ids_[buffer.service_codes],
        buffer.times,
        strict=True,
    )
    assert set(found) == set(map(tuple, data.X.tolist()))


# --- Together with the rest -----------------------------------------------------------------------


def with_stamps(X):
    frame = pd.DataFrame(X, columns=["user", "service", "time"])
    for name in ("user", "service"):
        frame[name] = [f"{name}{code:04d}" for code in frame[name]]
    stamps = pd.Timestamp("2026-05-01", tz="Europe/Berlin") + 30 * pd.to_timedelta(X[:, 2], "min")
    return frame.assign(time=stamps)


def test_string_ids_and_time_stamps(data):
    numbered = make().fit(*slots(data, 0, 5)).partial_fit(*slots(data, 6, 6))
    model = make(time_step="30min").fit(with_stamps(slots(data, 0, 5)[0]), slots(data, 0, 5)[1])
    X, y = slots(data, 6, 6)
    with pytest.raises(ValueError, match="holds time stamps without a time zone, but"):
        model.partial_fit(with_stamps(X).assign(time="2026-05-01T00:00"), y)
    model.partial_fit(with_stamps(X), y)
    assert model.times_[-1] == pd.Timestamp("2026-05-01T03:00", tz="Europe/Berlin")
    later = slots(data, 7, 7)[0]
    assert_array_equal(model.predict(with_stamps(later)), numbered.predict(later))


def test_errors_of_new_rows_ahead_of_the_update_join_the_intervals(data):
    model = make(intervals=True).fit(*slots(data, 0, 5))
    X, y = slots(data, 6, 6)
    n_rows = len(model._fitted_intervals().targets[0].calibration.group)
    model.partial_fit(X, 3 * y)
    calibration = model._fitted_intervals().targets[0].calibration
    assert len(calibration.group) == n_rows + len(y)
    low, high = model.predict_interval(slots(data, 7, 7)[0]).T
    assert (low <= high).all()


def test_weights_of_rows_count(data):
    X, y = slots(data, 6, 6)
    twice, weighted = (make().fit(*slots(data, 0, 5)) for _ in range(2))
    twice.partial_fit(np.vstack([X, X]), np.r_[y, y])
    weighted.partial_fit(X, y, sample_weight=np.full(len(y), 2.0))
    assert_array_equal(twice.predict(data.X), weighted.predict(data.X))
    without = make().fit(*slots(data, 0, 5))
    without.partial_fit(np.vstack([X, X[:3]]), np.r_[y, y[:3]], np.r_[np.ones(len(y)), 0, 0, 0])
    plain = make().fit(*slots(data, 0, 5)).partial_fit(X, y)
    assert_array_equal(without.predict(data.X), plain.predict(data.X))


def test_nearly_as_many_new_steps_as_rows_are_refused(data):
    model = make(modules="pte").fit(*slots(data, 0, 5))
    X = np.column_stack([data.X[:60, :2], 1_000 * np.arange(1, 61)])
    with pytest.raises(ValueError, match=r"60 new steps in 60 rows.*known steps are from 0 to 5"):
        model.partial_fit(X, data.y[:60])
    # Known steps, and a few new ones, are not counted.
    model.partial_fit(*slots(data, 0, 5)).partial_fit(X[:50], data.y[:50])
    assert len(model.times_) == 56
