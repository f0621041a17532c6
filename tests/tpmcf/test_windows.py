"""Windows of steps, and horizons."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.tpmcf.windows import (
    interpolate_horizons,
    lay_later_steps,
    lay_windows,
    longest_horizon,
)
from tests.common import Cost

TIMES = np.array([0, 2, 3, 4, 20])


@pytest.mark.parametrize("longest", [1, 2, 3, 8, 47])
def test_horizons_are_means_of_the_nearest_powers_of_two(longest):
    shares = interpolate_horizons(longest).numpy()
    assert shares.shape == (longest + 1, 2 + int(np.ceil(np.log2(longest))))
    assert_allclose(shares.sum(1), 1, rtol=1e-6)
    assert ((shares > 0).sum(1) <= 2).all()
    for horizon in range(longest + 1):
        if horizon in (0, 1, 2, 4, 8, 16, 32):
            assert shares[horizon].max() == 1
    places = shares @ np.arange(shares.shape[1])
    assert (np.diff(places) > 0).all()


@pytest.mark.parametrize("window", [1, 3, 20])
@pytest.mark.parametrize("first", [-3, 0, 10**15])
def test_without_gaps_windows_are_the_last_steps(window, first):
    """As they were when steps were numbered in their order, whatever lay between."""
    steps, present = lay_windows(first + np.arange(9), window)
    expected = torch.arange(9).unsqueeze(1) + torch.arange(1 - window, 1)
    assert torch.equal(steps, expected.clamp(min=0))
    assert torch.equal(present, expected >= 0)


@pytest.mark.parametrize("first", [-3, np.iinfo(np.int64).max - 8])
def test_later_steps_begin_at_a_step(first):
    """The largest integers wrap around, and find nothing."""
    steps, present = lay_later_steps(first + np.array([0, 1, 3, 8]), 3)
    assert steps.tolist() == [[0, 1, 0], [1, 0, 2], [2, 0, 0], [3, 0, 0], [0, 0, 0]]
    expected = [[1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert present.tolist() == [[bool(k) for k in row] for row in expected]


def test_a_gap_takes_no_memory():
    """Integers at both ends of the range wrap around, and find nothing."""
    least, largest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    with Cost() as cost:
        steps, present = lay_windows(np.array([least, 0, 1, 10**9, largest]), 4)
    assert cost.peak < 10_000
    assert present.tolist() == [
        [False, False, False, True],
        [False, False, False, True],
        [False, False, True, True],
        [False, False, False, True],
        [False, False, False, True],
    ]
    assert steps[2].tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(("limit", "longest"), [(1, 1), (5, 5), (10, 10), (11, 10), (100, 10)])
def test_horizons_are_at_most_half_of_the_time_measured(limit, longest):
    assert longest_horizon(TIMES, limit) == longest
    assert longest_horizon(TIMES[:1], limit) == 1
