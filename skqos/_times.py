"""Times of rows: integers, which are step numbers, or time stamps, which belong to steps."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_datetime64_any_dtype

from skqos._errors import about
from skqos._ids import id_kind, read_ids
from skqos._warnings import warn_user
from skqos.exceptions import EarlyTimeWarning, SparseStepsWarning

TIME_LABEL = "X, column 2 (time)"
# Types of the parameter `time_step`; pandas.Timedelta is a datetime.timedelta.
DURATION_TYPES = (str, datetime.timedelta, np.timedelta64)
# Results of infer_dtype for points in time, or strings that may represent them.
STAMP_KINDS = ("string", "datetime", "datetime64", "date")
ISO_DATE = r"\d{4}-\d{2}-\d{2}"
ISO_OFFSET = rf"^{ISO_DATE}[T ]\d{{2}}.*?(Z|[+-]\d{{2}}(?::?\d{{2}})?)$"
# This number of steps is always accepted.
FEW_STEPS = 50
MIN_ROWS_PER_STEP = 2
# With fewer steps, their distance is not meaningful.
MIN_STEPS_TO_DIVIDE = 4
# Minimum number of rows of a proposed step, and durations that are proposed.
GOOD_ROWS_PER_STEP = 10
ROUND_DURATIONS = (
    *("1s", "5s", "15s", "1min", "5min", "15min", "30min", "1h", "3h", "6h", "12h", "1D", "7D"),
)
UNITS = ("D", "h", "min", "s", "ms", "us", "ns")

INTEGERS = "integers"
NAIVE, AWARE = "time stamps without a time zone", "time stamps with a time zone"
ADVICE = {
    (AWARE, NAIVE): "Take the time zone off, as pandas' tz_localize(None) does.",
    (NAIVE, AWARE): "Add a time zone to each time, as pandas' tz_localize does, or the offset "
    "from UTC, as in '2026-05-01T12:30+00:00'.",
}
# Times as they are read: integers or points in time.
Times: TypeAlias = "np.ndarray | pd.DatetimeIndex"


@dataclass(frozen=True)
class TimeScale:
    """Conversion of times to step numbers; integers are step numbers already.

    Attributes
    ----------
    origin : Timestamp or None
        Start of step 0: the midnight before the first time stamp of `fit`, with its time zone. None
        for integers.
    step : Timedelta or None
        Length of a step. None for integers.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos._times import TimeScale
    >>> scale = TimeScale(pd.Timestamp("2026-05-01"), pd.Timedelta("15min"))
    >>> steps = scale.steps_of(pd.DatetimeIndex(["2026-05-01T00:14", "2026-05-01T01:00"]))
    >>> steps.tolist()
    [0, 4]
    >>> scale.times_of(steps)[1]
    np.datetime64('2026-05-01T01:00:00.000000000')
    """

    origin: pd.Timestamp | None = None
    step: pd.Timedelta | None = None

    def steps_of(self, times: Times, label: str = TIME_LABEL) -> np.ndarray:
        """Return the number of the step of each time.

        Time stamps with a time zone are compared in UTC, so that all steps have the same length
        when clocks change.

        Parameters
        ----------
        times : ndarray of int64, or DatetimeIndex, of length n
            Result of `read_times`.
        label : str
            Name in errors.

        Returns
        -------
        ndarray of int64 of shape (n,)

        Raises
        ------
        ValueError
            If times are of another kind than in `fit`. The kinds are integers, and time stamps with
            and without time zone.
        """
        self._check_kind(times, label)
        if self.origin is None:
            return times
        with about(label):
            elapsed = (times - self.origin).as_unit("ns")
        return elapsed.asi8 // self.step.value

    def times_of(self, steps: np.ndarray) -> np.ndarray:
        """Return the starts of steps as times of the kind seen in `fit`.

        Returns
        -------
        ndarray of the shape of `steps`
            Integers for integer times, datetime64[ns] for time stamps, and objects
            (pandas.Timestamp) for time stamps with a time zone.
        """
        if self.origin is None:
            return steps
        elapsed = pd.to_timedelta(steps.ravel() * self.step.value, unit="ns")
        return (self.origin + elapsed).to_numpy().reshape(steps.shape)

    def name_of(self, step: int) -> str:
        """Return the start of a step as text, as a time of the kind seen in `fit`."""
        return str(step if self.origin is None else self.origin + step * self.step)

    def _check_kind(self, times: Times, label: str) -> None:
        found, expected = kind_of_times(times), self._kind()
        if found != expected:
            advice = ADVICE.get((found, expected), "Give times of the same kind.")
            raise ValueError(
                f"{label} holds {found}, but the times of fit were {expected}. {advice}"
            )

    def _kind(self) -> str:
        return INTEGERS if self.origin is None else _kind_of_stamps(self.origin.tz)


def kind_of_times(times: Times) -> str:
    """Return the kind of times: integers, or time stamps with or without a time zone."""
    return _kind_of_stamps(times.tz) if isinstance(times, pd.DatetimeIndex) else INTEGERS


def _kind_of_stamps(zone: datetime.tzinfo | None) -> str:
    return NAIVE if zone is None else AWARE


def warn_of_early(steps: np.ndarray, first: int, scale: TimeScale) -> None:
    """Warn of steps before the first measured one."""
    n_early = np.count_nonzero(steps < first)
    if n_early:
        warn_user(
            f"{TIME_LABEL}: {n_early} of {len(steps)} rows are before {scale.name_of(first)}, the "
            "first time step of the training rows; they are predicted as rows of that step.",
            EarlyTimeWarning,
        )


# --- Reading --------------------------------------------------------------------------------------


def read_times(column: pd.Series, label: str = TIME_LABEL) -> Times:
    """Read a column of times.

    Parameters
    ----------
    column : Series of length n
        Integers, datetimes of any class, or strings in ISO form.
    label : str
        Name in errors.

    Returns
    -------
    ndarray of int64, or DatetimeIndex in ns, of length n
        Times; time stamps of several time zones are converted to UTC.

    Raises
    ------
    ValueError
        If a time is missing, is neither an integer nor a time stamp, or is outside the years 1678
        to 2261, or if only some times have a time zone.
    """
    with about(label):
        if is_datetime64_any_dtype(column.dtype):
            _check_present(column, label)
            return pd.DatetimeIndex(column).as_unit("ns")
        is_label = column.dtype == object or not pd.api.types.is_any_real_numeric_dtype(column)
        if is_label and _inferred_kind(column) in STAMP_KINDS:
            _check_present(column, label)
            return _read_stamps(column, label)
        return _read_integers(column, label)


def _read_integers(column: pd.Series, label: str) -> np.ndarray:
    """Return integers of any type as int64; raise ValueError for other values."""
    values = read_ids(column, label)
    if values.dtype.kind == "i":
        # A copy, because torch does not accept read-only arrays.
        return values.copy()
    if values.dtype == object:
        if id_kind(values) == "number":
            raise ValueError(
                f"{label} must hold integer-valued time steps of at most 64 bits; found "
                f"{max(values, key=abs)}."
            )
        found = repr(values[0])
    else:
        found = values[values != np.floor(values)][0]
    raise _no_times(label, found)


def _no_times(label: str, found: Any) -> ValueError:
    return ValueError(
        f"{label} must hold integer-valued time steps; found {found}. Time stamps must be "
        "datetimes, or strings in ISO form, such as '2026-05-01T12:30'."
    )


def _inferred_kind(column: pd.Series) -> str:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.categories
    if is_datetime64_any_dtype(column.dtype):
        return "datetime"
    return infer_dtype(column, skipna=True)


def _check_present(column: pd.Series, label: str) -> None:
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(f"{label}: row {int(missing.argmax())} is NaN; every row needs a time.")


def _read_stamps(column: pd.Series, label: str) -> pd.DatetimeIndex:
    """Parse each distinct value once, because many rows share a time."""
    codes, distinct = pd.factorize(column)
    values = pd.Series(distinct, dtype=object)
    is_text = infer_dtype(values) == "string"
    stamps = _read_strings(values, label) if is_text else _read_objects(values, label)
    return stamps.as_unit("ns").take(codes)


def _read_strings(values: pd.Series, label: str) -> pd.DatetimeIndex:
    texts = values.astype(str)
    _check_iso(values, texts.str.match(ISO_DATE), label)
    offsets = texts.str.extract(ISO_OFFSET, expand=False)
    aware = offsets.notna().to_numpy(dtype=bool)
    _check_one_awareness(values, aware, label)
    # Offsets may differ between rows, for example when clocks change.
    stamps = pd.to_datetime(texts, format="ISO8601", utc=bool(aware[0]), errors="coerce")
    _check_iso(values, stamps.notna(), label)
    zones = {pd.Timestamp(f"2000-01-01T00:00{offset}").tz for offset in offsets.dropna().unique()}
    return _in_common_zone(pd.DatetimeIndex(stamps), list(zones))


def _check_iso(values: pd.Series, is_iso: pd.Series, label: str) -> None:
    if not is_iso.all():
        raise _no_times(label, repr(values[int(is_iso.to_numpy(dtype=bool).argmin())]))


def _read_objects(values: pd.Series, label: str) -> pd.DatetimeIndex:
    zones = [getattr(value, "tzinfo", None) for value in values]
    aware = np.array([zone is not None for zone in zones])
    _check_one_awareness(values, aware, label)
    stamps = pd.to_datetime(pd.Series(read_ids(values, label)), utc=bool(aware[0]))
    by_name = {str(zone): zone for zone in zones if zone is not None}
    return _in_common_zone(pd.DatetimeIndex(stamps), list(by_name.values()))


def _in_common_zone(stamps: pd.DatetimeIndex, zones: list[datetime.tzinfo]) -> pd.DatetimeIndex:
    """Convert time stamps in UTC to the only zone, if there is only one."""
    return stamps.tz_convert(zones[0]) if len(zones) == 1 else stamps


def _check_one_awareness(values: pd.Series, aware: np.ndarray, label: str) -> None:
    if aware.any() and not aware.all():
        with_zone, without = values[int(aware.argmax())], values[int(aware.argmin())]
        raise ValueError(
            f"{label} holds times with a time zone, such as {with_zone!s}, and times without, such "
            f"as {without!s}; give all of them a time zone, or none."
        )


# --- Steps ----------------------------------------------------------------------------------------


def read_time_step(time_step: Any) -> pd.Timedelta | None:
    """Read the parameter `time_step`: a duration, or None.

    Raises
    ------
    ValueError
        If it is not a positive duration.

    Examples
    --------
    >>> from skqos._times import read_time_step
    >>> read_time_step("15min")
    Timedelta('0 days 00:15:00')
    """
    if time_step is None:
        return None
    if not isinstance(time_step, DURATION_TYPES):
        raise _no_duration(time_step)
    try:
        # Without unit, pandas reads a number as nanoseconds.
        if isinstance(time_step, str) and not any(map(str.isalpha, time_step)):
            raise ValueError("it has no unit")
        step = pd.Timedelta(time_step)
        is_duration = not pd.isna(step) and step.value > 0
    except (ValueError, OverflowError, TypeError) as error:
        raise _no_duration(time_step, f" ({error})") from error
    if not is_duration:
        raise _no_duration(time_step)
    return step


def _no_duration(time_step: Any, why: str = "") -> ValueError:
    return ValueError(
        "time_step must be None or a duration above 0, such as '15min', '1h' or "
        f"pandas.Timedelta('1D'); got {time_step!r}{why}."
    )


def learn_time_scale(times: Times, time_step: Any) -> TimeScale:
    """Return the conversion of times to steps.

    Parameters
    ----------
    times : ndarray of int64, or DatetimeIndex
        Result of `read_times`.
    time_step : duration or None
        Parameter of the estimator: None for integers, a duration for time stamps.

    Raises
    ------
    ValueError
        If there are time stamps without a duration, or integers with a duration.
    """
    step = read_time_step(time_step)
    if not isinstance(times, pd.DatetimeIndex):
        if step is not None:
            raise ValueError(
                f"time_step={time_step!r} is for time stamps, but {TIME_LABEL} holds integers, "
                "which are step numbers already. Set time_step=None, or give time stamps."
            )
        return TimeScale()
    if step is None:
        raise ValueError(
            f"{TIME_LABEL} holds time stamps, but time_step is None. Set the length of a step, for "
            f"example time_step={propose_step(times)!r}, which is suitable for these time stamps."
        )
    return TimeScale(_midnight(times.min()), step)


def check_steps(times: Times, scale: TimeScale) -> None:
    """Check that there are neither too many steps nor systematic gaps between them.

    Raises
    ------
    ValueError
        If there are nearly as many steps as rows. Nothing can be learnt from steps with a single
        measurement, and the features of all users and services at each step would fill the memory.

    Warns
    -----
    SparseStepsWarning
        If all distances between steps are multiples of a number.
    """
    steps = np.unique(scale.steps_of(times))
    found = f"{TIME_LABEL} holds {len(steps)} different steps in {len(times)} rows"
    if _are_too_many(len(steps), len(times)):
        raise ValueError(f"{found}; a step needs several measurements. {_advise(times, scale)}")
    distance = int(np.gcd.reduce(np.diff(steps)))
    if distance > 1 and len(steps) >= MIN_STEPS_TO_DIVIDE:
        how = f"Number them X[:, 2] // {distance}"
        if scale.step is not None:
            how = f"Give time_step={spell(distance * scale.step)!r}"
        warn_user(
            f"{found}, and all distances between them are multiples of {distance} steps, so that a "
            f"window of a few steps contains no other step. {how}, unless this is intended.",
            SparseStepsWarning,
        )


def check_new_steps(steps: np.ndarray, known: np.ndarray, scale: TimeScale) -> None:
    """Check that rows of an update have no more new steps than `check_steps` allows in `fit`.

    Parameters
    ----------
    steps : ndarray of int64 of shape (n_rows,)
        Steps of the rows.
    known : ndarray of int64 of shape (n_steps,)
        Measured steps of the estimator, ascending.
    scale : TimeScale
        Conversion of times to steps.

    Raises
    ------
    ValueError
        If there are nearly as many new steps as rows with a new step.
    """
    new = steps[~np.isin(steps, known)]
    n_steps = len(np.unique(new))
    if _are_too_many(n_steps, len(new)):
        raise ValueError(
            f"{TIME_LABEL} holds {n_steps} new steps in {len(new)} rows; a step needs several "
            f"measurements. The known steps are from {scale.name_of(int(known[0]))} to "
            f"{scale.name_of(int(known[-1]))}. Check the unit of the times, or update with the "
            "rows of fewer steps at a time."
        )


def _advise(times: Times, scale: TimeScale) -> str:
    """Return advice for fewer steps."""
    if scale.step is None:
        return (
            "Number coarser steps, as X[:, 2] // 900 does with seconds, or give time stamps and a "
            "time_step such as '15min'."
        )
    return (
        f"With time_step={spell(scale.step)!r} they are too short: give a longer one, such as "
        f"time_step={propose_step(times)!r}."
    )


def _are_too_many(n_steps: int, n_rows: int) -> bool:
    return n_steps > FEW_STEPS and n_steps * MIN_ROWS_PER_STEP > n_rows


def _midnight(first: pd.Timestamp) -> pd.Timestamp:
    """Return the start of the day of a time stamp in its time zone, also when clocks change."""
    day = first.tz_localize(None).normalize()
    if first.tz is None:
        return day
    return day.tz_localize(first.tz, ambiguous=True, nonexistent="shift_forward")


def propose_step(times: pd.DatetimeIndex) -> str:
    """Propose a step length for time stamps.

    If most time stamps have the same distance to the next one, it is this distance. Otherwise it is
    the shortest round duration with enough rows per step.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos._times import propose_step
    >>> propose_step(pd.date_range("2026-05-01", periods=9, freq="30min"))
    '30min'
    """
    moments = times.as_unit("ns").asi8
    distances, counts = np.unique(np.diff(np.unique(moments)), return_counts=True)
    if len(counts) and 2 * counts.max() > counts.sum():
        usual = distances[counts.argmax()]
        if not _are_too_many(len(np.unique(moments // usual)), len(times)):
            return spell(pd.Timedelta(usual, unit="ns"))
    for duration in ROUND_DURATIONS:
        n_steps = len(np.unique(moments // pd.Timedelta(duration).value))
        if n_steps * GOOD_ROWS_PER_STEP <= len(times):
            return duration
    return ROUND_DURATIONS[-1]


def spell(duration: pd.Timedelta) -> str:
    """Return a duration as a string for `time_step`, in the largest unit that divides it.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos._times import spell
    >>> spell(pd.Timedelta("90min")), spell(pd.Timedelta("1D"))
    ('90min', '1D')
    """
    unit = next(unit for unit in UNITS if duration.value % pd.Timedelta(1, unit).value == 0)
    return f"{duration // pd.Timedelta(1, unit)}{unit}"
