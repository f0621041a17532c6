"""Latent states: iterations against a loop over records, recovery, monotony, the printed rate."""

from dataclasses import astuple
from math import exp, lgamma, log

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import adjusted_rand_score

from skqos.datasets import load_wsdream
from skqos.r2sl import latent_states
from skqos.r2sl.latent_states import Parameters, Records, RegionalLatentStates, iterate
from tests.common import Cost


def draw_regions(seed, m, n_users=20, n_services=25, n_per_region=200, purity=0.95, w=10.0):
    """Draw records of regions that each have one state with at least the given probability."""
    rng = np.random.default_rng(seed)
    states = [rng.permutation(np.arange(n) % m) for n in (n_users, n_services)]
    n = n_per_region * max(n_users, n_services)
    regions = [rng.permutation(np.arange(n) % size) for size in (n_users, n_services)]
    drawn = [
        np.where(rng.random(n) < purity, state[region], rng.integers(m, size=n))
        for state, region in zip(states, regions, strict=True)
    ]
    levels = [
        np.exp(0.5 * rng.normal(size=size))[region]
        for size, region in zip((n_users, n_services), regions, strict=True)
    ]
    mean = levels[0] * levels[1] * np.where(drawn[0] != drawn[1], w, 1.0)
    return *regions, rng.exponential(mean), *states


def random_problem(seed):
    """Return any regions and any positive values: nothing of the model is in them."""
    rng = np.random.default_rng(seed)
    n, n_users, n_services = rng.integers(5, 400), rng.integers(1, 12), rng.integers(1, 12)
    qos = np.exp(rng.normal(scale=rng.uniform(0.1, 3), size=n)) * 10.0 ** rng.integers(-6, 7)
    return rng.integers(n_users, size=n), rng.integers(n_services, size=n), qos


def some_parameters(records, m, seed, w=3.0):
    rng = np.random.default_rng(seed)
    joints = [
        rng.dirichlet(np.ones(n * m)).reshape(n, m)
        for n in (records.n_user_regions, records.n_service_regions)
    ]
    levels = [
        np.exp(rng.normal(size=n)) for n in (records.n_user_regions, records.n_service_regions)
    ]
    return Parameters(*joints, *(joint.sum(0) for joint in joints), *levels, w)


def slow_iteration(parameters, users, services, qos, alpha, slow=None):
    """Iterate once, record by record and state by state, as the equations are written."""
    a, b, theta_u, theta_s, level_u, level_s, w = astuple(parameters)
    m = len(theta_u)
    a, b, level_u, level_s = a.tolist(), b.tolist(), level_u.tolist(), level_s.tolist()
    users, services, qos = users.tolist(), services.tolist(), qos.tolist()
    count_u = [[0.0] * m for _ in a]
    count_s = [[0.0] * m for _ in b]
    differing, log_posterior = [], 0.0
    for i in range(len(qos)):
        c, d, y = users[i], services[i], qos[i]
        mean = level_u[c] * level_s[d]
        total, joint = 0.0, []
        for j in range(m):
            for k in range(m):
                is_slow = j != k if slow is None else slow[i]
                rate = 1 / (mean * w) if is_slow else 1 / mean
                joint.append(a[c][j] * b[d][k] * rate * exp(-rate * y))
                total += joint[-1]
        log_posterior += log(total)
        share_differing = 0.0
        for j in range(m):
            for k in range(m):
                share = joint[j * m + k] / total
                count_u[c][j] += share
                count_s[d][k] += share
                if j != k:
                    share_differing += share
        differing.append(share_differing if slow is None else float(slow[i]))
    for theta in (theta_u, theta_s):
        log_posterior += lgamma(m * alpha) - m * lgamma(alpha)
        log_posterior += sum((alpha - 1) * log(share) for share in theta)
    joints, frequencies = [], []
    for counts in (np.array(count_u), np.array(count_s)):
        theta = counts.sum(0) + alpha - 1
        frequencies.append(theta / theta.sum())
        joints.append(frequencies[-1] * counts / counts.sum(0))
    sums, sizes = [0.0] * len(level_u), [0] * len(level_u)
    for c, d, y, r in zip(users, services, qos, differing, strict=True):
        sums[c] += y * (1 - r + r / w) / level_s[d]
        sizes[c] += 1
    level_u = [total / size for total, size in zip(sums, sizes, strict=True)]
    sums, sizes = [0.0] * len(level_s), [0] * len(level_s)
    for c, d, y, r in zip(users, services, qos, differing, strict=True):
        sums[d] += y * (1 - r + r / w) / level_u[c]
        sizes[d] += 1
    level_s = [total / size for total, size in zip(sums, sizes, strict=True)]
    ratio = sum(
        r * y / (level_u[c] * level_s[d])
        for c, d, y, r in zip(users, services, qos, differing, strict=True)
    )
    unit = exp(sum(log(level) for level in level_u) / len(level_u))
    levels = np.array(level_u) / unit, np.array(level_s) * unit
    return Parameters(
        *joints, *frequencies, *levels, max(1.0, ratio / sum(differing))
    ), log_posterior


