"""Features of users and services at every step, against loops over a dense array of the cells."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skqos.tpmcf.features import (
    KnownSteps,
    MatrixFactors,
    NodeFeatures,
    SimilarityFactors,
    Statistics,
    StepCells,
    draw_folds,
    fill_unknown,
    group_statistics,
    normalised_rows,
    without_folds,
)

N_STEPS, N_USERS, N_SERVICES = 3, 6, 5
NAN = np.nan


def some_values(seed=0, shape=(N_STEPS, N_USERS, N_SERVICES), share=0.6):
    """Draw a dense array with NaN where nothing was measured.

    The last user was never measured, the first not in step 0, the last service not in step 1.
    """
    rng = np.random.default_rng(seed)
    values = rng.normal(1.0, 1.0, size=shape)
    values[rng.random(shape) > share] = NAN
    values[:, -1] = NAN
    values[0, 0] = NAN
    values[1, :, -1] = NAN
    return values


def cells_of(values):
    steps, users, services = np.nonzero(np.isfinite(values))
    rows = steps, users, services, values[steps, users, services], np.ones(len(steps))
    return StepCells.from_rows(*rows, values.shape)[0]


def sides_of(values):
    """Return the array by step and user, and by step and service."""
    return values, values.swapaxes(1, 2)


def without_nan(profile):
    return [value for value in profile if not np.isnan(value)]


def match_signs(found, expected):
    """Flip whole columns: those of singular vectors have no sign."""
    return found * np.sign((found * expected).reshape(-1, found.shape[-1]).sum(0))


# --- Cells --------------------------------------------------------------------------------------


def test_repeated_rows_are_averaged_and_know_their_cell():
    rows = [
        (1, 2, 0, 4.0, 1.0),
        (0, 1, 1, 5.0, 0.3),
        (1, 2, 0, 8.0, 2.0),
        (0, 0, 2, 1.0, 1.0),
        (1, 2, 0, 3.0, 5.0),
    ]
    columns = (np.array(column) for column in zip(*rows, strict=True))
    cells, cell_of_row, weights = StepCells.from_rows(*columns, (2, 3, 3))
    found = list(zip(cells.steps, cells.users, cells.services, cells.values, strict=True))
    assert found == [(0, 0, 2, 1.0), (0, 1, 1, 5.0), (1, 2, 0, 4.375)]
    assert cell_of_row.tolist() == [2, 1, 2, 0, 2]
    assert weights.tolist() == [1.0, 0.3, 8.0]
    assert len(cells) == 3
    assert cells.shape == (2, 3, 3)


def test_the_steps_stand_on_the_diagonal_of_one_matrix():
    values = some_values()
    expected = np.zeros((N_STEPS * N_USERS, N_STEPS * N_SERVICES))
    for step, matrix in enumerate(values):
        of_users = slice(step * N_USERS, (step + 1) * N_USERS)
        of_services = slice(step * N_SERVICES, (step + 1) * N_SERVICES)
        expected[of_users, of_services] = np.nan_to_num(matrix)
    cells = cells_of(values)
    assert_array_equal(cells.blocks.toarray(), expected)
    assert_array_equal(expected[cells.step_users, cells.step_services], cells.values)


def test_taken_cells_are_of_the_same_steps_and_entities():
    values = some_values()
    cells = cells_of(values)
    kept = np.arange(0, len(cells), 3)
    taken = cells.take(kept)
    assert taken.shape == cells.shape
    entries = np.zeros_like(cells.blocks.toarray())
    entries[cells.step_users[kept], cells.step_services[kept]] = cells.values[kept]
    assert_array_equal(taken.blocks.toarray(), entries)


def test_rows_are_normalised_within_their_step():
    values = some_values()
    cells = cells_of(values)
    for found, by_entity in zip(normalised_rows(cells), sides_of(values), strict=True):
        rows = np.nan_to_num(by_entity)
        lengths = np.sqrt((rows**2).sum(axis=2, keepdims=True))
        expected = rows / np.where(lengths > 0, lengths, 1)
        n = rows.shape[1]
        for step in range(N_STEPS):
            block = found.toarray()[step * n : (step + 1) * n]
            width = rows.shape[2]
            assert_allclose(block[:, step * width : (step + 1) * width], expected[step])


# --- Statistics ---------------------------------------------------------------------------------


def slow_statistics(profile):
    ordered = sorted(profile)
    n = len(ordered)
    half = n // 2
    median = ordered[half] if n % 2 else (ordered[half - 1] + ordered[half]) / 2
    mean = sum(ordered) / n
    deviation = (sum((value - mean) ** 2 for value in ordered) / n) ** 0.5
    return [ordered[0], ordered[-1], median, mean, deviation]


def test_statistics_of_groups():
    rng = np.random.default_rng(0)
    sizes = [4, 0, 1, 5, 2, 0]
    groups = rng.permutation(np.repeat(np.arange(6), sizes))
    values = rng.normal(size=len(groups))
    expected = [
        slow_statistics(values[groups == group]) if size else [NAN] * 5
        for group, size in enumerate(sizes)
    ]
    assert_allclose(group_statistics(groups, values, 6), expected, rtol=1e-12, atol=1e-15)


def test_large_numbers_leave_the_deviation_exact():
    values = 1e8 + np.array([1.0, 2.0, 3.0])
    found = group_statistics(np.zeros(3, dtype=int), values, 1)
    assert_allclose(found[0, 4], (2 / 3) ** 0.5, rtol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 7, 57])
@pytest.mark.parametrize("value", [0.1, 0.3, -9.7, 1e-9, 3e7])
def test_equal_values_have_no_deviation(value, n):
    """The mean of equal numbers is another number, by rounding."""
    assert group_statistics(np.zeros(n, dtype=int), np.full(n, value), 1)[0, 4] == 0


def test_what_an_entity_lacks_is_the_average_of_its_other_steps():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3, 2))
    # The first lacks two steps, the second was never measured, the third always.
    observed = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]], dtype=bool)
    found = fill_unknown(np.where(observed[:, :, None], values, NAN))
    of_first = (values[0, 0] + values[2, 0]) / 2
    of_third = values[:, 2].mean(0)
    assert_array_equal(found[observed], values[observed])
    assert_allclose(found[[1, 3], 0], [of_first] * 2)
    assert_allclose(found[:, 1], [(of_first + of_third) / 2] * 4)


def test_statistics_are_those_of_the_profile_in_the_step():
    values = some_values()
    found = Statistics().fit(cells_of(values)).transform(cells_of(values))
    for side, by_entity in zip(found, sides_of(values), strict=True):
        n = by_entity.shape[1]
        expected = np.full((N_STEPS, n, 5), NAN)
        for step, entity in np.ndindex(N_STEPS, n):
            profile = without_nan(by_entity[step, entity])
            if profile:
                expected[step, entity] = slow_statistics(profile)
        assert np.isnan(expected).any()
        assert_allclose(side, expected, rtol=1e-12, atol=1e-12)


def test_what_is_known_elsewhere_counts_for_what_a_step_lacks():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 3, 2))
    values[0, 0], values[1:, 1], values[:, 2] = NAN, NAN, NAN
    whole = fill_unknown(values)
    part = fill_unknown(values[:2], KnownSteps.of(values[2:]))
    assert_allclose(part, whole[:2])
    assert_allclose(
        (KnownSteps.of(values) - KnownSteps.of(values[:2])).averages()[0], values[2:, 0].mean(0)
    )
    grown = KnownSteps.of(values).grown(4)
    assert_array_equal(grown.averages()[3], grown.averages()[2])


def test_nothing_measured_at_all_is_described_by_finite_numbers():
    """The only cell of a data set is of one fold: the table without it is empty."""
    nothing = cells_of(np.full((2, 3, 4), NAN))
    features = NodeFeatures([Statistics()]).fit(nothing)
    for side in features.transform(nothing):
        assert_array_equal(side, 0)


# --- Factors of the matrix ----------------------------------------------------------------------


def svd_of_means(values, rank):
    """U, S, V of the means over steps; 0 stands for what was never measured."""
    means = np.zeros(values.shape[1:])
    for user, service in np.ndindex(means.shape):
        measured = without_nan(values[:, user, service])
        means[user, service] = np.mean(measured) if measured else 0
    u, s, vt = np.linalg.svd(means)
    return u[:, :rank], s[:rank], vt[:rank].T


def test_factors_of_complete_and_constant_data_are_u_and_v_times_the_root_of_s():
    matrix = np.random.default_rng(0).normal(size=(N_USERS, N_SERVICES))
    values = np.stack([matrix] * N_STEPS)
    cells = cells_of(values)
    users, services = MatrixFactors(3, 0).fit(cells).transform(cells)
    u, s, v = svd_of_means(values, 3)
    for side, expected in ((users, u), (services, v)):
        expected = np.stack([expected * np.sqrt(s)] * N_STEPS)
        assert_allclose(match_signs(side, expected), expected, rtol=1e-8, atol=1e-10)
    assert_allclose(users[1] @ services[1].T, (u * s) @ v.T, rtol=1e-8, atol=1e-10)


def test_factors_of_a_step_are_its_matrix_in_the_basis_of_the_means():
    values = some_values()
    cells = cells_of(values)
    found = MatrixFactors(3, 0).fit(cells).transform(cells)
    u, s, v = svd_of_means(values, 3)
    for side, by_entity, basis in zip(found, sides_of(values), (v, u), strict=True):
        expected = np.nan_to_num(by_entity) @ (basis / np.sqrt(s))
        assert_allclose(match_signs(side, expected), expected, rtol=1e-8, atol=1e-10)


def test_all_steps_and_all_folds_share_one_basis():
    """Equal matrices have equal factors, and factors of parts add up to those of the whole."""
    values = some_values()
    values[2] = values[1]
    cells = cells_of(values)
    family = MatrixFactors(3, 0).fit(cells)
    whole = family.transform(cells)
    folds = draw_folds(len(cells), 2, np.random.RandomState(0))
    halves = [family.transform(cells.take(folds == fold)) for fold in range(2)]
    for k, side in enumerate(whole):
        assert_allclose(side[1], side[2], rtol=1e-12)
        assert np.abs(side[0] - side[1]).max() > 0.1
        assert_allclose(halves[0][k] + halves[1][k], side, rtol=1e-10, atol=1e-12)


def test_directions_without_a_singular_value_are_not_blown_up():
    """The means have rank 1; without a fold's cells, other directions hold noise."""
    rng = np.random.default_rng(0)
    cells = cells_of(np.outer(rng.uniform(1, 2, 8), rng.uniform(1, 2, 9))[None])
    factors = NodeFeatures([MatrixFactors(4, 0)]).fit(cells)
    folds = draw_folds(len(cells), 4, rng)
    for side in without_folds(factors.transform, cells, folds, 4):
        assert side.shape[-1] == 4
        assert np.abs(side[..., 0]).max() > 0.5
        assert_array_equal(side[..., 1:], 0)


