"""Target transforms: there and back, and what "auto" takes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skqos.targets import TRANSFORMS, TargetTransform

KINDS = [*TRANSFORMS, None]
every_kind = pytest.mark.parametrize("kind", KINDS)

SKEWED = np.array([0.0, 0.1, 0.2, 0.3, 0.5, 8.0])
NAN = np.nan


@every_kind
@pytest.mark.parametrize(
    "y",
    [
        SKEWED,
        np.array([0.1, NAN, 3.0, 0.2]),
        np.column_stack([SKEWED, 1000 * SKEWED[::-1], 1 + SKEWED]),
        np.array([[0.1, NAN], [NAN, 5.0], [0.7, 50.0], [NAN, 5.5]]),
    ],
    ids=["1-D", "1-D with NaN", "2-D", "2-D with NaN"],
)
def test_inverse_undoes_transform_and_nan_stays(kind, y):
    transform = TargetTransform(kind).fit(y)
    z = transform.transform(y)
    assert z.shape == y.shape
    assert_array_equal(np.isnan(z), np.isnan(y))
    assert_allclose(transform.inverse_transform(z), y, rtol=1e-12, atol=1e-12)


@every_kind
def test_neither_direction_writes_into_its_argument(kind):
    y = SKEWED.copy()
    transform = TargetTransform(kind).fit(y)
    z = transform.transform(y)
    before = z.copy()
    transform.inverse_transform(z)
    assert_array_equal(y, SKEWED)
    assert_array_equal(z, before)


@every_kind
def test_transforms_are_increasing(kind):
    transform = TargetTransform(kind).fit(SKEWED)
    assert (np.diff(transform.transform(np.linspace(0, 20, 50))) > 0).all()
    assert (np.diff(transform.inverse_transform(np.linspace(-3, 3, 50))) > 0).all()


def test_formulas():
    y = np.array([1.0, 2.0, 9.0])
    expected = {
        "sqrt": np.sqrt(y / 4),
        "log": np.log(1 + y / 4),
        "max": y / 9,
        "standard": (y - 4) / np.std(y),
        None: y,
    }
    for kind, z in expected.items():
        assert_allclose(TargetTransform(kind).fit(y).transform(y), z, rtol=1e-14)


def test_max_is_the_largest_absolute_value():
    z = TargetTransform("max").fit(np.array([-8.0, 4.0])).transform(np.array([-8.0, 4.0]))
    assert z.tolist() == [-1.0, 0.5]


@pytest.mark.parametrize("kind", ["sqrt", "log", "max", "standard", "auto"])
@pytest.mark.parametrize("unit", [1000.0, 1e-9])
def test_transforms_do_not_depend_on_the_unit(kind, unit):
    first = TargetTransform(kind).fit(SKEWED).transform(SKEWED)
    second = TargetTransform(kind).fit(unit * SKEWED).transform(unit * SKEWED)
    assert_allclose(first, second, rtol=1e-12, atol=1e-14)


def test_each_target_has_its_own_map_learnt_from_its_observed_entries():
    y = np.array([[1.0, NAN, 5.0], [2.0, -3.0, 5.0], [9.0, 1.0, NAN]])
    together = TargetTransform("auto").fit(y)
    assert together.kinds_ == ["sqrt", "standard", "standard"]
    for column, z in zip(y.T, together.transform(y).T, strict=True):
        observed = column[~np.isnan(column)]
        alone = TargetTransform("auto").fit(observed)
        assert_allclose(z[~np.isnan(z)], alone.transform(observed))


@pytest.mark.parametrize(
    ("y", "chosen"),
    [
        ([0.1, 0.2, 0.3, 9.0], "sqrt"),
        ([0.0, 0.0, 0.0, 1.0], "sqrt"),
        ([NAN, 0.1, 0.2, 9.0], "sqrt"),
        ([-0.1, 0.2, 0.3, 9.0], "sqrt"),
        ([-0.1, -0.2, -0.3, -9.0], "standard"),
        ([-5.0, 0.1, 0.1, 0.2, 0.2, 0.3, 9.0], "standard"),
        ([1.0, 8.0, 9.0, 9.5], "standard"),
        ([1.0, 2.0, 3.0], "standard"),
        ([5.0, 5.0], "standard"),
        ([0.0, 0.0], "standard"),
    ],
)
def test_what_auto_chooses(y, chosen):
    assert TargetTransform("auto").fit(np.array(y)).kinds_ == [chosen]


def test_log_of_negative_targets_raises_and_says_what_to_use():
    y = np.array([[1.0, 1.0], [NAN, -0.5]])
    with pytest.raises(ValueError, match=r"needs y >= 0; found -0.5. Use 'auto' or 'standard'"):
        TargetTransform("log").fit(y)


@every_kind
@pytest.mark.parametrize("value", [0.0, 3.0, 0.1])
def test_constant_targets_come_back(kind, value):
    y = np.full(7, value)
    transform = TargetTransform(kind).fit(y)
    z = transform.transform(y)
    assert np.isfinite(z).all()
    assert_allclose(transform.inverse_transform(z), y, rtol=1e-12)


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize("y", [SKEWED, 1e200 * SKEWED, 1e-310 * SKEWED, np.zeros(3)])
def test_the_inverse_is_finite_for_any_finite_prediction(kind, y):
    transform = TargetTransform(kind).fit(y)
    z = np.array([-1e308, -1e4, 0.0, 700.0, 710.0, 1e4, 1e308])
    for dtype in (np.float64, np.float32):
        result = transform.inverse_transform(np.clip(z, -1e38, 1e38).astype(dtype))
        assert result.dtype == np.float64
        assert np.isfinite(result).all()
        assert (np.diff(result) >= 0).all()


@pytest.mark.parametrize("kind", ["auto", "sqrt", "log", "standard"])
def test_huge_targets(kind):
    y = np.array([1e300, 1e308, 1.5e308])
    transform = TargetTransform(kind).fit(y)
    assert_allclose(transform.inverse_transform(transform.transform(y)), y, rtol=1e-9)


def test_validation_targets_below_those_of_training_do_not_break_the_logarithm():
    transform = TargetTransform("log").fit(SKEWED)
    assert_array_equal(transform.transform(np.array([-100.0, 0.0])), [0.0, 0.0])


def test_predictions_below_zero_are_not_cut():
    """A prediction of a log target may be slightly negative; only the caller can say if it may."""
    transform = TargetTransform("log").fit(SKEWED)
    assert_allclose(transform.inverse_transform(np.array([-0.1])), SKEWED.mean() * np.expm1(-0.1))


def test_the_root_of_targets_of_any_sign_keeps_the_sign():
    z = TargetTransform("sqrt").fit(np.array([-4.0, 1.0, 1.0])).transform(np.array([-8.0, 0.5]))
    assert_allclose(z, [-2.0, 0.5])


def test_further_values_that_the_logarithm_cannot_take_raise():
    transform = TargetTransform("log").fit(SKEWED)
    transform.check(np.array([0.0, NAN]))
    with pytest.raises(
        ValueError, match=r"y holds -1.0 \(row 1, target 0\).*'log', which fit used"
    ):
        transform.check(np.array([0.0, -1.0]))
    for kind in ("auto", "sqrt"):
        TargetTransform(kind).fit(SKEWED).check(np.array([0.0, -1.0]))


# --- "auto" is blind to unit and offset ---------------------------------------------------------

RNG = np.random.default_rng(0)
DISTRIBUTIONS = {
    "skewed": SKEWED,
    "lognormal": np.exp(RNG.normal(size=300)),
    "exponential": RNG.exponential(size=300),
    "uniform": RNG.random(300),
    "normal": RNG.normal(size=300),
    "heavy tails": RNG.standard_t(2, size=300),
    "left tail": -np.exp(RNG.normal(size=300)),
    "two values": np.array([-1.0, 1.0, 1.0, -1.0]),
    "symmetric": np.arange(10.0),
}


@pytest.mark.parametrize("y", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@pytest.mark.parametrize("spreads", [0, 1, -1, 50, 1e6, -1e6])
@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9, 1e290, 1e-290])
def test_auto_sees_neither_unit_nor_offset(y, spreads, unit):
    moved = unit * (y + spreads * np.std(y))
    first, second = TargetTransform("auto").fit(y), TargetTransform("auto").fit(moved)
    assert first.kinds_ == second.kinds_
    z = first.transform(y)
    # Rounding of the moved values; the root enlarges what is near the minimum.
    assert_allclose(second.transform(moved), z, atol=3e-7 if spreads else 1e-12)
    assert 0.1 < z.std() < 2
    assert_allclose(second.inverse_transform(z) / unit - spreads * np.std(y), y, atol=1e-7)


def test_auto_of_positive_skewed_targets_is_nearly_the_plain_root():
    y = 0.001 + np.exp(1.3 * RNG.normal(size=5000))
    auto, root = (TargetTransform(kind).fit(y).transform(y) for kind in ("auto", "sqrt"))
    assert np.abs(auto - root).mean() < 0.01


@pytest.mark.parametrize("kind", [*TRANSFORMS])
@pytest.mark.parametrize(
    "y",
    [
        [-1e300, -1e300, 1e300],
        [-1e300, 1e300, 1e300],
        [0.0, 0.0, 1e300],
        [0.0, 5e-324, 5e-324],
        [0.0, 0.0, 1e-310],
    ],
)
def test_extremes_stay_finite_in_both_directions(kind, y):
    y = np.array(y)
    if kind == "log" and y.min() < 0:
        return
    transform = TargetTransform(kind).fit(y)
    z = transform.transform(y)
    assert np.isfinite(z).all()
    assert np.abs(z).max() < 10
    assert_allclose(transform.inverse_transform(z), y, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("value", [1e-9, 3.0, 1e9])
def test_a_constant_is_measured_in_itself_at_most_in_1(value):
    transform = TargetTransform("auto").fit(np.full(3, value))
    assert transform.scale_ == [min(value, 1.0)]


def test_values_that_stay_too_small_for_float32_raise():
    with pytest.raises(
        ValueError, match=r"y, target 1, .* at most 5e-30, .*=None leaves too small"
    ):
        TargetTransform(None).fit(np.column_stack([[0.0, 0.0], [5e-30, -1e-30]]))
    TargetTransform("auto").fit(np.array([5e-30, -1e-30]))


def test_values_that_stay_too_large_for_float32_raise():
    with pytest.raises(ValueError, match=r"y holds 1e\+30 \(row 1, target 0\).*=None leaves"):
        TargetTransform(None).fit(np.array([0.0, 1e30]))
    TargetTransform("auto").fit(np.array([0.0, 1e30]))
    transform = TargetTransform("auto").fit(np.column_stack([SKEWED, -SKEWED]))
    with pytest.raises(ValueError, match=r"y holds -1e\+300 \(row 0, target 1\).*'auto'"):
        transform.check(np.array([[NAN, -1e300]]))


@pytest.mark.parametrize("kind", [*TRANSFORMS, None])
@pytest.mark.parametrize("seed", range(5))
def test_whole_weights_are_repeated_rows(kind, seed):
    rng = np.random.default_rng(seed)
    y = np.column_stack([rng.exponential(size=80), rng.normal(5.0, 1.0, size=80)])
    y[rng.random(y.shape) < 0.3] = np.nan
    # Rows of large values, or of small ones, weigh more: the tail is heavy or is not.
    order = np.argsort(np.argsort(np.nan_to_num(y[:, 0])))
    for counts in (1 + order // 8, 10 - order // 8):
        weighted = TargetTransform(kind).fit(y, counts.astype(float))
        repeated = TargetTransform(kind).fit(np.repeat(y, counts, axis=0))
        assert weighted.kinds_ == repeated.kinds_
        assert_allclose(weighted.shift_, repeated.shift_, rtol=1e-12)
        assert_allclose(weighted.scale_, repeated.scale_, rtol=1e-12)


def test_weights_decide_whether_a_tail_is_heavy():
    y = np.r_[np.arange(20.0), 60.0, 80.0, 100.0]
    choices = [
        TargetTransform("auto").fit(y, np.where(y > 50, weight, 1.0)).kinds_ for weight in (1, 50)
    ]
    assert choices == [["sqrt"], ["standard"]]
