"""Models from other libraries: what they see, and that they learn."""

import inspect
import sys
import warnings

import numpy as np
import pytest

from skqos.benchmarks import load_split, peers
from skqos.benchmarks.peers._encoding import GroupMeans, OutOfFoldMeans

LIBRARIES = {
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "cornac_mf": "cornac",
    "myfm": "myfm",
    "tabm": "tabm",
}
FAST = {"n_trees": 50, "n_iter": 20, "max_epochs": 20}


def _import(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(LIBRARIES[name])


def _make(name, users, services):
    factory = getattr(peers, name)
    known = {"users": users, "services": services, "seed": 0}
    model = factory(
        **{k: v for k, v in known.items() if k in inspect.signature(factory).parameters}
    )
    inner = getattr(model, "regressor", model)
    inner.set_params(**{k: v for k, v in FAST.items() if k in inner.get_params()})
    return model


def test_group_means_are_of_other_folds():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 3, size=(60, 2)), rng.exponential(size=60)
    found = GroupMeans([0, 1]).fit(X, y).transform(np.array([[1, 2], [7, 7]]))
    own = y[(X == [1, 2]).all(axis=1)]
    np.testing.assert_allclose(found, [[own.mean(), len(own)], [y.mean(), 0]])
    before = OutOfFoldMeans([(0,), (1,)], 5, seed=0).fit_transform(X, y)
    for row in range(5):
        changed = np.where(np.arange(60) == row, 100.0, y)
        after = OutOfFoldMeans([(0,), (1,)], 5, seed=0).fit_transform(X, changed)
        np.testing.assert_array_equal(before[row], after[row])
        assert (before != after).any()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LIBRARIES)
def test_peers_learn_and_repeat_themselves(wsdream_folder, name):
    _import(name)
    split = load_split("wsdream1-rt-0.025", wsdream_folder)
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 20, 2000), rng.integers(0, 30, 2000)])
    y = 1.0 + X[:, 0] % 3 + X[:, 1] % 5
    model = _make(name, split.users, split.services)
    prediction = model.fit(X[:1500], y[:1500]).predict(X[1500:])
    assert prediction.shape == (500,)
    assert np.abs(prediction - y[1500:]).mean() < 0.3 * np.abs(y - np.median(y)).mean()
    again = _make(name, split.users, split.services).fit(X[:1500], y[:1500])
    np.testing.assert_array_equal(again.predict(X[1500:]), prediction)


@pytest.mark.filterwarnings("ignore")
def test_cornac_takes_an_unknown_id_for_the_average():
    _import("cornac_mf")
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    model = peers.cornac_mf(seed=0).fit(X, np.array([1.0, 2.0, 3.0, 4.0]))
    assert model.predict(np.array([[7, 9]])).item() == pytest.approx(2.5, rel=0.2)


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_told_with_how_to_install_it(wsdream_folder, monkeypatch, name):
    split = load_split("wsdream1-rt-0.025", wsdream_folder)
    model = _make(name, split.users, split.services)
    monkeypatch.setitem(sys.modules, LIBRARIES[name], None)
    monkeypatch.delitem(sys.modules, f"{LIBRARIES[name]}.models", raising=False)
    monkeypatch.setitem(sys.modules, f"{LIBRARIES[name]}.models", None)
    with pytest.raises(ImportError, match=r"cannot be imported .*pip install 'skqos\[peers\]'"):
        model.fit(split.X, split.y)
