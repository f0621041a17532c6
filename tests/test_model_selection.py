"""DensitySplit: how many rows train, which ones test, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import GridSearchCV, cross_validate

from skqos.model_selection import DensitySplit


@pytest.fixture
def X():
    """80 % of the cells of a 20 x 50 matrix, every user and service among them, shuffled."""
    rng = np.random.default_rng(0)
    cells = rng.permutation(1000)[:800]
    return np.column_stack(np.divmod(cells, 50))


def split_once(X, **params):
    return next(DensitySplit(1, random_state=0, **params).split(X))


@pytest.mark.parametrize("density", [0.001, 0.025, 0.1, 0.799])
def test_training_rows_are_a_share_of_all_cells(X, density):
    train, test = split_once(X, density=density)
    assert len(train) == round(density * 1000)
    np.testing.assert_array_equal(np.sort(np.append(train, test)), np.arange(800))


def test_ids_are_labels_not_positions(X):
    assert len(split_once(X * [7, -3], density=0.1)[0]) == 100


def test_given_matrix_size_counts_absent_ids(X):
    train, _ = split_once(X, density=0.1, n_users=30, n_services=60)
    assert len(train) == 180


def test_time_steps_multiply_the_cells(X):
    X = np.column_stack([X, np.arange(800) % 2])
    assert len(split_once(X, density=0.1, n_time_steps=4)[0]) == 400
    assert len(split_once(X, density=0.1)[0]) == 100


def test_frames_with_string_ids_split_like_arrays(X):
    frame = pd.DataFrame(X, columns=["user", "service"], index=range(800, 0, -1))
    frame = frame.astype(str).assign(user_country="Peru")
    for from_frame, from_array in zip(split_once(frame), split_once(X), strict=True):
        np.testing.assert_array_equal(from_frame, from_array)
    np.testing.assert_array_equal(split_once(X.tolist())[0], split_once(X)[0])


@pytest.mark.parametrize(
    ("test_size", "n_test"), [(7, 7), (np.int64(700), 700), (0.1, 70), (1.0, 700), (1e-6, 1)]
)
def test_test_size_takes_some_of_the_rest(X, test_size, n_test):
    train, test = split_once(X, density=0.1, test_size=test_size)
    assert len(test) == n_test == len(np.unique(test))
    assert not np.intersect1d(train, test).size


def test_draws_are_independent_and_repeatable(X):
    splitter = DensitySplit(3, density=0.1, random_state=0)
    first, again = list(splitter.split(X)), list(splitter.split(X))
    assert len(first) == splitter.get_n_splits(X) == 3
    for (train, test), (train_again, test_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(train, train_again)
        np.testing.assert_array_equal(test, test_again)
    assert not np.array_equal(first[0][0], first[1][0])
    other = split_once(X, density=0.1)[0], next(splitter.split(X))[0]
    np.testing.assert_array_equal(*other)


def test_other_seed_other_rows(X):
    a, b = (next(DensitySplit(1, random_state=seed).split(X))[0] for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_every_row_is_drawn_equally_often(X):
    counts = np.zeros(800)
    for train, _ in DensitySplit(400, density=0.2, random_state=0).split(X):
        counts[train] += 1
    # Each count is binomial(400, 1/4): mean 100, standard deviation 8.66.
    assert counts.mean() == 100
    assert counts.std() == pytest.approx(8.66, rel=0.1)


def test_works_as_cv(X):
    y = X[:, 1] / 10.0
    cv = DensitySplit(2, density=0.1, test_size=50, random_state=0)
    results = cross_validate(DummyRegressor(), X, y, cv=cv, return_indices=True)
    assert [len(rows) for rows in results["indices"]["train"]] == [100, 100]
    assert [len(rows) for rows in results["indices"]["test"]] == [50, 50]
    grid = {"strategy": ["mean", "median"]}
    assert GridSearchCV(DummyRegressor(), grid, cv=cv).fit(X, y).n_splits_ == 2


def test_repr_in_the_way_of_scikit_learn():
    text = repr(DensitySplit(3, density=0.1, random_state=0))
    assert text.startswith("DensitySplit(density=0.1, n_services=None, n_splits=3")


def test_too_high_a_density_names_the_largest_that_works(X):
    with pytest.raises(ValueError, match=r"X has 800 rows .* largest possible density is 0\.799\."):
        split_once(X, density=0.8)
    train, test = split_once(X, density=0.799)
    assert (len(train), len(test)) == (799, 1)


def test_named_density_works_after_rounding():
    X = np.column_stack(np.divmod(np.arange(90_000), 300))
    with pytest.raises(ValueError, match="largest possible density") as error:
        split_once(X, density=0.9, n_services=700)
    density = float(str(error.value).rstrip(".").split()[-1])
    train, _ = split_once(X, density=density, n_services=700)
    assert 89_900 < len(train) < 90_000


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"density": 0.0}, r"density must be a float in \(0, 1\); got 0.0"),
        ({"density": 1}, "density must be"),
        ({"density": "2.5%"}, "density must be"),
        ({"density": 1e-4}, "less than one row .* at least 0.001"),
        ({"n_users": 19}, "n_users=19, but its column of X holds 20 distinct"),
        ({"n_services": 49}, "n_services=49, but its column of X holds 50 distinct"),
        ({"n_users": 20.0}, "n_users must be an int >= 1; got 20.0"),
        ({"n_services": 0}, "n_services must be an int >= 1; got 0"),
        ({"n_time_steps": 2}, "X must have at least 3 columns"),
        ({"test_size": 0}, "test_size must be"),
        ({"test_size": 1.5}, "test_size must be"),
        ({"test_size": "half"}, "test_size must be"),
        ({"density": 0.1, "test_size": 701}, "test_size=701 exceeds the 700 rows"),
    ],
)
def test_errors_name_the_parameter(X, params, match):
    with pytest.raises(ValueError, match=match):
        split_once(X, **params)


def test_n_splits_must_be_positive(X):
    with pytest.raises(ValueError, match="n_splits must be an int >= 1; got 0"):
        next(DensitySplit(0).split(X))


def test_ids_alone_are_needed():
    with pytest.raises(ValueError, match=r"X must have at least 2 columns.*\(5, 1\)"):
        split_once(np.zeros((5, 1)))


def test_y_of_another_length_raises(X):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(DensitySplit().split(X, np.zeros(3)))