def test_a_matrix_of_zeros_has_factors_of_zero():
    cells = cells_of(np.zeros((2, 3, 4)))
    for side in MatrixFactors(2, 0).fit(cells).transform(cells):
        assert_array_equal(side, 0)


# --- Similarities -------------------------------------------------------------------------------


def slow_similarities(by_entity):
    """Cosines of the zero-filled rows of each step; 0 for an entity that was not measured."""
    rows = np.nan_to_num(by_entity)
    n_steps, n, _ = rows.shape
    cosines = np.zeros((n_steps, n, n))
    for step, one, other in np.ndindex(cosines.shape):
        lengths = [np.sqrt((rows[step, k] ** 2).sum()) for k in (one, other)]
        if min(lengths) > 0:
            cosines[step, one, other] = rows[step, one] @ rows[step, other] / np.prod(lengths)
    return cosines


def test_similarities_are_rows_of_cosines_times_the_projection():
    values = some_values()
    cells = cells_of(values)
    family = SimilarityFactors(3, 0).fit(cells)
    found = family.transform(cells)
    for side, by_entity, projection in zip(
        found, sides_of(values), family.projections_, strict=True
    ):
        assert projection.shape == (by_entity.shape[1], 3)
        cosines = slow_similarities(by_entity)
        assert np.abs(cosines).max() > 0.99
        assert_allclose(side, cosines @ projection, rtol=1e-10, atol=1e-12)


