"""Updates by `partial_fit`: the first one is a fit, what is new gets a place, nothing half-done."""

import io
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback, EarlyStopping, LRScheduler

from skqos import SAMoERegressor, SharpQoSRegressor, incremental
from skqos.base import TrainingRows
from skqos.baselines import EmbeddingMLPRegressor
from skqos.datasets import make_qos
from skqos.incremental import STAGE
from skqos.persistence import load_model, save_model
from skqos.prediction import copy_module
from skqos.preprocessing import ContextJoiner
from tests.common import CONTRACTS, incremental_estimators, sampling_estimators

NEW_USER, NEW_SERVICE = 10**6, 10**7
SHARP = next(c for c in CONTRACTS if c.estimator_class is SharpQoSRegressor)


PICKLES = {}


@pytest.fixture
def fitted(contract, qos):
    """An estimator fitted to the first 500 of 600 rows, with context; fitted once, copied often."""
    if contract.estimator_class not in PICKLES:
        model = contract.make().fit(_joined(qos)[:500], qos.y[:500])
        PICKLES[contract.estimator_class] = pickle.dumps(model)
    return pickle.loads(PICKLES[contract.estimator_class])


@pytest.fixture(params=["unknown", "known"])
def newcomers(request, qos):
    """Rows of a new user, a new service and both, with context that is known or not."""
    rows = _joined(qos)[:3].copy()
    rows["user"] = [NEW_USER, rows["user"].iloc[1], NEW_USER]
    rows["service"] = [rows["service"].iloc[0], NEW_SERVICE, NEW_SERVICE]
    for name in rows:
        if name.startswith("user_"):
            rows.loc[rows.index[2], name] = rows[name].iloc[0]
        if name.startswith("service_"):
            rows.loc[rows.index[2], name] = rows[name].iloc[1]
    if request.param == "unknown":
        new = rows["user"] == NEW_USER
        rows["user_country"] = rows["user_country"].astype(object)
        rows.loc[new, ["user_country", "user_latitude"]] = ["nowhere", np.nan]
        rows["service_as"] = rows["service_as"].astype(object)
        rows.loc[rows["service"] == NEW_SERVICE, "service_as"] = np.nan
    return rows


def _joined(qos):
    return ContextJoiner(qos.users, qos.services).fit_transform(qos.X)


def _state(model):
    return pickle.dumps(model)


# --- The first update, and scikit-learn's view ---------------------------------------------------


@incremental_estimators
def test_the_first_update_is_a_fit(contract, qos):
    X = _joined(qos)
    fitted, updated = contract.make().fit(X, qos.y), contract.make()
    assert updated.partial_fit(X, qos.y) is updated
    np.testing.assert_array_equal(updated.predict(X), fitted.predict(X))
    assert vars(updated).keys() == vars(fitted).keys()
    same = ["stage", "epoch", "train_loss"]
    pd.testing.assert_frame_equal(updated.history_[same], fitted.history_[same])


@incremental_estimators
def test_attributes_after_updates(contract, qos, fitted):
    X = _joined(qos)
    before = fitted.history_
    for k in range(2):
        assert fitted.partial_fit(X[500:], qos.y[500:]) is fitted
        assert fitted.n_iter_ == contract.make().partial_fit_epochs == len(fitted.net_.history)
        assert len(fitted.history_) == len(before) + (k + 1) * fitted.n_iter_
    pd.testing.assert_frame_equal(fitted.history_[: len(before)], before)
    assert set(fitted.history_["stage"][len(before) :]) == {STAGE}
    assert list(fitted.stage_nets_) == [STAGE]
    assert fitted.net_.module_ is fitted.module_
    assert not fitted.module_.training
    assert fitted.n_features_in_ == X.shape[1]
    fresh = clone(fitted)
    assert not hasattr(fresh, "module_")
    assert fresh.get_params() == fitted.get_params()


@incremental_estimators
def test_updates_are_reproducible_and_differ_from_one_another(contract, qos):
    models = [contract.make().fit(qos.X[:500], qos.y[:500])]
    models.append(pickle.loads(pickle.dumps(models[0])))
    predictions = []
    for model in models:
        for _ in range(2):
            model.partial_fit(qos.X[500:], qos.y[500:])
        predictions.append(model.predict(qos.X))
    np.testing.assert_array_equal(*predictions)
    seeds = [models[0]._update_rng().randint(10**6) for _ in range(2)]
    assert seeds[0] == seeds[1]
    models[0].set_params(partial_fit_epochs=0).partial_fit(qos.X[500:], qos.y[500:])
    assert models[0]._update_rng().randint(10**6) != seeds[0]


