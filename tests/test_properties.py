"""Against slow and obvious references, on data that Hypothesis makes up."""

import math
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skqos import SharpQoSRegressor
from skqos._arrays import difference_sorted, draw_distinct, sorted_unique
from skqos.entities import EntityEncoder
from skqos.graphs import BipartiteGraph, ContextGraph
from skqos.metrics import (
    choice_regret,
    interval_coverage,
    nan_mean_absolute_error,
    nan_normalized_mean_absolute_error,
    nan_pinball_loss,
    nan_r2_score,
    nan_root_mean_squared_error,
    near_best_share,
    winkler_score,
)
from skqos.model_selection import DensitySplit
from skqos.preprocessing import ContextJoiner

# The same examples in every run.
few = settings(max_examples=60, deadline=None, derandomize=True, database=None)

numbers = st.integers(-12, 12).map(lambda k: k / 4)
known_or_not = st.none() | st.sampled_from(["a", "b", "c"])
# What is known of an entity: a category and a number, either of them perhaps unknown.
contexts = st.tuples(known_or_not, st.none() | numbers)
some_ids = st.sampled_from(
    [list(range(-3, 6)), ["u1", "u10", "u2", "U", "", "u3"], [0.5, -1.25, 3.75, 2.5]]
)


def same(a, b):
    """Whether two values are equal or both missing."""
    return (pd.isna(a) and pd.isna(b)) or a == b


def id_array(ids):
    return np.array(ids, dtype=object if isinstance(ids[0], str) else None)


def context_frame(rows):
    return pd.DataFrame(
        {
            "user_place": pd.Series([place for place, _ in rows], dtype=object),
            "user_size": pd.Series([size for _, size in rows], dtype=np.float64),
        }
    )


# --- Entities -----------------------------------------------------------------------------------


@st.composite
def entities(draw):
    """Rows of known entities, then rows of any, each with its context."""
    pool = draw(some_ids)
    context = {name: draw(contexts) for name in pool}
    n_known = draw(st.integers(1, len(pool) - 1))
    known = draw(st.lists(st.sampled_from(pool[:n_known]), min_size=1, max_size=12))
    asked = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=12))
    return context, known, asked


def table_rows(encoder, table):
    """Read a table back: the category or None for an unknown code, the number or None."""
    places = encoder.categories_[0]
    return [
        (None if code < 0 else places[code], None if np.isnan(z) else z)
        for code, z in zip(table.categories[:, 0], table.numerics[:, 0], strict=True)
    ]


def expected_row(context, places, mean, scale):
    place, size = context
    known_place = any(same(place, other) for other in places)
    return (place if known_place else None), (None if size is None else (size - mean) / scale)


@few
@given(entities())
def test_entities_are_what_a_dictionary_says(case):
    context, known, asked = case
    encoder = EntityEncoder("user")
    codes = encoder.fit(id_array(known), context_frame([context[name] for name in known]))
    ids = sorted(set(known))
    assert list(encoder.ids_) == ids
    assert codes.tolist() == [ids.index(name) for name in known]

    sizes = [context[name][1] for name in ids if context[name][1] is not None]
    mean = sum(sizes) / len(sizes) if sizes else 0.0
    variance = sum((size - mean) ** 2 for size in sizes) / len(sizes) if sizes else 0.0
    scale = math.sqrt(variance) or 1.0
    places = [context[name][0] for name in ids]

    positions, new = encoder.transform(
        id_array(asked), context_frame([context[name] for name in asked])
    )
    rows = table_rows(encoder, encoder.table_) + table_rows(encoder, new)
    for name, position in zip(asked, positions, strict=True):
        assert (position < len(ids)) == (name in ids)
        if name in ids:
            assert position == ids.index(name)
        place, size = rows[position]
        expected_place, expected_size = expected_row(context[name], places, mean, scale)
        assert same(place, expected_place)
        assert same(size, expected_size) or size == pytest.approx(expected_size, abs=1e-6)


@few
@given(entities())
def test_newcomers_share_a_row_if_and_only_if_their_contexts_are_equal(case):
    context, known, asked = case
    encoder = EntityEncoder("user")
    encoder.fit(id_array(known), context_frame([context[name] for name in known]))
    positions, new = encoder.transform(
        id_array(asked), context_frame([context[name] for name in asked])
    )
    found = {
        (name, position)
        for name, position in zip(asked, positions, strict=True)
        if name not in known
    }
    assert {position for _, position in found} == set(
        range(len(set(known)), len(set(known)) + len(new))
    )
    for name, position in found:
        for other, other_position in found:
            assert (position == other_position) == (context[name] == context[other])


# --- Context joining ----------------------------------------------------------------------------