def assert_same(fast, slow, rtol):
    for fast_part, slow_part in zip(astuple(fast), astuple(slow), strict=True):
        assert_allclose(fast_part, slow_part, rtol=rtol)


@pytest.mark.parametrize("m", [2, 3, 5])
@pytest.mark.parametrize("alpha", [1.0, 5.0])
@pytest.mark.parametrize("printed", [False, True])
def test_an_iteration_is_the_loop_over_records(m, alpha, printed):
    users, services, qos, *_ = draw_regions(m, 2, 4, 5, n_per_region=30)
    records = Records.arrange(users, services, qos, np.ones(len(qos)))
    parameters = some_parameters(records, m, seed=m)
    slow, slow_records = (
        values > np.quantile(qos, 0.9) if printed else None for values in (qos, records.qos)
    )
    fast, log_posterior = iterate(parameters, records, alpha, slow_records)
    expected, expected_posterior = slow_iteration(parameters, users, services, qos, alpha, slow)
    assert_same(fast, expected, rtol=1e-10)
    assert log_posterior == pytest.approx(expected_posterior, rel=1e-12)


@pytest.fixture(scope="module")
def real_records(wsdream1_path):
    rows = np.loadtxt(wsdream1_path / "splits" / "rt_train_0.025.txt")
    data = load_wsdream(wsdream1_path, qos="rt")
    users, services = (
        table["as"].astype(str).to_numpy()[ids.astype(int)]
        for table, ids in ((data.users, rows[:, 0]), (data.services, rows[:, 1]))
    )
    return users, services, rows[:, 2]


def test_an_iteration_on_real_records_is_the_loop_without_its_calls(real_records):
    users, services = (
        pd.factorize(regions, use_na_sentinel=False)[0] for regions in real_records[:2]
    )
    qos = real_records[2]
    records = Records.arrange(users, services, qos, np.ones(len(qos)))
    parameters = some_parameters(records, 5, seed=0)
    expected, expected_posterior = slow_iteration(parameters, users, services, qos, 1.0)
    with Cost() as cost:
        fast, log_posterior = iterate(parameters, records, 1.0)
    assert_same(fast, expected, rtol=1e-8)
    assert log_posterior == pytest.approx(expected_posterior, rel=1e-8)

    few = Records.arrange(*(column[:100] for column in (users, services, qos, np.ones(100))))
    with Cost() as cost_of_few:
        iterate(some_parameters(few, 5, seed=0), few, 1.0)
    assert cost.calls < 1.2 * cost_of_few.calls, "no call per record or region"


def assert_never_decreases(log_posterior):
    assert len(log_posterior) > 1
    assert (np.diff(log_posterior) >= -1e-9 * np.abs(log_posterior[1:])).all()


