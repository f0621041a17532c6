"""Conformal corrections against counting, and what they promise."""

import numpy as np
import pytest

from skqos.distribution.bands import (
    KNOWN,
    MIN_ROWS,
    NEW_SERVICE,
    NEW_USER,
    ROWS_PER_BAND,
    BandCorrections,
    conformal_quantiles,
    group_of,
)
from skqos.distribution.quantiles import LEVELS


@pytest.mark.parametrize("n_rows", [1, 2, 19, 20, 200])
def test_conformal_quantiles_take_the_next_row_into_account(n_rows):
    excess = np.random.default_rng(n_rows).normal(size=(n_rows, len(LEVELS)))
    found = conformal_quantiles(excess)
    for k, level in enumerate(LEVELS):
        ordered = sorted(excess[:, k])
        place = level * (n_rows + 1)
        rank = int(np.ceil(place)) if level > 0.5 else int(np.floor(place))
        assert found[k] == ordered[min(max(rank, 1), n_rows) - 1]


def test_no_rows_ask_for_no_correction():
    assert not conformal_quantiles(np.empty((0, len(LEVELS)))).any()


def test_kinds_of_pairs():
    new_user, new_service = np.array([0, 1, 0, 1], bool), np.array([0, 0, 1, 1], bool)
    found = group_of(new_user, new_service)
    assert found.tolist() == [KNOWN, NEW_USER, NEW_SERVICE, NEW_USER]


def test_each_band_and_kind_has_its_own_correction():
    rng = np.random.default_rng(0)
    n = 2 * ROWS_PER_BAND
    prediction = np.concatenate([rng.random(n), rng.random(n)])
    group = np.repeat([KNOWN, NEW_USER], n)
    # Errors of known pairs double in the upper half; those of new users are ten times as wide.
    scale = np.where(group == KNOWN, 1 + (prediction > 0.5), 10.0)
    excess = (scale * rng.normal(size=2 * n))[:, None] + np.zeros(len(LEVELS))
    bands = BandCorrections.fit(prediction, group, excess)
    assert [len(shift) for shift in bands.shifts] == [2, 2, 4]
    found = bands.of(np.array([0.1, 0.9, 0.1]), np.array([KNOWN, KNOWN, NEW_USER]))
    widths = found[:, -3] - found[:, 2]
    assert 1.6 < widths[1] / widths[0] < 2.4
    assert widths[2] > 5 * widths[0]


def test_equal_predictions_leave_no_band_empty():
    """Predictions above those of the calibration are in the last band, and are corrected, too."""
    prediction = np.repeat([1.0, 2.0], [3 * ROWS_PER_BAND, 2 * ROWS_PER_BAND])
    group = np.full(len(prediction), KNOWN)
    excess = np.full((len(prediction), len(LEVELS)), 5.0)
    bands = BandCorrections.fit(prediction, group, excess)
    found = bands.of(np.array([1.0, 2.0, 2.0001, 50.0]), np.full(4, KNOWN))
    assert (found == 5).all()


def test_few_rows_of_a_kind_take_the_corrections_of_all():
    rng = np.random.default_rng(0)
    group = np.repeat([KNOWN, NEW_SERVICE], [200, MIN_ROWS - 1])
    prediction, excess = rng.random(len(group)), rng.normal(size=(len(group), len(LEVELS)))
    bands = BandCorrections.fit(prediction, group, excess)
    np.testing.assert_array_equal(bands.shifts[NEW_SERVICE], [conformal_quantiles(excess)])
    np.testing.assert_array_equal(bands.shifts[KNOWN], [conformal_quantiles(excess[:200])])