@incremental_estimators
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_that_the_caller_switched_off(contract, qos, mode):
    def train():
        return contract.make(max_epochs=1).fit(qos.X, qos.y).partial_fit(qos.X[:9], qos.y[:9])

    with mode():
        model = train()
    np.testing.assert_array_equal(model.predict(qos.X), train().predict(qos.X))


# --- What is new gets a place --------------------------------------------------------------------


@incremental_estimators
@pytest.mark.parametrize("row", [[3, 5], [NEW_USER, 5], [3, NEW_SERVICE], [NEW_USER, NEW_SERVICE]])
def test_one_row_is_enough(contract, qos, row):
    model = contract.make().fit(qos.X, qos.y)
    known = model.users_.ids_, model.services_.ids_
    before = model.predict(qos.X)
    X = contract.rows([row])
    model.partial_fit(X, [1.0])
    assert list(model.users_.ids_) == [*known[0], *{row[0]} - {*known[0]}]
    assert list(model.services_.ids_) == [*known[1], *{row[1]} - {*known[1]}]
    assert np.isfinite(model.predict(X)).all()
    # A row changes the predictions, of all others a little.
    after = model.predict(qos.X)
    assert (after != before).any()
    assert np.abs(after - before).mean() < 0.1 * qos.y.std()


@incremental_estimators
def test_one_row_of_the_smallest_model_is_enough(contract):
    """Two users and two services: at last every row was measured again, and none is replayed."""
    every_cell = contract.rows([[0, 0], [0, 1], [1, 0], [1, 1]])
    model = contract.make().fit(every_cell[[0, 3]], [1.0, 2.0])
    assert np.isfinite(model.partial_fit(every_cell[1:2], [3.0]).predict(every_cell[1:3])).all()
    assert np.isfinite(model.partial_fit(every_cell, [1.0, 2, 3, 4]).predict(every_cell)).all()


@incremental_estimators
def test_string_ids_give_the_same_model_as_numbers(contract, qos):
    def as_strings(X):
        ids = {
            what: [f"{what}{k:09d}" for k in column]
            for what, column in zip("us", X.T[:2], strict=True)
        }
        return pd.DataFrame(ids | dict(zip(["time"], X.T[2:], strict=False)))

    new = np.vstack([qos.X[500:], contract.rows([[NEW_USER, 3], [4, NEW_SERVICE]])])
    y_new = np.r_[qos.y[500:], 1.0, 2.0]
    models = [
        contract.make().fit(convert(qos.X[:500]), qos.y[:500]).partial_fit(convert(new), y_new)
        for convert in (np.asarray, as_strings)
    ]
    np.testing.assert_array_equal(models[0].predict(new), models[1].predict(as_strings(new)))


@sampling_estimators
def test_an_update_ahead_of_training_predicts_what_is_new_as_before(
    contract, qos, fitted, newcomers
):
    """Up to the messages that new members send in the context graphs of SHARP-QoS."""
    X = _joined(qos)[:500]
    expected, known = fitted.predict(newcomers), fitted.predict(X)
    columns = fitted._read_again(newcomers)
    users, _ = fitted.users_.extend(columns.users, columns.user_context)
    services, _ = fitted.services_.extend(columns.services, columns.service_context)
    module = copy_module(fitted.module_)
    cell = np.zeros(1, dtype=np.int64)
    grown = pickle.loads(_state(fitted))
    # A row that joins nobody and lies within the bounds.
    target = np.full(1, np.nan if contract is SHARP else 0.0)
    grown._prepare_update(module, TrainingRows(users, services, cell, cell, target, np.ones(1)))
    grown._state = replace(grown._state, module_=module, users_=users, services_=services)
    assert NEW_USER in grown.users_.ids_
    assert NEW_SERVICE in grown.services_.ids_
    tolerance = 0.1 if contract is SHARP else 1e-5
    np.testing.assert_allclose(grown.predict(newcomers), expected, rtol=tolerance)
    np.testing.assert_allclose(grown.predict(X), known, rtol=tolerance)