def test_the_projection_holds_the_leading_left_singular_vectors_of_all_steps():
    values = some_values()
    family = SimilarityFactors(3, 0).fit(cells_of(values))
    for projection, by_entity in zip(family.projections_, sides_of(values), strict=True):
        rows = np.nan_to_num(by_entity)
        lengths = np.sqrt((rows**2).sum(axis=2, keepdims=True))
        wide = np.concatenate(list(rows / np.where(lengths > 0, lengths, 1)), axis=1)
        expected = np.linalg.svd(wide)[0][:, :3]
        assert_allclose(match_signs(projection, expected), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(3, 2, 9), (3, 9, 2), (1, 9, 2)])
def test_both_sides_have_the_same_width_however_few_entities_one_has(shape):
    cells = cells_of(np.random.default_rng(0).normal(size=shape))
    for family in (Statistics(), MatrixFactors(5, 0), SimilarityFactors(5, 0)):
        users, services = family.fit(cells).transform(cells)
        assert users.shape[:2] == shape[:2]
        assert services.shape[:2] == (shape[0], shape[2])
        assert users.shape[2] == services.shape[2]


# --- Families together --------------------------------------------------------------------------


def all_families():
    return [Statistics(), MatrixFactors(3, 0), SimilarityFactors(2, 0)]