@st.composite
def tables_and_pairs(draw):
    users, services = draw(some_ids), draw(some_ids)
    tables = []
    for pool in (users, services):
        n_listed = draw(st.integers(1, len(pool)))
        tables.append({name: draw(contexts) for name in pool[:n_listed]})
    pairs = draw(
        st.lists(
            st.tuples(st.sampled_from(users), st.sampled_from(services)), min_size=1, max_size=12
        )
    )
    return tables, pairs


def as_table(rows):
    table = context_frame(rows.values()).set_axis(pd.Index(list(rows)))
    return table.rename(columns=lambda name: name.removeprefix("user_"))


@few
@given(tables_and_pairs())
def test_joined_context_is_that_of_a_dictionary(case):
    tables, pairs = case
    X = pd.DataFrame(pairs, columns=["user", "service"])
    joiner = ContextJoiner(*map(as_table, tables))
    matched = [any(pair[side] in tables[side] for pair in pairs) for side in (0, 1)]
    if not all(matched):
        with pytest.raises(ValueError, match="none of the"):
            joiner.fit(X)
        return
    joined = joiner.fit_transform(X)
    assert list(joined) == [
        "user",
        "service",
        "user_place",
        "user_size",
        "service_place",
        "service_size",
    ]
    for row, pair in zip(joined.itertuples(index=False), pairs, strict=True):
        expected = [*pair]
        for side in (0, 1):
            expected += tables[side].get(pair[side], (None, None))
        assert all(same(found, wanted) for found, wanted in zip(row, expected, strict=True))


# --- Splitters ----------------------------------------------------------------------------------


@few
@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=4, max_size=60),
    density=st.floats(0.01, 0.9),
    test_size=st.none() | st.floats(0.05, 1.0),
    given_sizes=st.booleans(),
    seed=st.integers(0, 3),
)
def test_density_counts_cells(pairs, density, test_size, given_sizes, seed):
    X = np.array(pairs)
    n_cells = 6 * 8
    if not given_sizes:
        n_cells = len({user for user, _ in pairs}) * len({service for _, service in pairs})
    n_train = round(density * n_cells)
    splitter = DensitySplit(
        2,
        density=density,
        test_size=test_size,
        n_users=6 if given_sizes else None,
        n_services=8 if given_sizes else None,
        random_state=seed,
    )
    if not 0 < n_train < len(set(pairs)):
        with pytest.raises(ValueError, match="density="):
            list(splitter.split(X))
        return
    splits = list(splitter.split(X))
    for train, test in splits:
        trained = {pairs[row] for row in train}
        assert len(trained) == n_train
        assert len(train) == sum(pair in trained for pair in pairs), "with all their rows"
        assert not trained & {pairs[row] for row in test}, "no cell is in both"
        n_rest = len(pairs) - len(train)
        n_test = n_rest if test_size is None else max(1, round(test_size * n_rest))
        assert len(test) == len(set(test)) == n_test
        assert list(train) == sorted(train)
        assert list(test) == sorted(test)
    again = list(splitter.split(X))
    assert all((a[0] == b[0]).all() for a, b in zip(splits, again, strict=True))


@few
@given(
    observed=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=30),
    fraction=st.floats(0.05, 0.9),
    seed=st.integers(0, 3),
)
def test_validation_rows_leave_every_target_an_observation(observed, fraction, seed):
    y = np.where(np.array(observed), 1.0, np.nan)
    n_held_out = max(1, round(fraction * len(y)))
    model = SharpQoSRegressor(early_stopping=True, validation_fraction=fraction)
    targets = [{row for row, seen in enumerate(observed) if seen[k]} for k in (0, 1)]
    if not all(targets) or len(y) - n_held_out < 2:
        return
    try:
        train, held_out = model._split_rows(y, seed)
    except ValueError:
        # Every observation is the last one of a target.
        assert len(targets[0] | targets[1]) <= 2
        return
    assert sorted([*train, *held_out]) == list(range(len(y)))
    assert 1 <= len(held_out) <= n_held_out
    assert all(target & set(train) for target in targets)
    assert all(any(observed[row]) for row in held_out)


# --- Metrics ------------------------------------------------------------------------------------


def _of_one_target(name, pairs):
    """Score (true, predicted) pairs; None where the score is not defined."""
    n = len(pairs)
    mean = sum(true for true, _ in pairs) / n if n else 0.0
    absolute = sum(abs(true - predicted) for true, predicted in pairs)
    squared = sum((true - predicted) ** 2 for true, predicted in pairs)
    if name == "mae":
        return absolute / n if n else None
    if name == "rmse":
        return math.sqrt(squared / n) if n else None
    if name == "pinball":
        return sum(max((t - p) / 4, (p - t) * 3 / 4) for t, p in pairs) / n if n else None
    if name == "nmae":
        return absolute / sum(abs(true) for true, _ in pairs) if n else None
    spread = sum((true - mean) ** 2 for true, _ in pairs)
    if n < 2:
        return None
    if spread == 0:
        return 1.0 if squared == 0 else 0.0
    return 1 - squared / spread