@incremental_estimators
def test_new_entities_with_context_are_learnt(contract, fitted, newcomers):
    y = np.array([20.0, 30.0, 40.0])
    before = fitted.predict(newcomers)
    many = pd.concat([newcomers] * 50, ignore_index=True)
    fitted.set_params(learning_rate=0.01).partial_fit(many, np.tile(y, 50))
    after = fitted.predict(newcomers)
    assert np.abs(after - y).mean() < np.abs(before - y).mean()
    elsewhere = newcomers.assign(user_country="elsewhere", service_as="elsewhere")
    np.testing.assert_array_equal(fitted.predict(elsewhere), after, "known ids keep their context")


@incremental_estimators
def test_new_categories_get_codes_behind_the_old_ones(contract, qos, fitted, newcomers):
    old = fitted.users_, fitted.services_
    fitted.partial_fit(newcomers, np.ones(3))
    for before, after in zip(old, (fitted.users_, fitted.services_), strict=True):
        assert list(after.ids_[:-1]) == list(before.ids_)
        np.testing.assert_array_equal(after.table_.categories[:-1], before.table_.categories)
        np.testing.assert_array_equal(after.table_.numerics[:-1], before.table_.numerics)
        assert (after.table_.categories >= 0).all()
        for known, grown in zip(before.categories_, after.categories_, strict=True):
            np.testing.assert_array_equal(grown.get_indexer(known), np.arange(len(known)))
        np.testing.assert_array_equal(after.mean_, before.mean_)


