"""Ranking of services, beside slow versions that follow the definitions."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skqos import SharpQoSRegressor, TPMCFRegressor
from skqos.baselines import EmbeddingMLPRegressor, MedianRegressor, PMFRegressor
from skqos.datasets import make_qos
from skqos.distribution.network import QuantileNetwork
from skqos.entities import EntityEncoder
from skqos.exceptions import NoServiceWarning
from skqos.intervals import IntervalRegressor
from skqos.preprocessing import ContextJoiner
from skqos.selection import _candidates, rank_services
from skqos.selection._order import cheapest, cheapest_accepted, shared_ranks
from skqos.selection._pareto import is_on_front

TINY = {"max_epochs": 1, "n_members": 1, "embedding_dim": 4, "hidden_sizes": (8,)}
N_USERS, N_SERVICES = 6, 25


class NormalRegressor(RegressorMixin, BaseEstimator):
    """QoS that is normally distributed, with means and deviations drawn for each pair.

    Means are rounded, so that some are equal. It counts the rows that it is asked about.
    """

    def __init__(self, n_targets=1, digits=1, seed=0):
        self.n_targets = n_targets
        self.digits = digits
        self.seed = seed

    def fit(self, X, y=None):
        rng = np.random.default_rng(self.seed)
        self.services_ = EntityEncoder("service")
        self.services_.fit(np.unique(X[:, 1]), pd.DataFrame(index=range(len(np.unique(X[:, 1])))))
        shape = (*(X.max(axis=0) + 2), self.n_targets)
        self.means_ = rng.gamma(2.0, size=shape).round(self.digits)
        self.deviations_ = rng.uniform(0.1, 1.0, size=shape)
        self.n_asked_ = {"predict": 0, "interval": 0, "probability": 0}
        return self

    def predict(self, X, quantiles=None):
        mean = self._of(self.means_, X, "predict")
        if quantiles is None:
            return mean
        deviation = self._of(self.deviations_, X)
        return np.stack([mean + norm.ppf(level) * deviation for level in quantiles], axis=-1)

    def predict_interval(self, X, confidence_level=0.9):
        half = norm.ppf((1 + confidence_level) / 2)
        mean, deviation = self._of(self.means_, X, "interval"), self._of(self.deviations_, X)
        return np.stack([mean - half * deviation, mean + half * deviation], axis=-1)

    def predict_probability(self, X, limit):
        mean, deviation = self._of(self.means_, X, "probability"), self._of(self.deviations_, X)
        return norm.cdf((np.asarray(limit) - mean) / deviation)

    def is_known(self, X):
        user, service = np.asarray(X).T
        assert len(X) > 0
        return np.column_stack([user % 2 == 0, service % 3 == 0])

    def _of(self, table, X, what=None):
        # As estimators do.
        assert len(X) > 0
        if what:
            self.n_asked_[what] += len(X)
        user, service = np.asarray(X).T
        values = table[user, service]
        return values[:, 0] if self.n_targets == 1 else values


@pytest.fixture
def normal():
    return NormalRegressor().fit(_pairs(N_USERS, N_SERVICES))


@pytest.fixture(scope="module")
def data():
    return make_qos(N_USERS, N_SERVICES, density=0.5, random_state=0)


@pytest.fixture(scope="module")
def plain(data):
    """A network without context."""
    return EmbeddingMLPRegressor(**TINY, random_state=0).fit(data.X, data.y)


@pytest.fixture(scope="module")
def uncertain(data):
    """A network that predicts intervals."""
    model = EmbeddingMLPRegressor(**TINY, intervals=True, random_state=0)
    return model.fit(data.X, data.y)


@pytest.fixture(scope="module")
def joined(data):
    """A network in a Pipeline that joins context; it saw no measurement of the last user."""
    seen = data.X[:, 0] < N_USERS - 1
    joiner = ContextJoiner(data.users, data.services)
    model = make_pipeline(joiner, EmbeddingMLPRegressor(**TINY, random_state=0))
    return model.fit(data.X[seen], data.y[seen])


def _pairs(n_users, n_services):
    return np.argwhere(np.ones((n_users, n_services)))


def _slow_ranks(costs, tolerance):
    """Take the best that has no rank, and all within the tolerance, until none is left."""
    ranks = pd.Series(0, index=costs.index)
    while (ranks == 0).any():
        open_costs = costs[ranks == 0]
        near = open_costs.index[open_costs <= open_costs.min() + tolerance]
        ranks[near] = (ranks > 0).sum() + 1
    return ranks


def _slow_ranking(
    model, users, services, *, n, direction, limit=None, min_probability=None, tolerance=0.0
):
    """Rank by the definitions, for one target."""
    tables = []
    for user in users:
        table = pd.DataFrame({"user": user, "service": services})
        X = table.to_numpy()
        table["prediction"] = model.predict(X)
        table[["lower", "upper"]] = model.predict_interval(X)
        if limit is not None:
            below = model.predict_probability(X, limit)
            table["probability"] = below if direction == "minimize" else 1 - below
        table[["user_known", "service_known"]] = model.is_known(X)
        if min_probability is not None:
            table = table[table["probability"] >= min_probability]
        table = table.sort_values(
            "prediction", ascending=direction == "minimize", kind="stable", ignore_index=True
        )
        costs = table["prediction"] * (1 if direction == "minimize" else -1)
        table.insert(1, "rank", _slow_ranks(costs, tolerance))
        tables.append(table.head(n))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"limit": 1.5},
        {"limit": 1.5, "min_probability": 0.7},
        {"limit": 1.5, "min_probability": 0.7, "tie_tolerance": 0.3},
        {"tie_tolerance": 0.3},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
@pytest.mark.parametrize(("seed", "n"), [(0, 1), (1, 4), (2, 100)])
def test_rankings_are_those_of_the_definition(seed, direction, options, n):
    model = NormalRegressor(seed=seed).fit(_pairs(N_USERS, N_SERVICES))
    rng = np.random.default_rng(seed)
    users, services = rng.permutation(N_USERS)[:4], rng.permutation(N_SERVICES)[:20]
    ranking = rank_services(model, users, services, n=n, direction=direction, **options)
    options = {"tolerance" if k == "tie_tolerance" else k: v for k, v in options.items()}
    slow = _slow_ranking(model, users, services, n=n, direction=direction, **options)
    # Among near ties the order is that of the predictions.
    pd.testing.assert_frame_equal(ranking, slow[ranking.columns], check_dtype=False)
    assert set(ranking.columns) == set(slow.columns)


def _dominates(better, worse):
    return (better <= worse).all() and (better < worse).any()


def _slow_front(points):
    return np.array([not any(_dominates(other, point) for other in points) for point in points])


@pytest.mark.parametrize("n_targets", [1, 2, 3, 4])
@pytest.mark.parametrize("n_points", [1, 40, 300])
def test_fronts_are_those_of_the_definition(n_targets, n_points):
    rng = np.random.default_rng(n_points)
    # Few values: many are equal in some targets or in all.
    points = rng.integers(8, size=(n_points, n_targets)).astype(float)
    assert (is_on_front(points) == _slow_front(points)).all()


def test_a_front_of_all_points():
    first = np.random.default_rng(0).permutation(1000).astype(float)
    assert is_on_front(np.column_stack([first, -first])).all()
    assert is_on_front(np.column_stack([first, -first, np.zeros(1000)])).all()


@pytest.mark.parametrize("pareto_only", [False, True])
def test_several_targets_are_weighed_on_the_scale_of_the_candidates(pareto_only):
    model = NormalRegressor(n_targets=3).fit(_pairs(N_USERS, N_SERVICES))
    ranking = rank_services(
        model,
        [1, 2],
        n=6,
        direction=["minimize", "maximize", "minimize"],
        weights=[2, 1, 1],
        limit=[2.5, None, 3.0],
        min_probability=0.6,
        pareto_only=pareto_only,
        target_names=["rt", "tp", "price"],
    )
    assert ranking.columns.tolist() == [
        *("user", "rank", "service", "score"),
        *("prediction_rt", "prediction_tp", "prediction_price"),
        *("lower_rt", "lower_tp", "lower_price", "upper_rt", "upper_tp", "upper_price"),
        *("probability_rt", "probability_tp", "probability_price", "pareto"),
        *("user_known", "service_known"),
    ]
    for user, of_user in ranking.groupby("user"):
        X = np.column_stack([np.full(N_SERVICES, user), np.arange(N_SERVICES)])
        points = model.predict(X) * [1, -1, 1]
        below = model.predict_probability(X, [2.5, 0.0, 3.0])[:, [0, 2]]
        front = _slow_front(points)
        spread = np.subtract(*np.percentile(points, [75, 25], axis=0))
        scores = (np.median(points, axis=0) - points) / spread @ [0.5, 0.25, 0.25]
        left = (below >= 0.6).all(axis=1) & (front | (not pareto_only))
        expected = sorted(np.flatnonzero(left), key=lambda k: -scores[k])[:6]
        assert of_user["service"].tolist() == expected
        assert of_user["score"].to_numpy() == pytest.approx(scores[expected])
        assert (of_user["pareto"] == front[expected]).all()
        assert of_user[["probability_rt", "probability_price"]].to_numpy() == pytest.approx(
            below[expected]
        )
        assert of_user["probability_tp"].isna().all()
    assert ranking["pareto"].all() == pareto_only


def test_targets_in_which_most_or_all_candidates_are_alike_have_a_scale():
    model = NormalRegressor(n_targets=2).fit(_pairs(2, 8))
    model.means_[0, :8, 0] = 3.0
    model.means_[0, :8, 1] = [1, 1, 1, 1, 1, 1, 9, 1]
    ranking = rank_services(model, 0, n=None, direction=["minimize", "maximize"])
    assert ranking["service"].tolist() == [6, 0, 1, 2, 3, 4, 5, 7]
    assert ranking["rank"].tolist() == [1, *[2] * 7]
    # The median is 1, the range 8, the weight a half.
    assert ranking["score"].tolist() == [0.5, *[0] * 7]


@pytest.mark.parametrize("k", [1, 3, 12])
def test_the_cheapest_columns_of_equal_costs_are_the_first(k):
    costs = np.random.default_rng(0).integers(4, size=(30, 12)).astype(float)
    assert (cheapest(costs, k) == np.argsort(costs, axis=1, kind="stable")[:, :k]).all()


def test_few_columns_are_asked_about():
    costs, asked = np.random.default_rng(0).random((3, 1000)), []

    def accept(rows, columns):
        asked.extend(zip(rows, columns, strict=True))
        return (rows != 1) & (columns % 2 == 0)

    chosen = cheapest_accepted(costs, 5, accept)
    for row in (0, 2):
        order = np.argsort(costs[row])
        assert chosen[row].tolist() == order[order % 2 == 0][:5].tolist()
        assert sum(asked_row == row for asked_row, _ in asked) <= 40
    assert (chosen[1] == -1).all()
    assert len(set(asked)) == len(asked)


def test_ranks_are_shared_with_the_first_of_near_ties_only():
    costs = np.array([[0.0, 0.2, 0.4, 0.6], [1.0, 1.0, 5.0, 5.1]])
    assert shared_ranks(costs, 0.25).tolist() == [[1, 1, 3, 3], [1, 1, 3, 3]]
    assert shared_ranks(costs, 0.0).tolist() == [[1, 2, 3, 4], [1, 1, 3, 4]]


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_the_order_may_go_by_a_quantile(normal, direction, sign):
    options = {"n": N_SERVICES, "direction": direction, "tie_tolerance": 0.05}
    found = rank_services(normal, [3], quantile=0.8, **options)
    pairs = np.column_stack([np.full(N_SERVICES, 3), np.arange(N_SERVICES)])
    # A bad case of QoS of which less is better is a high value, of others a low one.
    bad_case = normal._of(normal.means_, pairs) + sign * norm.ppf(0.8) * normal._of(
        normal.deviations_, pairs
    )
    order = np.argsort(sign * bad_case)
    assert found["service"].tolist() == order.tolist()
    costs = pd.Series(sign * bad_case[order])
    assert found["rank"].tolist() == _slow_ranks(costs, 0.05).tolist()
    np.testing.assert_array_equal(found["prediction"], normal.means_[3, order, 0])
    median = rank_services(normal, [3], quantile=0.5, **options)
    pd.testing.assert_frame_equal(median, rank_services(normal, [3], **options))


def test_a_level_beyond_those_of_the_model_is_refused(uncertain):
    with pytest.raises(ValueError, match=r"quantiles .*0.995"):
        rank_services(uncertain, 3, quantile=0.995)


def test_a_lower_limit_that_no_value_is_below_is_met(uncertain):
    """No QoS is negative, so that the lower quantiles of some pairs are 0."""
    found = rank_services(uncertain, [3, 4], limit=0.0, n=None, direction="maximize")
    assert (found["probability"] == 1).all()


def test_quantiles_of_targets_with_two_directions():
    model = NormalRegressor(n_targets=2).fit(_pairs(N_USERS, N_SERVICES))
    options = {"n": None, "direction": ["minimize", "maximize"]}
    one, other = (rank_services(model, [3], quantile=q, **options) for q in (0.9, 0.1))
    # Swapped levels are the good cases.
    assert one["service"].tolist() != other["service"].tolist()
    pairs = np.column_stack([np.full(N_SERVICES, 3), np.arange(N_SERVICES)])
    mean, deviation = model._of(model.means_, pairs), model._of(model.deviations_, pairs)
    bad_case = mean + norm.ppf(0.9) * deviation * [1, -1]
    front = is_on_front(bad_case * [1, -1])
    assert one.sort_values("service")["pareto"].tolist() == front.tolist()


def test_the_distribution_is_computed_where_it_is_needed_only(normal):
    rank_services(normal, [0, 1], n=3)
    assert normal.n_asked_ == {"predict": 2 * N_SERVICES, "interval": 6, "probability": 0}
    rank_services(normal, 0, n=2, limit=50.0, min_probability=0.5, confidence_level=None)
    assert normal.n_asked_["interval"] == 6
    assert normal.n_asked_["probability"] <= 4


@pytest.fixture
def work(monkeypatch):
    """Count the rows that are encoded, predicted and given quantiles."""
    rows = {"encoded": 0, "predicted": 0, "quantiles": 0}

    def count(kind, name, work):
        original = getattr(kind, name)

        def counted(self, X, *args):
            rows[work] += len(X)
            return original(self, X, *args)

        monkeypatch.setattr(kind, name, counted)

    count(EmbeddingMLPRegressor, "_interactions", "encoded")
    count(EmbeddingMLPRegressor, "_score", "predicted")
    count(QuantileNetwork, "predict", "quantiles")
    return rows


@pytest.mark.parametrize(
    ("options", "n_quantiles"),
    [
        ({"confidence_level": None}, 0),
        ({}, 2 * 3),
        # One probability for each of the best, in addition to its interval.
        ({"limit": 1e6, "min_probability": 0.5}, 2 * 3 * 2),
        ({"quantile": 0.7}, 2 * N_SERVICES + 2 * 3),
    ],
)
def test_each_candidate_is_encoded_and_predicted_once(uncertain, work, options, n_quantiles):
    rank_services(uncertain, [0, 4], range(N_SERVICES), n=3, **options)
    n_pairs = 2 * N_SERVICES
    assert work == {"encoded": n_pairs, "predicted": n_pairs, "quantiles": n_quantiles}


def test_methods_of_a_subclass_are_used(uncertain):
    class Limited(EmbeddingMLPRegressor):
        def predict(self, X, quantiles=None):
            return np.minimum(super().predict(X, quantiles), 1e-3)

    limited = Limited()
    limited._state = uncertain._state
    ranking = rank_services(limited, 0)
    assert (ranking[["prediction", "upper"]] <= 1e-3).all(axis=None)


@pytest.mark.parametrize("options", [{}, {"limit": 1.0, "min_probability": 0.8}])
def test_blocks_of_users_change_nothing(normal, monkeypatch, options):
    users = list(range(N_USERS))
    at_once = rank_services(normal, users, **options)
    monkeypatch.setattr(_candidates, "PAIRS_PER_BLOCK", 2 * N_SERVICES + 1)
    pd.testing.assert_frame_equal(rank_services(normal, users, **options), at_once)


def test_a_looser_limit_is_met_with_more_probability_and_by_more_services(normal):
    users = list(range(N_USERS))
    earlier, n_earlier = 0.0, 0
    for limit in (0.5, 1.0, 2.0, 4.0):
        probability = rank_services(normal, users, n=None, limit=limit)["probability"]
        assert (probability >= earlier).all()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=NoServiceWarning)
            left = rank_services(normal, users, n=None, limit=limit, min_probability=0.8)
        assert (left["probability"] >= 0.8).all()
        assert len(left) >= n_earlier
        earlier, n_earlier = probability, len(left)


def test_users_without_a_service_have_no_rows_and_are_told(normal, monkeypatch):
    normal.means_[[1, 4]] = 50.0
    with pytest.warns(
        NoServiceWarning, match=r"^2 of 3 users have no .* limit=9.0 .* 0.5.*4, 1\.$"
    ) as record:
        several = rank_services(normal, [4, 0, 1], limit=9.0, min_probability=0.5)
    assert set(several["user"]) == {0}
    assert Path(record[0].filename) == Path(__file__)
    with pytest.warns(NoServiceWarning):
        ranking = rank_services(normal, 1, limit=9.0, min_probability=0.5)
    assert ranking.empty
    assert "probability" in ranking
    monkeypatch.setattr(_candidates, "PAIRS_PER_BLOCK", 1)
    with pytest.warns(NoServiceWarning):
        by_blocks = rank_services(normal, [4, 0, 1], limit=9.0, min_probability=0.5)
    pd.testing.assert_frame_equal(by_blocks, several)


def test_predictions_are_those_of_the_pipeline(joined, data):
    users = data.users.index
    ranking = rank_services(joined, users, data.services.index, n=None)
    assert ranking["prediction"].to_numpy() == pytest.approx(
        joined.predict(ranking[["user", "service"]].to_numpy()), rel=1e-5
    )
    assert (ranking.groupby("user")["prediction"].diff().dropna() >= 0).all()
    assert ranking.columns.tolist() == [
        *("user", "rank", "service", "prediction", "user_known", "service_known")
    ]
    assert ((ranking["user"] < N_USERS - 1) == ranking["user_known"]).all()


def test_by_default_all_services_of_training_are_ranked(joined, plain, data):
    for model in (joined, plain):
        ranking = rank_services(model, 0, n=None)
        known = (model if model is plain else joined[-1]).services_.ids_
        assert sorted(ranking["service"]) == sorted(known)
        assert ranking["service_known"].all()


@pytest.mark.parametrize(
    "estimator",
    [
        EmbeddingMLPRegressor(**TINY, intervals=True, random_state=0),
        IntervalRegressor(PMFRegressor(max_iter=2, random_state=0), random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_the_distribution_is_that_of_the_last_step(data, estimator):
    model = make_pipeline(ContextJoiner(data.users, data.services), estimator)
    model.fit(data.X, data.y)
    limit = float(np.median(data.y))
    ranking = rank_services(model, [0, 4], n=None, limit=limit, confidence_level=0.8)
    X = ranking[["user", "service"]].to_numpy()
    quantiles = model.predict(X, quantiles=[0.1, 0.9])
    assert ranking[["lower", "upper"]].to_numpy() == pytest.approx(quantiles, rel=1e-4)
    probability = model[-1].predict_probability(model[:-1].transform(X), limit)
    assert ranking["probability"].to_numpy() == pytest.approx(probability, abs=1e-4)
    assert ranking["user_known"].all()
    # Between two of them, as they are rounded another way in other batches.
    ordered = np.sort(probability)
    half = ordered[len(ordered) // 2 - 1 :][:2].mean()
    left = rank_services(model, [0, 4], n=None, limit=limit, min_probability=half)
    assert left["service"].tolist() == ranking["service"][ranking["probability"] >= half].tolist()
    assert 0 < len(left) < len(ranking)


def test_unknown_ids_are_ranked_and_marked(plain):
    ranking = rank_services(plain, [0, 99], [3, 100])
    assert (ranking["user_known"] == (ranking["user"] == 0)).all()
    assert (ranking["service_known"] == (ranking["service"] == 3)).all()


def test_ids_may_be_strings(data):
    X = pd.DataFrame(data.X, columns=["user_id", "service_id"]).map("id{}".format)
    users, services = (t.set_axis(t.index.map("id{}".format)) for t in (data.users, data.services))
    joiner = ContextJoiner(users, services)
    model = make_pipeline(joiner, EmbeddingMLPRegressor(**TINY, random_state=0)).fit(X, data.y)
    one = rank_services(model, "id3", n=4)
    assert one["user"].tolist() == ["id3"] * 4
    assert one["prediction"].to_numpy() == pytest.approx(
        model.predict(one[["user", "service"]].set_axis(X.columns, axis=1)), rel=1e-5
    )
    for ids in (
        ["id3"],
        pd.Series(["id3"]),
        np.array(["id3"]),
        pd.Index(["id3"]),
        users.loc[["id3"]],
    ):
        pd.testing.assert_frame_equal(rank_services(model, ids, n=4), one)
    with pytest.raises(ValueError, match=r"user.* of kind number"):
        rank_services(model, 3)


def test_ids_come_in_any_container(plain):
    one = rank_services(plain, 3, [4, 1, 2], n=2)
    as_one = [np.array(3), np.int64(3), 3.0, (3,), pd.array([3]), pd.Series([3], dtype="Int64")]
    for users in as_one:
        pd.testing.assert_frame_equal(rank_services(plain, users, [4, 1, 2], n=2), one)
    as_three = [(4, 1, 2), np.array([4.0, 1.0, 2.0]), pd.Categorical([4, 1, 2]), iter([4, 1, 2])]
    for services in as_three:
        pd.testing.assert_frame_equal(rank_services(plain, 3, services, n=2), one)


def test_frames_and_series_of_polars(joined, data):
    polars = pytest.importorskip("polars")
    ids = data.users.index.to_list()
    users = polars.DataFrame({"user": ids[:2], "country": data.users["country"].to_list()[:2]})
    ranking = rank_services(joined, users, polars.Series([4, 1, 2]))
    pd.testing.assert_frame_equal(
        ranking, rank_services(joined, data.users[["country"]].iloc[:2], [4, 1, 2])
    )


def test_ids_may_be_tuples_or_larger_than_64_bits(data):
    pairs = [(2**70 + int(user), (int(service), "a")) for user, service in data.X]
    X = pd.DataFrame(pairs, columns=["user", "service"])
    model = PMFRegressor(max_iter=2, random_state=0).fit(X, data.y)
    ranking = rank_services(model, 2**70 + 1, [(3, "a"), (4, "a")])
    assert set(ranking["service"]) == {(3, "a"), (4, "a")}
    assert ranking["user"].tolist() == [2**70 + 1] * 2
    assert ranking["user_known"].all()


def test_large_integers_of_an_array_with_context(data):
    X = np.column_stack([data.X[:, 0] + 2**60, data.X[:, 1], data.X[:, 0] % 3])
    model = EmbeddingMLPRegressor(user_features=[2], service_features=[], **TINY, random_state=0)
    model.fit(X, data.y)
    user = int(X[0, 0])
    ranking = rank_services(model, users=[user], services=X[:1, 1])
    assert ranking["user"].tolist() == [user]
    assert ranking["prediction"].tolist() == model.predict(X[:1]).tolist()


def test_context_of_newcomers_reaches_a_pipeline(joined, data):
    newcomer = data.users.iloc[[2]].set_axis([77])
    services = data.services.iloc[:9].set_axis(range(500, 509))
    ranking = rank_services(joined, newcomer, services, n=None)
    # Training never saw the last user: another one with its context is predicted alike.
    known_to_joiner = make_pipeline(
        ContextJoiner(pd.concat([data.users, newcomer]), pd.concat([data.services, services])).fit(
            data.X
        ),
        joined[-1],
    )
    X = np.column_stack([np.full(9, 77), ranking["service"]])
    assert ranking["prediction"].to_numpy() == pytest.approx(known_to_joiner.predict(X), rel=1e-5)
    without = rank_services(joined, 77, services.index.to_list(), n=None)
    assert (without["prediction"] != ranking["prediction"]).any()


@pytest.mark.parametrize("prefixed", [True, False])
def test_context_of_newcomers_reaches_an_estimator(data, prefixed):
    rows = ContextJoiner(data.users, data.services).fit_transform(data.X)
    lists = {}
    if not prefixed:
        rows = rows.rename(columns={"user_country": "country", "service_as": "as"})
        lists = {"user_features": ["country"], "service_features": ["as"]}
        rows = rows[["user", "service", "country", "as"]]
    model = EmbeddingMLPRegressor(**TINY, random_state=0, **lists).fit(rows, data.y)
    newcomer = data.users.iloc[[2]].set_axis([77])[["country"]]
    ranking = rank_services(model, newcomer, [1, 2], n=2)
    X = rows.iloc[:2].copy()
    X.iloc[:, 2:] = np.nan
    X["user"], X["service"] = 77, ranking["service"].to_numpy()
    X["user_country" if prefixed else "country"] = newcomer["country"].iloc[0]
    assert ranking["prediction"].to_numpy() == pytest.approx(model.predict(X), rel=1e-5)


def test_context_that_the_model_does_not_take_raises(plain, joined, data):
    with pytest.raises(ValueError, match=r"users has a column 'user_country', .* has none"):
        rank_services(plain, data.users)
    with pytest.raises(ValueError, match=r"services has a column 'service_colour'.*service_as"):
        rank_services(joined, 0, data.services.assign(colour="red"))


def test_the_time_step(data):
    temporal = make_qos(6, 8, density=0.5, n_time_steps=4, random_state=0)
    model = TPMCFRegressor(
        max_epochs=1,
        gcmf_epochs=1,
        gcmf_dim=4,
        entity_dim=4,
        token_dim=8,
        head_dim=4,
        n_filters=4,
        window=3,
        hidden_sizes=(8,),
        random_state=0,
    ).fit(temporal.X, temporal.y)
    ranking = rank_services(model, [1, 2], n=3, time=2)
    X = ranking[["user", "service"]].assign(time=2).to_numpy()
    assert ranking["prediction"].to_numpy() == pytest.approx(model.predict(X), rel=1e-5)
    with pytest.raises(ValueError, match="time is None, but TPMCFRegressor was fitted with time"):
        rank_services(model, 1)
    with pytest.raises(ValueError, match=r"time must be a single time .* got \[1, 2\]"):
        rank_services(model, 1, time=[1, 2])


class TimeAsQoS(RegressorMixin, BaseEstimator):
    """Predicts the third column."""

    def fit(self, X, y):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, X):
        return np.asarray(X)[:, 2].astype(float)


def test_the_time_step_of_a_regressor_with_intervals_around_it():
    temporal = make_qos(10, 15, density=0.5, n_time_steps=3, random_state=0)
    model = IntervalRegressor(TimeAsQoS(), random_state=0).fit(temporal.X, temporal.y)
    with pytest.raises(ValueError, match="time is None, but IntervalRegressor was fitted with"):
        rank_services(model, 1)
    assert rank_services(model, 1, time=2)["prediction"].tolist() == [2.0] * 5
    static = IntervalRegressor(MedianRegressor(), random_state=0).fit(temporal.X[:, :2], temporal.y)
    with pytest.raises(ValueError, match="time=2, but this IntervalRegressor does not use"):
        rank_services(static, 1, time=2)


def test_a_search_is_ranked_by_its_best_estimator(data):
    pipeline = make_pipeline(ContextJoiner(data.users, data.services), MedianRegressor())
    search = GridSearchCV(pipeline, {"medianregressor__by": ["service", "user"]}, cv=2)
    search.fit(data.X, data.y)
    expected = rank_services(search.best_estimator_, [1, 2])
    pd.testing.assert_frame_equal(rank_services(search, [1, 2]), expected)


def test_context_of_users_is_never_that_of_services(data):
    """Names without prefix belong to the side that `fit` read them for."""
    rows = data.frame[["user", "service"]].assign(
        region=data.services["region"].reindex(data.frame["service"]).to_numpy()
    )
    model = EmbeddingMLPRegressor(**TINY, random_state=0, service_features=["region"])
    model.fit(rows, data.y)
    region = data.services["region"].dropna().iloc[0]
    with pytest.raises(ValueError, match=r"users has a column 'user_region', .* has none"):
        rank_services(model, pd.DataFrame({"region": [region]}, index=[77]), [1, 2])
    services = pd.DataFrame({"region": [region]}, index=[500])
    assert len(rank_services(model, 77, services, n=None)) == 1


def test_values_with_labels_are_taken_by_the_names_of_the_targets(data):
    y = pd.DataFrame({"rt": data.y, "tp": 1 / data.y})
    model = SharpQoSRegressor(
        max_epochs=1, n_factors=2, output_dim=4, n_members=1, intervals=True, random_state=0
    ).fit(data.X, y)
    limits, weights, signs = [0.5, 2.0], [3.0, 1.0], ["minimize", "maximize"]
    expected = rank_services(model, [0, 1], limit=limits, weights=weights, direction=signs)
    found = rank_services(
        model,
        [0, 1],
        limit=pd.Series(limits, ["rt", "tp"])[::-1],
        weights=dict(zip(["tp", "rt"], weights[::-1], strict=True)),
        direction=pd.Series(signs, ["rt", "tp"])[::-1],
    )
    pd.testing.assert_frame_equal(found, expected)
    probabilities = model.predict_probability(data.X, pd.Series(limits, ["rt", "tp"])[::-1])
    np.testing.assert_array_equal(probabilities, model.predict_probability(data.X, limits))
    for call in (
        lambda limit: rank_services(model, 0, limit=limit),
        lambda limit: model.predict_probability(data.X, limit),
    ):
        with pytest.raises(
            ValueError, match=r"limit has the labels \['rt', 'x'\], but the targets"
        ):
            call({"rt": 0.5, "x": 2.0})
    model.fit(data.X, y.to_numpy())
    rank_services(model, 0, limit=pd.Series(limits))
    with pytest.raises(ValueError, match="was fitted without names of targets"):
        rank_services(model, 0, limit={"rt": 0.5, "tp": 2.0})


def test_several_qos_of_a_joint_model(data):
    y = np.column_stack([data.y, 1 / data.y])
    model = SharpQoSRegressor(
        max_epochs=1,
        n_factors=2,
        autoencoder_epochs=1,
        hidden_dim=4,
        routed_dim=4,
        output_dim=4,
        random_state=0,
    ).fit(data.X, y)
    ranking = rank_services(model, [0, 1], direction=["minimize", "maximize"])
    X = ranking[["user", "service"]].to_numpy()
    predictions = ranking[["prediction_0", "prediction_1"]].to_numpy()
    assert predictions == pytest.approx(model.predict(X), rel=1e-5)
    one = SharpQoSRegressor(max_epochs=1, n_factors=2, output_dim=4, random_state=0)
    ranking = rank_services(one.fit(data.X, y[:, :1]), 0)
    assert "prediction" in ranking
    assert "pareto" not in ranking


def test_any_regressor_over_pairs(data):
    model = HistGradientBoostingRegressor(max_iter=2).fit(data.X, data.y)
    ranking = rank_services(model, [0, 1], [5, 3, 8], n=2)
    assert ranking.columns.tolist() == ["user", "rank", "service", "prediction"]
    assert ranking["prediction"].to_numpy() == pytest.approx(
        model.predict(ranking[["user", "service"]].to_numpy())
    )
    named = HistGradientBoostingRegressor(max_iter=2)
    named.fit(pd.DataFrame(data.X, columns=["user", "service"]), data.y)
    pd.testing.assert_frame_equal(rank_services(named, [0, 1], [5, 3, 8], n=2), ranking)
    with pytest.raises(
        TypeError, match="services is None, but HistGradientBoostingRegressor has no"
    ):
        rank_services(model, 0)
    # A search knows what its best estimator knows.
    search = GridSearchCV(PMFRegressor(), {}, cv=2).fit(data.X, data.y)
    pd.testing.assert_frame_equal(
        rank_services(search, 0), rank_services(search.best_estimator_, 0)
    )


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("named", [False, True])
def test_time_stamps(named, zone):
    start = pd.Timestamp("2026-05-01", tz=zone)
    temporal = make_qos(6, 8, density=0.5, n_time_steps=4, start=start, random_state=0)
    X = temporal.X if named else temporal.X.to_numpy()
    settings = {"max_epochs": 1, "gcmf_epochs": 1, "hidden_sizes": (4,), "random_state": 0}
    model = TPMCFRegressor(**settings, time_step="1h").fit(X, temporal.y)
    time = start + pd.Timedelta("150min")
    ranking = rank_services(model, [1, 2], n=3, time=time)
    rows = ranking[["user", "service"]].assign(time=time)
    expected = model.predict(rows if named else rows.to_numpy())
    np.testing.assert_allclose(ranking["prediction"], expected, rtol=1e-5)
    for same in (time.isoformat(), time.to_pydatetime()):
        pd.testing.assert_frame_equal(rank_services(model, [1, 2], n=3, time=same), ranking)
    with pytest.raises(ValueError, match=r"column 2 \(time\) holds integers, but the times of fit"):
        rank_services(model, 1, time=2)


@pytest.mark.parametrize("columns", [["user", "service", "time"], [0, 1, 2]])
def test_any_regressor_over_pairs_and_time(columns):
    temporal = make_qos(6, 8, density=0.5, n_time_steps=4, random_state=0)
    X = pd.DataFrame(temporal.X, columns=columns)
    model = HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=2).fit(X, temporal.y)
    ranking = rank_services(model, 1, range(8), n=8, time=2)
    X = ranking[["user", "service"]].assign(time=2).set_axis(columns, axis=1)
    assert ranking["prediction"].to_numpy() == pytest.approx(model.predict(X))
    with pytest.raises(ValueError, match="time is None"):
        rank_services(model, 1, range(8))


def test_columns_that_nobody_knows_are_missing():
    X = pd.DataFrame({"user": [0, 0, 1, 1], "service": [0, 1, 0, 1], "load": [1.0, np.nan] * 2})
    model = HistGradientBoostingRegressor(min_samples_leaf=1).fit(X, [1.0, 2.0, 3.0, 4.0])
    ranking = rank_services(model, [0, 1], [0, 1])
    X = ranking[["user", "service"]].assign(load=np.nan)
    assert ranking["prediction"].to_numpy() == pytest.approx(model.predict(X))


def test_a_model_without_intervals_says_how_to_get_them(plain):
    assert not {"lower", "upper", "probability"} & set(rank_services(plain, 0))
    for options in ({"limit": 1.0}, {"limit": 1.0, "min_probability": 0.5}, {"quantile": 0.7}):
        with pytest.raises(ValueError, match=r"EmbeddingMLPRegressor does not .* intervals=True"):
            rank_services(plain, 0, **options)


def test_what_was_learnt_counts_and_not_what_the_parameter_says_since(data):
    for learnt in (True, False):
        model = EmbeddingMLPRegressor(**TINY, intervals=learnt, random_state=0)
        model.fit(data.X, data.y).set_params(intervals=not learnt)
        assert ("lower" in rank_services(model, 0)) == learnt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "'n' parameter"),
        ({"n": 2.0}, "'n' parameter"),
        ({"direction": "min"}, "direction must be 'minimize' or 'maximize'; got 'min'"),
        ({"direction": None}, "direction must be"),
        ({"direction": ["minimize"] * 2}, r"direction has 2 values, .* predicts 1 target"),
        ({"direction": []}, "direction is empty"),
        ({"limit": np.nan}, "limit must be a finite number .* got nan"),
        ({"limit": "0.5"}, "limit must be a finite number"),
        ({"limit": [0.5, 0.5]}, "limit has 2 values"),
        ({"min_probability": 0.5}, "min_probability=0.5 is used only with limit"),
        ({"min_probability": 0.5, "limit": [None]}, "min_probability=0.5 is used only with limit"),
        ({"min_probability": 1.5, "limit": 1.0}, "'min_probability' parameter"),
        ({"tie_tolerance": -0.1}, "'tie_tolerance' parameter"),
        ({"tie_tolerance": np.nan}, "'tie_tolerance' parameter"),
        ({"confidence_level": 1.0}, "'confidence_level' parameter"),
        ({"quantile": 1.0}, "'quantile' parameter"),
        ({"weights": [-1.0]}, "weights must be finite numbers, none below 0; got -1.0"),
        ({"weights": [0.0]}, "weights must not all be 0"),
        ({"target_names": ["a", "b"]}, "target_names must contain 1 different names"),
        ({"target_names": "a"}, "target_names must contain 1 different names"),
        ({"time": 3}, "time=3, but this NormalRegressor does not use times"),
        ({"services": []}, "services is empty"),
        ({"services": [1, 2, 1]}, "services contains the id 1 more than once"),
        ({"services": [[1, 2]]}, "services"),
        ({"services": np.ones((2, 2))}, "services must be one id or 1-D"),
        ({"services": [1, "2"]}, "services mixes ids of type int, str"),
        ({"users": []}, "users is empty"),
        ({"users": ["a", "a"]}, "users contains the id 'a' more than once"),
        ({"users": None}, "users: row 0 is NaN"),
        ({"users": [1.0, np.nan]}, "users: row 1 is NaN"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_told(normal, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        rank_services(normal, **{"users": [0, 1], **options})


def test_what_cannot_be_ranked_raises(normal):
    normal.means_[0, 3] = np.nan
    with pytest.raises(ValueError, match="predictions of NormalRegressor contain NaN"):
        rank_services(normal, 0)
    with pytest.raises(NotFittedError):
        rank_services(EmbeddingMLPRegressor(), 0)
