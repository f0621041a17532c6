"""What is taken for y, by estimators, baselines, updates and metrics alike."""

import datetime
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from skqos import R2SLRegressor, SharpQoSRegressor
from skqos._target_checks import as_single_target, as_target, warn_of_missing_codes
from skqos.baselines import UIPCCRegressor
from skqos.datasets import make_qos
from skqos.metrics import nan_mean_absolute_error
from tests.common import all_estimators

Y = np.array([0.5, 1.5, 0.25, 4.0])
ROWS = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
SECONDS = pd.to_timedelta(Y, unit="s")

REFUSED = {
    "timedelta64": (SECONDS.to_numpy(), TypeError, "y holds durations.*such as seconds"),
    "Timedelta": (list(SECONDS), TypeError, "y holds durations"),
    "Series of durations": (pd.Series(SECONDS), TypeError, "y holds durations"),
    "frame of durations": (pd.DataFrame({"rt": SECONDS}), TypeError, "y holds durations"),
    "datetime.timedelta": ([datetime.timedelta(seconds=1)] * 4, TypeError, "y holds durations"),
    "one duration": ([0.5, 1.5, pd.Timedelta("1s"), 2.0], TypeError, "y holds durations"),
    "datetime64": (np.arange(4).astype("M8[s]"), TypeError, "y holds dates"),
    "Timestamp": (pd.date_range("2024", periods=4), TypeError, "y holds dates"),
    "time zone": (pd.date_range("2024", periods=4, tz="UTC"), TypeError, "y holds dates"),
    "Period": (pd.period_range("2024", periods=4, freq="D"), TypeError, "y holds dates"),
    "date": ([datetime.date(2024, 1, 1)] * 4, TypeError, "y holds dates"),
    "complex": (Y + 1j, ValueError, "Complex data not supported: y"),
    "complex objects": ((Y + 1j).astype(object), ValueError, "Complex data not supported: y"),
    "strings": (Y.astype(str), TypeError, "y holds text.*to_numeric"),
    "a string": ([0.5, 1.5, "fast", 2.0], TypeError, "y holds text"),
    "strings of pandas": (pd.Series(Y.astype(str), dtype="string"), TypeError, "y holds text"),
    "bytes": (np.array([b"1"] * 4), TypeError, "y holds text"),
    "category of text": (pd.Categorical(["a", "b", "a", "b"]), TypeError, "y holds text"),
    "None": ([0.5, None, 1.0, 2.0], ValueError, "y contains NaN.*row 1 is nan"),
    "NA": (pd.array([0.5, None, 1.0, 2.0], dtype="Float64"), ValueError, "y contains NaN.*row 1"),
    "masked": (np.ma.masked_less(Y, 0.3), ValueError, "y is a masked array.*filled"),
    "sparse": (sparse.csr_matrix(Y[:, None]), TypeError, "Sparse data was passed for y"),
    "sparse array": (sparse.coo_array(Y[:, None]), TypeError, "Sparse data was passed for y"),
    "records": (np.zeros(4, dtype=[("rt", float)]), TypeError, "y is a structured array"),
    "ragged": ([[0.5], [1.5, 2.0], [1.0], [2.0]], ValueError, "y cannot be taken as an array"),
    "dict": ({"rt": Y}, TypeError, "y holds objects of type dict"),
    "set": ({0.5, 1.5}, TypeError, "y holds objects of type set"),
    "number": (0.5, TypeError, "y cannot be taken"),
    "empty": ([], ValueError, "y cannot be taken.*minimum of 1"),
    "three dimensions": (Y.reshape(2, 2, 1), ValueError, "y cannot be taken.*dim 3"),
    "too large an int": ([1, 2, 10**400, 3], ValueError, "y cannot be taken"),
    "infinity": (np.r_[Y[:3], np.inf], ValueError, "y contains infinity.*row 3 is inf"),
    "beyond 1e300": ([0.5, 1.5, 2.0, -1.1e300], ValueError, "y contains .* too large.*row 3"),
    "float128": (Y.astype(np.longdouble) * 1e308, ValueError, "y contains infinity.*row 0"),
}


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("model", [UIPCCRegressor(), R2SLRegressor(), SharpQoSRegressor()])
def test_what_is_no_array_of_real_numbers_is_refused(case, model):
    y, error, message = REFUSED[case]
    if case == "float128" and np.finfo(np.longdouble).max == np.finfo(np.float64).max:
        pytest.skip("long double is double here")
    before = dict(vars(model))
    for call in (model.fit, getattr(model, "partial_fit", model.fit)):
        with pytest.raises(error, match=f"(?s){message}"):
            call(ROWS, y)
    assert vars(model) == before


