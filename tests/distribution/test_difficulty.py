"""What is known of entities, against a loop over them."""

import numpy as np

from skqos.distribution.difficulty import PRIOR_ROWS, EntityErrors, describe_pairs

N_ENTITIES = 6


def _rows(seed=0, n=40):
    rng = np.random.default_rng(seed)
    # The last entity has no row.
    codes = rng.integers(N_ENTITIES - 1, size=n)
    target = rng.gamma(1.0, size=n)
    return codes, target, target + rng.normal(scale=0.3, size=n)


def _slow_features(codes, target, prediction):
    error = target - prediction
    averages = [v.mean() for v in (target, target**2, error, np.abs(error), error**2)]
    rows = []
    for entity in range(N_ENTITIES + 1):
        mine = codes == entity
        means = [
            (v[mine].sum() + PRIOR_ROWS * average) / (mine.sum() + PRIOR_ROWS)
            for v, average in zip(
                (target, target**2, error, np.abs(error), error**2), averages, strict=True
            )
        ]
        mean, square, bias, absolute, error_square = means
        deviation = np.sqrt(max(square - mean**2, 0))
        count = np.log(1 + mine.sum())
        rows.append([mean, deviation, bias, absolute, np.sqrt(error_square), count])
    return np.array(rows)


def test_features_are_shrunk_statistics():
    codes, target, prediction = _rows()
    errors = EntityErrors.of_rows(codes, target, prediction, N_ENTITIES)
    slow = _slow_features(codes, target, prediction)
    np.testing.assert_allclose(errors.features(np.arange(N_ENTITIES + 1)), slow)
    few, many = np.array([4, N_ENTITIES + 3]), np.arange(20) % (N_ENTITIES + 1)
    np.testing.assert_allclose(errors.features(few), slow[[4, -1]])
    np.testing.assert_allclose(errors.features(many), slow[many])


def test_rows_of_later_entities_join():
    codes, target, prediction = _rows()
    first = codes < 3
    early = EntityErrors.of_rows(codes[first], target[first], prediction[first], 3)
    late = EntityErrors.of_rows(codes[~first], target[~first], prediction[~first], N_ENTITIES)
    whole = EntityErrors.of_rows(codes, target, prediction, N_ENTITIES)
    np.testing.assert_allclose((early + late).sums, whole.sums)


def test_entities_without_rows_are_unknown():
    errors = EntityErrors.of_rows(*_rows(), N_ENTITIES)
    codes = np.array([0, N_ENTITIES - 1, N_ENTITIES, N_ENTITIES + 3])
    assert errors.are_unknown(codes).tolist() == [False, True, True, True]


def test_pairs_are_described_by_both_sides():
    users = EntityErrors.of_rows(*_rows(0), N_ENTITIES)
    services = EntityErrors.of_rows(*_rows(1), N_ENTITIES)
    found = describe_pairs(
        users, services, np.array([0, 99]), np.array([2, 5]), np.array([0.5, 0.7])
    )
    of_users, of_services = (side.features(np.arange(N_ENTITIES + 1)) for side in (users, services))
    slow = [
        [0.5, *of_users[0], False, *of_services[2], False],
        [0.7, *of_users[-1], True, *of_services[5], True],
    ]
    np.testing.assert_allclose(found, slow, rtol=1e-6)
    assert found.dtype == np.float32
