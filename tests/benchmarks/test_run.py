"""Any regressor on the splits: what it is made from, what it is scored by, what is kept."""

import logging

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skqos.baselines import MedianRegressor
from skqos.benchmarks import Split, _run, evaluate, load_split, run, runs
from skqos.benchmarks._models import find_factory, make_model
from skqos.benchmarks.fits import fit_jointly, predicts_intervals
from skqos.benchmarks.scores import flag_outliers, score
from skqos.datasets import make_qos
from skqos.intervals import IntervalRegressor
from skqos.metrics import interval_coverage, winkler_score
from tests import forked

SPLIT = "wsdream1-rt-0.025"
COLUMNS = ["split", "model", "seed", "mae", "rmse", "nmae", "mae_filtered", "rmse_filtered"]
COLUMNS += ["regret", "near_best", "coverage", "winkler", "fit_s", "predict_s", "peak_mb"]
COLUMNS += ["date", "version", "machine"]


@pytest.fixture
def split():
    data = make_qos(20, 30, density=0.6, random_state=0)
    rows = np.random.default_rng(0).permutation(len(data.y))
    train, test = rows[:100], rows[100:]
    return Split(data.X[train], data.y[train], data.X[test], data.y[test], name="made up")


@pytest.fixture
def _in_process(monkeypatch):
    monkeypatch.setattr(_run, "in_own_process", lambda function, *args: function(*args))


def service_median():
    return MedianRegressor(by="service")


class Seen(MedianRegressor):
    """Tells what it was made from and given."""

    seen = []

    def fit(self, X, y):
        Seen.seen.append((X, y))
        return super().fit(X, y)


def seen(users, services, qos, seed):
    Seen.seen.append((users, services, qos, seed))
    return Seen()


class Infinite(MedianRegressor):
    """Predicts what no metric takes."""

    def predict(self, X):
        return np.full(len(X), np.inf)


def infinite():
    return Infinite()


def failing():
    raise RuntimeError("no such luck")


def test_scores_are_those_of_the_test_rows(split):
    scores = evaluate(MedianRegressor(by="constant"), split, filtered=True)
    errors = np.abs(split.y_test - np.median(split.y))
    kept = ~flag_outliers(split)
    assert 0 < kept.sum() < len(kept)
    assert scores["mae"] == pytest.approx(errors.mean())
    assert scores["nmae"] == pytest.approx(errors.mean() / split.y_test.mean())
    assert scores["mae_filtered"] == pytest.approx(errors[kept].mean())
    assert scores["peak_mb"] > 10
    # All predictions tie: choices are random ones.
    assert 0 < scores["near_best"] < 1
    assert np.isnan([scores["coverage"], scores["winkler"]]).all()


def test_choices_follow_the_direction(split):
    best = score(split, split.y_test)
    assert best["regret"] == 0
    assert best["near_best"] == 1
    high = score(
        Split(split.X, split.y, split.X_test, split.y_test, direction="maximize"), split.y_test
    )
    assert high["regret"] == 0
    wrong = score(
        Split(split.X, split.y, split.X_test, split.y_test, direction="maximize"), -split.y_test
    )
    assert wrong["regret"] > 0


def test_users_with_few_test_rows_have_no_choices():
    X = np.array([[0, 0], [0, 1], [1, 1]])
    scores = evaluate(MedianRegressor(), Split(X, np.ones(3), X, np.ones(3)))
    assert np.isnan(scores["regret"])
    assert scores["mae"] == 0


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_intervals_are_scored_where_a_model_has_them(split, in_pipeline):
    model = IntervalRegressor(MedianRegressor(), random_state=0)
    if in_pipeline:
        model = make_pipeline(FunctionTransformer(), model)
    scores = evaluate(model, split)
    bounds = model.predict(split.X_test, quantiles=[0.05, 0.95])
    assert scores["coverage"] == interval_coverage(split.y_test, bounds)
    assert scores["winkler"] == pytest.approx(winkler_score(split.y_test, bounds))


def test_an_estimator_without_its_intervals_has_none():
    from skqos import SAMoERegressor

    assert predicts_intervals(SAMoERegressor(intervals=True))
    assert not predicts_intervals(SAMoERegressor())
    assert not predicts_intervals(MedianRegressor())


@pytest.mark.usefixtures("_in_process")
def test_a_model_gets_context_and_rows_and_no_test_values(wsdream_folder, tmp_path):
    Seen.seen.clear()
    run(seen, wsdream_folder, SPLIT, tmp_path / "out.csv", seeds=[7])
    split = load_split(SPLIT, wsdream_folder)
    (users, services, qos, seed), (X, y) = Seen.seen
    pd.testing.assert_frame_equal(users, split.users)
    pd.testing.assert_frame_equal(services, split.services)
    assert (qos, seed) == ("rt", 7)
    np.testing.assert_array_equal(X, split.X)
    np.testing.assert_array_equal(y, split.y)


def test_fits_do_not_see_test_values(split):
    class Blind(MedianRegressor):
        def fit(self, X, y):
            assert len(X) == len(split.y)
            return super().fit(X, y)

    honest, permuted = (
        fit_jointly(Blind(), [part.blind()])[0].prediction for part in (split, split.permuted())
    )
    np.testing.assert_array_equal(honest, permuted)