METRICS = {
    "mae": nan_mean_absolute_error,
    "rmse": nan_root_mean_squared_error,
    "nmae": nan_normalized_mean_absolute_error,
    "r2": nan_r2_score,
    "pinball": partial(nan_pinball_loss, quantile=0.25),
}


@few
@pytest.mark.parametrize("name", METRICS)
@given(
    rows=st.integers(1, 3).flatmap(
        lambda n_targets: st.lists(
            st.lists(
                st.tuples(st.none() | numbers, numbers), min_size=n_targets, max_size=n_targets
            ),
            min_size=1,
            max_size=8,
        )
    )
)
def test_metrics_count_observed_entries(name, rows):
    targets = [[(t, p) for t, p in column if t is not None] for column in zip(*rows, strict=True)]
    true = np.array([[np.nan if t is None else t for t, _ in row] for row in rows])
    predicted = np.array([[p for _, p in row] for row in rows])
    metric = METRICS[name]
    if name == "nmae" and any(pairs and not any(t for t, _ in pairs) for pairs in targets):
        with pytest.raises(ValueError, match="all observed values of a target are zero"):
            metric(true, predicted)
        return
    expected = [_of_one_target(name, pairs) for pairs in targets]
    raw = metric(true, predicted, multioutput="raw_values")
    np.testing.assert_allclose(raw, np.array(expected, dtype=float), atol=1e-12)
    defined = [score for score in expected if score is not None]
    if defined:
        average = sum(defined) / len(defined)
        assert metric(true, predicted) == pytest.approx(average, abs=1e-12)
    else:
        with pytest.raises(ValueError, match="no target has"):
            metric(true, predicted)


@few
@given(
    rows=st.lists(
        st.tuples(st.none() | numbers, numbers, st.integers(0, 8), st.sampled_from("abc")),
        min_size=1,
        max_size=12,
    )
)
def test_intervals_cover_what_lies_between_their_ends(rows):
    true = np.array([np.nan if y is None else y for y, *_ in rows])
    ends = np.array([(low, low + width) for _, low, width, _ in rows])
    groups = [group for *_, group in rows]
    inside, scores = {}, []
    for y, low, width, group in rows:
        if y is not None:
            inside.setdefault(group, []).append(low <= y <= low + width)
            scores.append(width + 4 * max(low - y, 0) + 4 * max(y - low - width, 0))
    if not scores:
        with pytest.raises(ValueError, match="y_true"):
            interval_coverage(true, ends)
        return
    shares = {group: sum(found) / len(found) for group, found in sorted(inside.items())}
    assert interval_coverage(true, ends, groups=groups).to_dict() == pytest.approx(shares)
    overall = sum(map(sum, inside.values())) / len(scores)
    assert interval_coverage(true, ends) == pytest.approx(overall)
    score = winkler_score(true, ends, confidence_level=0.5)
    assert score == pytest.approx(sum(scores) / len(scores))


@few
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.none() | numbers, st.integers(-2, 2)),
        min_size=1,
        max_size=14,
    )
)
def test_users_choose_what_is_predicted_best(direction, rows):
    best_of = min if direction == "minimize" else max
    regrets, near = [], []
    for user in "abc":
        mine = [(y, p) for u, y, p in rows if u == user and y is not None]
        if len(mine) < 2:
            continue
        best = best_of(y for y, _ in mine)
        picked = [y for y, p in mine if p == best_of(q for _, q in mine)]
        margin = max(abs(best) / 8, 0.5)
        regrets.append(sum(abs(y - best) for y in picked) / len(picked))
        near.append(sum(abs(y - best) <= margin for y in picked) / len(picked))
    users, true, predicted = zip(*rows, strict=True)
    data = np.array(true, dtype=float), predicted, users
    if not regrets:
        with pytest.raises(ValueError, match="users: no user has 2"):
            choice_regret(*data, direction=direction)
        return
    regret = choice_regret(*data, direction=direction)
    assert regret == pytest.approx(sum(regrets) / len(regrets), abs=1e-12)
    share = near_best_share(*data, direction=direction, relative=1 / 8, absolute=0.5)
    assert share == pytest.approx(sum(near) / len(near))


# --- Graphs -------------------------------------------------------------------------------------


@st.composite
def bipartite_graphs(draw):
    """Sizes, distinct edges, and whether each edge carries messages."""
    n_users, n_services = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    cells = st.tuples(st.integers(0, n_users - 1), st.integers(0, n_services - 1))
    edges = draw(st.lists(cells, unique=True, max_size=n_users * n_services))
    carries = draw(st.lists(st.booleans(), min_size=len(edges), max_size=len(edges)))
    return n_users, n_services, edges, carries


