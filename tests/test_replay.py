"""The replay buffer: a uniform sample of rows, in which new values replace old ones."""

import numpy as np
import pytest

from skqos.base import TrainingRows
from skqos.replay import ReplayBuffer


def _rows(users, services, target, weights=None):
    """Rows without encoders, which the buffer does not look at."""
    codes = (np.asarray(values, dtype=np.int64) for values in (users, services))
    target = np.asarray(target, dtype=np.float64)
    weights = np.ones(len(target)) if weights is None else weights
    return TrainingRows(None, None, *codes, target, weights)


def _numbered(first, n):
    """Rows whose target is their number."""
    numbers = np.arange(first, first + n)
    return _rows(numbers, numbers + 7, numbers)


def test_rows_are_kept_small():
    buffer = ReplayBuffer.of_rows(_numbered(0, 5), np.random.RandomState(0))
    arrays = [values for values in vars(buffer).values() if isinstance(values, np.ndarray)]
    assert sum(values.nbytes for values in arrays) == 5 * 20
    np.testing.assert_array_equal(buffer.target, np.arange(5))
    np.testing.assert_array_equal(buffer.service_codes, np.arange(5) + 7)


def test_every_row_of_all_updates_is_as_likely_to_stay():
    rng = np.random.RandomState(0)
    counts = np.zeros(60)
    for _ in range(600):
        buffer = ReplayBuffer.of_rows(_numbered(0, 30), rng).limited(12)
        for first, n in ((30, 20), (50, 10)):
            buffer = buffer.joined(ReplayBuffer.of_rows(_numbered(first, n), rng)).limited(12)
        assert (len(buffer), buffer.n_seen) == (12, 60)
        assert (np.diff(buffer.target) > 0).all(), "in their order"
        counts[buffer.target.astype(int)] += 1
    # 12 of 60 rows, 600 times: 120 each, with a standard deviation of 9.8.
    assert np.abs(counts - 120).max() < 40
    for part in (counts[:30], counts[30:50], counts[50:]):
        assert abs(part.mean() - 120) < 5


def test_a_sample_is_distinct_and_random():
    buffer = ReplayBuffer.of_rows(_numbered(0, 40), np.random.RandomState(0))
    rng = np.random.RandomState(1)
    drawn = [set(buffer.sample(10, rng).target) for _ in range(2)]
    assert [len(numbers) for numbers in drawn] == [10, 10]
    assert drawn[0] != drawn[1]
    assert buffer.sample(40, rng) is buffer
    assert buffer.sample(10**9, rng) is buffer


@pytest.mark.parametrize("n_targets", [None, 1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_targets_observed_again_are_forgotten(n_targets, seed):
    rng = np.random.default_rng(seed)

    def draw(n):
        target = rng.random(n) if n_targets is None else rng.random((n, n_targets))
        if n_targets == 3:
            target[rng.random(target.shape) < 0.4] = np.nan
            target[np.isnan(target).all(axis=1), 0] = 0.5
        return _rows(*rng.integers(0, 6, (2, n)), target)

    earlier, later = draw(40), draw(15)
    buffer = ReplayBuffer.of_rows(earlier, np.random.RandomState(0))
    expected = []
    for u, s, target in zip(earlier.user_codes, earlier.service_codes, earlier.target, strict=True):
        values = np.atleast_1d(target).copy()
        for u2, s2, target2 in zip(
            later.user_codes, later.service_codes, later.target, strict=True
        ):
            if (u, s) == (u2, s2):
                values[~np.isnan(np.atleast_1d(target2))] = np.nan
        if not np.isnan(values).all():
            expected.append((u, s, *values))
    left = buffer.without(later)
    found = np.column_stack([left.user_codes, left.service_codes, left.target])
    assert 0 < len(found) < 40
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-6)
    assert left.target.shape[1:] == earlier.target.shape[1:]
    for whole in (buffer, left):
        assert len(whole) == whole.n_seen


def test_codes_beyond_32_bits_together_do_not_collide():
    big = 2**31 - 1
    buffer = ReplayBuffer.of_rows(
        _rows([big, big - 1], [0, big], [1.0, 2.0]), np.random.RandomState(0)
    )
    np.testing.assert_array_equal(buffer.without(_rows([big], [0], [5.0])).target, [2.0])
    np.testing.assert_array_equal(buffer.without(_rows([big - 1], [big], [5.0])).target, [1.0])


def test_an_empty_buffer_stays_empty():
    empty = ReplayBuffer.of_rows(_numbered(0, 5), np.random.RandomState(0)).limited(0)
    assert len(empty.without(_numbered(0, 2))) == len(empty.sample(3, None)) == 0
    rows = empty.appended_to(_numbered(0, 2))
    np.testing.assert_array_equal(rows.target, [0, 1])


def test_rows_keep_their_weights():
    rng = np.random.RandomState(0)
    earlier = _rows([0, 1, 2], [0, 0, 0], [1.0, 2.0, 3.0], np.array([0.5, 1.0, 2.0]))
    later = _rows([3, 1], [0, 0], [4.0, 5.0], np.array([0.25, 8.0]))
    buffer = ReplayBuffer.of_rows(earlier, rng)
    np.testing.assert_array_equal(buffer.without(later).weights, [0.5, 2.0])
    np.testing.assert_array_equal(buffer.take([2, 0]).weights, [2.0, 0.5])
    joined = buffer.joined(ReplayBuffer.of_rows(later, rng))
    np.testing.assert_array_equal(joined.weights, [0.5, 1.0, 2.0, 0.25, 8.0])
    np.testing.assert_array_equal(buffer.appended_to(later).weights, [0.25, 8.0, 0.5, 1.0, 2.0])


def test_replayed_rows_follow_the_new_ones():
    buffer = ReplayBuffer.of_rows(_numbered(10, 2), np.random.RandomState(0))
    rows = buffer.appended_to(_numbered(0, 3))
    np.testing.assert_array_equal(rows.target, [0, 1, 2, 10, 11])
    np.testing.assert_array_equal(rows.user_codes, [0, 1, 2, 10, 11])
    np.testing.assert_array_equal(rows.service_codes, [7, 8, 9, 17, 18])
    assert rows.user_codes.dtype == np.int64
