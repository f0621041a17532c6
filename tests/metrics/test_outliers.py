"""The outlier protocol of the literature."""

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest

from skqos import metrics


class TestOutlierMask:
    def test_share_and_place_of_the_flagged(self):
        rng = np.random.default_rng(0)
        y = np.append(rng.uniform(0.1, 0.5, 190), rng.uniform(5, 20, 10))
        mask = metrics.outlier_mask(y, contamination=0.05)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, y > 1)

    def test_unobserved_is_never_flagged_and_changes_nothing(self):
        rng = np.random.default_rng(0)
        y = rng.exponential(size=200)
        with_gaps = np.insert(y, np.arange(0, 200, 4), np.nan)
        mask = metrics.outlier_mask(with_gaps)
        assert not mask[np.isnan(with_gaps)].any()
        np.testing.assert_array_equal(mask[~np.isnan(with_gaps)], metrics.outlier_mask(y))

    def test_targets_are_treated_one_by_one(self):
        rng = np.random.default_rng(0)
        y = rng.exponential(size=(200, 3)) * [1, 100, np.nan]
        mask = metrics.outlier_mask(y)
        assert mask.shape == (200, 3)
        for target in range(2):
            np.testing.assert_array_equal(mask[:, target], metrics.outlier_mask(y[:, target]))
        assert not mask[:, 2].any()

    def test_seed_and_contamination(self):
        y = np.random.default_rng(0).exponential(size=500)
        first = metrics.outlier_mask(y, max_samples=64)
        np.testing.assert_array_equal(first, metrics.outlier_mask(y, max_samples=64))
        other = metrics.outlier_mask(y, max_samples=64, random_state=0)
        assert not np.array_equal(first, other)
        assert metrics.outlier_mask(y, contamination=0.02).mean() == pytest.approx(0.02, abs=0.005)

    @pytest.mark.parametrize("max_samples", ["all", "auto"])
    def test_it_is_the_isolation_forest_where_values_repeat(self, max_samples):
        y = np.random.default_rng(0).exponential(size=2000).round(1)
        forest = IsolationForest(
            contamination=0.07,
            max_samples=len(y) if max_samples == "all" else max_samples,
            random_state=3,
        )
        expected = forest.fit_predict(y[:, np.newaxis]) == -1
        mask = metrics.outlier_mask(y, contamination=0.07, max_samples=max_samples, random_state=3)
        np.testing.assert_array_equal(mask, expected)
        assert 0 < mask.sum() < 200

    @pytest.mark.parametrize(
        ("params", "match"),
        [
            ({"contamination": 0.0}, r"contamination must be a float in \(0, 0.5\]; got 0.0"),
            ({"contamination": 0.6}, "contamination must be"),
            ({"contamination": "auto"}, "contamination must be"),
            ({"max_samples": 0}, "max_samples must be 'all', 'auto' or an int >= 1; got 0"),
            ({"max_samples": 0.5}, "max_samples must be"),
            ({"max_samples": "half"}, "max_samples must be"),
        ],
    )
    def test_bad_parameters_raise(self, params, match):
        with pytest.raises(ValueError, match=match):
            metrics.outlier_mask([1.0, 2.0], **params)

    def test_infinity_raises(self):
        with pytest.raises(ValueError, match="Input y contains infinity"):
            metrics.outlier_mask([1.0, np.inf])


@pytest.fixture(scope="module")
def values(wsdream1_path):
    matrix = pd.read_csv(wsdream1_path / "rtMatrix.txt", sep="\t", header=None).to_numpy()
    return np.random.default_rng(0).choice(matrix[matrix > 0], 30_000, replace=False)


@pytest.fixture(scope="module")
def mask(values):
    return metrics.outlier_mask(values)


class TestOutlierProtocolOnResponseTimes:
    """The facts known of WS-DREAM data set 1 under contamination 0.1, on 30,000 of its values."""

    def test_a_tenth_goes_and_the_error_of_the_median_collapses(self, values, mask):
        error = np.abs(values - np.median(values))
        assert mask.mean() == pytest.approx(0.1, abs=0.002)
        assert error.mean() == pytest.approx(0.75, abs=0.02)
        assert error[~mask].mean() == pytest.approx(0.29, abs=0.01)

    def test_it_is_no_filter_of_extreme_values(self, values, mask):
        mid_range = (values >= 1.75) & (values < 5.1)
        island = (values >= 5.2) & (values < 5.7)
        assert mask[mid_range].mean() > 0.97
        # From 0.24 to 0.65 over five draws of the values; a bound would flag all of it.
        assert mask[island].mean() < 0.8
        assert mask[values > 5.8].mean() > 0.97
        assert mask[values < 0.0125].mean() > 0.97

    def test_few_samples_per_tree_cut_at_a_bound(self, values):
        mask = metrics.outlier_mask(values, max_samples=256)
        bound = values[~mask].max()
        assert 1.6 < bound < 1.8
        assert mask[values > bound].all()
        assert mask[values < 1.6].mean() < 0.005
