"""Training rows by step, against loops over the rows."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skqos._times import TimeScale
from skqos.base import TrainingData
from skqos.entities import EntityEncoder
from skqos.tpmcf.step_rows import StepRows

USERS, SERVICES = np.array([0, 0, 1, 0, 2]), np.array([1, 1, 0, 1, 1])
TIMES, TARGET = np.array([7, 7, 3, 3, 7]), np.array([1.0, 4.0, 2.0, 3.0, 5.0])
WEIGHTS = np.array([2.0, 1.0, 1.0, 1.0, 1.0])


@pytest.fixture
def data():
    users, services = EntityEncoder("user"), EntityEncoder("service")
    users.fit(np.arange(3), pd.DataFrame(index=range(3)))
    services.fit(np.arange(2), pd.DataFrame(index=range(2)))
    return TrainingData(
        user_codes=USERS,
        service_codes=SERVICES,
        times=TIMES,
        target=TARGET,
        weights=WEIGHTS,
        users=users,
        services=services,
        time_scale=TimeScale(),
        y=TARGET,
        validation=None,
        seed=0,
    )


def test_rows_of_a_cell_share_its_mean_and_its_fold(data):
    rows = StepRows.arrange(data, 2, None)
    assert_array_equal(rows.times, [3, 7])
    assert_array_equal(rows.inputs["steps"], [1, 1, 0, 0, 1])
    for k in range(len(TARGET)):
        same = (USERS[k] == USERS) & (SERVICES[k] == SERVICES) & (TIMES[k] == TIMES)
        cells = rows.cells
        (cell,) = np.flatnonzero(
            (cells.users == USERS[k])
            & (cells.services == SERVICES[k])
            & (rows.times[cells.steps] == TIMES[k])
        )
        assert_allclose(cells.values[cell], np.average(TARGET[same], weights=WEIGHTS[same]))
        assert rows.inputs["folds"][k] == rows.folds[cell]
    assert len(rows.cells) == 4


def test_the_encoder_learns_the_target_steps_alone(data):
    rows = StepRows.arrange(data, 2, "last")
    assert_array_equal(rows.targets, [0, 1, 4])
    assert_array_equal(rows.target_rows().target, [1, 4, 5])
    assert_array_equal(rows.target_rows().inputs["users"], [0, 0, 2])
    assert len(rows.by_fold()) == 5
    assert len(StepRows.arrange(data, 2, None).target_rows()) == 5
    with pytest.raises(ValueError, match="no training row is at one of these steps"):
        StepRows.arrange(data, 2, [4])
