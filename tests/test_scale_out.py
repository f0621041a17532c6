"""Dask's workers in the place of joblib's: the same scores, data sent once, a worker lost."""

import functools
import importlib
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, KFold, cross_validate

from skqos import R2SLRegressor
from skqos.datasets import make_qos
from skqos.preprocessing import ContextJoiner
from tests.common import CONTRACTS, all_estimators

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
R2SL = next(contract for contract in CONTRACTS if contract.estimator_class is R2SLRegressor)
CV = KFold(2, shuffle=True, random_state=0)
# Of Dask and its web server, at start and at the end.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def example():
    """Import the example; workers inherit the path, and so can import it, too."""
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module("dask_search")
    sys.path.remove(str(EXAMPLES))
    sys.modules.pop("dask_search")


def start_cluster(n_workers=2, **params):
    return LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        silence_logs="CRITICAL",
        **params,
    )


@pytest.fixture(scope="module")
def client(example):
    with start_cluster() as cluster, Client(cluster) as client:
        yield client


@pytest.fixture
def data(qos):
    """Return X with context, and y."""
    return ContextJoiner(qos.users, qos.services).fit_transform(qos.X), qos.y


@pytest.fixture
def pairs(qos):
    """Return X without context, whose fits are the fastest, and y."""
    return qos.X, qos.y


def scores(search):
    """Return what a search found, without the times it took."""
    return {
        name: np.asarray(values).tolist()
        for name, values in search.cv_results_.items()
        if "_time" not in name
    }


# --- Searches -----------------------------------------------------------------------------------


@all_estimators
def test_a_search_finds_the_same_as_in_this_process(client, example, data, contract):
    """Searches among several candidates are below."""
    model, grid = contract.make(max_epochs=1), {"learning_rate": [1e-2]}
    alone = GridSearchCV(model, grid, cv=CV, n_jobs=1).fit(*data)
    found = example.search(model, grid, *data, CV)
    assert scores(found) == scores(alone)
    np.testing.assert_array_equal(found.predict(data[0]), alone.predict(data[0]))


def test_cross_validate_scores_the_same_as_in_this_process(client, pairs):
    alone = cross_validate(R2SL.make(), *pairs, cv=CV, n_jobs=1)
    with parallel_config(backend="dask", scatter=list(pairs)):
        found = cross_validate(R2SL.make(), *pairs, cv=CV, return_estimator=True)
    np.testing.assert_array_equal(found["test_score"], alone["test_score"])
    assert np.isfinite(found["estimator"][0].predict(pairs[0])).all()


@pytest.fixture
def sent(client, monkeypatch):
    """Record what is sent to workers: how many objects, and whether to all of them."""
    calls = []
    scatter = client.scatter

    def spy(what, *args, broadcast=False, **params):
        calls.append((len(what) if isinstance(what, list) else 1, broadcast))
        return scatter(what, *args, broadcast=broadcast, **params)

    monkeypatch.setattr(client, "scatter", spy)
    return calls


GRID = {"learning_rate": [1e-3, 3e-3], "n_filters": [1, 2]}


def test_a_search_sends_its_data_once(example, pairs, sent):
    example.search(R2SL.make(), GRID, *pairs, CV)
    assert sent == [(6, True)], "X, y, and two times two lists of rows, to all workers"


def test_joblib_alone_sends_each_large_object_once_to_one_worker(client, pairs, sent):
    """What the documentation says of joblib; not once per candidate, of which there are four."""
    with parallel_config(backend="dask"):
        GridSearchCV(R2SL.make(), GRID, cv=CV, refit=False).fit(*pairs)
    assert sent == [(1, False)] * 6


# --- A lost worker ------------------------------------------------------------------------------