@incremental_estimators
def test_updates_lower_the_error(contract):
    """A fifth of the rows, then two fifths; the error on the others."""
    data = contract.make_data(40, 60, density=0.6, timeout_rate=0.0)
    X, y = _joined(data), data.y
    first, new, test = np.split(
        np.random.default_rng(0).permutation(len(y)), [len(y) // 5, 3 * len(y) // 5]
    )
    half = {"max_epochs": contract.learning["max_epochs"] // 2}
    model = contract.make(**contract.learning | half).fit(X.iloc[first], y[first])
    before = np.abs(model.predict(X.iloc[test]) - y[test]).mean()
    model.partial_fit(X.iloc[new], y[new])
    assert np.abs(model.predict(X.iloc[test]) - y[test]).mean() < before


# --- Bad input, interruption ---------------------------------------------------------------------

BAD_UPDATES = {
    "one column": (lambda X, y: (X.iloc[:, :1], y), "feature names should match"),
    "array of two columns": (lambda X, y: (X.to_numpy()[:, :2], y), "X has 2 features"),
    "NaN in y": (lambda X, y: (X, np.full_like(y, np.nan)), "NaN"),
    "inf in y": (lambda X, y: (X, np.r_[np.inf, y[1:]]), "infinity"),
    "no y": (lambda X, _: (X, None), "requires y to be passed"),
    "lengths": (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
    "no rows": (lambda X, y: (X[:0], y[:0]), r"Found array with 0 sample\(s\)"),
    "other id kind": (lambda X, y: (X.assign(user="a"), y), "user ids are of kind string"),
    "NaN id": (lambda X, y: (X.assign(service=np.nan), y), r"column 1 \(service\): row 0 is NaN"),
    "two contexts": (
        lambda X, y: (X.assign(user=-1, user_country=["a", *"b" * (len(y) - 1)]), y),
        "user -1 has two contexts: column 'user_country' is a in one row and b in another",
    ),
    "context of another kind": (
        lambda X, y: (X.assign(user=-1, user_country=17), y),
        "'user_country' holds numbers such as 17; fit saw strings",
    ),
    "infinite context": (
        lambda X, y: (X.assign(user=-1, user_latitude=np.inf, user_longitude=0.0), y),
        "holds inf",
    ),
}


@incremental_estimators
@pytest.mark.parametrize("case", BAD_UPDATES)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_a_bad_update_raises_and_changes_nothing(contract, qos, fitted, case):
    change, message = BAD_UPDATES[case]
    X = _joined(qos)[500:505]
    for name in X:
        if name.startswith("user_"):
            X[name] = X[name].iloc[0]
    X["user"] = qos.X[500, 0]
    before = _state(fitted)
    with pytest.raises(ValueError, match=message):
        fitted.partial_fit(*change(X, qos.y[500:505]))
    assert _state(fitted) == before


@incremental_estimators
def test_a_negative_value_raises_where_logarithms_were_learnt(contract, qos):
    model = contract.make(target_transform="log").fit(_joined(qos)[:500], qos.y[:500])
    before = _state(model)
    with pytest.raises(ValueError, match=r"transform 'log', which fit used .* needs y >= 0"):
        model.partial_fit(_joined(qos)[500:505], -qos.y[500:505])
    assert _state(model) == before


@incremental_estimators
@pytest.mark.parametrize(
    ("name", "value"), [("partial_fit_epochs", -1), ("replay_buffer_size", -1)]
)
def test_bad_parameters_raise_and_change_nothing(contract, qos, fitted, name, value):
    before = fitted.predict(_joined(qos))
    fitted.set_params(**{name: value})
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        fitted.partial_fit(_joined(qos), qos.y)
    np.testing.assert_array_equal(fitted.predict(_joined(qos)), before)


class Interrupt(Callback):
    """Press Ctrl-C in the second epoch."""

    def on_epoch_begin(self, net, **_):
        assert net.stage == STAGE
        if len(net.history) == 2:
            raise KeyboardInterrupt


@incremental_estimators
@pytest.mark.parametrize("newcomers", ["unknown"], indirect=True)
@pytest.mark.parametrize("failure", [KeyboardInterrupt, FloatingPointError])
@pytest.mark.filterwarnings("ignore:overflow")
def test_an_update_that_does_not_end_changes_nothing(contract, qos, fitted, newcomers, failure):
    before = _state(fitted)
    params = {"callbacks": [Interrupt()]}
    if failure is FloatingPointError:
        params = {"learning_rate": 1e30, "learning_rate_schedule": "constant"}
    earlier = {name: fitted.get_params()[name] for name in params}
    with pytest.raises(failure):
        fitted.set_params(**params).partial_fit(newcomers, np.ones(3))
    assert _state(fitted.set_params(**earlier)) == before


# --- Persistence ---------------------------------------------------------------------------------


@incremental_estimators
def test_a_model_whose_parameter_is_wrong_can_be_stored(contract, fitted):
    n_kept = len(fitted._replay_buffer)
    stored = pickle.loads(pickle.dumps(fitted.set_params(replay_buffer_size=None)))
    assert len(stored._replay_buffer) == n_kept


@incremental_estimators
@pytest.mark.parametrize("newcomers", ["unknown"], indirect=True)
@pytest.mark.parametrize("package", ["pickle", "save_model"])
def test_updated_models_load_and_loaded_models_update(
    contract, qos, fitted, newcomers, tmp_path, package
):
    def again(model):
        if package == "pickle":
            file = io.BytesIO(pickle.dumps(model))
            return pickle.load(file)
        save_model(model, tmp_path / "model.skqos")
        return load_model(tmp_path / "model.skqos")

    loaded = again(fitted)
    for _ in range(2):
        fitted.partial_fit(newcomers, np.ones(3))
        loaded = again(loaded.partial_fit(newcomers, np.ones(3)))
        np.testing.assert_array_equal(loaded.predict(newcomers), fitted.predict(newcomers))
        assert len(loaded.net_.history) == loaded.n_iter_ == fitted.n_iter_
        pd.testing.assert_frame_equal(
            loaded.history_.drop(columns="duration"), fitted.history_.drop(columns="duration")
        )


@incremental_estimators
def test_the_pickle_does_not_grow_with_rows_of_known_entities(contract, qos):
    first, later = np.split(np.random.default_rng(0).permutation(len(qos.y)), 2)
    model = contract.make().fit(qos.X[first], qos.y[first])
    size = len(pickle.dumps(model))
    model.partial_fit(qos.X[later], qos.y[later])
    n_epochs = len(model.history_)
    assert len(pickle.dumps(model)) < size + contract.bytes_per_row * 300 + 150 * n_epochs


def test_a_copied_network_keeps_the_marks_of_its_parameters(qos):
    module = SHARP.make().fit(qos.X, qos.y).module_
    twin = copy_module(module)
    marked = [
        [name for name, p in part.named_parameters() if hasattr(p, "no_weight_decay")]
        for part in (module, twin)
    ]
    assert marked[0] == marked[1] != []
    for p, q in zip(module.parameters(), twin.parameters(), strict=True):
        assert p is not q
        assert torch.equal(p, q)


# --- Several targets -----------------------------------------------------------------------------


@pytest.fixture
def joint():
    data = make_qos(30, 40, density=0.5, n_qos=2, random_state=0)
    y = data.y.copy()
    y[::3, 0] = np.nan
    y[1::3, 1] = np.nan
    return data.X, y


def test_joint_updates_take_what_was_observed(joint):
    X, y = joint
    model = SHARP.make().fit(X[:400], y[:400])
    n_edges = [graph.graph.n_edges for graph in model.module_.graphs]
    model.partial_fit(X[400:], y[400:])
    for k, graph in enumerate(model.module_.graphs):
        assert graph.graph.n_edges == n_edges[k] + (~np.isnan(y[400:, k])).sum()
    only_one = np.column_stack([np.full(3, np.nan), np.ones(3)])
    model.partial_fit([[NEW_USER, 0], [0, NEW_SERVICE], [1, 1]], only_one)
    prediction = model.predict([[NEW_USER, 0], [0, NEW_SERVICE]])
    assert prediction.shape == (2, 2)
    assert np.isfinite(prediction).all()
    # Without an observation of the first target, the new user is new to it.
    assert not model.module_.graphs[0].users_connected[-1]
    assert model.module_.graphs[1].users_connected[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:, 0], r"y has shape \(200,\), but in fit it had shape \('n_samples', 2\)"),
        (lambda y: np.full_like(y, np.nan), "NaN in every entry"),
        (lambda y: np.where(np.isnan(y), np.inf, y), "infinity"),
    ],
)
def test_bad_joint_updates_raise(joint, change, message):
    X, y = joint
    model = SHARP.make().fit(X[:400], y[:400])
    before = _state(model)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(X[400:], change(y[400:]))
    assert _state(model) == before


