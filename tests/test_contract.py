"""What every estimator promises (DESIGN, "the contract"), tested once for all of them."""

import copy
import functools
import io
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback, EarlyStopping

from skqos import SharpQoSRegressor, TPMCFRegressor, UnusedColumnsWarning
from skqos.base import BaseQoSRegressor
from skqos.baselines import EmbeddingMLPRegressor
from skqos.persistence import load_model, save_model
from skqos.preprocessing import ContextJoiner
from tests.common import CONTRACTS, all_estimators, temporal_estimators

WITH_INTERVALS = {EmbeddingMLPRegressor, TPMCFRegressor}
ONE_EPOCH = {"max_epochs": 1, "first_stage_epochs": 1, "gcmf_epochs": 1, "device": "cpu"}


def _of_one_epoch(estimator):
    return estimator.set_params(**{k: v for k, v in ONE_EPOCH.items() if k in vars(estimator)})


def _at_defaults(contract):
    """Return what `SAMoERegressor()` and the like are, but for the epochs."""
    return _of_one_epoch(contract.estimator_class())


@functools.cache
def _fit_once(name, *, joined):
    contract = next(c for c in CONTRACTS if c.estimator_class.__name__ == name)
    qos = contract.make_data(30, 40, density=0.5)
    return contract.make().fit(_joined(qos) if joined else qos.X, qos.y)


@pytest.fixture
def fitted(contract):
    """Return an estimator that was fitted to `qos` without context; no test changes it."""
    return _fit_once(contract.estimator_class.__name__, joined=False)


@pytest.fixture
def fitted_joined(contract):
    """Return an estimator that was fitted to `qos` with context; no test changes it."""
    return _fit_once(contract.estimator_class.__name__, joined=True)


def _expected_failures(estimator):
    contract = next(c for c in CONTRACTS if isinstance(estimator, c.estimator_class))
    return contract.expected_failed_checks