def build(case):
    n_users, n_services, edges, carries = case
    pairs = np.array(edges, dtype=np.int64).reshape(-1, 2)
    graph = BipartiteGraph(pairs[:, 0], pairs[:, 1], n_users, n_services)
    return graph(torch.tensor(carries, dtype=torch.float64))


def features(n):
    return np.random.default_rng(n).normal(size=(n, 2))


@few
@given(bipartite_graphs())
def test_the_first_hop_averages_over_neighbours_and_self(case):
    n_users, n_services, edges, carries = case
    carrying = [edge for edge, does in zip(edges, carries, strict=True) if does]
    neighbours = {node: [node] for node in range(n_users + n_services)}
    for user, service in carrying:
        neighbours[user].append(n_users + service)
        neighbours[n_users + service].append(user)
    x = features(n_users + n_services)
    expected = [
        sum(x[other] / math.sqrt(len(mine) * len(neighbours[other])) for other in mine)
        for mine in neighbours.values()
    ]
    found = build(case).convolve(torch.tensor(x))
    np.testing.assert_allclose(found, np.array(expected), atol=1e-12)


@few
@given(bipartite_graphs())
def test_the_second_hop_averages_over_those_who_share_neighbours(case):
    n_users, n_services, edges, carries = case
    carrying = [edge for edge, does in zip(edges, carries, strict=True) if does]
    x = features(n_users + n_services)
    expected = np.zeros_like(x)
    for side, offset in ((0, 0), (1, n_users)):
        degrees = Counter(edge[side] for edge in carrying)
        sizes = Counter(edge[1 - side] for edge in carrying)
        for a in carrying:
            for b in carrying:
                if a[1 - side] == b[1 - side]:
                    share = 1 / sizes[a[1 - side]]
                    share /= math.sqrt(degrees[a[side]] * degrees[b[side]])
                    expected[offset + a[side]] += share * x[offset + b[side]]
    x = torch.tensor(x)
    found = build(case).convolve_second_hop(x[:n_users], x[n_users:])
    np.testing.assert_allclose(found, expected, atol=1e-12)


@st.composite
def context_rows(draw):
    """Rows of categories, -1 for unknown, and how many nodes each stands for; one has some."""
    n_columns = draw(st.integers(1, 3))
    row = st.tuples(*[st.integers(-1, 2)] * n_columns)
    rows = draw(st.lists(row, min_size=1, max_size=5))
    counts = draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    return rows, counts


@few
@given(context_rows())
def test_a_context_graph_joins_nodes_that_share_categories(case):
    rows, counts = case
    nodes = [k for k, count in enumerate(counts) for _ in range(count)]

    def shared(k, other):
        return sum(a == b >= 0 for a, b in zip(rows[k], rows[other], strict=True))

    def others(k):
        """Return the rows of all other nodes; a row that stands for no node is one more."""
        left = list(nodes)
        if counts[k]:
            left.remove(k)
        return left

    degrees = [1 + sum(shared(k, other) for other in others(k)) for k in range(len(rows))]
    x = features(len(rows))
    expected = [
        x[k] / degrees[k]
        + sum(
            (
                shared(k, other) * x[other] / math.sqrt(degrees[k] * degrees[other])
                for other in others(k)
            ),
            start=np.zeros(2),
        )
        for k in range(len(rows))
    ]
    graph = ContextGraph(torch.tensor(rows), torch.tensor(counts))
    # The graph's own constants are float32.
    np.testing.assert_allclose(graph.convolve(torch.tensor(x)), expected, atol=1e-5)


# --- Sets of integers ---------------------------------------------------------------------------

integers = st.lists(st.integers(-20, 20), max_size=30)


@few
@given(integers, integers)
def test_sets_of_integers(values, excluded):
    assert sorted_unique(np.array(values, dtype=np.int64)).tolist() == sorted(set(values))
    left = difference_sorted(np.array(values, dtype=np.int64), np.unique(excluded))
    assert left.tolist() == [value for value in values if value not in excluded]


@few
@given(
    n_all=st.integers(1, 60),
    excluded=st.sets(st.integers(0, 59)),
    share=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_draws_are_distinct_and_allowed(n_all, excluded, share, seed):
    excluded = {value for value in excluded if value < n_all}
    n_drawn = int(share * (n_all - len(excluded)))
    rng = np.random.RandomState(seed)
    drawn = draw_distinct(n_all, n_drawn, rng, np.array(sorted(excluded), dtype=np.int64))
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert len(drawn) == n_drawn
    assert not set(drawn.tolist()) & excluded
    assert all(0 <= value < n_all for value in drawn)