def test_features_are_standardised_on_each_side():
    cells = cells_of(some_values(share=0.8))
    for side in NodeFeatures(all_families()).fit(cells).transform(cells):
        assert side.dtype == np.float32
        assert side.shape[2] == 5 + 3 + 2
        assert_allclose(side.mean(axis=(0, 1)), 0, atol=1e-5)
        assert_allclose(side.std(axis=(0, 1)), 1, rtol=1e-4)


def test_families_stand_side_by_side_in_the_order_given():
    cells = cells_of(some_values())
    families = [MatrixFactors(3, 0), Statistics()]
    found = NodeFeatures(families).fit(cells).transform(cells)
    alone = [NodeFeatures([family]).fit(cells).transform(cells) for family in families]
    for k, side in enumerate(found):
        assert_array_equal(side, np.concatenate([parts[k] for parts in alone], axis=2))


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
def test_constant_features_stay_finite(value):
    """Rounding is no deviation: every feature of equal values is 0 after centring."""
    cells = cells_of(np.full((N_STEPS, N_USERS, N_SERVICES), value))
    for side in NodeFeatures([Statistics()]).fit(cells).transform(cells):
        assert_allclose(side, 0, atol=abs(value) * 1e-6)


@pytest.mark.parametrize("value", [0.1, 0.3, 2.0])
def test_further_values_after_equal_ones_are_not_blown_up(value):
    further = some_values(shape=(3, 9, 8))
    equal = np.where(np.isnan(further), NAN, value)
    features = NodeFeatures([Statistics()]).fit(cells_of(equal))
    for side in features.transform(cells_of(further)):
        assert np.abs(side).max() < 2 * (np.nanmax(np.abs(further)) + value)


# --- Folds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_cells", "n_folds"), [(20, 5), (23, 5), (3, 5)])
def test_folds_are_of_equal_size_and_drawn_at_random(n_cells, n_folds):
    folds = draw_folds(n_cells, n_folds, np.random.RandomState(0))
    sizes = np.bincount(folds, minlength=n_folds)
    assert len(folds) == n_cells
    assert len(sizes) == n_folds
    assert np.ptp(sizes) <= 1
    draws = [draw_folds(40, n_folds, np.random.RandomState(seed)) for seed in (0, 0, 1)]
    assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
    assert (draws[0] != np.arange(40) % n_folds).any()


def test_without_folds_all_cells_are_of_one():
    folds = draw_folds(7, None, np.random.RandomState(0))
    assert_array_equal(folds, 0)
    assert folds.dtype == np.int64


def test_a_table_is_that_of_the_cells_of_the_other_folds():
    values = some_values(share=0.9)
    cells = cells_of(values)
    features = NodeFeatures(all_families()).fit(cells)
    folds = draw_folds(len(cells), 3, np.random.RandomState(0))
    tables = without_folds(features.transform, cells, folds, 3)
    for fold in range(3):
        others = values.copy()
        for step, user, service in zip(
            *(codes[folds == fold] for codes in (cells.steps, cells.users, cells.services)),
            strict=True,
        ):
            others[step, user, service] = NAN
        for side, expected in zip(tables, features.transform(cells_of(others)), strict=True):
            assert_array_equal(side[fold], expected)


@pytest.mark.parametrize("families", [[Statistics()], all_families()], ids=["statistics", "all"])
def test_a_table_does_not_know_the_values_of_its_fold(families):
    """Bases and scales do; they are held fast here."""
    cells = cells_of(some_values(share=0.9))
    features = NodeFeatures(families).fit(cells)
    folds = draw_folds(len(cells), 3, np.random.RandomState(0))
    changed = StepCells(
        cells.steps,
        cells.users,
        cells.services,
        np.where(folds == 1, cells.values + 10, cells.values),
        cells.shape,
    )
    before = without_folds(features.transform, cells, folds, 3)
    after = without_folds(features.transform, changed, folds, 3)
    for old, new in zip(before, after, strict=True):
        assert_array_equal(old[1], new[1])
        assert np.abs(old[0] - new[0]).max() > 1
        assert np.abs(old[2] - new[2]).max() > 1


def test_without_folds_the_one_table_is_of_all_cells():
    cells = cells_of(some_values())
    features = NodeFeatures(all_families()).fit(cells)
    tables = without_folds(features.transform, cells, np.zeros(len(cells), dtype=int), None)
    for side, expected in zip(tables, features.transform(cells), strict=True):
        assert_array_equal(side, expected[None])


def test_with_more_folds_than_cells_every_table_is_finite():
    cells = cells_of(np.array([[[2.0]]]))
    features = NodeFeatures(all_families()).fit(cells)
    folds = draw_folds(1, 5, np.random.RandomState(0))
    for side in without_folds(features.transform, cells, folds, 5):
        assert np.isfinite(side).all()
