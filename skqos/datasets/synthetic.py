"""A generator of synthetic QoS measurements with properties of real data."""

import datetime
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.utils import Bunch, check_random_state

from skqos._arrays import draw_distinct
from skqos._errors import about
from skqos._parameters import validated
from skqos._sklearn_compat import Interval
from skqos._times import DURATION_TYPES, read_time_step

from ._common import make_bunch

__all__ = ["make_qos"]

# Effect of one standard deviation of each cause on the natural logarithm of a response time.
# Context explains about half of the variance between entities.
_SCALES = {"user": 0.3, "service": 0.8, "as": 0.4, "provider": 0.7, "latent": 0.4}
_DISTANCE_SCALE = 1.5
_N_FACTORS = 3

# Conversion of the load of a cell (0 on average, high is bad) to a value of each QoS parameter.
# "weight" is the share of the load that all QoS parameters have in common.
_NAMED_QOS = ("rt", "tp", "reliability", "availability")
_LATENCY_MEDIAN = 0.4
_THROUGHPUT_MEDIAN = 20.0
_COMMON_WEIGHT = 0.8
_BOUNDED_OFFSET = 2.0
_LARGEST_STRAIN = 700.0

_DESCR = """\
Made-up QoS measurements
------------------------
{n_users:,} users, {n_services:,} services, {n:,} rows; QoS: {names}.
Drawn by skqos.datasets.make_qos: nothing here was measured."""


