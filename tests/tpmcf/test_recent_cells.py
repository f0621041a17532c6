"""Cells that a fitted estimator keeps: those of the last steps, each once."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skqos.base import TrainingRows
from skqos.tpmcf.recent_cells import RecentCells


class Side:
    """What is asked of an encoder."""

    def __init__(self, n):
        self.n_entities = n


def cells_of(*rows, seed=0):
    """Collect rows of (time, user, service, value), perhaps with a weight."""
    times, users, services, values, *weights = map(np.array, zip(*rows, strict=True))
    weights = weights[0] if weights else np.ones(len(values))
    sides = Side(9), Side(9)
    rows = TrainingRows(*sides, users, services, values, weights, times=times)
    return RecentCells.of_rows(rows, np.random.RandomState(seed))


def as_set(cells):
    columns = cells.times, cells.user_codes, cells.service_codes, cells.target
    return {tuple(map(float, row)) for row in zip(*columns, strict=True)}


def test_repeated_rows_are_one_cell():
    cells = cells_of((3, 1, 2, 4.0, 1.0), (5, 1, 2, 7.0, 1.0), (3, 1, 2, 8.0, 3.0))
    assert as_set(cells) == {(3, 1, 2, 7), (5, 1, 2, 7)}
    assert_allclose(cells.weights, [4, 1])
    assert cells.whole.tolist() == [3, 5]
    assert len(cells) == 2


def test_a_cell_that_is_measured_again_takes_the_place_of_the_earlier_one():
    earlier = cells_of((3, 1, 2, 4.0), (3, 2, 2, 5.0), (5, 1, 2, 6.0))
    later = cells_of((3, 1, 2, 9.0), (4, 1, 2, 8.0))
    joined = earlier.joined(later, earlier.whole)
    assert as_set(joined) == {(3, 2, 2, 5), (5, 1, 2, 6), (3, 1, 2, 9), (4, 1, 2, 8)}
    assert joined.whole.tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("size", "kept", "whole"),
    [
        (9, 6, [1, 2, 3]),
        (5, 5, [2, 3]),
        (4, 4, [2, 3]),
        (3, 3, [3]),
        (2, 2, [3]),
        (1, 1, []),
        (0, 0, []),
    ],
)
def test_the_last_steps_are_kept(size, kept, whole):
    cells = cells_of(*((time, user, 0, 1.0) for time in (3, 1, 2) for user in (4, 5)))
    limited = cells.limited(size)
    assert len(limited) == kept
    assert limited.whole.tolist() == whole
    assert as_set(limited) <= as_set(cells)
    left_out = set(cells.times) - set(limited.times)
    assert all(time < min(limited.times, default=9) for time in left_out)


def test_the_smallest_integer_is_the_first_step():
    cells = cells_of(*((time, 0, 0, 1.0) for time in (-(2**63), 1, 2)))
    assert cells.limited(2).times.tolist() == [1, 2]


def test_of_a_step_that_does_not_fit_in_cells_are_drawn():
    rows = [(0, user, service, 1.0) for user in range(8) for service in range(8)]
    draws = [as_set(cells_of(*rows, seed=seed).limited(20)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_a_late_measurement_does_not_make_a_step_whole():
    cells = cells_of((1, 0, 0, 1.0), (1, 1, 0, 1.0), (2, 0, 0, 1.0)).limited(2)
    assert cells.whole.tolist() == [2]
    joined = cells.joined(cells_of((1, 5, 5, 1.0), (0, 5, 5, 1.0)), np.array([1, 2]))
    # Step 0 was never measured before: all its cells are here.
    assert joined.whole.tolist() == [0, 2]


def test_no_cells_are_joined_to_some():
    nothing = cells_of((1, 0, 0, 1.0)).limited(0)
    joined = nothing.joined(cells_of((2, 0, 0, 3.0)), np.array([1]))
    assert as_set(joined) == {(2, 0, 0, 3)}


def test_cells_of_some_steps_by_position():
    cells = cells_of((7, 1, 2, 4.0), (3, 2, 1, 5.0), (3, 0, 2, 6.0), (9, 1, 1, 7.0))
    found, positions = cells.at(np.array([3, 7, 8]), (3, 4))
    assert found.shape == (3, 3, 4)
    assert found.steps.tolist() == [0, 0, 1]
    assert found.users.tolist() == [0, 2, 1]
    assert found.services.tolist() == [2, 1, 2]
    assert_array_equal(found.values, [6, 5, 4])
    assert_array_equal(cells.target[positions], found.values)
    assert len(cells.at(np.array([8]), (3, 4))[0]) == 0
