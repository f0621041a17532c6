"""Time stamps of any class as numbers of steps, and back; what is wrong with them."""

import datetime
import re

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from skqos._frames import to_frame
from skqos._times import (
    TimeScale,
    check_steps,
    learn_time_scale,
    propose_step,
    read_time_step,
    read_times,
    spell,
)
from skqos.exceptions import SparseStepsWarning

BERLIN = "Europe/Berlin"
STAMPS = pd.DatetimeIndex(
    ["2026-05-01 12:30", "2026-05-01 12:44:59", "2026-05-02 00:00", "2026-05-01 12:45"]
)
STEPS = [50, 50, 96, 51]
QUARTER = pd.Timedelta("15min")


def objects(values):
    return pd.Series(list(values), dtype=object)


def polars_column(stamps):
    polars = pytest.importorskip("polars")
    return to_frame(polars.DataFrame({"time": stamps.to_pydatetime().tolist()}), "X")["time"]


def arrow_column(stamps):
    pyarrow = pytest.importorskip("pyarrow")
    return to_frame(pyarrow.table({"time": pyarrow.array(stamps.to_pydatetime())}), "X")["time"]


def arrow_dtype(zone):
    pyarrow = pytest.importorskip("pyarrow")
    return pd.ArrowDtype(pyarrow.timestamp("us", None if zone is None else str(zone)))


# Columns of STAMPS, with or without a time zone.
COLUMNS = {
    "datetime64": pd.Series,
    "in seconds": lambda stamps: pd.Series(stamps.as_unit("s")),
    "pandas objects": objects,
    "Python's": lambda stamps: objects(stamps.to_pydatetime()),
    "ISO strings": lambda stamps: objects(stamp.isoformat() for stamp in stamps),
    "strings with a space": lambda stamps: pd.Series([str(stamp) for stamp in stamps]),
    "categories": lambda stamps: pd.Series(stamps.astype("category")),
    "categories of strings": lambda stamps: pd.Series(
        pd.Categorical([stamp.isoformat() for stamp in stamps])
    ),
    "polars": polars_column,
    "pyarrow": arrow_column,
    "arrow in pandas": lambda stamps: pd.Series(stamps).astype(arrow_dtype(stamps.tz)),
}


