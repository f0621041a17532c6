"""Forecasts of made-up data with a daily course: time stamps, string ids, a night without rows."""

import numpy as np
import pandas as pd
import pytest
import torch

from skqos._times import TimeScale
from skqos.baselines import MedianRegressor
from skqos.tpmcf.calendar import NANOSECONDS_PER_DAY, Calendar, make_calendar
from tests.tpmcf.test_estimator import make

N_USERS, N_SERVICES, STEPS_PER_DAY, N_DAYS = 6, 8, 48, 4
NOW = STEPS_PER_DAY * N_DAYS


def course(users, services, steps):
    """Levels of users and services, and a daily course whose busy hour depends on the user."""
    hour = 2 * np.pi * (steps / STEPS_PER_DAY + (users % 2) / 2)
    return (1 + users / 3) * (1 + services / 4) * (1.2 + np.sin(hour))


def log(cells, rng):
    steps, users, services = cells.T
    stamps = pd.Timestamp("2026-05-04") + pd.to_timedelta(
        30 * steps + rng.integers(30, size=len(steps)), "min"
    )
    X = pd.DataFrame({"user": users, "service": services, "time": stamps})
    X["user"], X["service"] = "client" + X["user"].astype(str), "api" + X["service"].astype(str)
    return X.assign(time=stamps.strftime("%Y-%m-%dT%H:%M"))


def test_forecasts_follow_the_course_of_the_day():
    rng = np.random.default_rng(0)
    cells = np.argwhere(rng.uniform(size=(NOW, N_USERS, N_SERVICES)) < 0.25)
    night = (cells[:, 0] >= 2 * STEPS_PER_DAY) & (cells[:, 0] < 2 * STEPS_PER_DAY + 14)
    cells = cells[~night]
    X, y = log(cells, rng), course(cells[:, 1], cells[:, 2], cells[:, 0])
    y *= np.exp(0.1 * rng.normal(size=len(y)))
    model = make(
        modules="pte",
        features=["statistics"],
        time_step="30min",
        max_horizon=STEPS_PER_DAY,
        forecast_share=0.7,
        max_epochs=15,
        batch_size=64,
        entity_dim=8,
        hidden_sizes=(32, 16),
    ).fit(X, y)
    median = MedianRegressor(by="pair").fit(X[["user", "service"]], y)
    for horizon in (1, 12, 24, 47):
        users, services = np.indices((N_USERS, N_SERVICES)).reshape(2, -1)
        steps = np.full(len(users), NOW - 1 + horizon)
        later = log(np.column_stack([steps, users, services]), rng)
        expected = course(users, services, steps)
        error, of_median = (
            np.abs(prediction - expected).mean()
            for prediction in (model.predict(later), median.predict(later[["user", "service"]]))
        )
        assert error <= 0.6 * of_median, horizon


def test_the_time_of_the_day_and_of_the_week():
    """Steps of 8 hours from a Friday on; negative steps are before it."""
    calendar = Calendar(NANOSECONDS_PER_DAY // 3, first_weekday=4, with_weekdays=True)
    found = calendar(torch.arange(-3, 9))[0]
    assert found.shape == (12, calendar.out_dim) == (12, 13)
    assert found[:, 6:].argmax(1).tolist() == [3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]
    assert (found[:, 6:].sum(1) == 1).all()
    of_day = found[:, :6]
    torch.testing.assert_close(of_day[:9], of_day[3:])
    assert (of_day[3] - of_day[4]).abs().max() > 0.5
    angle = 2 * torch.pi / 3
    torch.testing.assert_close(of_day[4, 0], torch.tensor(angle).sin())
    torch.testing.assert_close(of_day[4, 3], torch.tensor(angle).cos())


@pytest.mark.parametrize(
    ("n_days", "has_calendar", "with_weekdays"),
    [(1.9, False, None), (2, True, False), (13.9, True, False), (14, True, True)],
)
def test_a_calendar_needs_days_to_compare(n_days, has_calendar, with_weekdays):
    scale = TimeScale(pd.Timestamp("2026-05-01", tz="Europe/Berlin"), pd.Timedelta("30min"))
    calendar = make_calendar(scale, np.array([5, 4 + round(48 * n_days)]))
    assert (calendar is not None) == has_calendar
    if has_calendar:
        assert calendar.first_weekday == 4
        assert calendar.with_weekdays == with_weekdays


def test_integers_have_no_calendar():
    assert make_calendar(TimeScale(), np.arange(1000)) is None