@pytest.mark.parametrize("rate", ["matched", "printed"])
def test_the_log_posterior_never_decreases_on_real_records(real_records, rate):
    states = RegionalLatentStates(3, rate=rate, random_state=0).fit(*real_records)
    assert_never_decreases(states.log_posterior_)
    assert states.mismatch_ > 1.5


@pytest.mark.parametrize("seed", range(20))
def test_the_log_posterior_never_decreases_and_grows_with_states(seed):
    problem = random_problem(seed)
    settings = {"random_state": seed, "max_iter": 40, "n_restarts": 1}
    last = []
    for m in (1, 2, 3):
        states = RegionalLatentStates(m, **settings).fit(*problem)
        assert_never_decreases(states.log_posterior_)
        last.append(states.log_posterior_[-1])
    prior = RegionalLatentStates(3, **settings, concentration=5.0).fit(*problem)
    assert_never_decreases(prior.log_posterior_)
    assert (np.diff(last) >= -1e-9 * np.abs(last[1:])).all()


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_states_and_mismatch_are_recovered(m, seed):
    users, services, qos, user_truth, service_truth = draw_regions(seed, m)
    states = RegionalLatentStates(m, random_state=seed).fit(users, services, qos)
    user_states, service_states = states.transform(
        np.arange(len(user_truth)), np.arange(len(service_truth))
    )
    assert adjusted_rand_score(user_truth, user_states.argmax(1)) >= 0.8
    assert adjusted_rand_score(service_truth, service_states.argmax(1)) >= 0.8
    assert states.mismatch_ == pytest.approx(10.0, rel=0.1)
    assert_never_decreases(states.log_posterior_)
    more = RegionalLatentStates(m + 1, random_state=seed).fit(users, services, qos)
    assert more.log_posterior_[-1] >= states.log_posterior_[-1]


def test_printed_states_ignore_qos():
    users, services, qos, *_ = draw_regions(0, 2)
    for rate, same in (("printed", True), ("matched", False)):
        states = RegionalLatentStates(2, rate=rate, random_state=0)
        first = states.fit(users, services, qos).user_states_
        second = states.fit(users, services, qos[::-1].copy()).user_states_
        assert np.allclose(first, second) == same


def test_the_reported_log_posterior_is_that_of_the_fitted_parameters():
    users, services, qos, *_ = draw_regions(1, 2, 6, 7)
    states = RegionalLatentStates(2, random_state=0).fit(users * 10, services * 10, qos)
    order = [
        names.get_indexer(regions * 10)
        for names, regions in ((states.user_regions_, users), (states.service_regions_, services))
    ]
    region_shares = [np.bincount(codes) / len(qos) for codes in order]
    parameters = Parameters(
        states.user_states_ * region_shares[0][:, None],
        states.service_states_ * region_shares[1][:, None],
        states.user_frequencies_,
        states.service_frequencies_,
        states.user_level_,
        states.service_level_,
        states.mismatch_,
    )
    _, log_posterior = slow_iteration(parameters, *order, qos, 1.0)
    assert states.log_posterior_[-1] == pytest.approx(log_posterior, rel=1e-9)
    assert len(states.log_posterior_) == states.n_iter_ + 1
    assert np.log(states.user_level_).mean() == pytest.approx(0, abs=1e-12)


def test_the_unit_of_qos_does_not_matter():
    users, services, qos, *_ = draw_regions(0, 2)
    first = RegionalLatentStates(2, random_state=0).fit(users, services, qos)
    second = RegionalLatentStates(2, random_state=0).fit(users, services, qos * 1e250)
    assert_allclose(first.user_states_, second.user_states_, rtol=1e-6)
    assert_allclose(first.service_level_, second.service_level_ / 1e250, rtol=1e-6)
    assert first.mismatch_ == pytest.approx(second.mismatch_)
    assert second.slow_threshold_ == pytest.approx(first.slow_threshold_ * 1e250)
    assert first.slow_threshold_ == pytest.approx(np.quantile(qos, 0.9))