def kill_a_busy_worker(client, pids, killed):
    """Kill a worker in the middle of a fit, while the other is in one, too."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not killed:
        busy = {
            address
            for address, keys in client.processing().items()
            if any("batch" in str(key).lower() for key in keys)
        }
        if len(busy) == 2:
            killed.append(busy.pop())
            os.kill(pids[killed[0]], signal.SIGKILL)
        time.sleep(0.01)


def test_a_search_survives_a_worker_that_is_killed(client, example, pairs):
    model, grid = R2SL.make(max_epochs=10), GRID
    alone = GridSearchCV(model, grid, cv=CV, n_jobs=1).fit(*pairs)
    pids, killed = client.run(os.getpid), []
    killer = threading.Thread(target=kill_a_busy_worker, args=(client, pids, killed))
    killer.start()
    found = example.search(model, grid, *pairs, CV)
    killer.join()
    assert len(killed) == 1
    assert killed[0] not in client.scheduler_info()["workers"]
    assert scores(found) == scores(alone)


# --- Predictions --------------------------------------------------------------------------------


def as_pairs(users, services):
    """Ids longer than the addresses of Web services: few rows fill a large file."""
    path = "path/" * 2000
    return pd.DataFrame(
        {
            "user": [f"user {k}" for k in users],
            "service": [f"http://host-{k}.example.org/{path}" for k in services],
        }
    )


def test_predictions_of_a_frame_larger_than_what_a_worker_has_left(example, qos, tmp_path):
    memory, n_rows = 640 * 2**20, 3_000
    model = R2SL.make().fit(as_pairs(*qos.X.T), qos.y)
    # Each service once: pandas keeps equal strings of a file once.
    pairs = as_pairs(np.resize(qos.X[:, 0], n_rows), range(n_rows))
    (tmp_path / "part").write_text(pairs.to_csv(index=False))
    size = pairs["service"].memory_usage(deep=True, index=False)
    # Half of the memory, which is more than torch leaves of it.
    sources = [tmp_path / f"{k}.csv" for k in range(memory // size // 2 + 1)]
    for source in sources:
        source.hardlink_to(tmp_path / "part")
    out = tmp_path / "out"
    out.mkdir()
    # One worker, through which all parts go.
    with start_cluster(1, memory_limit=memory) as cluster, Client(cluster) as client:
        workers = client.run(os.getpid)
        targets = example.predict_parts(client, model, sources, out)
        assert client.run(os.getpid) == workers, "no worker ran out of memory"
    expected = model.predict(pairs)
    for target in (targets[0], targets[-1]):
        found = pd.read_csv(target)
        assert list(found) == ["user", "service", "prediction"]
        np.testing.assert_allclose(found["prediction"], expected)
    assert len(targets) == len(sources)
    assert len({target.stat().st_size for target in targets}) == 1
    # pytest keeps the folders of the last runs.
    shutil.rmtree(out)


@pytest.fixture
def dask_frames():
    """Return Dask's dataframes, which need pyarrow."""
    pytest.importorskip("pyarrow")
    return pytest.importorskip("dask.dataframe")


def test_predictions_of_a_dask_frame(client, example, qos, dask_frames, tmp_path):
    pairs = pd.DataFrame(
        {"user": [f"u{k}" for k in qos.X[:, 0]], "service": [f"s{k}" for k in qos.X[:, 1]]}
    )
    model = R2SL.make().fit(pairs, qos.y)
    for k in range(3):
        pairs[200 * k : 200 * (k + 1)].to_parquet(tmp_path / f"{k}.parquet")
    frame = dask_frames.read_parquet(tmp_path)
    found = frame.assign(prediction=example.predict_frame(client, model, frame))
    assert found.npartitions == 3
    result = found.compute()
    assert list(result) == ["user", "service", "prediction"]
    np.testing.assert_allclose(result["prediction"], model.predict(pairs))
    # Users are in ascending order: most partitions have no row of one.
    of_user = frame[frame["user"] == pairs["user"][0]]
    expected = model.predict(pairs[pairs["user"] == pairs["user"][0]])
    np.testing.assert_allclose(example.predict_frame(client, model, of_user), expected)


def test_the_example_runs(client, example, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(example, "ROWS_PER_PART", 300)
    # Without what the example sets itself.
    tiny = {name: value for name, value in R2SL.tiny.items() if name != "max_epochs"}
    monkeypatch.setattr(example, "R2SLRegressor", functools.partial(R2SLRegressor, **tiny))
    arguments = ["--epochs", "1", "--n-users", "20", "--n-services", "30"]
    arguments += ["--address", client.scheduler.address, "--out", str(tmp_path)]
    results = example.main(arguments)
    assert len(results) == 4
    assert "600 pairs predicted in 2 part(s)" in capsys.readouterr().out
    assert len(list((tmp_path / "predictions").glob("*.csv"))) == 2


def test_the_parallel_benchmark_runs(monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    benchmark = importlib.import_module("benchmark_parallel")
    data = make_qos(20, 30, density=0.3, random_state=0)
    monkeypatch.setattr(benchmark, "load", lambda _: data)
    monkeypatch.setattr(benchmark, "GRID", {"learning_rate": [1e-3], "tower_dim": [8]})
    # Starting processes is what takes its time, not what they load.
    monkeypatch.setattr(benchmark, "PARTS", ("json",))
    monkeypatch.setattr(benchmark, "FIRST_FIT", "import decimal")
    found = benchmark.main(["--epochs", "1", "--jobs", "1", "--repeats", "1"])
    assert (found > 0).all()
    assert found["first fit"] > found["next"]
    assert found["joblib worker, first fit"] > found["joblib worker, next"]
    assert "times as fast" in capsys.readouterr().out
    del sys.modules["benchmark_parallel"]