@pytest.mark.filterwarnings("ignore::skqos.UnusedColumnsWarning")
@parametrize_with_checks(
    [
        # Intervals are the same code for all, and a second training.
        *(
            _of_one_epoch(contract.make(intervals=contract.estimator_class in WITH_INTERVALS))
            for contract in CONTRACTS
        ),
        *(_at_defaults(contract) for contract in CONTRACTS),
    ],
    expected_failed_checks=_expected_failures,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# --- Used as scikit-learn's users do ------------------------------------------------------------


@all_estimators
def test_services_in_any_order_are_predicted_alike(contract, qos, fitted):
    """Runs of services, of one user and of several, are taken as slices where that is possible."""
    services = fitted.services_.ids_.to_numpy()
    X = contract.rows(np.column_stack([np.full(len(services), 3), services]))
    shuffled = np.random.default_rng(0).permutation(len(X))
    expected = fitted.predict(X[shuffled])
    np.testing.assert_allclose(fitted.predict(X)[shuffled], expected, rtol=1e-5)
    np.testing.assert_allclose(fitted.predict(X[4:9]), fitted.predict(X)[4:9], rtol=1e-5)


@all_estimators
def test_grid_search_over_a_pipeline(contract, qos):
    pipeline = make_pipeline(ContextJoiner(qos.users, qos.services), contract.make())
    name = pipeline.steps[-1][0]
    search = GridSearchCV(
        pipeline,
        {f"{name}__max_epochs": [1, 3]},
        scoring="neg_mean_absolute_error",
        cv=2,
        n_jobs=2,
        error_score="raise",
    )
    search.fit(qos.X, qos.y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(qos.X[:5]).shape == (5,)


@all_estimators
def test_cross_validate_returns_usable_estimators(contract, qos):
    result = cross_validate(
        contract.make(), qos.X, qos.y, cv=2, n_jobs=2, return_estimator=True, error_score="raise"
    )
    assert all(np.isfinite(estimator.predict(qos.X)).all() for estimator in result["estimator"])


@all_estimators
def test_string_ids_give_the_same_model_as_numbers(contract, qos, fitted):
    as_strings = pd.DataFrame(qos.X, columns=contract.id_columns).assign(
        user=[f"u{user:03d}" for user in qos.X[:, 0]],
        service=[f"s{service:03d}" for service in qos.X[:, 1]],
    )
    expected = fitted.predict(qos.X)
    np.testing.assert_array_equal(
        contract.make().fit(as_strings, qos.y).predict(as_strings), expected
    )


@all_estimators
def test_context_columns_of_an_array_by_position(contract, qos):
    country = qos.users["country"].astype(str).to_numpy()[qos.X[:, 0]]
    X = np.column_stack([qos.X.astype(object), country])
    model = contract.make(user_features=[qos.X.shape[1]]).fit(X, qos.y)
    assert model.users_.n_categories == [len(set(country))]
    assert np.isfinite(model.predict(X)).all()


@all_estimators
def test_duplicate_rows_are_allowed(contract, qos):
    X, y = np.tile(qos.X[:100], (2, 1)), np.r_[qos.y[:100], 2 * qos.y[:100]]
    assert np.isfinite(contract.make().fit(X, y).predict(X)).all()


@all_estimators
# Two rows do not have the first time step.
@pytest.mark.filterwarnings("ignore::skqos.exceptions.EarlyTimeWarning")
@pytest.mark.parametrize("n_rows", [2, 64, 65, 129])
def test_any_number_of_rows(contract, qos, n_rows):
    """One row left over would break batch normalisation."""
    rows = np.random.default_rng(0).permutation(len(qos.y))[:n_rows]
    model = contract.make(batch_size=64).fit(qos.X[rows], qos.y[rows])
    assert np.isfinite(model.predict(qos.X)).all()


@all_estimators
@pytest.mark.parametrize(
    "transform",
    [lambda y: -y, lambda y: y - y.mean(), lambda y: y * 1e6, lambda y: np.full_like(y, 3.0)],
    ids=["negative", "both signs", "large", "constant"],
)
def test_targets_of_any_sign_and_size(contract, qos, transform):
    y = transform(qos.y)
    prediction = contract.make().fit(qos.X, y).predict(qos.X)
    assert np.isfinite(prediction).all()
    assert y.min() - 2 * np.ptp(y) - 1 <= prediction.min()
    assert prediction.max() <= y.max() + 2 * np.ptp(y) + 1


@all_estimators
@pytest.mark.parametrize(("unit", "spreads"), [(1.0, 1e6), (1e-6, -1e6), (1e6, 1)])
def test_auto_sees_neither_unit_nor_offset_of_y(contract, qos, fitted_joined, unit, spreads):
    X = _joined(qos)
    offset = spreads * np.std(qos.y)
    moved = contract.make().fit(X, unit * (qos.y + offset)).predict(X) / unit - offset
    expected = fitted_joined.predict(X)
    assert np.abs(moved - qos.y).mean() <= 1.05 * np.abs(expected - qos.y).mean()
    assert np.abs(moved - expected).mean() <= 0.01 * np.std(qos.y)


@all_estimators
@pytest.mark.parametrize("seed", [1, 9, 25])
def test_targets_of_two_values(contract, seed):
    """Each entity has one row: the interaction matrix has equal singular values and zeros."""
    rng = np.random.RandomState(seed)
    n = rng.randint(5, 25)
    X = contract.rows(np.column_stack([rng.permutation(n), rng.permutation(n)]))
    model = _at_defaults(contract).set_params(random_state=0)
    assert np.isfinite(model.fit(X, rng.choice([-1.0, 1.0], n)).predict(X)).all()


@all_estimators
@pytest.mark.parametrize("scale", [1e300, 1e-300, 5e-324])
def test_targets_of_any_order_of_magnitude(contract, qos, scale):
    y = np.where(qos.y > np.median(qos.y), scale, 0.0)
    prediction = contract.make().fit(_joined(qos), y).predict(_joined(qos))
    assert np.isfinite(prediction).all()
    assert np.abs(prediction).max() < 3 * scale


# --- Ids and context that fit did not see -------------------------------------------------------


@all_estimators
def test_unknown_ids_never_raise(contract, qos, fitted):
    prediction = fitted.predict(
        contract.rows([[10**6, 3], [5, 10**7], [10**6, 10**7], [10**6 + 1, 3]])
    )
    assert np.isfinite(prediction).all()
    # Up to rounding, which depends on the place in a batch.
    np.testing.assert_allclose(
        prediction[0], prediction[3], rtol=1e-5, err_msg="without context unknown users are alike"
    )


@all_estimators
def test_is_known_tells_of_users_and_services(contract, qos):
    rows = np.arange(0, len(qos.y), 2)
    model = contract.make().fit(qos.X[rows], qos.y[rows])
    X = np.vstack([qos.X, contract.rows([[10**6, 3], [5, 10**7], [10**6, 10**7]])])
    X[:, 2:] += 1000
    known = model.is_known(X)
    expected = [np.isin(X[:, k], qos.X[rows, k]) for k in range(2)]
    assert known.dtype == bool
    np.testing.assert_array_equal(known, np.column_stack(expected))
    assert known.tolist()[-3:] == [[False, True], [True, False], [False, False]]


@all_estimators
def test_is_known_through_context_and_after_an_update(contract, qos):
    X = _joined(qos)
    model = contract.make().fit(X, qos.y)
    newcomers = X.iloc[:2].assign(user=[10**6, X["user"].iloc[1]])
    assert model.is_known(newcomers).tolist() == [[False, True], [True, True]]
    if hasattr(model, "partial_fit"):
        model.partial_fit(newcomers, qos.y[:2])
        assert model.is_known(newcomers).all()


@all_estimators
def test_unknown_ids_are_told_apart_by_context(contract, qos, fitted_joined):
    joined = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    newcomers = joined.drop_duplicates("user_country").head(2).assign(user=[-1, -1], service=0)
    for column in [name for name in joined if not name.startswith("user")]:
        newcomers[column] = newcomers[column].iloc[0]
    first, second = fitted_joined.predict(newcomers)
    assert first != second


@all_estimators
def test_a_known_id_keeps_its_context(contract, qos, fitted_joined):
    joined = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    moved = joined.assign(user_country="elsewhere", service_latitude=0.0)
    np.testing.assert_array_equal(fitted_joined.predict(moved), fitted_joined.predict(joined))


@all_estimators
@pytest.mark.parametrize(("column", "n_services"), [(0, 200), (1, 250)], ids=["users", "services"])
def test_cold_start_beats_the_median(contract, column, n_services):
    """A fifth of the users, then of the services, is held out, context and all."""
    data = contract.make_data(60, n_services, density=0.2, n_regions=5, n_as=12, timeout_rate=0.0)
    ids = np.unique(data.X[:, column])
    held_out = np.random.default_rng(0).permutation(ids)[: len(ids) // 5]
    test = np.isin(data.X[:, column], held_out)
    half = {"max_epochs": contract.learning["max_epochs"] // 2}
    model = make_pipeline(
        ContextJoiner(data.users, data.services), contract.make(**contract.learning | half)
    ).fit(data.X[~test], data.y[~test])
    error = np.abs(model.predict(data.X[test]) - data.y[test]).mean()
    medians = pd.Series(data.y[~test]).groupby(data.X[~test, 1]).median()
    median = np.median(data.y[~test])
    if column == 0:
        baseline = medians.reindex(data.X[test, 1]).fillna(median).to_numpy()
        assert error <= np.abs(baseline - data.y[test]).mean()
    else:
        assert error <= 0.9 * np.abs(median - data.y[test]).mean()


# --- Honesty ------------------------------------------------------------------------------------


@pytest.fixture
def held_out_rows(monkeypatch):
    """Record which rows a fit holds out for validation."""
    splits = []
    original = BaseQoSRegressor._split_rows

    def spy(self, *args):
        splits.append(original(self, *args))
        return splits[-1]

    monkeypatch.setattr(BaseQoSRegressor, "_split_rows", spy)
    return lambda: splits[-1][1]


@all_estimators
def test_validation_rows_change_the_validation_loss_and_nothing_else(contract, qos, held_out_rows):
    X = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    first = contract.make(early_stopping="monitor").fit(X, qos.y)
    y = qos.y.copy()
    y[held_out_rows()] *= 1000.0
    second = contract.make(early_stopping="monitor").fit(X, y)
    np.testing.assert_array_equal(first.predict(X), second.predict(X))
    same = ["stage", "epoch", "train_loss"]
    pd.testing.assert_frame_equal(first.history_[same], second.history_[same])
    assert (first.history_["valid_loss"] != second.history_["valid_loss"]).all()


@all_estimators
def test_training_rows_do_change_the_model(contract, qos, held_out_rows):
    """The counterpart, without which the test above could not fail."""
    first = contract.make(early_stopping="monitor").fit(qos.X, qos.y)
    y = qos.y.copy()
    y[np.setdiff1d(np.arange(len(y)), held_out_rows())[0]] *= 1000.0
    second = contract.make(early_stopping="monitor").fit(qos.X, y)
    assert (first.predict(qos.X) != second.predict(qos.X)).any()


@all_estimators
def test_ids_of_validation_rows_are_unknown(contract, qos, held_out_rows):
    contract.make(early_stopping="monitor").fit(qos.X, qos.y)
    X = qos.X.copy()
    X[held_out_rows()[0], :2] = 777, 888
    model = contract.make(early_stopping="monitor").fit(X, qos.y)
    assert 777 not in model.users_.ids_
    assert 888 not in model.services_.ids_
    assert not model.is_known(contract.rows([[777, 888]])).any()


@all_estimators
def test_early_stopping_restores_the_best_epoch(contract, qos):
    params = {**contract.learning, "max_epochs": 40, "learning_rate_schedule": "constant"}
    model = contract.make(**params, early_stopping=True, n_iter_no_change=2).fit(qos.X, qos.y)
    history = model.history_[model.history_["stage"] == "final"]
    best = history["valid_loss"].idxmin()
    assert model.n_iter_ == len(history) < 40
    assert best < history.index[-1]
    params["max_epochs"] = int(history.loc[best, "epoch"])
    shorter = contract.make(**params, early_stopping="monitor").fit(qos.X, qos.y)
    np.testing.assert_array_equal(shorter.predict(qos.X), model.predict(qos.X))


@all_estimators
def test_callbacks_see_the_epoch_in_which_training_stops_early(contract, qos):
    seen = []

    class Count(Callback):
        def on_epoch_end(self, net, **_):
            if net.stage == "final":
                seen.append(len(net.history))

    params = {**contract.learning, "max_epochs": 40, "learning_rate_schedule": "constant"}
    params |= {"early_stopping": True, "n_iter_no_change": 1, "learning_rate": 0.1}
    model = contract.make(**params, callbacks=[Count]).fit(qos.X, qos.y)
    assert 40 > model.n_iter_ == len(seen)


# --- Reproducible, independent of order ---------------------------------------------------------


@all_estimators
def test_same_seed_same_model(contract, qos):
    first, second = (contract.make(random_state=3).fit(qos.X, qos.y) for _ in range(2))
    other = contract.make(random_state=4).fit(qos.X, qos.y)
    np.testing.assert_array_equal(first.predict(qos.X), second.predict(qos.X))
    assert (first.predict(qos.X) != other.predict(qos.X)).all()


@all_estimators
def test_fit_leaves_the_global_random_states_alone(contract, qos):
    draws = []
    for fit in (False, True):
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002  (the legacy global state is what must not move)
        if fit:
            contract.make().fit(qos.X, qos.y)
        draws.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002
    assert draws[0] == draws[1]


@all_estimators
def test_predictions_do_not_depend_on_order_or_batches(contract, qos, fitted, monkeypatch):
    X = np.vstack([qos.X, contract.rows([[10**6, 3], [5, 10**7]])])
    expected = fitted.predict(X)
    # Rounding to float32 is relative to the largest terms of a sum, which may cancel.
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(fitted.predict(X[order]), expected[order], **tolerance)
    one_by_one = np.concatenate([fitted.predict(X[k : k + 1]) for k in range(0, len(X), 7)])
    np.testing.assert_allclose(one_by_one, expected[::7], **tolerance)
    monkeypatch.setattr("skqos.prediction.PAIRS_PER_BATCH", 17)
    np.testing.assert_allclose(fitted.predict(X), expected, **tolerance)


@all_estimators
def test_neither_fit_nor_predict_writes_into_the_callers_arrays(contract, qos):
    X, y = qos.X.copy(), qos.y.copy()
    X.flags.writeable = y.flags.writeable = False
    contract.make().fit(X, y).predict(X)


# --- Fitted attributes, persistence, devices ----------------------------------------------------


@all_estimators
def test_fitted_attributes(contract, qos):
    joined = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    model = contract.make(early_stopping="monitor").fit(joined, qos.y)
    assert model.n_features_in_ == joined.shape[1]
    assert list(model.feature_names_in_) == list(joined)
    columns = ["stage", "epoch", "train_loss", "valid_loss", "duration", *contract.history_columns]
    assert list(model.history_) == columns
    assert np.isfinite(model.history_.drop(columns="stage").to_numpy(float)).all()
    assert model.n_iter_ == contract.tiny["max_epochs"]
    assert model.net_.module_ is model.module_
    assert list(model.stage_nets_) == list(model.history_["stage"].unique())


@all_estimators
@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize("package", [pickle, joblib])
def test_pickle_and_joblib(contract, qos, package, is_fitted):
    model = contract.make(callbacks=[EarlyStopping("train_loss", patience=50)])
    if is_fitted:
        model.fit(qos.X, qos.y)
    file = io.BytesIO()
    package.dump(model, file)
    file.seek(0)
    loaded = package.load(file)
    assert loaded.get_params().keys() == model.get_params().keys()
    if is_fitted:
        np.testing.assert_array_equal(loaded.predict(qos.X), model.predict(qos.X))
        assert loaded.net_.module_ is loaded.module_
        assert len(loaded.net_.history) == model.n_iter_


@all_estimators
def test_the_pickle_holds_weights_and_what_must_be_kept(contract):
    """Ten times the rows over the same entities: the same size but for what must be kept."""
    sizes, n_rows = [], []
    for density in (0.08, 0.8):
        data = contract.make_data(30, 40, density=density)
        data.X[:40, :2] = np.column_stack([np.arange(40) % 30, np.arange(40)])
        sizes.append(len(pickle.dumps(contract.make().fit(data.X, data.y))))
        n_rows.append(len(data.y))
    assert sizes[1] < 1.05 * sizes[0] + contract.bytes_per_row * (n_rows[1] - n_rows[0])


@all_estimators
def test_every_tensor_of_the_module_is_a_parameter_or_a_buffer(contract, qos, fitted):
    module = fitted.module_
    for part in module.modules():
        registered = {*part._parameters, *part._buffers}
        loose = [name for name, value in vars(part).items() if isinstance(value, torch.Tensor)]
        assert not set(loose) - registered
    assert all(not tensor.is_cuda for tensor in module.state_dict().values())


@all_estimators
@pytest.mark.gpu
def test_the_gpu_predicts_as_the_cpu_and_its_pickle_loads_there(contract, qos):
    model = contract.make(device="cuda").fit(qos.X, qos.y)
    on_gpu = model.predict(qos.X)
    loaded = pickle.loads(pickle.dumps(model)).set_params(device="cpu")
    assert all(not tensor.is_cuda for tensor in loaded.module_.state_dict().values())
    np.testing.assert_allclose(loaded.predict(qos.X), on_gpu, rtol=1e-3)


def _modules_imported_by(steps, *args):
    """Run steps of code in one new process; return the imported packages after each of them."""
    show = "import sys; print(*sorted(m for m in sys.modules if '.' not in m))"
    script = "\n".join(f"{step}\n{show}" for step in steps)
    result = subprocess.run(
        [sys.executable, "-c", script, *args], capture_output=True, text=True, check=True
    )
    return [set(line.split()) for line in result.stdout.splitlines()]


def test_constructing_imports_no_deep_learning_package():
    kinds = [contract.estimator_class for contract in CONTRACTS]
    steps = [f"from {k.__module__} import {k.__name__}; {k.__name__}()" for k in kinds]
    for kind, imported in zip(kinds, _modules_imported_by(steps), strict=True):
        assert "skqos" in imported
        heavy = imported & {"torch", "skorch", "torch_geometric", "geoopt", "optuna"}
        assert not heavy, kind.__name__


def test_predicting_with_a_loaded_model_imports_nothing_that_training_needs(tmp_path):
    valued = {
        "edge_values": "sender_quantile",
        "context_convolution": "hygcn",
        "messages": "factors_and_context",
        "factor_folds": 3,
    }
    models = [(contract, {}) for contract in CONTRACTS]
    models += [(one, valued) for one in CONTRACTS if one.estimator_class is SharpQoSRegressor]
    steps = ["import sys, joblib; from skqos.persistence import load_model"]
    for k, (contract, params) in enumerate(models):
        data = contract.make_data(30, 40, density=0.5)
        joiner = ContextJoiner(data.users, data.services)
        model = make_pipeline(joiner, contract.make(**params)).fit(data.X, data.y)
        joblib.dump(model, tmp_path / f"{k}.joblib")
        save_model(model, tmp_path / f"{k}.skqos")
        X = contract.rows([[1, 2]]).tolist()
        steps.append(f"joblib.load(sys.argv[1] + '/{k}.joblib').predict({X})")
        steps.append(f"load_model(sys.argv[1] + '/{k}.skqos').predict({X})")
    _, *imported = _modules_imported_by(steps, str(tmp_path))
    assert "torch" in imported[0]
    for step, packages in zip(steps[1:], imported, strict=True):
        assert not packages & {"skorch", "torch_geometric", "geoopt"}, step


# --- Interrupted, diverging, wrong --------------------------------------------------------------


class Interrupt(Callback):
    """Press Ctrl-C in the second epoch."""

    def on_epoch_begin(self, net, **_):
        if len(net.history) == 2:
            raise KeyboardInterrupt


@all_estimators
def test_ctrl_c_leaves_fit_and_the_earlier_model(contract, qos):
    model = contract.make().fit(qos.X, qos.y)
    expected = model.predict(qos.X)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(callbacks=[Interrupt()]).fit(qos.X, 2 * qos.y)
    np.testing.assert_array_equal(model.predict(qos.X), expected)


@all_estimators
def test_a_users_early_stopping_is_no_ctrl_c(contract, qos):
    callback = EarlyStopping("train_loss", patience=1, threshold=10.0, threshold_mode="abs")
    model = contract.make(callbacks=[callback], max_epochs=20).fit(qos.X, qos.y)
    assert model.n_iter_ < 20
    assert callback.misses_ == 0, "fit works on a clone of the callback"


@all_estimators
@pytest.mark.parametrize("bad", [1, "early", None, ("name", 1), (1, Interrupt()), object, []])
def test_what_is_no_callback_is_refused_ahead_of_training(contract, qos, bad):
    class Never(Callback):
        def on_train_begin(self, *_, **__):
            raise AssertionError("training began")

    model = contract.make(callbacks=[Never(), bad])
    before = dict(vars(model))
    with pytest.raises(TypeError, match=r"callbacks\[1\] must be a skorch callback"):
        model.fit(qos.X, qos.y)
    assert vars(model) == before
    with pytest.raises(ValueError, match=r"callbacks must have different names; got \['a', 'a'\]"):
        contract.make(callbacks=[("a", Never()), ("a", Never())]).fit(qos.X, qos.y)


@all_estimators
def test_callbacks_are_taken_as_skorch_takes_them(contract, qos):
    seen = []

    class Seen(Callback):
        def on_train_end(self, *_, **__):
            seen.append(self)

    contract.make(callbacks=(Seen, Seen(), ("mine", Seen()), ("class", Seen))).fit(qos.X, qos.y)
    assert len(seen) % 4 == 0
    assert len(set(map(id, seen))) == len(seen)


@all_estimators
@pytest.mark.filterwarnings("ignore:overflow")
def test_diverging_training_raises_and_says_what_to_try(contract, qos):
    model = contract.make(learning_rate=1e30, learning_rate_schedule="constant")
    with pytest.raises(FloatingPointError, match="smaller learning_rate"):
        model.fit(qos.X, qos.y)
    with pytest.raises(NotFittedError):
        model.predict(qos.X)


@all_estimators
@pytest.mark.parametrize("learning_rate", [1e6, 1e10, 1e16, 1e25])
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_the_last_step_spoilt_is_never_predicted(contract, qos, fitted, learning_rate):
    wild = {"learning_rate": learning_rate, "max_epochs": 1, "partial_fit_epochs": 1}
    model = copy.deepcopy(fitted)
    expected = model.predict(qos.X)
    model.set_params(**{name: v for name, v in wild.items() if name in model.get_params()})
    calls = [model.partial_fit] if hasattr(model, "partial_fit") else []
    for call in [*calls, model.fit]:
        try:
            call(qos.X, qos.y)
        except FloatingPointError as error:
            assert "smaller learning_rate" in str(error)  # noqa: PT017
            np.testing.assert_array_equal(model.predict(qos.X), expected)
        expected = model.predict(qos.X)
        assert np.isfinite(expected).all()


@all_estimators
def test_verbose_shows_a_line_per_epoch(contract, qos, capsys):
    contract.make(verbose=1).fit(qos.X, qos.y)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"epoch 1/{contract.tiny['max_epochs']}" in captured.err
    assert "s left" in captured.err
    contract.make(verbose=0).fit(qos.X, qos.y)
    assert capsys.readouterr().err == ""


def _joined(qos):
    return ContextJoiner(qos.users, qos.services).fit_transform(qos.X)


def _with(X, row, column, value):
    X = X.astype(object if isinstance(value, str) else float)
    X[row, column] = value
    return X


BAD_FITS = {
    "one column": (lambda d: (d.X[:, :1], d.y), {}, "minimum of {n_ids} is required"),
    "NaN id": (lambda d: (_with(d.X, 3, 0, np.nan), d.y), {}, r"column 0 \(user\): row 3 is NaN"),
    "inf id": (
        lambda d: (_with(d.X, 3, 1, np.inf), d.y),
        {},
        r"column 1 \(service\): row 3 is inf",
    ),
    "NaN in y": (lambda d: (d.X, np.r_[np.nan, d.y[1:]]), {}, "Input y contains NaN"),
    "inf in y": (lambda d: (d.X, np.r_[np.inf, d.y[1:]]), {}, "Input y contains infinity"),
    "no y": (lambda d: (d.X, None), {}, "requires y to be passed"),
    "lengths": (lambda d: (d.X, d.y[:-1]), {}, "inconsistent numbers of samples"),
    "one row": (lambda d: (d.X[:1], d.y[:1]), {}, "n_samples=1"),
    "one user": (lambda d: (_with(d.X, slice(None), 0, 0), d.y), {}, "n_users=1"),
    "one service": (lambda d: (_with(d.X, slice(None), 1, 0), d.y), {}, "n_services=1"),
    "mixed ids": (lambda d: (_with(d.X, 0, 0, "a"), d.y), {}, "mixes ids of type int, str"),
    "unknown context": (
        lambda d: (_joined(d), d.y),
        {"user_features": ["user_planet"]},
        "user_features: column 'user_planet' is not in X",
    ),
    "context is an id": (
        lambda d: (_joined(d), d.y),
        {"service_features": ["service"]},
        "service_features: column 1 is not a context column",
    ),
    "context of both": (
        lambda d: (_joined(d), d.y),
        {"service_features": ["user_country"]},
        "is in both user_features and service_features",
    ),
    "two columns of one name": (
        lambda d: (_joined(d).rename(columns={"user_as": "user_region"}), d.y),
        {},
        "'user_region'",
    ),
    "swapped": (
        lambda d: (
            pd.DataFrame(d.X, columns=["service_id", "user_id", "time"][: d.X.shape[1]]),
            d.y,
        ),
        {},
        "named .service.*must be user, then service",
    ),
    "two contexts": (
        lambda d: (_joined(d).assign(user_latitude=np.arange(len(d.y))), d.y),
        {},
        "user 0 has two contexts: column 'user_latitude'",
    ),
    "infinite context": (
        lambda d: (_joined(d).assign(user_x=np.inf), d.y),
        {},
        "Context column 'user_x' holds inf",
    ),
    "epochs": (lambda d: (d.X, d.y), {"max_epochs": 0}, "'max_epochs' parameter"),
    "learning rate": (lambda d: (d.X, d.y), {"learning_rate": -1.0}, "'learning_rate' parameter"),
    "transform": (lambda d: (d.X, d.y), {"target_transform": "cube"}, "'target_transform' param"),
    "log of negative": (lambda d: (d.X, -d.y), {"target_transform": "log"}, "needs y >= 0"),
    "device": (lambda d: (d.X, d.y), {"device": "toaster"}, "device='toaster' cannot be used"),
    "validation": (
        lambda d: (d.X[:4], d.y[:4]),
        {"early_stopping": True, "validation_fraction": 0.9},
        "validation_fraction=0.9 with n_samples=4 leaves 0 training rows",
    ),
}

BAD_TIMES = {
    "two columns": (lambda d: d.X[:, :2], "minimum of 3 is required"),
    "NaN": (lambda d: _with(d.X, 3, 2, np.nan), r"column 2 \(time\): row 3 is NaN"),
    "inf": (lambda d: _with(d.X, 3, 2, np.inf), r"column 2 \(time\): row 3 is inf"),
    "between two steps": (
        lambda d: _with(d.X, 3, 2, 3.5),
        r"column 2 \(time\) must hold integer-valued time steps; found 3\.5",
    ),
    "strings": (
        lambda d: _with(d.X, slice(None), 2, "3"),
        r"column 2 \(time\) must hold integer-valued time steps; found '3'",
    ),
    "a string": (lambda d: _with(d.X, 0, 2, "3"), r"column 2 \(time\) mixes ids of type int, str"),
}


@all_estimators
@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_input_to_fit_raises_and_leaves_nothing_half_fitted(contract, qos, case):
    _assert_fit_raises(contract, qos, *BAD_FITS[case])


@temporal_estimators
@pytest.mark.parametrize("case", BAD_TIMES)
def test_bad_times_at_fit_raise_and_leave_nothing_half_fitted(contract, qos, case):
    make_X, message = BAD_TIMES[case]
    _assert_fit_raises(contract, qos, lambda d: (make_X(d), d.y), {}, message)


def _assert_fit_raises(contract, qos, make_data, params, message):
    model = contract.make(**params)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=message.format(n_ids=len(contract.id_columns))):
        model.fit(*make_data(qos))
    assert vars(model) == before


@all_estimators
def test_column_names_of_several_types_raise_ahead_of_training(contract, qos):
    model = contract.make(callbacks=[Interrupt()])
    before = dict(vars(model))
    with pytest.raises(TypeError, match="string names"):
        model.fit(pd.DataFrame(qos.X, columns=[*contract.id_columns[:-1], 1]), qos.y)
    assert vars(model) == before


@all_estimators
def test_a_failed_refit_keeps_the_earlier_model(contract, qos):
    model = contract.make().fit(_joined(qos), qos.y)
    before = dict(vars(model))
    with pytest.raises(ValueError, match="NaN"):
        model.fit(qos.X, np.full_like(qos.y, np.nan))
    assert vars(model) == before


def _with_text_ids(X):
    return np.column_stack([X[:, :2].astype(str), *X.T[2:].astype(object)])


BAD_PREDICTS = {
    "other id kind": (lambda d: _with_text_ids(d.X), "user ids are of kind string .* fit saw"),
    "other columns": (
        lambda d: np.c_[d.X, d.X],
        "X has {n_columns} features, but .* is expecting {n_ids}",
    ),
    "NaN id": (lambda d: _with(d.X, 0, 1, np.nan), "row 0 is NaN"),
}


@all_estimators
@pytest.mark.parametrize("case", BAD_PREDICTS)
def test_bad_input_to_predict_raises(contract, qos, fitted, case):
    _assert_predict_raises(contract, qos, fitted, *BAD_PREDICTS[case])


@temporal_estimators
@pytest.mark.parametrize("case", BAD_TIMES)
def test_bad_times_at_predict_raise(contract, qos, fitted, case):
    make_X, message = BAD_TIMES[case]
    # A column too few is found by its number, as for all estimators.
    message = "has 2 features, but .* is expecting 3" if case == "two columns" else message
    _assert_predict_raises(contract, qos, fitted, make_X, message)


def _assert_predict_raises(contract, qos, fitted, make_X, message):
    n_ids = len(contract.id_columns)
    for method in (fitted.predict, fitted.is_known):
        with pytest.raises(ValueError, match=message.format(n_ids=n_ids, n_columns=2 * n_ids)):
            method(make_X(qos))


@temporal_estimators
def test_whole_numbers_of_any_type_are_time_steps(contract, qos, fitted):
    expected = fitted.predict(qos.X)
    for X in (qos.X.astype(float), qos.X.astype(object), qos.X.astype("int8")):
        model = contract.make().fit(X, qos.y)
        np.testing.assert_array_equal(model.predict(X), expected)
        np.testing.assert_array_equal(model.predict(qos.X), expected)


def _with_stamps(X, zone=None):
    """Return rows whose steps are half hours, some minutes into each."""
    minutes = 30 * X[:, 2] + 7 * np.arange(len(X)) % 30
    stamps = pd.Timestamp("2026-03-28 22:00") + pd.to_timedelta(minutes, unit="min")
    frame = pd.DataFrame(X, columns=["user", "service", "time"])
    return frame.assign(time=stamps.tz_localize("UTC").tz_convert(zone) if zone else stamps)


@temporal_estimators
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_time_stamps_are_steps(contract, qos, fitted, zone):
    """Numbered as the steps that they lie in, one of which is ahead of a change of clocks."""
    X = _with_stamps(qos.X, zone)
    expected = fitted.predict(qos.X)
    model = contract.make(time_step="30min").fit(X, qos.y)
    np.testing.assert_array_equal(model.predict(X), expected)
    np.testing.assert_array_equal(model.predict(X.assign(time=X["time"].astype(str))), expected)
    polars = pytest.importorskip("polars")
    columns = {name: column.to_list() for name, column in X.items()}
    np.testing.assert_array_equal(model.predict(polars.DataFrame(columns)), expected)
    array = contract.make(time_step="30min").fit(X.to_numpy(), qos.y)
    np.testing.assert_array_equal(array.predict(X.to_numpy()), expected)
    later = X.assign(time=X["time"] + pd.Timedelta("30D"))
    assert np.isfinite(model.predict(later)).all()


@temporal_estimators
def test_time_stamps_in_clones_pickles_files_and_pipelines(contract, qos, tmp_path):
    X = _with_stamps(qos.X, "Europe/Berlin")
    model = clone(contract.make(time_step=pd.Timedelta("30min"))).fit(X, qos.y)
    expected = model.predict(X)
    save_model(model, tmp_path / "model")
    for twin in (pickle.loads(pickle.dumps(model)), load_model(tmp_path / "model")):
        assert twin.time_step == pd.Timedelta("30min")
        np.testing.assert_array_equal(twin.predict(X), expected)
        with pytest.raises(ValueError, match="holds time stamps without a time zone, but"):
            twin.predict(X.assign(time=X["time"].dt.tz_localize(None)))
    pipeline = make_pipeline(ContextJoiner(qos.users), contract.make(time_step="30min"))
    assert np.isfinite(pipeline.fit(X, qos.y).predict(X)).all()


BAD_STAMPS = {
    "no step": ({}, lambda X: X, "time_step is None.* time_step='1min', which is suitable"),
    "integers": ({"time_step": "1h"}, lambda X: X.assign(time=3), "time_step='1h' is for time"),
    "no duration": ({"time_step": "soon"}, lambda X: X, "time_step must be None or a duration"),
    "a number": ({"time_step": 15}, lambda X: X, "'time_step' parameter"),
    "nearly as many steps as rows": (
        {"time_step": "1min"},
        lambda X: X.assign(time=pd.date_range("2026-05-01", periods=len(X), freq="1min")),
        "different steps in .* rows; .* With time_step='1min' .* such as time_step=",
    ),
    "no time": (
        {"time_step": "1h"},
        lambda X: X.assign(time=[pd.NaT, *X["time"][1:]]),
        r"column 2 \(time\): row 0 is NaN; every row needs a time",
    ),
}


@temporal_estimators
@pytest.mark.parametrize("case", BAD_STAMPS)
def test_bad_time_stamps_raise_at_fit(contract, qos, case):
    params, make_X, message = BAD_STAMPS[case]
    _assert_fit_raises(contract, qos, lambda d: (make_X(_with_stamps(d.X)), d.y), params, message)


@all_estimators
def test_other_column_names_at_predict_raise(contract, qos, fitted_joined):
    X = _joined(qos)
    with pytest.raises(ValueError, match="feature names should match"):
        fitted_joined.predict(X.rename(columns={"user_country": "user_planet"}))


@all_estimators
def test_a_table_that_matches_no_id_raises(contract, qos):
    tables = ContextJoiner(qos.users.set_axis([f"u{k}" for k in qos.users.index]))
    with pytest.raises(ValueError, match="none of the 30 user ids of X"):
        make_pipeline(tables, contract.make()).fit(qos.X, qos.y)


@all_estimators
def test_predict_before_fit_raises(contract, qos):
    model = contract.make()
    for method in (model.predict, model.is_known):
        with pytest.raises(NotFittedError):
            method(qos.X)
    assert not hasattr(model, "net_")


@all_estimators
def test_unused_columns_warn_once_at_fit(contract, qos):
    X, n_ids = np.c_[qos.X, qos.X[:, :2]], len(contract.id_columns)
    with pytest.warns(UnusedColumnsWarning, match=rf"\[{n_ids}, {n_ids + 1}\]"):
        model = contract.make().fit(X, qos.y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X)
        contract.make(user_features=[n_ids], service_features=[n_ids + 1]).fit(X, qos.y)