def test_unknown_regions_get_the_frequencies():
    users = ["a", "a", "b", None] * 30
    services = np.tile([1.5, 2.5, np.nan], 40)
    qos = np.random.default_rng(0).exponential(size=120)
    states = RegionalLatentStates(3, random_state=0).fit(users, services, qos)
    assert len(states.user_regions_) == len(states.service_regions_) == 3
    user_states, service_states = states.transform(["z", "a", None], [9.5, np.nan])
    assert_array_equal(user_states[0], states.user_frequencies_)
    assert_array_equal(user_states[1], states.user_states_[0])
    assert_array_equal(user_states[2], states.user_states_[states.user_regions_.isna()][0])
    assert_array_equal(service_states[0], states.service_frequencies_)
    assert_array_equal(service_states[1], states.service_states_[2])
    assert_allclose(np.vstack([user_states, service_states]).sum(1), 1.0)


def test_an_interrupted_fit_leaves_the_earlier_states(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    model = RegionalLatentStates(n_states=2, random_state=0).fit(*random_problem(0))
    before = model.states_by_side("city")
    assert before.index.names == ["side", "city"]
    monkeypatch.setattr(latent_states, "iterate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(["north"], ["south"], [1.0])
    pd.testing.assert_frame_equal(model.states_by_side("city"), before)


def test_same_seed_same_states():
    problem = random_problem(3)
    first, second, other = (
        RegionalLatentStates(3, random_state=seed).fit(*problem).user_states_ for seed in (0, 0, 1)
    )
    assert_array_equal(first, second)
    assert (first != other).any()


@pytest.mark.parametrize("qos", [[3.0] * 8, [1e-300] * 4 + [1.0] * 4, [1.0] + [1e9] * 7])
@pytest.mark.parametrize("rate", ["matched", "printed"])
def test_odd_values(qos, rate):
    states = RegionalLatentStates(3, rate=rate, random_state=0)
    states.fit(np.arange(8) % 2, np.arange(8) % 3, qos)
    assert np.isfinite(states.user_states_).all()
    assert np.isfinite(states.service_states_).all()
    assert states.mismatch_ >= 1


def test_an_empty_state_stays_when_nothing_is_gained(monkeypatch):
    """Where no start gets as far as the smaller solution, that with an empty state is taken."""
    problem = random_problem(0)
    smaller = RegionalLatentStates(2, random_state=0).fit(*problem)
    monkeypatch.setattr(latent_states, "TRIAL_ITERATIONS", 0)
    original = RegionalLatentStates._climb_best
    calls = []

    def spoilt(self, starts, records, eta):
        calls.append(starts)
        best, trace = original(self, starts, records, eta)
        return (best, trace) if len(calls) < 3 else (best, [value - 1e6 for value in trace])

    monkeypatch.setattr(RegionalLatentStates, "_climb_best", spoilt)
    larger = RegionalLatentStates(3, random_state=0).fit(*problem)
    assert larger.user_frequencies_[-1] == 0
    assert_allclose(larger.user_states_.sum(1), 1)
    assert larger.log_posterior_[-1] >= smaller.log_posterior_[-1]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_states": 0}, "n_states"),
        ({"concentration": 0.5}, "concentration"),
        ({"rate": "other"}, "rate"),
        ({"slow_quantile": 1.0}, "slow_quantile"),
        ({"n_restarts": 0}, "n_restarts"),
        ({"max_iter": 0}, "max_iter"),
    ],
)
def test_bad_parameters_raise(params, message):
    with pytest.raises(ValueError, match=f"'{message}' parameter of RegionalLatentStates"):
        RegionalLatentStates(**params).fit([0, 1], [0, 1], [1.0, 2.0])