@pytest.mark.usefixtures("_in_process")
def test_a_run_skips_what_is_there_and_adds_the_rest(wsdream_folder, tmp_path, caplog):
    out = tmp_path / "out.csv"
    caplog.set_level(logging.INFO, logger="skqos.benchmarks")
    first = run(service_median, wsdream_folder, SPLIT, out, seeds=[0])
    assert list(first) == COLUMNS
    both = run(service_median, wsdream_folder, [SPLIT, "wsdream1-tp-0.025"], out, seeds=[0, 1])
    assert caplog.text.count("skipped, its results are there") == 1
    assert len(both) == 4
    pd.testing.assert_frame_equal(both.iloc[:1], first)
    other = run(MedianRegressor, wsdream_folder, SPLIT, out, seeds=[0], name="other")
    assert list(other["model"]) == ["other"]
    assert len(pd.read_csv(out)) == 5
    run(service_median, wsdream_folder, SPLIT, out, seeds=[0], fresh=True)
    assert len(pd.read_csv(out)) == 1


@pytest.mark.usefixtures("_in_process")
def test_filtered_errors_are_there_if_asked_for(wsdream_folder, tmp_path):
    rows = run(service_median, wsdream_folder, SPLIT, tmp_path / "a.csv", seeds=[0], filtered=True)
    assert rows["mae_filtered"].item() < rows["mae"].item()
    rows = run(service_median, wsdream_folder, SPLIT, tmp_path / "b.csv", seeds=[0])
    assert rows["mae_filtered"].isna().all()
    with pytest.raises(ValueError, match="without errors on filtered cells"):
        run(service_median, wsdream_folder, SPLIT, tmp_path / "b.csv", seeds=[0], filtered=True)
    again = {"seeds": [0], "filtered": True, "fresh": True}
    rows = run(service_median, wsdream_folder, SPLIT, tmp_path / "b.csv", **again)
    assert rows["mae_filtered"].notna().all()


@pytest.mark.usefixtures("_in_process")
@pytest.mark.parametrize("name", ["None", "NA", "nan", "007"])
def test_a_name_may_look_like_a_number_or_a_missing_value(name, wsdream_folder, tmp_path):
    for _ in range(2):
        rows = run(service_median, wsdream_folder, SPLIT, tmp_path / "a.csv", seeds=[0], name=name)
        assert rows["model"].tolist() == [name]


@pytest.mark.usefixtures("_in_process")
def test_a_failure_is_told_when_the_others_have_ended(wsdream_folder, tmp_path):
    out = tmp_path / "out.csv"
    with pytest.raises(RuntimeError, match="seed 0: RuntimeError: no such luck"):
        run(failing, wsdream_folder, SPLIT, out, seeds=[0])
    assert len(run(service_median, wsdream_folder, SPLIT, out, seeds=[0])) == 1


def test_predictions_that_cannot_be_scored_are_a_failure_of_their_fit(
    wsdream_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(runs, "get_context", lambda _: forked.CONTEXT)
    out = tmp_path / "out.csv"
    with pytest.raises(RuntimeError, match="seed 0: ValueError: "):
        run(infinite, wsdream_folder, SPLIT, out, seeds=[0])
    assert len(run(service_median, wsdream_folder, SPLIT, out, seeds=[0])) == 1


def test_unknown_names_are_refused_before_anything_is_done(tmp_path):
    out = tmp_path / "out.csv"
    with pytest.raises(ValueError, match=r"no split 'rt'; there are wsdream1-rt-0\.005"):
        run(service_median, tmp_path, ["rt"], out)
    with pytest.raises(ValueError, match="must be 'module:name'"):
        run("statistics", tmp_path, SPLIT, out)
    with pytest.raises(ValueError, match="no function or class 'model'"):
        run("statistics:model", tmp_path, SPLIT, out)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        run("no_such_module:model", tmp_path, SPLIT, out)
    assert not out.exists()


def test_factories_get_what_they_ask_for(split):
    trees = make_model("sklearn.ensemble:HistGradientBoostingRegressor", split, 3)
    assert isinstance(trees, HistGradientBoostingRegressor)
    assert trees.random_state == 3
    assert make_model(lambda seed, scale=2: MedianRegressor(), split, 3).by == "service"
    with pytest.raises(ValueError, match="also needs depth"):
        make_model(lambda depth: depth, split, 3)
    with pytest.raises(ValueError, match=r"must return a regressor with fit and predict; got 3"):
        make_model(lambda seed: seed, split, 3)
    assert find_factory("statistics:mean")([1, 3]) == 2


@pytest.mark.parametrize("empty", ["splits", "seeds"])
def test_nothing_to_run_is_refused(empty, wsdream_folder, tmp_path):
    chosen = {"splits": [SPLIT], "seeds": [0], empty: []}
    with pytest.raises(ValueError, match=f"{empty} is empty"):
        run(service_median, wsdream_folder, out=tmp_path / "out.csv", **chosen)


def test_bad_seeds_and_numbers_of_jobs_are_refused(wsdream_folder, tmp_path, split):
    with pytest.raises(TypeError, match="seeds must be a sequence of integers; got 3"):
        run(service_median, wsdream_folder, SPLIT, tmp_path / "out.csv", seeds=3)
    with pytest.raises(ValueError, match="jobs must be at least 1; got 0"):
        run(service_median, wsdream_folder, SPLIT, tmp_path / "out.csv", jobs=0)
    with pytest.raises(ValueError, match="split has no y_test"):
        evaluate(MedianRegressor(), split.blind())