def test_edges_are_joined_once(qos):
    model = SHARP.make().fit(qos.X, qos.y)
    pairs = {tuple(pair) for pair in qos.X.tolist()}
    model.partial_fit(np.vstack([qos.X[:7], [[NEW_USER, 3]]]), np.ones(8))
    graph = model.module_.graphs[0].graph
    users, services = model.users_.ids_[graph.users], model.services_.ids_[graph.services]
    assert sorted(zip(users, services, strict=True)) == sorted({*pairs, (NEW_USER, 3)})


# --- Without training ----------------------------------------------------------------------------


@sampling_estimators
def test_without_epochs_new_entities_are_taken_in_and_nothing_is_trained(contract, qos):
    model = contract.make(partial_fit_epochs=0).fit(qos.X, qos.y)
    known, history = model.predict(qos.X), model.history_
    model.partial_fit([[NEW_USER, 0], [1, NEW_SERVICE]], [1.0, 2.0])
    assert model.is_known([[NEW_USER, NEW_SERVICE]]).all()
    assert np.isfinite(model.predict([[NEW_USER, NEW_SERVICE]])).all()
    pd.testing.assert_frame_equal(model.history_, history)
    if contract is not SHARP:
        np.testing.assert_allclose(model.predict(qos.X), known, rtol=1e-4)
    # The rows are trained on later.
    assert model._replay_buffer.n_seen == len(qos.X) + 2
    model.set_params(partial_fit_epochs=1).partial_fit(qos.X[:20], qos.y[:20])
    assert model.n_iter_ == 1
    assert len(model.history_) == len(history) + 1


def test_without_epochs_the_bound_of_predictions_stays(qos):
    model = SAMoERegressor(max_epochs=2, first_stage_epochs=2, device="cpu", random_state=0)
    before = model.set_params(partial_fit_epochs=0).fit(qos.X, qos.y).predict(qos.X)
    large = qos.X[:1], [2 * qos.y.max()]
    np.testing.assert_array_equal(model.partial_fit(*large).predict(qos.X), before)
    bound = model.module_.bound
    assert model.set_params(partial_fit_epochs=1).partial_fit(*large).module_.bound > bound


def test_without_epochs_edges_tell_of_a_new_user(qos):
    """Two users who measured the same services are told apart by their values alone."""
    model = SHARP.make(
        convolution="gcn", edge_values="quantile", normalization="row", partial_fit_epochs=0
    ).fit(qos.X, qos.y)
    services = np.arange(5)
    low, high = np.quantile(qos.y, [0.02, 0.98])
    X = [[user, service] for user in (NEW_USER, NEW_USER + 1) for service in services]
    model.partial_fit(X, np.repeat([low, high], len(services)))
    asked = [[user, service] for user in (NEW_USER, NEW_USER + 1) for service in (7, 8, 9)]
    first, second = model.predict(asked).reshape(2, 3)
    assert (first != second).all()