def test_bad_records_raise():
    states = RegionalLatentStates(2)
    with pytest.raises(ValueError, match=r"qos must be positive.*found 0\.0\. Add an offset"):
        states.fit([0, 1], [0, 1], [1.0, 0.0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        states.fit([0, 1], [0], [1.0, 2.0])
    with pytest.raises(ValueError, match="NaN"):
        states.fit([0, 1], [0, 1], [1.0, np.nan])


# --- Weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["matched", "printed"])
@pytest.mark.parametrize("concentration", [1.0, 5.0])
def test_whole_weights_are_repeated_records(rate, concentration):
    users, services, qos, *_ = draw_regions(0, 2, 6, 8, n_per_region=30)
    weights = np.random.default_rng(0).integers(0, 4, len(qos))
    weights[users == 5] = 0
    params = {"rate": rate, "concentration": concentration, "random_state": 0}
    weighted = RegionalLatentStates(2, **params).fit(users, services, qos, weights)
    repeated = (np.repeat(part, weights) for part in (users, services, qos))
    repeated = RegionalLatentStates(2, **params).fit(*repeated)
    ignorant = RegionalLatentStates(2, **params).fit(
        *(p[weights > 0] for p in (users, services, qos))
    )
    assert list(weighted.user_regions_) == list(repeated.user_regions_)
    assert 5 not in weighted.user_regions_
    assert weighted.n_iter_ == repeated.n_iter_
    for name in (
        "user_states_",
        "service_level_",
        "mismatch_",
        "slow_threshold_",
        "log_posterior_",
    ):
        assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-6)
    assert np.abs(weighted.user_level_ / ignorant.user_level_ - 1).max() > 0.01


def test_bad_weights_of_records_raise():
    with pytest.raises(ValueError, match="sample_weight must be 0 or from"):
        RegionalLatentStates(2).fit([0, 1], [0, 1], [1.0, 2.0], [1, -1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        RegionalLatentStates(2).fit([0, 1], [0, 1], [1.0, 2.0], [1])


def test_small_regions_are_shrunk_to_the_average():
    rng = np.random.default_rng(0)
    users = np.repeat([0, 1, 2], [90, 9, 1])
    services, qos = rng.integers(3, size=100), rng.exponential(size=100) + 0.1
    plain = RegionalLatentStates(2, random_state=0).fit(users, services, qos)
    shrunk = RegionalLatentStates(2, shrinkage=9.0, random_state=0).fit(users, services, qos)
    share = np.array([90 / 99, 9 / 18, 1 / 10])
    expected = share[:, None] * plain.user_states_
    expected += (1 - share)[:, None] * plain.user_frequencies_
    assert_allclose(shrunk.user_states_, expected)
    assert_allclose(shrunk.user_states_.sum(1), 1)
    logs = np.log(plain.user_level_)
    average = np.average(logs, weights=[90, 9, 1])
    levels, _ = shrunk.log_levels([0, 1, 2, "nowhere"], [0])
    assert_allclose(levels, [*(share * logs + (1 - share) * average), average])
    assert_allclose(plain.log_levels([2], [1])[0], logs[2])


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_a_missing_region_is_one_region_in_any_array(missing):
    rng = np.random.default_rng(0)
    users = np.array(["a", "b", missing], dtype=object)[rng.integers(3, size=200)]
    states = RegionalLatentStates(2, random_state=0).fit(
        users, rng.choice(["x", "y"], size=200), rng.exponential(size=200)
    )
    expected = states.transform(["a", np.nan], ["x"])[0][1]
    assert not np.allclose(expected, states.user_frequencies_)
    for regions in ([missing], ["a", missing], pd.Series([missing], dtype="string")):
        np.testing.assert_array_equal(states.transform(regions, ["x"])[0][-1], expected)
    levels = states.log_levels([missing], ["x"])[0], states.log_levels([np.nan], ["x"])[0]
    np.testing.assert_array_equal(*levels)
