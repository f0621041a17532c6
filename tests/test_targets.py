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
        ([-0.1, 0.2, 0.3, 9.0], "standard"),
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


@every_kind
@pytest.mark.parametrize("y", [SKEWED, 1e200 * SKEWED, np.zeros(3)])
def test_the_inverse_is_finite_for_any_finite_prediction(kind, y):
    # Squares of 1e200 overflow in a standard deviation: not what is tested here.
    if kind == "standard" and y.max() > 1e150:
        return
    transform = TargetTransform(kind).fit(y)
    z = np.array([-1e308, -1e4, 0.0, 700.0, 710.0, 1e4, 1e308])
    result = transform.inverse_transform(z)
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
    with pytest.raises(ValueError, match=r"y holds -1.0 \(row 1, target 0\).*'log', that fit took"):
        transform.check(np.array([0.0, -1.0]))
    TargetTransform("sqrt").fit(SKEWED).check(np.array([0.0, -1.0]))
