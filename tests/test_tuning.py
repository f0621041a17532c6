"""Search spaces and pruning, on every kind of storage that workers may share."""

import copy
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline

from skqos import R2SLRegressor
from skqos.baselines import AMFRegressor, MedianRegressor, PMFRegressor, UIPCCRegressor
from skqos.preprocessing import ContextJoiner
from skqos.tuning import SEARCH_SPACES, Choice, FloatRange, IntRange, OptunaPruning, suggest_params
from tests.common import CONTRACTS, all_estimators

R2SL = next(contract for contract in CONTRACTS if contract.estimator_class is R2SLRegressor)
DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def ask(**params):
    """Start a trial of a new study, its parameters given or drawn at random."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    if params:
        study.enqueue_trial(params)
    return study.ask()


# --- Search spaces ------------------------------------------------------------------------------


def test_every_estimator_has_a_search_space():
    networks = {contract.estimator_class for contract in CONTRACTS}
    others = {AMFRegressor, UIPCCRegressor, PMFRegressor, MedianRegressor}
    assert set(SEARCH_SPACES) == networks | others


@all_estimators
def test_names_are_parameters_and_defaults_lie_inside(contract):
    defaults = contract.estimator_class().get_params()
    for name, values in SEARCH_SPACES[contract.estimator_class].items():
        assert defaults[name] in values, name


@all_estimators
def test_learning_rates_are_drawn_on_a_logarithmic_scale(contract):
    trial = ask()
    suggest_params(contract.estimator_class(), trial)
    assert trial.distributions["learning_rate"].log


@all_estimators
def test_losses_of_trials_stay_comparable(contract):
    """Trials are compared by validation loss, epoch by epoch: what changes its unit stays out."""
    space = set(SEARCH_SPACES[contract.estimator_class])
    assert not space & {"loss", "target_transform", "loss_threshold", "tail_weight", "max_epochs"}


@all_estimators
def test_both_ends_of_every_range_can_be_fitted(contract, qos):
    X = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    few = {name: value for name, value in contract.tiny.items() if name.endswith("epochs")}
    for end in (0, -1):
        params = {
            name: values.values[end]
            if isinstance(values, Choice)
            else (values.low, values.high)[end]
            for name, values in SEARCH_SPACES[contract.estimator_class].items()
        }
        model = contract.estimator_class(random_state=0, **{**params, **few, "max_epochs": 1})
        assert np.isfinite(model.fit(X, qos.y).predict(X)).all()


@all_estimators
def test_a_pipeline_takes_what_is_suggested_for_it(contract):
    pipeline = make_pipeline(ContextJoiner(), make_pipeline(contract.make()))
    step = pipeline[-1].steps[-1][0]
    trial = ask(**{f"pipeline__{step}__learning_rate": 0.0123})
    params = suggest_params(pipeline, trial)
    assert params == trial.params
    assert pipeline.set_params(**params)[-1][-1].learning_rate == 0.0123
    assert all(name.startswith(f"pipeline__{step}__") for name in params)


def test_a_prefix_goes_ahead_of_every_name():
    search = GridSearchCV(R2SLRegressor(), {})
    search.set_params(**suggest_params(search.estimator, ask(), prefix="estimator__"))
    assert search.estimator.learning_rate != R2SLRegressor().learning_rate


def test_subclasses_have_the_space_of_their_class():
    class Mine(R2SLRegressor):
        pass

    assert suggest_params(Mine(), ask()).keys() == SEARCH_SPACES[R2SLRegressor].keys()


def test_another_estimator_raises():
    with pytest.raises(TypeError, match=r"one of SAMoERegressor, .* got Ridge"):
        suggest_params(make_pipeline(Ridge()), ask())


R2SL_SPACE = R2SLRegressor()


@pytest.mark.parametrize(
    ("estimator", "params", "error", "message"),
    [
        (Pipeline([]), {}, ValueError, "estimator is a Pipeline without steps"),
        (Pipeline([("last", None)]), {}, TypeError, "estimator must be one of .* got None"),
        (Pipeline([("last", "passthrough")]), {}, TypeError, "estimator must be .*'passthrough'"),
        (None, {}, TypeError, "estimator must be one of .* got None"),
        (R2SLRegressor, {}, TypeError, "estimator must be one of .* got <class"),
        (1, {}, TypeError, "estimator must be one of .* got 1"),
        (R2SL_SPACE, {"trial": None}, TypeError, "trial must be an Optuna trial; got None"),
        (R2SL_SPACE, {"trial": {}}, TypeError, "trial must be an Optuna trial; got {}"),
        (R2SL_SPACE, {"prefix": None}, TypeError, "prefix must be a str; got None"),
        (R2SL_SPACE, {"prefix": 1}, TypeError, "prefix must be a str; got 1"),
    ],
)
def test_wrong_arguments_are_named(estimator, params, error, message):
    with pytest.raises(error, match=message):
        suggest_params(estimator, **{"trial": ask(), **params})


def test_a_trial_that_is_none_of_optunas_is_named(qos):
    model = R2SL.make(callbacks=[OptunaPruning(trial=3)], early_stopping="monitor")
    with pytest.raises(TypeError, match=r"trial of OptunaPruning must be .* got 3"):
        model.fit(qos.X, qos.y)


@pytest.mark.parametrize(
    ("values", "inside", "outside", "text"),
    [
        (FloatRange(0.1, 1.0, log=True), [0.1, 0.5, 1.0], [0.09, 1.1], "0.1 to 1, logarithmic"),
        (FloatRange(1e-5, 0.5), [0.3], [0], "1e-05 to 0.5"),
        (IntRange(2, 5), [2, 5], [1, 6, 2.5], "2 to 5"),
        (IntRange(8, 64, log=True), [32], [65], "8 to 64, logarithmic"),
        (Choice((64, 128)), [64, 128], [96], "64, 128"),
    ],
)
def test_ranges(values, inside, outside, text):
    assert all(value in values for value in inside)
    assert not any(value in values for value in outside)
    assert str(values) == text
    assert values.suggest(ask(), "x") in values


@all_estimators
def test_the_docs_list_the_search_space(contract):
    name = contract.estimator_class.__name__
    defaults = contract.estimator_class().get_params()
    section = (DOCS / "tuning.md").read_text().split(f"### {name}\n")[1].split("\n#")[0]
    found = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", section, flags=re.MULTILINE)
    assert found == [
        (name, str(values), str(defaults[name]))
        for name, values in SEARCH_SPACES[contract.estimator_class].items()
    ]


# --- Pruning ------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "journal", "postgresql"])
def storage(request, tmp_path):
    if request.param == "memory":
        yield optuna.storages.InMemoryStorage()
    elif request.param == "journal":
        path = str(tmp_path / "study.journal")
        yield optuna.storages.JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
    else:
        storage = optuna.storages.RDBStorage(request.getfixturevalue("postgresql_url"))
        yield storage
        storage.remove_session()
        storage.engine.dispose()


class PruneAt(optuna.pruners.BasePruner):
    """Prune at one step, or never."""

    def __init__(self, step=None):
        self.step = step

    def prune(self, study, trial):
        return trial.last_step == self.step


def run(objective, pruner, storage=None, n_trials=1, **optimize):
    study = optuna.create_study(storage=storage, pruner=pruner)
    study.optimize(objective, n_trials=n_trials, **optimize)
    return study


def make_objective(model, qos):
    def objective(trial):
        model.set_params(callbacks=[OptunaPruning(trial)]).fit(qos.X, qos.y)
        return model.history_["valid_loss"].iloc[-1]

    return objective


def test_a_worse_trial_is_pruned(storage, qos):
    """With the pruner that users have, in a pipeline whose parameters are suggested."""
    params = {**R2SL.learning, "learning_rate_schedule": "constant", "max_epochs": 3}
    model = R2SL.make(**params, early_stopping="monitor")
    pipeline = make_pipeline(ContextJoiner(qos.users, qos.services), model)

    def objective(trial):
        rate = trial.suggest_float("r2slregressor__learning_rate", 1e-6, 0.1, log=True)
        pipeline.set_params(
            r2slregressor__learning_rate=rate, r2slregressor__callbacks=[OptunaPruning(trial)]
        )
        pipeline.fit(qos.X, qos.y)
        return pipeline[-1].history_["valid_loss"].iloc[-1]

    study = optuna.create_study(
        storage=storage, pruner=optuna.pruners.MedianPruner(n_startup_trials=1)
    )
    for rate in (1e-2, 1e-6):
        study.enqueue_trial({"r2slregressor__learning_rate": rate})
    study.optimize(objective, n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    complete, pruned = (trial.intermediate_values for trial in study.trials)
    assert list(complete) == [0, 1, 2]
    assert list(pruned) == [0]
    assert pruned[0] > complete[0]


@all_estimators
def test_the_final_stage_reports_its_losses(contract, qos):
    model = contract.make(early_stopping="monitor")
    study = run(make_objective(model, qos), PruneAt())
    assert list(model.stage_nets_)[-1] == "final"
    final = model.history_[model.history_["stage"] == "final"]
    reported = study.trials[0].intermediate_values
    np.testing.assert_allclose(list(reported.values()), final["valid_loss"])
    assert list(reported) == list(range(contract.tiny["max_epochs"]))


@all_estimators
def test_pruning_leaves_fit_and_the_earlier_model(contract, qos):
    model = contract.make(early_stopping="monitor").fit(qos.X, qos.y)
    before = {name: value for name, value in vars(model).items() if name != "callbacks"}
    study = run(make_objective(model, qos), PruneAt(1))
    assert study.trials[0].state == TrialState.PRUNED
    assert list(study.trials[0].intermediate_values) == [0, 1]
    after = {name: value for name, value in vars(model).items() if name != "callbacks"}
    assert after == before


@all_estimators
def test_folds_report_at_steps_of_their_own(contract, qos):
    model = contract.make(early_stopping="monitor", max_epochs=2)

    def objective(trial):
        model.set_params(callbacks=[OptunaPruning(trial)])
        cross_validate(model, qos.X, qos.y, cv=KFold(3), error_score="raise")
        return 0.0

    study = run(objective, PruneAt())
    assert list(study.trials[0].intermediate_values) == list(range(6))
    study = run(objective, PruneAt(4))
    assert study.trials[0].state == TrialState.PRUNED
    assert list(study.trials[0].intermediate_values) == list(range(5))


def test_a_fold_that_stops_early_leaves_the_steps_of_the_next_alone(qos):
    model = R2SL.make(early_stopping=True, n_iter_no_change=1, max_epochs=50, learning_rate=0.05)

    def objective(trial):
        model.set_params(callbacks=[OptunaPruning(trial)])
        cross_validate(model, qos.X, qos.y, cv=KFold(2), error_score="raise")
        return 0.0

    steps = list(run(objective, PruneAt()).trials[0].intermediate_values)
    assert 50 in steps
    assert 49 not in steps


class TestErrorScore:
    """scikit-learn takes TrialPruned for a failed fit, unless it is told not to."""

    @staticmethod
    def objective(qos, **params):
        model = R2SL.make(early_stopping="monitor")

        def objective(trial):
            model.set_params(callbacks=[OptunaPruning(trial)])
            scores = cross_validate(model, qos.X, qos.y, cv=KFold(2), **params)
            return scores["test_score"].mean()

        return objective

    def test_raise_prunes(self, qos):
        study = run(self.objective(qos, error_score="raise"), PruneAt(3))
        assert study.trials[0].state == TrialState.PRUNED

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
    def test_the_default_swallows_pruning_in_a_later_fold(self, qos):
        study = run(self.objective(qos), PruneAt(3))
        assert study.trials[0].state == TrialState.FAIL

    def test_the_default_ends_the_study_where_all_folds_are_pruned(self, qos):
        class PruneAll(optuna.pruners.BasePruner):
            def prune(self, study, trial):
                return True

        with pytest.raises(ValueError, match="All the 2 fits failed"):
            run(self.objective(qos), PruneAll())


@all_estimators
@pytest.mark.parametrize(
    ("params", "monitor", "message"),
    [
        ({}, "valid_loss", r"callbacks\[0\] monitors a loss of validation rows, but there are no"),
        (
            {"early_stopping": "monitor"},
            "valid_los",
            "monitor='valid_los' is not in the history.*train_loss",
        ),
    ],
    ids=["no validation rows", "misspelt"],
)
def test_a_monitor_that_is_not_there_raises(contract, qos, params, monitor, message):
    model = contract.make(callbacks=[OptunaPruning(ask(), monitor=monitor)], **params)
    with pytest.raises(ValueError, match=message):
        model.fit(qos.X, qos.y)
    assert not hasattr(model, "module_")


def test_the_training_loss_can_be_monitored(qos):
    model = CONTRACTS[0].make(callbacks=[OptunaPruning(trial := ask(), monitor="train_loss")])
    model.fit(qos.X, qos.y)
    reported = trial.study.trials[0].intermediate_values
    np.testing.assert_allclose(list(reported.values()), model.history_["train_loss"].tail(3))


def test_a_clone_reports_to_the_same_trial():
    trial = ask()
    model = CONTRACTS[0].make(callbacks=[OptunaPruning(trial, monitor="train_loss")])
    (callback,) = clone(clone(model)).callbacks
    assert callback is not model.callbacks[0]
    assert callback.trial is trial
    assert callback.monitor == "train_loss"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_pickle_has_no_trial_and_warns_in_fit(qos, duplicate):
    trial = ask()
    model = CONTRACTS[0].make(early_stopping="monitor", callbacks=[OptunaPruning(trial)])
    copied = clone(duplicate(model))
    assert copied.callbacks[0].trial is None
    with pytest.warns(UserWarning, match="OptunaPruning has no trial in this process") as caught:
        copied.fit(qos.X, qos.y)
    assert len(caught) == 1, "once, though there are two stages"
    assert not trial.study.trials[0].intermediate_values


def test_a_fitted_model_is_pickled_without_the_trial(qos):
    model = CONTRACTS[0].make(early_stopping="monitor", callbacks=[OptunaPruning(ask())])
    model.fit(qos.X, qos.y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict(qos.X), model.predict(qos.X))


BAD_RANGES = {
    "text": (FloatRange, ("a", 1.0), TypeError, "low must be a finite number"),
    "NaN": (FloatRange, (0.0, np.nan), ValueError, "high must be finite"),
    "infinite": (FloatRange, (np.float32(-np.inf), 1.0), ValueError, "low must be finite"),
    "a float": (IntRange, (1, 2.5), TypeError, "high must be an int"),
    "a bool": (IntRange, (True, 2), TypeError, "low must be an int"),
    "empty": (IntRange, (3, 2), ValueError, "low=3 must be at most high=2"),
    "log of 0": (FloatRange, (0.0, 1.0, True), ValueError, "low=0.0 must be above 0"),
    "log is text": (IntRange, (1, 2, "yes"), TypeError, "log must be True or False"),
    "no values": (Choice, ((),), TypeError, "values must be a tuple"),
    "a list": (Choice, ([1, 2],), TypeError, "values must be a tuple"),
    "arrays": (Choice, ((np.zeros(2),),), TypeError, "values must contain only None"),
}


@pytest.mark.parametrize("case", BAD_RANGES)
def test_spaces_that_cannot_be_drawn_from_are_refused(case):
    kind, arguments, error, message = BAD_RANGES[case]
    with pytest.raises(error, match=message):
        kind(*arguments)


@pytest.mark.parametrize("value", [None, "a", np.nan, np.zeros(2), [1], pd.NA, 1 + 2j, True])
def test_what_is_no_number_is_in_no_range(value):
    assert value not in FloatRange(0.0, 5.0)
    assert value not in IntRange(0, 5)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16])
def test_numpy_integers_are_in_ranges(kind):
    assert kind(3) in IntRange(1, 3)
    assert kind(3) in FloatRange(1.0, 3.0)
    assert kind(3) in Choice((3, "a"))
    assert kind(4) not in IntRange(1, 3)