# --- Replay --------------------------------------------------------------------------------------


@pytest.fixture
def updates(contract, monkeypatch):
    """What each update trains on, in order."""
    rows = []
    original = contract.estimator_class._prepare_update
    monkeypatch.setattr(
        contract.estimator_class,
        "_prepare_update",
        lambda self, module, data: rows.append(data) or original(self, module, data),
    )
    return rows


def _measurements(model, rows, first=0):
    """Users, services and QoS of encoded rows."""
    target = np.asarray(rows.target[first:], dtype=np.float64)
    y = model._state.target_transform.inverse_transform(target)
    ids = (
        model.users_.ids_[rows.user_codes[first:]],
        model.services_.ids_[rows.service_codes[first:]],
    )
    return {(*pair, float(f"{value:.4g}")) for *pair, value in zip(*ids, y, strict=True)}


def _as_set(X, y):
    return {(*pair, float(f"{value:.4g}")) for pair, value in zip(X.tolist(), y, strict=True)}


@sampling_estimators
def test_updates_replay_earlier_rows_but_of_pairs_measured_again(contract, qos, updates):
    model = contract.make().fit(qos.X[:500], qos.y[:500])
    X = np.vstack([qos.X[490:550], [[NEW_USER, 3]]])
    y = np.append(qos.y[490:550] + 1.0, 2.0)
    model.partial_fit(X, y)
    model.partial_fit(qos.X[550:], qos.y[550:])
    assert [len(rows.target) for rows in updates] == [61 + 256, 50 + 256]
    first, second = (
        _measurements(model, rows, n_new) for rows, n_new in zip(updates, (61, 50), strict=True)
    )
    assert len(first) == len(second) == 256
    assert first <= _as_set(qos.X[:490], qos.y[:490])
    assert second <= _as_set(qos.X[:490], qos.y[:490]) | _as_set(X, y)
    assert second & _as_set(X, y)
    kept = _measurements(model, model._replay_buffer)
    assert kept == _as_set(qos.X[:490], qos.y[:490]) | _as_set(X, y) | _as_set(
        qos.X[550:], qos.y[550:]
    )


@sampling_estimators
def test_many_new_rows_replay_all(contract, qos, updates):
    model = contract.make().fit(qos.X[:400], qos.y[:400])
    model.partial_fit(qos.X[400:], qos.y[400:])
    assert len(updates[0].target) == 600
    assert _measurements(model, updates[0], 200) == _as_set(qos.X[:400], qos.y[:400])


@sampling_estimators
@pytest.mark.parametrize("size", [0, 50])
def test_the_buffer_keeps_as_many_rows_as_it_is_told(contract, qos, updates, size):
    model = contract.make(replay_buffer_size=size).fit(qos.X[:400], qos.y[:400])
    assert len(model._replay_buffer) == size
    model.partial_fit(qos.X[400:], qos.y[400:])
    assert len(updates[0].target) == 200 + size
    assert len(model._replay_buffer) == size
    if size:
        assert _measurements(model, model._replay_buffer) <= _as_set(qos.X, qos.y)
    model.set_params(replay_buffer_size=10).partial_fit(qos.X[:3], qos.y[:3])
    assert len(model._replay_buffer) == min(size + 3, 10)


@incremental_estimators
@pytest.mark.parametrize("package", ["pickle", "save_model"])
def test_rows_can_be_left_out_of_files(contract, qos, fitted, tmp_path, package):
    fitted.set_params(replay_buffer_size=0)
    if package == "pickle":
        loaded = pickle.loads(pickle.dumps(fitted))
    else:
        save_model(fitted, tmp_path / "model.skqos")
        loaded = load_model(tmp_path / "model.skqos")
    assert len(loaded._replay_buffer) == 0
    if not contract.temporal:
        assert loaded._replay_buffer.n_seen == 500
    assert len(fitted._replay_buffer) == 500
    loaded.partial_fit(_joined(qos)[500:], qos.y[500:])


@incremental_estimators
def test_rows_held_out_are_not_replayed(contract, qos):
    model = contract.make(early_stopping="monitor").fit(qos.X, qos.y)
    assert len(model._replay_buffer) == 540


