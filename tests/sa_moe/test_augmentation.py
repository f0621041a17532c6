"""Drawing unobserved cells (eq. 8), and how many."""

import tracemalloc
import warnings

import numpy as np
import pytest
from scipy.stats import chi2

from skqos.sa_moe.augmentation import (
    MANY_CELLS,
    count_cells,
    observed_cells,
    sample_unobserved,
)

# --- count_cells --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "unit", "expected"),
    [
        (0, "observed", 0),
        (1.0, "observed", 30),
        (0.5, "observed", 15),
        (0.99, "observed", 30),
        (2.36, "observed", 70),
        (50.0, "observed", 70),
        (0, "missing", 0),
        (0.4, "missing", 28),
        (0.405, "missing", 28),
        (0.41, "missing", 29),
        (1.0, "missing", 70),
        (1.5, "missing", 70),
    ],
)
def test_count_of_30_observed_among_100_cells(ratio, unit, expected):
    count = count_cells(ratio, unit, 30, 100)
    assert count == expected
    assert isinstance(count, int)


@pytest.mark.parametrize("unit", ["observed", "missing"])
def test_a_full_matrix_has_no_cell_to_give(unit):
    assert count_cells(1.0, unit, 100, 100) == 0


def test_more_than_ten_million_cells_warn():
    assert MANY_CELLS == 10_000_000
    message = r"need 10,000,001 cells, .* ratio=0\.1 is a multiple of the missing cells"
    with pytest.warns(UserWarning, match=message):
        assert count_cells(0.1, "missing", 10, 100_000_020) == 10_000_001
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count_cells(0.1, "missing", 10, 100_000_010) == 10_000_000
        assert count_cells(100.0, "observed", 10**7, 10**7 + 5) == 5, "what counts is the capped"


# --- sample_unobserved --------------------------------------------------------------------------


def observe(shape, n, seed=0):
    """Return the codes of n distinct cells."""
    cells = np.random.default_rng(seed).choice(shape[0] * shape[1], n, replace=False)
    return np.divmod(cells, shape[1])


def draw(users, services, shape, n_cells, rng):
    return sample_unobserved(observed_cells(users, services, shape), shape, n_cells, rng)


def flat(users, services, shape):
    assert users.min(initial=0) >= 0
    assert users.max(initial=0) < shape[0]
    assert services.min(initial=0) >= 0
    assert services.max(initial=0) < shape[1]
    return users * shape[1] + services


@pytest.mark.parametrize("n_cells", [0, 1, 2, 50, 99, 100, 101, 199, 200])
def test_distinct_unobserved_cells_of_the_right_number(n_cells):
    """100 of the 200 missing cells are the border between the two ways of drawing."""
    shape = (15, 20)
    observed = observe(shape, 100)
    drawn = draw(*observed, shape, n_cells, np.random.RandomState(1))
    cells = flat(*drawn, shape)
    assert drawn[0].shape == drawn[1].shape == (n_cells,)
    assert drawn[0].dtype == drawn[1].dtype == np.int64
    assert len(set(cells)) == n_cells
    assert not set(cells) & set(flat(*observed, shape))


def test_asked_for_all_missing_cells_it_gives_exactly_those():
    shape = (7, 5)
    observed = observe(shape, 12)
    cells = flat(*draw(*observed, shape, 23, np.random.RandomState(0)), shape)
    assert {*cells, *flat(*observed, shape)} == set(range(35))


@pytest.mark.parametrize("n_cells", [30, 150])
def test_repeated_observations_count_once(n_cells):
    shape = (10, 20)
    users, services = (np.tile(codes, 4) for codes in observe(shape, 40))
    drawn = draw(users, services, shape, n_cells, np.random.RandomState(0))
    assert len(set(flat(*drawn, shape))) == n_cells
    assert not set(flat(*drawn, shape)) & set(flat(users, services, shape))


def test_a_full_matrix_gives_nothing():
    shape = (4, 3)
    users, services = draw(*observe(shape, 12), shape, 0, np.random.RandomState(0))
    assert len(users) == len(services) == 0


@pytest.mark.parametrize("n_cells", [3, 20, 40])
def test_all_missing_cells_are_drawn_equally_often(n_cells):
    """Both ways of drawing: chi-square at 1e-4."""
    shape = (8, 9)
    observed = observe(shape, 24)
    missing = np.setdiff1d(np.arange(72), flat(*observed, shape))
    rng = np.random.RandomState(0)
    draws = [flat(*draw(*observed, shape, n_cells, rng), shape) for _ in range(1500)]
    n = len(missing)
    counts = np.bincount(np.concatenate(draws), minlength=72)[missing]
    expected = 1500 * n_cells / n
    # Cells of one draw exclude each other, which takes from the variance of their counts.
    scale = (1 - n_cells / n) * n / (n - 1)
    assert ((counts - expected) ** 2 / expected).sum() < scale * chi2.isf(1e-4, n - 1)


@pytest.mark.parametrize("n_cells", [20, 150])
def test_the_generator_decides(n_cells):
    shape = (10, 20)
    first, again, other = (
        draw(*observe(shape, 40), shape, n_cells, np.random.RandomState(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first[0] != other[0]).any()


def test_a_huge_matrix_is_never_enumerated():
    """WS-DREAM's 339 x 5,825, tenfold each way: its cells would take 1.6 GB."""
    shape = (3_390, 58_250)
    rng = np.random.RandomState(0)
    observed = rng.randint(shape[0], size=50_000), rng.randint(shape[1], size=50_000)
    tracemalloc.start()
    try:
        drawn = draw(*observed, shape, 50_000, rng)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    cells = flat(*drawn, shape)
    assert len(np.unique(cells)) == 50_000
    assert not np.isin(cells, flat(*observed, shape)).any()
    assert cells.max() > 0.99 * shape[0] * shape[1]
    assert peak < 20e6


class Impatient:
    """A generator that stops a draw which takes too many rounds."""

    def __init__(self, n_rounds):
        self.rng = np.random.RandomState(0)
        self.n_rounds = n_rounds

    def randint(self, *args, **kwargs):
        self.n_rounds -= 1
        assert self.n_rounds >= 0, "too many rounds of rejection"
        return self.rng.randint(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.rng, name)


def test_a_sparse_matrix_takes_few_rounds():
    shape = (100, 200)
    draw(*observe(shape, 2_000), shape, 8_000, Impatient(8))


def test_a_nearly_full_matrix_takes_few_rounds():
    shape = (100, 200)
    drawn = draw(*observe(shape, 19_980), shape, 8, Impatient(50))
    assert len(drawn[0]) == 8
