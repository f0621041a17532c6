"""make_qos: shapes, seeds, and that the data have the traits they are made for."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal

from skqos.datasets import make_qos
from tests.common import Cost


def test_default_shapes():
    data = make_qos(random_state=0)
    assert data.X.shape == (3000, 2)
    assert data.X.dtype == np.int64
    assert data.y.shape == data.expected.shape == (3000,)
    assert data.y.dtype == np.float64
    assert data.users.shape == (100, 5)
    assert data.services.shape == (300, 6)
    assert data.frame.columns.tolist() == ["user", "service", "rt"]
    assert_array_equal(data.frame.to_numpy(), np.column_stack([data.X, data.y]))
    assert data.qos_names == data.target_names == ["rt"]
    assert "nothing here was measured" in data.DESCR


@pytest.mark.parametrize("n_qos", [2, 3, 4, 10, 13])
def test_several_qos(n_qos):
    data = make_qos(40, 60, 0.5, n_qos=n_qos, random_state=0)
    assert data.y.shape == data.expected.shape == (1200, n_qos)
    assert len(set(data.qos_names)) == n_qos
    assert data.frame.columns.tolist()[2:] == data.qos_names
    missing = np.isnan(data.y)
    assert not missing.all(axis=1).any()
    # Each row keeps a value, so that a few less than 20 % are missing where there are two.
    assert (np.abs(missing.mean(axis=0) - 0.19) < 0.06).all()
    assert np.isfinite(data.expected).all()


def test_even_a_high_missing_rate_leaves_a_value_in_each_row():
    data = make_qos(n_qos=3, missing_rate=0.99, random_state=0)
    assert (np.isfinite(data.y).sum(axis=1) >= 1).all()
    assert np.isnan(data.y).mean() > 0.6


def test_ranges_and_signs():
    data = make_qos(density=0.5, n_qos=6, missing_rate=0.0, random_state=0)
    frame = data.frame
    assert frame["rt"].between(0, 20).all()
    assert (frame["tp"] > 0).all()
    for name in ("reliability", "availability", "qos_5"):
        assert frame[name].between(0, 1).all()
    assert frame["qos_4"].max() > 1
    rank = frame[data.qos_names].corr("spearman")["rt"]
    assert (rank[["tp", "reliability", "availability", "qos_5"]] < -0.4).all()
    assert rank["qos_4"] > 0.4
    assert rank.drop("rt").abs().max() < 0.95


@pytest.mark.parametrize("kwargs", [{}, {"n_qos": 3, "n_time_steps": 5}])
def test_the_seed_decides(kwargs):
    first, same = (make_qos(random_state=3, **kwargs) for _ in range(2))
    other = make_qos(random_state=4, **kwargs)
    assert_frame_equal(first.frame, same.frame)
    assert_frame_equal(first.users, same.users)
    assert_frame_equal(first.services, same.services)
    assert_array_equal(first.expected, same.expected)
    assert not np.array_equal(first.X, other.X)


def test_a_random_state_instance_goes_on():
    rng = np.random.RandomState(3)
    first, second = make_qos(random_state=rng), make_qos(random_state=rng)
    assert_frame_equal(first.frame, make_qos(random_state=3).frame)
    assert not np.array_equal(first.y, second.y)


@pytest.mark.parametrize("density", [0.03, 0.49, 0.51, 1.0])
@pytest.mark.parametrize("n_time_steps", [None, 3])
def test_cells_are_distinct_and_ascending(density, n_time_steps):
    X = make_qos(30, 50, density, n_time_steps=n_time_steps, random_state=0).X
    shape = (30, 50, 3) if n_time_steps else (30, 50)
    assert X.shape == (round(density * np.prod(shape)), len(shape))
    assert (np.diff(np.ravel_multi_index(X.T, shape)) > 0).all()


def test_ten_times_wsdream_takes_little_memory_and_no_loop_over_rows():
    make_qos(random_state=0)  # What is imported on the first call.
    costs = {}
    for density in (0.0005, 0.005):
        with Cost() as costs[density]:
            data = make_qos(3390, 58_250, density, n_regions=50, n_as=900, random_state=0)
    assert data.X.shape == (987_338, 2)
    # A dense matrix of floats alone would be 1.6 GB.
    assert costs[0.005].peak < 4e8
    assert costs[0.005].calls < 1.1 * costs[0.0005].calls


def test_regions_contain_systems_and_countries_contain_regions():
    data = make_qos(n_users=500, unknown_rate=0.0, random_state=0)
    for table in (data.users, data.services):
        assert (table.groupby("as", observed=True)["region"].nunique() == 1).all()
        assert (table.groupby("region", observed=True)["country"].nunique() == 1).all()
        assert table.groupby("region", observed=True)["latitude"].std().max() < 5
    assert (data.services.groupby("provider", observed=True)["as"].nunique() == 1).all()
    # The same names mean the same places on both sides.
    centres = [
        t.groupby("region", observed=True)["latitude"].mean() for t in (data.users, data.services)
    ]
    difference = (centres[0] - centres[1]).dropna()
    assert len(difference) >= 5
    assert difference.abs().max() < 5


def test_some_context_is_unknown():
    data = make_qos(2000, 2000, 0.001, unknown_rate=0.1, random_state=0)
    for table in (data.users, data.services):
        assert (np.abs(table.isna().mean() - 0.1) < 0.03).all()
        categorical = table.drop(columns=["latitude", "longitude"])
        assert (categorical.dtypes == "category").all()
        assert (table["latitude"].isna() == table["longitude"].isna()).all()


def test_timeouts_have_the_asked_rate_and_depend_on_the_service():
    data = make_qos(200, 400, 0.5, timeout=5.0, timeout_rate=0.1, noise=0.0, random_state=0)
    timed_out = data.y == 5.0
    # Slow pairs are capped at the same value, hence a little more than 10 %.
    assert 0.09 < timed_out.mean() < 0.14
    assert data.y.max() == 5.0
    by_service = pd.Series(timed_out).groupby(data.X[:, 1]).mean()
    assert (by_service < 0.02).mean() > 0.4
    assert (by_service > 0.5).mean() > 0.03


@pytest.mark.parametrize(("rate", "share"), [(1e-30, 0), (1 - 1e-16, 1)])
def test_the_smallest_and_largest_rates_of_timeouts(rate, share):
    data = make_qos(5, 6, 0.9, timeout=1e9, timeout_rate=rate, random_state=0)
    assert (data.y == 1e9).mean() == share


def test_no_timeouts():
    data = make_qos(timeout=1e9, timeout_rate=0.0, random_state=0)
    assert data.y.max() < 1e9


def test_expected_is_the_median_of_what_is_drawn():
    data = make_qos(200, 400, 0.5, n_qos=4, timeout_rate=0.0, missing_rate=0.0, random_state=0)
    assert (np.abs((data.y > data.expected).mean(axis=0) - 0.5) < 0.01).all()


def test_without_noise_and_timeouts_the_values_are_as_expected():
    data = make_qos(noise=0.0, timeout_rate=0.0, random_state=0)
    assert_array_equal(data.y, data.expected)


def test_tails_are_heavy():
    data = make_qos(density=0.5, timeout_rate=0.0, timeout=1e6, random_state=0)
    assert data.y.mean() > 1.5 * np.median(data.y)
    # The normal distribution has 0.
    assert pd.Series(np.log(data.y / data.expected)).kurt() > 1


@pytest.mark.parametrize("seed", range(5))
def test_each_step_of_knowledge_lowers_the_error(seed):
    data = make_qos(density=0.2, random_state=seed)
    train = np.random.RandomState(seed).uniform(size=len(data.y)) < 0.6
    services = data.frame[train].groupby("service")["rt"].median()
    constant = np.median(data.y[train])
    known = data.frame[~train]["service"].map(services).fillna(constant)

    def mae(prediction):
        return np.abs(data.y[~train] - prediction).mean()

    assert mae(known) < 0.9 * mae(constant)
    assert mae(data.expected[~train]) < 0.8 * mae(known)


def explained_by_mean(values, keys):
    """Share of variance that the means of the groups explain."""
    means = values.groupby(keys, observed=True).transform("mean")
    return 1 - (values - means).var() / values.var()


def test_context_tells_about_the_strain_and_not_all_of_it():
    data = make_qos(300, 600, 0.3, timeout_rate=0.0, timeout=1e6, unknown_rate=0.0, random_state=0)
    strain = pd.Series(np.log(data.expected))
    users, services = (
        table.loc[ids].reset_index(drop=True)
        for table, ids in ((data.users, data.X[:, 0]), (data.services, data.X[:, 1]))
    )
    by_context = explained_by_mean(strain, [users["as"], services["provider"]])
    by_service = explained_by_mean(strain, data.X[:, 1])
    by_pair_of_regions = explained_by_mean(strain, [users["region"], services["region"]])
    by_regions = sum(explained_by_mean(strain, t["region"]) for t in (users, services))
    assert 0.3 < by_context < 0.9
    assert 0.3 < by_service < 0.9
    assert by_pair_of_regions > by_regions + 0.02  # distance counts


def test_factors_matter_beyond_context_and_entity_effects():
    data = make_qos(60, 80, 1.0, n_regions=1, n_as=1, timeout_rate=0.0, timeout=1e6, random_state=0)
    strain = np.log(data.expected).reshape(60, 80)
    residual = strain - strain.mean(axis=0) - strain.mean(axis=1)[:, None] + strain.mean()
    singular = np.linalg.svd(residual, compute_uv=False)
    assert residual.std() > 0.2
    assert singular[2] > 1e6 * singular[3]


def test_over_time_pairs_drift_smoothly_in_a_daily_cycle():
    data = make_qos(20, 30, 1.0, n_time_steps=64, timeout_rate=0.0, timeout=1e6, random_state=0)
    assert data.frame.columns.tolist() == ["user", "service", "time", "rt"]
    course = np.log(data.expected).reshape(600, 64)
    course -= course.mean(axis=1, keepdims=True)
    assert course.std(axis=1).min() > 0.05
    assert np.abs(np.diff(course)).max() < 0.2 * np.ptp(course)
    # Two busy periods over the whole time: the second harmonic stands out.
    spectrum = np.median(np.abs(np.fft.rfft(course)), axis=0)
    assert spectrum[2] > 3 * spectrum[3]


CALENDAR = {"n_time_steps": 4 * 48, "start": "2026-05-01", "time_step": "30min"}
EXACT = {"timeout_rate": 0.0, "timeout": 1e6, "noise": 0.0, "random_state": 0}


def test_time_stamps_are_steps_apart():
    data = make_qos(8, 9, 0.1, **CALENDAR, random_state=0)
    assert data.X.columns.tolist() == ["user", "service", "time"]
    numbers = make_qos(8, 9, 0.1, n_time_steps=4 * 48, random_state=0)
    stamps = pd.Timestamp("2026-05-01") + pd.to_timedelta(30 * numbers.X[:, 2], unit="min")
    assert_array_equal(data.X["time"], stamps)
    assert_array_equal(data.X[["user", "service"]], numbers.X[:, :2])
    assert_array_equal(data.frame[["user", "service", "time"]], data.X)
    hours = make_qos(5, 5, 1.0, n_time_steps=3, start=pd.Timestamp("2026-05-01", tz="UTC"))
    assert hours.X["time"].diff().iloc[1:3].tolist() == [pd.Timedelta("1h")] * 2
    assert str(hours.X["time"].dt.tz) == "UTC"


def test_irregular_times_lie_within_their_steps():
    data = make_qos(8, 9, 0.1, **CALENDAR, irregular=True, random_state=0)
    regular = make_qos(8, 9, 0.1, **CALENDAR, random_state=0)
    within = (data.X["time"] - regular.X["time"]).dt.total_seconds()
    assert within.between(0, 30 * 60, inclusive="left").all()
    assert within.mean() == pytest.approx(15 * 60, rel=0.05)
    assert data.X["time"].nunique() > 0.8 * len(data.X)
    assert (data.X["time"] == data.X["time"].dt.floor("s")).all()


@pytest.mark.parametrize("irregular", [False, True])
def test_the_daily_course_repeats_every_24_hours(irregular):
    """Within a region, services are busiest at the same hour of the day, on each day."""
    data = make_qos(10, 20, 1.0, n_regions=1, n_as=1, **CALENDAR, **EXACT, irregular=irregular)
    strain = np.log(data.expected)
    pairs = data.X.groupby(["user", "service"]).ngroup()
    anomaly = pd.Series(strain - pd.Series(strain).groupby(pairs).transform("mean"))
    time = data.X["time"]
    by_hour = anomaly.groupby([time.dt.date, time.dt.hour]).mean().unstack()
    turns = 2 * np.pi * (by_hour.columns.to_numpy() + 0.5) / 24
    waves = np.column_stack([np.ones(24), np.cos(turns), np.sin(turns)])
    _, cosine, sine = np.linalg.lstsq(waves, by_hour.T.to_numpy(), rcond=None)[0]
    assert np.hypot(cosine, sine) == pytest.approx(0.3, rel=0.25)
    assert np.ptp(np.unwrap(np.arctan2(sine, cosine))) < 0.3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"start": "2026-05-01"}, "start='2026-05-01' needs n_time_steps"),
        (
            {"n_time_steps": 3, "time_step": "1h"},
            "time_step='1h' and irregular=False need time stamps",
        ),
        ({"n_time_steps": 3, "irregular": True}, "give start, or leave them out"),
        ({**CALENDAR, "start": "noon?"}, "start: "),
        ({**CALENDAR, "start": "NaT"}, "start must be a time stamp; got 'NaT'"),
        ({**CALENDAR, "start": "2262-04-10"}, "start: "),
        ({**CALENDAR, "time_step": "15"}, "time_step must be None or a duration"),
        ({**CALENDAR, "start": 3}, "'start' parameter"),
    ],
    ids=str,
)
def test_time_stamps_that_cannot_be_made(params, message):
    with pytest.raises(ValueError, match=message):
        make_qos(5, 5, **params)


def test_time_steps_start_at_zero_and_one_step_is_allowed():
    assert_array_equal(make_qos(5, 5, 1.0, n_time_steps=1, random_state=0).X[:, 2], 0)
    assert_array_equal(
        np.unique(make_qos(9, 9, 1.0, n_time_steps=3, random_state=0).X[:, 2]), [0, 1, 2]
    )


def test_the_smallest_data_set():
    data = make_qos(1, 1, 1.0, n_regions=1, n_as=1, random_state=0)
    assert_array_equal(data.X, [[0, 0]])
    assert np.isfinite(data.y).all()


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"n_users": 0}, ValueError),
        ({"n_services": 2.5}, TypeError),
        ({"density": 0.0}, ValueError),
        ({"density": 1.1}, ValueError),
        ({"n_qos": 0}, ValueError),
        ({"n_regions": 5, "n_as": 4}, ValueError),
        ({"n_time_steps": 0}, ValueError),
        ({"timeout": 0.0}, ValueError),
        ({"timeout_rate": 1.0}, ValueError),
        ({"missing_rate": -0.1}, ValueError),
        ({"unknown_rate": 2.0}, ValueError),
        ({"noise": -1.0}, ValueError),
        ({"noise": np.inf}, ValueError),
        ({"timeout": np.inf}, ValueError),
        ({"n_users": np.nan}, ValueError),
        ({"n_users": "3"}, ValueError),
        ({"n_services": 0}, ValueError),
        ({"n_users": 2**40, "n_services": 2**40}, ValueError),
        ({"density": None}, ValueError),
        ({"density": [0.1]}, ValueError),
        ({"random_state": -1}, ValueError),
        ({"random_state": "seed"}, ValueError),
        ({"random_state": 2.5}, ValueError),
    ],
)
def test_invalid_arguments_are_named(kwargs, error):
    with pytest.raises(error, match=list(kwargs)[-1]):
        make_qos(**kwargs)


@pytest.mark.parametrize(
    "name", ["density", "timeout", "timeout_rate", "noise", "missing_rate", "unknown_rate"]
)
@pytest.mark.parametrize("value", [np.nan, np.float32("nan"), -np.inf, pd.NA])
def test_no_number_is_no_parameter(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        make_qos(**{name: value})


def test_numbers_of_numpy_are_parameters():
    expected = make_qos(10, 12, 0.5, n_time_steps=3, noise=0.25, n_as=9, random_state=3)
    data = make_qos(
        np.int64(10),
        np.uint8(12),
        np.float32(0.5),
        n_time_steps=np.int8(3),
        noise=np.float16(0.25),
        n_as=np.array([9])[0],
        random_state=np.int32(3),
    )
    assert_array_equal(data.X, expected.X)
    assert_array_equal(data.y, expected.y)


def test_values_are_finite_whatever_the_noise():
    data = make_qos(10, 12, 0.5, n_qos=4, noise=1e6, missing_rate=0.0, random_state=0)
    assert np.isfinite(data.y).all()