@pytest.mark.parametrize("zone", [None, BERLIN, "UTC"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_time_stamps_of_any_class(kind, zone):
    stamps = STAMPS.tz_localize(zone)
    times = read_times(COLUMNS[kind](stamps))
    assert (times.tz is None) == (zone is None)
    assert_array_equal(times.as_unit("ns").asi8, stamps.as_unit("ns").asi8)
    scale = learn_time_scale(read_times(pd.Series(stamps)), "15min")
    assert scale.steps_of(times).tolist() == STEPS
    assert scale.steps_of(times).dtype == np.int64


def test_arrays_of_time_stamps():
    X = np.empty((4, 3), dtype=object)
    X[:, 2] = STAMPS.to_numpy().astype("datetime64[s]")
    assert_array_equal(read_times(pd.DataFrame(X)[2]), STAMPS)
    days = objects([datetime.date(2026, 5, 1), datetime.date(2026, 5, 3)])
    assert learn_time_scale(read_times(days), "1D").steps_of(read_times(days)).tolist() == [0, 2]


def test_integers_are_their_own_steps():
    times = read_times(pd.Series([3.0, -5.0]))
    scale = learn_time_scale(times, None)
    assert scale == TimeScale()
    assert scale.steps_of(times).tolist() == scale.times_of(times).tolist() == [3, -5]


# --- Clocks that change -------------------------------------------------------------------------


@pytest.mark.parametrize(("day", "n_hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_hours_are_equally_long_when_clocks_change(day, n_hours):
    hours = pd.date_range(day, periods=n_hours + 1, freq="1h", tz=BERLIN)
    assert hours[-1] == hours[0].normalize() + pd.DateOffset(days=1)
    scale = learn_time_scale(hours, "1h")
    assert scale.steps_of(hours).tolist() == list(range(n_hours + 1))
    assert scale.times_of(np.arange(n_hours + 1)).tolist() == hours.tolist()
    # The offsets of strings differ; in UTC they are what they are.
    texts = read_times(objects(hour.isoformat() for hour in hours))
    assert str(texts.tz) == "UTC"
    assert scale.steps_of(texts).tolist() == list(range(n_hours + 1))


def test_steps_begin_at_midnight_of_the_time_zone():
    """Kolkata is five and a half hours ahead of UTC."""
    stamps = pd.DatetimeIndex(["2026-05-01 10:10", "2026-05-01 10:59"]).tz_localize("Asia/Kolkata")
    scale = learn_time_scale(stamps, "1h")
    assert scale.origin == pd.Timestamp("2026-05-01", tz="Asia/Kolkata")
    assert scale.steps_of(stamps).tolist() == [10, 10]
    # Midnight of that day did not exist.
    (first,) = pd.DatetimeIndex(["2018-11-04 12:00"]).tz_localize("America/Sao_Paulo")
    assert learn_time_scale(pd.DatetimeIndex([first]), "1h").origin.hour == 1


@pytest.mark.parametrize("offsets", [["+05:30"], ["+0530", "+05:30"], ["Z", "+00:00"]])
def test_strings_of_one_offset_keep_it(offsets):
    texts = [f"2026-05-04T0{hour}:00{offset}" for hour in range(4) for offset in offsets]
    stamps = read_times(objects(texts))
    assert stamps.tolist() == [pd.Timestamp(text) for text in texts]
    origin = learn_time_scale(stamps, "1D").origin
    assert origin == pd.Timestamp(f"2026-05-04T00:00{offsets[0]}")


@pytest.mark.parametrize(
    "texts", [["2026-05-01", "2026-06-01"], ["2026-05-31"], ["2026-05-01", "2026-05-01T12:00"]]
)
def test_dates_without_a_time_have_no_offset(texts):
    """The day is no offset of hours."""
    assert read_times(objects(texts)).tolist() == [pd.Timestamp(text) for text in texts]


def test_other_time_zones_are_other_clocks_of_the_same_time():
    stamps = STAMPS.tz_localize(BERLIN)
    scale = learn_time_scale(stamps, QUARTER)
    assert scale.steps_of(stamps.tz_convert("Asia/Tokyo")).tolist() == STEPS
    mixed = objects([stamps[0], stamps[1].tz_convert("Asia/Tokyo"), *stamps[2:].tz_convert("UTC")])
    assert scale.steps_of(read_times(mixed)).tolist() == STEPS


def test_what_was_given_comes_back():
    for stamps, kind in ((STAMPS, "M"), (STAMPS.tz_localize(BERLIN), "O")):
        scale = learn_time_scale(stamps, QUARTER)
        times = scale.times_of(scale.steps_of(stamps).reshape(2, 2))
        assert times.shape == (2, 2)
        assert times.dtype.kind == kind
        assert_array_equal(pd.DatetimeIndex(times.ravel()), stamps.floor("15min"))
        assert scale.name_of(51) == str(stamps[3])


# --- Durations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "time_step",
    [
        "15min",
        "15 minutes",
        "PT15M",
        "0.25h",
        QUARTER,
        datetime.timedelta(minutes=15),
        np.timedelta64(15, "m"),
        np.timedelta64(900 * 10**9, "ns"),
    ],
    ids=repr,
)
def test_durations(time_step):
    assert read_time_step(time_step) == QUARTER


@pytest.mark.parametrize(
    "time_step",
    [
        *("15", "", "h", "NaT", "0s", "-15min", "1ME", "soon", "1e400s", "1000000D"),
        *(15, 1.5, True, b"1h", [1], pd.NaT, pd.DateOffset(months=1)),
        *(np.timedelta64("NaT", "ns"), np.timedelta64(1, "M"), np.timedelta64(1, "as")),
        datetime.timedelta.max,
    ],
    ids=repr,
)
def test_what_is_no_duration(time_step):
    message = "time_step must be None or a duration above 0, such as '15min'.*; got "
    with pytest.raises(ValueError, match=message):
        read_time_step(time_step)


@pytest.mark.parametrize("duration", ["7D", "90min", "1500ms", "1us", "3ns"])
def test_durations_are_spelt_as_they_are_read(duration):
    assert spell(pd.Timedelta(duration)) == duration


def test_the_duration_belongs_to_time_stamps():
    with pytest.raises(ValueError, match=r"time_step='1h' is for .*\(time\) holds integers"):
        learn_time_scale(np.arange(3), "1h")
    with pytest.raises(
        ValueError, match=r"time_step is None\. .* time_step='1h', which is suitable"
    ):
        learn_time_scale(pd.date_range("2026-05-01", periods=30, freq="1h"), None)


def test_the_usual_distance_is_proposed():
    regular = pd.date_range("2026-05-01", periods=200, freq="10min")
    with_gaps = regular.delete(range(50, 120)).repeat(5)
    assert propose_step(with_gaps) == "10min"
    # Nothing repeats: as many rows as a step needs.
    rng = np.random.default_rng(0)
    seconds = pd.to_timedelta(rng.uniform(0, 86_400, 2000), "s")
    proposed = propose_step(regular[0] + seconds)
    assert proposed == "15min"
    check_steps(regular[0] + seconds, learn_time_scale(regular[0] + seconds, proposed))
    # A log line a second: its distance would be as many steps as rows.
    assert propose_step(pd.date_range("2026-05-01", periods=2000, freq="1s")) == "15s"


def test_few_steps_need_no_rows():
    check_steps(np.arange(50), TimeScale())
    with pytest.raises(ValueError, match="holds 51 different steps in 51 rows"):
        check_steps(np.arange(51), TimeScale())
    check_steps(np.repeat(np.arange(51), 2), TimeScale())


def test_steps_that_are_numbered_too_finely():
    seconds = np.repeat(900 * np.arange(8), 9)
    with pytest.warns(
        SparseStepsWarning, match=r"multiples of 900 .* Number them X\[:, 2\] // 900"
    ):
        check_steps(seconds, TimeScale())
    stamps = STAMPS[0] + pd.to_timedelta(seconds, unit="s")
    with pytest.warns(SparseStepsWarning, match="Give time_step='15min', unless"):
        check_steps(stamps, learn_time_scale(stamps, "1min"))
    # Gaps are none where some steps are neighbours.
    check_steps(seconds // 900 * np.array([1] * 63 + [1000] * 9), TimeScale())
    check_steps(np.repeat([0, 5, 10], 5), TimeScale())


# --- What is wrong with times -------------------------------------------------------------------

BAD_TIMES = {
    "missing": ([*STAMPS, pd.NaT], "row 4 is NaN; every row needs a time"),
    "missing string": (["2026-05-01", None], "row 1 is NaN; every row needs a time"),
    "words": (["2026-05-01", "noon"], "integer-valued time steps; found 'noon'.*in ISO form"),
    "numbers as strings": (["3", "4"], "integer-valued time steps; found '3'"),
    "no such day": (["2026-05-01", "2026-02-30"], "found '2026-02-30'"),
    "another order": (["01.05.2026"], "found '01.05.2026'"),
    "beside integers": ([pd.Timestamp("2026-05-01"), 3], r"mixes ids of type Timestamp, int"),
    "too late": (["9999-01-01"], "Out of bounds"),
    "time zones": (
        ["2026-05-01T00:00", "2026-05-01T00:00+02:00"],
        r"with a time zone, such as 2026-05-01T00:00\+02:00, and times without, such as 2026-05-01T"
        "00:00; give all of them",
    ),
    "time zones of objects": ([STAMPS[0], STAMPS[0].tz_localize("UTC")], "give all of them a time"),
    "durations": ([datetime.timedelta(1)], "must hold integer-valued time steps; found"),
    "months": ([pd.Period("2026-05")], "must hold integer-valued time steps; found"),
}


@pytest.mark.parametrize("case", BAD_TIMES)
def test_bad_times_name_their_column(case):
    values, message = BAD_TIMES[case]
    with pytest.raises(ValueError, match=rf"X, column 2 \(time\).*{message}"):
        read_times(objects(values))


@pytest.mark.parametrize(
    ("fitted", "given", "message"),
    [
        (STAMPS, STAMPS.tz_localize("UTC"), r"tz_localize\(None\)"),
        (
            STAMPS.tz_localize("UTC"),
            STAMPS,
            r"Add a time zone to each time.*'2026-05-01T12:30\+00:00'",
        ),
        (STAMPS, np.arange(3), "holds integers, but the times of fit were time stamps without"),
        (np.arange(3), STAMPS, "but the times of fit were integers"),
    ],
)
def test_times_of_another_kind_than_in_fit(fitted, given, message):
    scale = learn_time_scale(fitted, None if fitted.dtype.kind == "i" else "15min")
    with pytest.raises(ValueError, match=message):
        scale.steps_of(given)


def test_times_too_far_apart_to_count():
    scale = learn_time_scale(pd.DatetimeIndex(["1700-01-01"]).as_unit("ns"), "1D")
    with pytest.raises(ValueError, match=re.escape("X, column 2 (time)")):
        scale.steps_of(pd.DatetimeIndex(["2250-01-01"]).as_unit("ns"))