@validated(
    {
        "n_users": [Interval(Integral, 1, None, closed="left")],
        "n_services": [Interval(Integral, 1, None, closed="left")],
        "density": [Interval(Real, 0, 1, closed="right")],
        "n_qos": [Interval(Integral, 1, None, closed="left")],
        "n_regions": [Interval(Integral, 1, None, closed="left")],
        "n_as": [Interval(Integral, 1, None, closed="left")],
        "n_time_steps": [Interval(Integral, 1, None, closed="left"), None],
        "start": [str, datetime.date, np.datetime64, None],
        "time_step": [*DURATION_TYPES, None],
        "irregular": ["boolean"],
        "timeout": [Interval(Real, 0, None, closed="neither")],
        "timeout_rate": [Interval(Real, 0, 1, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "missing_rate": [Interval(Real, 0, 1, closed="left")],
        "unknown_rate": [Interval(Real, 0, 1, closed="both")],
        "random_state": ["random_state"],
    }
)
def make_qos(
    n_users: int = 100,
    n_services: int = 300,
    density: float = 0.1,
    *,
    n_qos: int = 1,
    n_regions: int = 8,
    n_as: int = 20,
    n_time_steps: int | None = None,
    start: str | datetime.date | np.datetime64 | None = None,
    time_step: str | datetime.timedelta | np.timedelta64 | None = None,
    irregular: bool = False,
    timeout: float = 20.0,
    timeout_rate: float = 0.02,
    noise: float = 0.3,
    missing_rate: float = 0.2,
    unknown_rate: float = 0.05,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Generate synthetic QoS measurements of users on services.

    Each value depends on a hidden load of its cell. The load is the sum of effects of the user, the
    service, their autonomous systems, the provider and the distance between their regions, which
    can be learnt from context, and of a product of latent factors, which can only be learnt from
    other measurements. Several QoS parameters share most of their load and are correlated. Only the
    drawn cells are computed, not the whole matrix.

    Parameters
    ----------
    n_users, n_services : int, default=100, 300
        Number of users and of services. Some of them may have no measurement.
    density : float, default=0.1
        Fraction of all cells that are measured, in (0, 1]. With time steps, each pair has one cell
        per step.
    n_qos : int, default=1
        Number of QoS parameters: ``rt`` (response time, s), ``tp`` (throughput, kbps, which
        decreases with response time), ``reliability`` and ``availability`` (0 to 1), then
        ``qos_4``, ``qos_5`` and so on, alternately unbounded and between 0 and 1.
    n_regions : int, default=8
        Number of regions.
    n_as : int, default=20
        Number of autonomous systems, each within one region; at least `n_regions`.
    n_time_steps : int, default=None
        Number of time steps. Each pair drifts smoothly over the steps, and each region has two busy
        periods ("days"). If None, there is no time.
    start : str, datetime or datetime64, default=None
        Time stamp at which step 0 begins, with or without a time zone. If given, the times of X are
        time stamps instead of integers, and each region has a busy period every 24 hours, at its
        own hour. Requires `n_time_steps`.
    time_step : str, Timedelta, timedelta or timedelta64, default=None
        Length of a time step. If None, it is "1h". Used only with `start`.
    irregular : bool, default=False
        Whether measurements have random times within their step, in whole seconds, instead of the
        start of the step. Used only with `start`.
    timeout : float, default=20.0
        Response time in seconds of requests that timed out, which is the maximum of ``rt``.
    timeout_rate : float, default=0.02
        Expected fraction of time-outs, in [0, 1). A few services and regions have many time-outs,
        most have few. Time-outs occur only in ``rt``.
    noise : float, default=0.3
        Scale of the heavy-tailed noise in the logarithm of a response time.
    missing_rate : float, default=0.2
        Fraction of the values that are NaN, in [0, 1). Each row keeps at least one value. Used only
        if `n_qos` is above 1.
    unknown_rate : float, default=0.05
        Fraction of the context values that are NaN, in [0, 1].
    random_state : int, RandomState instance or None, default=None
        Controls all random numbers. Pass an int for reproducible data across several calls.

    Returns
    -------
    Bunch
        X : ndarray of shape (n, 2) or (n, 3), dtype int64
            User, service and, if `n_time_steps` is given, time step of each row, in ascending order
            without repeated cells. With `start`, X is a DataFrame whose times are time stamps.
        y : ndarray of shape (n,) or (n, n_qos), dtype float64
            Values; 1-D if `n_qos` is 1.
        expected : ndarray of the shape of y
            Predictions of a perfect model: each value without noise and without missing values, and
            `timeout` where a time-out is more likely than not.
        users, services : DataFrame
            Context with the ids as index: the categorical columns ``country``, ``as``, ``region``
            and, for services, ``provider``, and ``latitude`` and ``longitude`` in degrees.
        frame : DataFrame
            Columns ``user``, ``service``, ``time`` if there is time, and one column per QoS
            parameter.
        qos_names, target_names : list of str
            Names of the columns of ``y``.
        DESCR : str
            Description.

    Raises
    ------
    ValueError
        If an argument is out of range or of the wrong type.

    Examples
    --------
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(n_users=20, n_services=30, n_qos=2, random_state=0)
    >>> data.X.shape, data.y.shape
    ((60, 2), (60, 2))
    >>> data.qos_names
    ['rt', 'tp']
    >>> data.services.columns.tolist()
    ['country', 'as', 'region', 'provider', 'latitude', 'longitude']
    >>> data = make_qos(n_time_steps=96, start="2026-05-01", time_step="30min", random_state=0)
    >>> data.X["time"].min(), data.X["time"].max()
    (Timestamp('2026-05-01 00:00:00'), Timestamp('2026-05-02 23:30:00'))
    """
    calendar = _read_calendar(n_time_steps, start, time_step, irregular)
    if n_as < n_regions:
        raise ValueError(f"n_as={n_as} must be at least n_regions={n_regions}.")
    shape = n_users, n_services, n_time_steps or 1
    if math.prod(map(int, shape)) > np.iinfo(np.int64).max:
        raise ValueError(
            f"n_users={n_users}, n_services={n_services}, n_time_steps={n_time_steps} result in "
            "more cells than an int64 can represent."
        )
    rng = check_random_state(random_state)
    world = _draw_world(rng, n_users, n_services, n_regions, n_as)
    cells = _draw_cells(rng, shape, density)
    clock = None if n_time_steps is None else _draw_clock(rng, cells[2], n_time_steps, calendar)
    strains = _draw_strains(rng, world, cells, n_qos, clock)
    names = _name_qos(n_qos)
    y, expected = _draw_values(rng, strains, noise)
    _add_timeouts(
        rng,
        y[:, 0],
        expected[:, 0],
        _timeout_probability(rng, world, cells[1], timeout_rate),
        timeout,
    )
    if n_qos > 1:
        _drop_values(rng, y, missing_rate)

    ids = dict(zip(("user", "service", "time"), cells, strict=True))
    if clock is None:
        del ids["time"]
    else:
        ids["time"] = clock.times
    frame = pd.DataFrame({**ids, **dict(zip(names, y.T, strict=True))})
    return make_bunch(
        frame,
        names,
        _tell_context(rng, world.users, "user", unknown_rate),
        _tell_context(rng, world.services, "service", unknown_rate),
        single=n_qos == 1,
        descr=_DESCR.format(
            n_users=n_users, n_services=n_services, n=len(frame), names=", ".join(names)
        ),
        expected=expected.ravel() if n_qos == 1 else expected,
    )


def _name_qos(n_qos: int) -> tuple[str, ...]:
    return (*_NAMED_QOS[:n_qos], *(f"qos_{i}" for i in range(len(_NAMED_QOS), n_qos)))


# Locations of the entities --------------------------------------------------------------


@dataclass(frozen=True)
class _Entities:
    """Locations of the users or services: codes by id, and degrees."""

    region: np.ndarray
    as_: np.ndarray
    provider: np.ndarray | None
    latitude: np.ndarray
    longitude: np.ndarray

    def __len__(self) -> int:
        return len(self.region)


@dataclass(frozen=True)
class _World:
    """All entities, and the distances between regions (0 to 1)."""

    users: _Entities
    services: _Entities
    distance: np.ndarray
    n_as: int
    n_providers: int


def _draw_world(
    rng: np.random.RandomState, n_users: int, n_services: int, n_regions: int, n_as: int
) -> _World:
    centres = np.column_stack([rng.uniform(-50, 65, n_regions), rng.uniform(-170, 170, n_regions)])
    region_of_as = np.arange(n_as) % n_regions
    n_providers = max(1, n_services // 4)
    as_of_provider = _draw_codes(rng, n_as, n_providers)
    provider = _draw_codes(rng, n_providers, n_services)
    user_as, service_as = _draw_codes(rng, n_as, n_users), as_of_provider[provider]
    return _World(
        users=_place(rng, user_as, None, region_of_as, centres),
        services=_place(rng, service_as, provider, region_of_as, centres),
        distance=_distances(centres),
        n_as=n_as,
        n_providers=n_providers,
    )


def _draw_codes(rng: np.random.RandomState, n_codes: int, size: int) -> np.ndarray:
    """Draw codes with very different frequencies, as in real data."""
    weights = rng.permutation(1.0 / np.sqrt(np.arange(1, n_codes + 1)))
    return rng.choice(n_codes, size=size, p=weights / weights.sum())


def _place(
    rng: np.random.RandomState,
    as_: np.ndarray,
    provider: np.ndarray | None,
    region_of_as: np.ndarray,
    centres: np.ndarray,
) -> _Entities:
    region = region_of_as[as_]
    position = np.round(centres[region] + rng.normal(scale=2.0, size=(len(as_), 2)), 4)
    return _Entities(region, as_, provider, position[:, 0], position[:, 1])


def _distances(centres: np.ndarray) -> np.ndarray:
    """Return great-circle distances as fractions of the largest distance on Earth."""
    latitude, longitude = np.radians(centres).T
    across = longitude[:, None] - longitude
    sines = np.sin(latitude)[:, None] * np.sin(latitude)
    cosines = np.cos(latitude)[:, None] * np.cos(latitude) * np.cos(across)
    return np.arccos(np.clip(sines + cosines, -1.0, 1.0)) / np.pi


def _tell_context(
    rng: np.random.RandomState, entities: _Entities, entity: str, unknown_rate: float
) -> pd.DataFrame:
    """Return the context table of the users or services, with missing values."""
    codes = {
        # A country has about two regions.
        "country": ("Country {}", entities.region // 2),
        "as": ("AS{} Network", entities.as_ + 1000),
        "region": ("Region {}", entities.region),
    }
    if entities.provider is not None:
        codes["provider"] = ("provider{}.example", entities.provider)
    table = pd.DataFrame(index=pd.RangeIndex(len(entities), name=entity))
    for column, (form, code) in codes.items():
        names = pd.Series([form.format(c) for c in code], index=table.index)
        table[column] = names.mask(rng.uniform(size=len(table)) < unknown_rate).astype("category")
    nowhere = rng.uniform(size=len(table)) < unknown_rate
    table["latitude"] = np.where(nowhere, np.nan, entities.latitude)
    table["longitude"] = np.where(nowhere, np.nan, entities.longitude)
    return table


# The measured cells -------------------------------------------------------------------


def _draw_cells(
    rng: np.random.RandomState, shape: tuple[int, int, int], density: float
) -> tuple[np.ndarray, ...]:
    n_cells = int(np.prod(shape, dtype=np.int64))
    n_drawn = max(1, round(density * n_cells))
    return np.unravel_index(draw_distinct(n_cells, n_drawn, rng), shape)


# The time of a cell -------------------------------------------------------------------


@dataclass(frozen=True)
class _Calendar:
    """Time stamps of steps: start of step 0, and length of a step."""

    start: pd.Timestamp
    step: pd.Timedelta
    irregular: bool


@dataclass(frozen=True)
class _Clock:
    """Times of the cells: as in X, and as angles within the whole period and within a day."""

    times: np.ndarray | pd.DatetimeIndex
    whole: np.ndarray
    day: np.ndarray


def _read_calendar(
    n_time_steps: int | None, start: object, time_step: object, irregular: bool
) -> _Calendar | None:
    if start is None:
        if time_step is not None or irregular:
            raise ValueError(
                f"time_step={time_step!r} and irregular={irregular} need time stamps: give start, "
                "or leave them out."
            )
        return None
    if n_time_steps is None:
        raise ValueError(f"start={start!r} needs n_time_steps, the number of time steps.")
    step = read_time_step("1h" if time_step is None else time_step)
    with about("start"):
        first = pd.Timestamp(start).as_unit("ns")
        # Raises if the last step is outside the range of pandas.
        last = first + n_time_steps * step
    if pd.isna(first) or pd.isna(last):
        raise ValueError(f"start must be a time stamp; got {start!r}.")
    return _Calendar(first, step, irregular)


def _draw_clock(
    rng: np.random.RandomState, step: np.ndarray, n_time_steps: int, calendar: _Calendar | None
) -> _Clock:
    whole = 2 * np.pi * step / n_time_steps
    if calendar is None:
        return _Clock(step, whole, 2 * whole)
    elapsed = pd.to_timedelta(step * calendar.step.value, unit="ns")
    if calendar.irregular:
        within = rng.uniform(0, calendar.step.value, size=len(step)).astype(np.int64)
        elapsed += pd.to_timedelta(within, unit="ns").floor("s")
    stamps = calendar.start + elapsed
    local = stamps.tz_localize(None)
    day = 2 * np.pi * ((local - local.normalize()) / pd.Timedelta("1D")).to_numpy()
    return _Clock(stamps, whole, day)


# The load of a cell -------------------------------------------------------------------


def _draw_strains(
    rng: np.random.RandomState,
    world: _World,
    cells: tuple[np.ndarray, ...],
    n_qos: int,
    clock: _Clock | None,
) -> np.ndarray:
    """Return the load of each cell for each QoS parameter, of shape (n, n_qos)."""
    common = _draw_strain(rng, world, cells, clock)
    strains = np.empty((len(common), n_qos))
    strains[:, 0] = common
    for column in range(1, n_qos):
        own = _draw_strain(rng, world, cells, clock)
        strains[:, column] = _COMMON_WEIGHT * common + np.sqrt(1 - _COMMON_WEIGHT**2) * own
    return strains


def _draw_strain(
    rng: np.random.RandomState,
    world: _World,
    cells: tuple[np.ndarray, ...],
    clock: _Clock | None,
) -> np.ndarray:
    user, service, _ = cells
    users, services = world.users, world.services
    by_user = _effects(rng, "user", len(users)) + _effects(rng, "as", world.n_as)[users.as_]
    by_service = (
        _effects(rng, "service", len(services))
        + _effects(rng, "as", world.n_as)[services.as_]
        + _effects(rng, "provider", world.n_providers)[services.provider]
    )
    far = world.distance[users.region[user], services.region[service]]
    strain = by_user[user] + by_service[service] + _DISTANCE_SCALE * (far - world.distance.mean())
    strain += _draw_affinity(rng, world, user, service)
    if clock is not None:
        strain += _draw_course(rng, world, cells, clock)
    return strain


def _effects(rng: np.random.RandomState, cause: str, size: int) -> np.ndarray:
    return rng.normal(scale=_SCALES[cause], size=size)


def _draw_affinity(
    rng: np.random.RandomState, world: _World, user: np.ndarray, service: np.ndarray
) -> np.ndarray:
    """Return the part of the load that is specific to the pair."""
    of_user = rng.normal(size=(len(world.users), _N_FACTORS))
    of_service = rng.normal(size=(len(world.services), _N_FACTORS))
    product = np.einsum("nf,nf->n", of_user[user], of_service[service])
    return _SCALES["latent"] / np.sqrt(_N_FACTORS) * product


def _draw_course(
    rng: np.random.RandomState, world: _World, cells: tuple[np.ndarray, ...], clock: _Clock
) -> np.ndarray:
    """Return the load over time: a daily cycle, and a slow drift of each pair."""
    user, service, _ = cells
    noon = rng.uniform(0, 2 * np.pi, size=len(world.distance))
    daily = 0.3 * np.cos(clock.day - noon[world.services.region[service]])
    start = rng.uniform(0, 2 * np.pi, size=len(world.services))
    drift = _draw_affinity(rng, world, user, service) * np.cos(clock.whole / 2 - start[service])
    return daily + drift


# From load to values ------------------------------------------------------------------


def _draw_values(
    rng: np.random.RandomState, strains: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return values with and without noise; a part of the noise is common to all QoS parameters."""
    common = _draw_noise(rng, len(strains), noise)
    y, expected = np.empty_like(strains), np.empty_like(strains)
    for column in range(strains.shape[1]):
        own = _draw_noise(rng, len(strains), noise)
        error = common if column == 0 else (common + own) / np.sqrt(2)
        link = _link(column)
        expected[:, column] = link(strains[:, column])
        y[:, column] = link(strains[:, column] + error)
    return y, expected


def _draw_noise(rng: np.random.RandomState, size: int, scale: float) -> np.ndarray:
    """Draw symmetric noise with heavy tails, which does not change the medians."""
    return scale * rng.standard_t(4, size=size)


def _link(column: int) -> Callable[[np.ndarray], np.ndarray]:
    """Convert load to values by a monotone function, which keeps the medians."""
    if column == 1:
        return _to_throughput
    bounded = column in (2, 3) or column % 2 == 1
    return _to_share if bounded else _to_latency


def _to_latency(strain: np.ndarray) -> np.ndarray:
    return _LATENCY_MEDIAN * _exp(strain)


def _to_throughput(strain: np.ndarray) -> np.ndarray:
    return _THROUGHPUT_MEDIAN * _exp(-strain)


def _exp(strain: np.ndarray) -> np.ndarray:
    """Return the exponential, bounded to be finite."""
    return np.exp(np.clip(strain, -_LARGEST_STRAIN, _LARGEST_STRAIN))


def _to_share(strain: np.ndarray) -> np.ndarray:
    return expit(_BOUNDED_OFFSET - strain)


def _add_timeouts(
    rng: np.random.RandomState,
    rt: np.ndarray,
    expected: np.ndarray,
    probability: np.ndarray,
    timeout: float,
) -> None:
    """Add time-outs to the response times and the expected ones, in place."""
    rt[rng.uniform(size=len(rt)) < probability] = timeout
    expected[probability > 0.5] = timeout
    np.minimum(rt, timeout, out=rt)
    np.minimum(expected, timeout, out=expected)


def _timeout_probability(
    rng: np.random.RandomState, world: _World, service: np.ndarray, rate: float
) -> np.ndarray:
    """Return the time-out probability of each cell; the mean is `rate`."""
    services = world.services
    by_region = rng.normal(scale=1.0, size=len(world.distance))
    proneness = rng.normal(scale=4.0, size=len(services)) + by_region[services.region]
    n_cells = np.bincount(service, minlength=len(services))

    def surplus(offset: float) -> float:
        return float(np.average(expit(proneness + offset), weights=n_cells)) - rate

    # At the first offset, hardly any request times out, and at the other one hardly any does not.
    ends = -50, 50
    if surplus(ends[0]) >= 0:
        return np.zeros(len(service))
    if surplus(ends[1]) <= 0:
        return np.ones(len(service))
    return expit(proneness + brentq(surplus, *ends))[service]


def _drop_values(rng: np.random.RandomState, y: np.ndarray, rate: float) -> None:
    """Set values of `y` to NaN in place, but never a whole row."""
    missing = rng.uniform(size=y.shape) < rate
    kept = rng.randint(y.shape[1], size=len(y))
    missing[np.arange(len(y)), kept] &= ~missing.all(axis=1)
    y[missing] = np.nan