@pytest.mark.parametrize("case", sorted(REFUSED.keys() - {"None", "NA", "float128"}))
def test_metrics_refuse_the_same_and_name_their_argument(case):
    y, error, message = REFUSED[case]
    with pytest.raises(
        error,
        match=f"(?s){message.replace('y ', 'y_true ', 1)}".replace("for y", "for y_true").replace(
            ": y", ": y_true"
        ),
    ):
        nan_mean_absolute_error(y, Y)
    with pytest.raises(error, match="y_pred"):
        nan_mean_absolute_error(Y, y)


@pytest.mark.parametrize(
    "y",
    [
        Y.tolist(),
        tuple(Y),
        Y.astype(np.float16),
        Y.astype(object),
        pd.Series(Y, index=[7, 7, 8, 9]),
        pd.Series(Y, dtype="Float64"),
        [Decimal(str(value)) for value in Y],
        np.ma.masked_array(Y),
    ],
)
def test_numbers_of_any_container_are_taken(y):
    values = as_single_target(y, estimator=UIPCCRegressor())
    assert values.dtype == np.float64
    assert_array_equal(values, Y)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, "boolean", "Int64", object])
def test_bools_and_integers_are_numbers(dtype):
    y = pd.Series([True, False, True, True]).astype(dtype)
    assert_array_equal(as_target(y, "y", allow_nan=False), [1.0, 0.0, 1.0, 1.0])


def test_rows_that_are_missing_are_named():
    y = np.ones(100)
    y[10:90:10] = np.nan
    expected = (
        r"Input y contains NaN. y: row 10 is nan, as are rows 20, 30, 40, 50, ... \(8 in all\); "
        r"leave out what was not observed. Only SharpQoSRegressor takes NaN"
    )
    with pytest.raises(ValueError, match=expected):
        as_single_target(y, estimator=UIPCCRegressor())
    with pytest.raises(ValueError, match=r"y, column 1 \(tp\): row 0 is -inf; .* or NaN"):
        as_target(pd.DataFrame({"rt": Y, "tp": [-np.inf, 1, 2, 3]}), "y", allow_nan=True)


@all_estimators
def test_several_columns_are_for_sharp_qos(contract):
    """The error of the others says so."""
    model = contract.make()
    X = contract.rows(ROWS)
    if isinstance(model, SharpQoSRegressor):
        assert model.fit(X, np.column_stack([Y, Y])).predict(X).shape == (4, 2)
    else:
        with pytest.raises(ValueError, match=r"shape \(4, 2\).*SharpQoSRegressor takes several"):
            model.fit(X, np.column_stack([Y, Y]))


@pytest.mark.parametrize("model", [UIPCCRegressor(), SharpQoSRegressor(max_epochs=1)])
def test_score_refuses_what_fit_refuses(model):
    model.fit(ROWS, Y)
    with pytest.raises(TypeError, match="y holds durations"):
        model.score(ROWS, SECONDS)
    assert np.isfinite(model.score(ROWS, Y))


# --- -1 that stands for "missing" ---------------------------------------------------------------


def test_codes_for_missing_values_warn():
    matrix = np.array([[0.3, -1, 2.5], [-1, 0.7, -1]])
    users, services = np.indices(matrix.shape).reshape(2, -1)
    with pytest.warns(UserWarning, match="target 0: 3 of 6 values are -1.*remove these rows"):
        UIPCCRegressor().fit(np.column_stack([users, services]), matrix.ravel())
    y = np.column_stack([Y, [np.nan, -1, -1, 0.5]])
    with pytest.warns(UserWarning, match="target 1: 2 of 3"):
        SharpQoSRegressor(max_epochs=1).fit(ROWS, y)


@pytest.mark.parametrize(
    "y",
    [
        [-1.0, 1.0, -1.0, 1.0],
        [-1, 0, 1, 2, -1, 5],
        [-1.0, -0.5, 0.5, -1.0],
        [-1.0, 0.5, 0.3],
        [0.3, 0.5],
        [np.nan, np.nan],
    ],
)
def test_values_of_which_minus_1_is_one_do_not_warn(y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_missing_codes(np.array(y, dtype=float))


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_the_warning_names_the_line_of_the_caller(shape):
    data = make_qos(8, 9, density=1.0, random_state=0)
    y = np.where(np.arange(len(data.y)) % 5, data.y, -1.0).reshape(shape)
    model = SharpQoSRegressor(max_epochs=1, partial_fit_epochs=1, n_factors=2, random_state=0)
    for call in (model.fit, model.partial_fit):
        with pytest.warns(UserWarning, match="are -1") as caught:
            call(data.X, y)
        assert caught[0].filename == __file__
