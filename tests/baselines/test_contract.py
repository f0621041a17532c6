"""The contract of the baselines of bare ids, which need no torch."""

import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skqos.baselines import AMFRegressor, MedianRegressor, PMFRegressor, UIPCCRegressor
from skqos.datasets import make_qos
from skqos.intervals import IntervalRegressor
from skqos.persistence import load_model, save_model
from skqos.preprocessing import ContextJoiner
from skqos.selection import rank_services

DOCS = Path(__file__).resolve().parents[2] / "docs"
BASELINES = [
    UIPCCRegressor(),
    UIPCCRegressor(**UIPCCRegressor.PAPER_PARAMS),
    PMFRegressor(regularization=2.0, max_iter=5, random_state=0),
    MedianRegressor(),
    MedianRegressor(by="pair"),
    AMFRegressor(max_iter=5, random_state=0),
]


@pytest.fixture
def model(request):
    """Return an unfitted copy."""
    return clone(request.param)


each_baseline = pytest.mark.parametrize(
    "model",
    BASELINES,
    indirect=True,
    ids=["UIPCC", "article", "PMF", "service median", "pair median", "AMF"],
)


@parametrize_with_checks([*BASELINES, IntervalRegressor(UIPCCRegressor(), random_state=0)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@each_baseline
def test_known_ids(model, qos):
    model.fit(qos.X, qos.y)
    user, service = qos.X[0]
    known = model.is_known([[user, service], [user, -1], [-1, service], [-1, -1]])
    assert known.tolist() == [[True, True], [True, False], [False, True], [False, False]]


@each_baseline
def test_strings_and_context_change_nothing(model, qos):
    expected = model.fit(qos.X, qos.y).predict(qos.X)
    assert expected.dtype == np.float64
    joined = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    # Two contexts of an id do not matter to a model that uses none.
    joined["user_latitude"] = np.arange(len(joined))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(joined, qos.y)
        np.testing.assert_array_equal(model.predict(joined), expected)
        assert list(model.feature_names_in_) == list(joined)
        model.fit(np.c_[qos.X, qos.X], qos.y)
    assert model.n_features_in_ == 4
    text = pd.DataFrame({"user": [f"{u:03d}" for u in qos.X[:, 0]]})
    text["service"] = [f"{s:03d}" for s in qos.X[:, 1]]
    np.testing.assert_array_equal(model.fit(text, qos.y).predict(text), expected)


@each_baseline
@pytest.mark.parametrize("name", ["time", "timestamp", "load"])
def test_a_time_in_column_2_is_ignored(model, qos, name):
    X = pd.DataFrame(qos.X, columns=["user", "service"])
    expected = model.fit(X, qos.y).predict(X)
    X = X.assign(**{name: pd.date_range("2026-05-04", periods=len(X), freq="min")})
    np.testing.assert_array_equal(model.fit(X, qos.y).predict(X), expected)
    ranking = rank_services(model, X["user"].iloc[0], n=3)
    assert len(ranking) == 3


@each_baseline
@pytest.mark.parametrize(
    "change", [lambda y: -y, lambda y: y - y.mean(), np.ones_like, np.zeros_like]
)
def test_targets_of_any_sign(model, qos, change):
    assert np.isfinite(model.fit(qos.X, change(qos.y)).predict(qos.X)).all()


@each_baseline
def test_predictions_do_not_depend_on_the_order_of_rows(model, qos):
    order = np.random.default_rng(0).permutation(len(qos.y))
    expected = model.fit(qos.X, qos.y).predict(qos.X)
    np.testing.assert_array_equal(model.predict(qos.X[order]), expected[order])
    one_by_one = [model.predict(qos.X[k : k + 1])[0] for k in range(5)]
    np.testing.assert_array_equal(one_by_one, expected[:5])
    shuffled = model.fit(qos.X[order], qos.y[order])
    np.testing.assert_allclose(shuffled.predict(qos.X), expected)


@each_baseline
def test_grid_search_over_a_pipeline(model, qos):
    pipeline = make_pipeline(ContextJoiner(qos.users, qos.services), model)
    name, values = {
        "UIPCCRegressor": ("n_neighbors", [1, 3]),
        "PMFRegressor": ("n_factors", [1, 3]),
        "MedianRegressor": ("by", ["user", "pair"]),
        "AMFRegressor": ("n_factors", [1, 3]),
    }[type(model).__name__]
    grid = {f"{pipeline.steps[-1][0]}__{name}": values}
    search = GridSearchCV(pipeline, grid, scoring="neg_mean_absolute_error", cv=2)
    search.fit(qos.X, qos.y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@each_baseline
def test_pickles_and_model_files(model, qos, tmp_path):
    expected = model.fit(qos.X, qos.y).predict(qos.X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(qos.X), expected)
    save_model(model, tmp_path / "model.skqos")
    np.testing.assert_array_equal(load_model(tmp_path / "model.skqos").predict(qos.X), expected)


BAD_FITS = {
    "one column": (lambda d: (d.X[:, :1], d.y), "minimum of 2 is required"),
    "NaN id": (lambda d: (np.where(d.X == 3, np.nan, d.X), d.y), "is NaN; every row needs an id"),
    "NaN in y": (lambda d: (d.X, np.r_[np.nan, d.y[1:]]), "Input y contains NaN"),
    "two targets": (lambda d: (d.X, np.c_[d.y, d.y]), "1d array"),
    "lengths": (lambda d: (d.X, d.y[:-1]), "inconsistent numbers of samples"),
    "swapped": (
        lambda d: (pd.DataFrame(d.X, columns=["service", "user"]), d.y),
        "named .service.*must be user, then service",
    ),
}


@each_baseline
@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_input_to_fit_raises_and_keeps_the_earlier_model(model, qos, case):
    make_data, message = BAD_FITS[case]
    model.fit(qos.X, qos.y)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        model.fit(*make_data(qos))
    assert vars(model) == before


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (UIPCCRegressor(n_neighbors=0), "n_neighbors"),
        (UIPCCRegressor(user_weight=1.1), "user_weight"),
        (PMFRegressor(regularization=0), "regularization"),
        (PMFRegressor(max_iter=0), "max_iter"),
        (MedianRegressor(by="region"), "by"),
        (MedianRegressor(by=None), "by"),
        (AMFRegressor(error_rate=0.0), "error_rate"),
        (AMFRegressor(step_size=0), "step_size"),
    ],
)
def test_bad_parameters_raise(model, name):
    data = make_qos(5, 5, density=0.8, random_state=0)
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        model.fit(data.X, data.y)
    with pytest.raises(NotFittedError):
        model.predict(data.X)


@each_baseline
def test_another_id_kind_at_predict_raises(model, qos):
    with pytest.raises(ValueError, match=r"user ids are of kind string .* fit saw"):
        model.fit(qos.X, qos.y).predict(qos.X.astype(str))


@pytest.mark.parametrize("estimator", [UIPCCRegressor, PMFRegressor, MedianRegressor])
def test_search_spaces(estimator, qos):
    from skqos.tuning import SEARCH_SPACES, Choice

    space, defaults = SEARCH_SPACES[estimator], estimator().get_params()
    assert all(defaults[name] in values for name, values in space.items())
    for end in (0, -1):
        params = {
            name: values.values[end]
            if isinstance(values, Choice)
            else (values.low, values.high)[end]
            for name, values in space.items()
        }
        assert np.isfinite(estimator(**params).fit(qos.X, qos.y).predict(qos.X)).all()
    section = (DOCS / "tuning.md").read_text().split(f"### {estimator.__name__}\n")[1]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", section.split("\n#")[0], re.MULTILINE)
    assert rows == [(n, str(values), str(defaults[n])) for n, values in space.items()]