@incremental_estimators
def test_callbacks_that_monitor_validation_rows_are_left_out_of_updates(contract, qos):
    plateau = LRScheduler("ReduceLROnPlateau", monitor="valid_loss")
    schedule = LRScheduler("StepLR", step_size=1)
    callbacks = [EarlyStopping(), ("plateau", plateau), schedule]
    model = contract.make(callbacks=callbacks, learning_rate_schedule="constant")
    with pytest.raises(ValueError, match=r"callbacks\[0\] monitors a loss of validation rows"):
        model.fit(qos.X, qos.y)
    model.set_params(early_stopping="monitor").fit(qos.X, qos.y)
    n_epochs = len(model.history_)
    model.partial_fit(qos.X[:30], qos.y[:30])
    assert len(model.history_) > n_epochs
    assert len(model.callbacks) == 3


@sampling_estimators
def test_dropout_may_be_off_in_updates_and_is_on_again(contract, qos):
    shares = []

    class Look(Callback):
        def on_batch_begin(self, net, **_):
            shares.append(_dropout(net.module_))

    model = contract.make(callbacks=[Look()]).fit(qos.X, qos.y)
    expected = _dropout(model.module_)
    assert any(expected)
    assert shares[-1] == expected
    model.partial_fit(qos.X[:5], qos.y[:5])
    assert any(shares[-1]) == contract.estimator_class._update_has_dropout
    assert _dropout(model.module_) == expected


def _dropout(module):
    return [part.p for part in module.modules() if isinstance(part, torch.nn.Dropout)]


def test_a_target_that_is_not_measured_again_is_kept(joint):
    X, y = joint
    model = SHARP.make().fit(X[:400], y[:400])
    again = np.column_stack([np.full(400, 3.0), np.full(400, np.nan)])
    model.partial_fit(X[:400], again)
    buffer = model._replay_buffer
    kept = model._state.target_transform.inverse_transform(buffer.target.astype(np.float64))
    has_second = ~np.isnan(y[:400, 1])
    assert len(buffer) == 400 + has_second.sum()
    np.testing.assert_allclose(kept[: has_second.sum(), 1], y[:400][has_second, 1], rtol=1e-4)
    assert np.isnan(kept[: has_second.sum(), 0]).all()


@pytest.mark.parametrize(
    ("n_new", "n_kept", "n_seen", "n_replayed", "rate"),
    [
        (1, 50_000, 50_000, 256, 8 / 50_000),
        (1, 100, 100, 100, 0.08),
        (5_000, 50_000, 50_000, 20_000, 0.8),
        (12_499, 50_000, 50_000, 49_996, 1.99984),
        (12_500, 50_000, 50_000, 50_000, 2.0),
        (10**6, 50_000, 50_000, 50_000, 2.0),
        # Of rows that are not kept no update can learn again.
        (50_000, 50_000, 100_000, 50_000, 1.0),
        (20_000, 0, 50_000, 0, 0.1),
        # What was measured again is all that was known.
        (1, 0, 0, 0, 2.0),
    ],
)
def test_large_updates_replay_all_rows_and_small_ones_step_carefully(
    n_new, n_kept, n_seen, n_replayed, rate
):
    assert incremental.plan_update(n_new, n_kept, n_seen) == (n_replayed, pytest.approx(rate))


@pytest.mark.parametrize(("n_newcomers", "rate"), [(0, 0.8), (2500, 0.44), (5000, 0.08)])
def test_rows_of_newcomers_raise_the_learning_rate_little(n_newcomers, rate):
    n_replayed, found = incremental.plan_update(5000, 50_000, 50_000, n_newcomers)
    assert (n_replayed, found) == (20_000, pytest.approx(rate))


@pytest.mark.parametrize(("n_epochs", "rate"), [(1, 3 / 64), (2, 6 / 64), (64, np.inf)])
def test_an_update_of_few_steps_has_a_small_learning_rate(qos, n_epochs, rate):
    """With many steps, the rate grows with the share of the new rows."""
    params = {"max_epochs": 1, "batch_size": 200, "random_state": 0}
    model = EmbeddingMLPRegressor(partial_fit_epochs=n_epochs, **params)
    first, rows = np.split(np.random.default_rng(0).permutation(600), [500])
    assert all(np.isin(qos.X[rows, k], qos.X[first, k]).all() for k in (0, 1)), "all are known"
    model.fit(qos.X[first], qos.y[first]).partial_fit(qos.X[rows], qos.y[rows])
    by_share = 8 * len(rows) / 500
    assert 1 < by_share < 2
    assert model.net_.lr == pytest.approx(min(rate, by_share) * model.learning_rate)
