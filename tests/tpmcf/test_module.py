"""The network of TPMCF: sequences put together by loops, training against prediction."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.embeddings import FeatureEmbedding
from skqos.entities import UNKNOWN, EntityTable, Interactions
from skqos.prediction import encode, predict_interactions
from skqos.tpmcf.calendar import Calendar
from skqos.tpmcf.features import StepCells
from skqos.tpmcf.module import TPMCFModule
from skqos.tpmcf.pair_history import PairHistory
from skqos.tpmcf.transformer import (
    EncoderBlock,
    FeatureConvolution,
    RecurrentEncoder,
    TimeConvolution,
    TransformerEncoder,
)
from skqos.training import seeded
from tests.tpmcf.members import check_members_alone, of_member
from tests.tpmcf.test_gcmf import loose_tensors

N_FOLDS, N_USERS, N_SERVICES, WINDOW, N_MEMBERS = 3, 4, 5, 3, 2
MAX_HORIZON = 5
# Windows that are full, padded in front, in the middle, both.
TIMES = np.array([0, 2, 3, 4, 20])
N_STEPS = len(TIMES)
WIDTHS = 3, 2
TOKEN_DIM, ENTITY_DIM = 6, 2
SINGLE = {"rtol": 1e-4, "atol": 1e-5}
NAN = np.nan


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def numpy(tensor):
    return tensor.detach().numpy()


def table(categories, numerics):
    return EntityTable(np.array(categories, dtype=np.int64), np.array(numerics, dtype="f"))


USERS = table([[0], [1], [0], [1]], [[0.5], [-1], [NAN], [1]])
SERVICES = table([[0, 0], [1, 2], [1, 0], [0, 1], [0, 2]], np.empty((5, 0)))
NOBODY = USERS.take([]), SERVICES.take([])
NEW_USERS = table([[1], [UNKNOWN]], [[2.0], [NAN]])
NEW_SERVICES = table([[UNKNOWN, 1]], np.empty((1, 0)))


def random_features(n_folds=N_FOLDS, equal=False, n_members=N_MEMBERS):
    rng = np.random.default_rng(0)
    sides = [
        rng.normal(size=(n_members, n_folds, N_STEPS, n, width))
        for n, width in zip((N_USERS, N_SERVICES), WIDTHS, strict=True)
    ]
    if equal:
        sides = [np.stack([side[:, 0]] * n_folds, axis=1) for side in sides]
    return [torch.tensor(side, dtype=torch.float32) for side in sides]


def random_cells():
    """Return half of all cells, and their standardised values by user, service and step."""
    rng = np.random.default_rng(0)
    codes = np.argwhere(rng.uniform(size=(N_STEPS, N_USERS, N_SERVICES)) < 0.5)
    values = rng.normal(size=len(codes))
    table = np.full((N_USERS, N_SERVICES, N_STEPS), NAN)
    table[codes[:, 1], codes[:, 2], codes[:, 0]] = (values - values.mean()) / values.std()
    return StepCells(*codes.T, values, (N_STEPS, N_USERS, N_SERVICES)), table


def make_encoder(kind, dim, n_members):
    if kind == "gru":
        return RecurrentEncoder(n_members, "gru", dim, 1)
    convolutions = {
        "time": lambda: TimeConvolution(n_members, dim, 4, 0.0),
        "paper": lambda: FeatureConvolution(n_members, WINDOW, 4, 0.0),
    }
    return TransformerEncoder(
        [EncoderBlock(n_members, dim, 2, 3, convolutions[kind]()) for _ in range(2)]
    )


def make_module(
    features=None, equal=False, entities=True, encoder="time", n_members=N_MEMBERS, **params
):
    """Return a module in evaluation mode; the same weights for the same shapes."""
    torch.manual_seed(0)
    if features is None:
        features = random_features(equal=equal, n_members=n_members)
    if entities:
        entities = (
            FeatureEmbedding(USERS, [2], ENTITY_DIM, n_members),
            FeatureEmbedding(SERVICES, [2, 3], ENTITY_DIM, n_members),
        )
    token_dim = params.get("token_dim", TOKEN_DIM)
    dim = sum(WIDTHS) if token_dim is None else token_dim
    settings = {
        "n_members": n_members,
        "token_dim": token_dim,
        "window": WINDOW,
        "n_later": 0,
        "max_horizon": MAX_HORIZON,
        "hidden_sizes": (16, 12),
        "pooling": "max",
        "step_encoding": True,
        "calendar": None,
        "history": PairHistory(random_cells()[0]),
        "target_features": True,
        "entity_dropout": 0.0,
        "newcomer_share": 0.0,
        "forecast_share": 0.0,
        "initial_prediction": 0.3,
        **params,
    }
    encoder = make_encoder(encoder, dim, n_members)
    module = TPMCFModule(TIMES, features, entities or None, encoder, **settings)
    with torch.no_grad():
        # As after training: everything has its say.
        for name in ("position_embeddings", "horizon_embeddings", "distance_embeddings"):
            values = getattr(module, name)
            if values is not None:
                values.normal_()
        for side in module.entities or ():
            side.vectors.normal_()
        for layer in module.layers:
            layer.weight.mul_(2)
    return module.eval()


def all_rows():
    """Every user with every service at every step, the table in turn."""
    users, services, steps = np.indices((N_USERS, N_SERVICES, N_STEPS)).reshape(3, -1)
    folds = np.arange(len(users)) % N_FOLDS
    return [torch.tensor(codes) for codes in (users, services, steps, folds)]


def score(module, users, services, times, newcomers=NOBODY):
    encoded = encode(module, *newcomers)
    rows = (torch.as_tensor(codes).contiguous() for codes in (users, services, times))
    return numpy(module.score(encoded, *rows))


# --- Windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "steps", "horizon"),
    [
        (4, [1, 2, 3], 0),
        (3, [None, 1, 2], 0),
        (2, [0, None, 1], 0),
        (0, [None, None, 0], 0),
        (20, [None, None, 4], 0),
        # Between steps, after the last, before the first.
        (1, [None, None, 0], 1),
        (6, [1, 2, 3], 2),
        (8, [1, 2, 3], 4),
        (19, [1, 2, 3], MAX_HORIZON),
        (21, [None, None, 4], 1),
        (10**12, [None, None, 4], MAX_HORIZON),
        (-3, [None, None, 0], 0),
    ],
)
def test_windows_hold_the_steps_at_their_distance(time, steps, horizon):
    windows = make_module().windows(torch.tensor([time]))
    assert windows.present.tolist() == [[step is not None for step in steps]]
    assert windows.steps.tolist() == [[step or 0 for step in steps]]
    assert windows.horizons.tolist() == [horizon]
    assert windows.targets.tolist() == [time]


@pytest.mark.parametrize(
    ("time", "steps", "horizon", "distance"),
    [
        # The own step is a step of the sequence, in the middle.
        (3, [2, 3, 4], 0, 1),
        (4, [3, 4, 20], 0, MAX_HORIZON),
        (2, [None, 2, 3], 0, 1),
        (20, [None, 20, None], 0, 0),
        # In a gap, at the end, before the first step.
        (1, [None, 0, 2], 1, 1),
        (6, [3, 4, 20], 2, MAX_HORIZON),
        (17, [3, 4, 20], MAX_HORIZON, 3),
        (21, [None, 20, None], 1, 0),
        (-3, [None, 0, 2], 0, MAX_HORIZON),
    ],
)
def test_windows_of_both_sides_hold_later_steps(time, steps, horizon, distance):
    windows = make_module(n_later=1).windows(torch.tensor([time]))
    found = np.where(windows.present, TIMES[windows.steps], -1)
    assert found.tolist() == [[-1 if step is None else step for step in steps]]
    assert windows.horizons.tolist() == [horizon]
    assert windows.distances.tolist() == [distance]


# --- Prediction ---------------------------------------------------------------------------------


def linear(layer, member, x):
    return x @ numpy(layer.weight)[member] + numpy(layer.bias)[member, 0]


def slow_prediction(module, features, embeddings, *row):
    """Average the members; features and embeddings of both sides have them first."""
    predictions = [
        slow_member(
            module,
            member,
            [side[member] for side in features],
            [side[member] for side in embeddings],
            *row,
        )
        for member in range(N_MEMBERS)
    ]
    assert np.ptp(predictions) > 1e-4
    return np.mean(predictions)


def slow_member(module, member, features, embeddings, user, service, time):
    """Predict one pair; features (n_steps, n, width) and embeddings (n, dim) of both sides."""
    end = max([step for step, other in enumerate(TIMES) if other <= time], default=0)
    n_earlier = WINDOW - module.n_later
    places = {
        step: n_earlier - 1 - (TIMES[end] - TIMES[step])
        for step in range(end + 1)
        if TIMES[end] - TIMES[step] < n_earlier
    }
    distance = 0
    if module.n_later and end + 1 < N_STEPS:
        distance = min(max(TIMES[end + 1] - time, 1), MAX_HORIZON)
        for step in range(end + 1, N_STEPS):
            if TIMES[step] - TIMES[end + 1] < module.n_later:
                places[step] = n_earlier + TIMES[step] - TIMES[end + 1]
    is_own = TIMES[end] >= time
    horizon = min(max(time - TIMES[end], 0), MAX_HORIZON)
    shares = slow_shares(horizon)
    own_cells = np.full(N_STEPS, NAN)
    if module.history and user < N_USERS and service < N_SERVICES:
        own_cells = random_cells()[1][user, service]
    counted = set(range(N_STEPS)) if is_own or distance else set(range(end + 1))
    counted -= {end} if is_own else set()
    others = [own_cells[step] for step in counted if not np.isnan(own_cells[step])]
    summary = [np.mean(others) if others else 0, np.log1p(len(others))]
    dates = [] if module.calendar is None else [numpy(module.calendar(torch.tensor([time])))[0, 0]]
    present = torch.zeros(WINDOW, dtype=bool)
    pair = list(zip(features, (user, service), strict=True))
    own = [of_side[code] for of_side, code in zip(embeddings, (user, service), strict=False)]
    sequence = np.zeros((WINDOW, module.horizon_embeddings.shape[2]))
    for step, place in places.items():
        token = shares @ numpy(module.horizon_embeddings)[member]
        if module.distance_embeddings is not None:
            token += slow_shares(distance) @ numpy(module.distance_embeddings)[member]
        for date in dates:
            token += date @ numpy(module.mix_calendar.weight)[member]
        parts = [side[step, code] for side, code in pair]
        if hasattr(module.mix_features[0], "weight"):
            layers = module.mix_features
            token += sum(linear(*side) for side in zip(layers, [member] * 2, parts, strict=True))
        else:
            token += np.concatenate(parts)
        if own:
            layers = module.mix_entities
            token += sum(linear(*side) for side in zip(layers, [member] * 2, own, strict=True))
        if module.history and not (is_own and step == end) and not np.isnan(own_cells[step]):
            token += [own_cells[step], 1] @ numpy(module.mix_history.weight)[member]
        if module.position_embeddings is not None:
            token += numpy(module.position_embeddings)[member, place]
        sequence[place] = token
        present[place] = True
    # The other members read the same sequence, which has no say here.
    sequences = torch.tensor(sequence, dtype=torch.float32).expand(N_MEMBERS, 1, -1, -1)
    encoded = module.encoder(sequences, present.unsqueeze(0))
    last = numpy(encoded[member, 0])[n_earlier - 1]
    encoded = numpy(encoded[member, 0])[present.numpy()]
    hidden = {"max": encoded.max(0), "mean": encoded.mean(0), "last": last}[module.pooling]
    if module.target_features:
        last = [side[end, code] for side, code in pair]
        last += [summary] if module.history else []
        hidden = np.concatenate([hidden, *last, *dates, *own])
    for layer in module.layers[:-1]:
        hidden = np.maximum(linear(layer, member, hidden), 0)
    return linear(module.layers[-1], member, hidden)[0]


def slow_shares(distance):
    """Shares of the embeddings of 0, 1, 2, 4 and 8 steps; in between, on a logarithmic scale."""
    place = 1 + np.log2(distance) if distance else 0
    return np.array([max(1 - abs(place - knot), 0) for knot in range(5)])


VARIANTS = [
    {},
    {"encoder": "paper"},
    {"encoder": "gru", "pooling": "last"},
    {"pooling": "mean"},
    {"entities": False},
    {"entities": False, "target_features": False},
    {"target_features": False},
    {"step_encoding": False},
    {"token_dim": None},
    {"token_dim": None, "entities": False, "step_encoding": False, "target_features": False},
    {"hidden_sizes": ()},
    {"history": None},
    {"n_later": 1, "pooling": "last"},
    {"n_later": 2, "encoder": "gru"},
    {"history": None, "entities": False, "step_encoding": False},
    {"calendar": Calendar(3600 * 10**9, 3, with_weekdays=True)},
]
every_variant = pytest.mark.parametrize("params", VARIANTS, ids=str)


@every_variant
def test_predictions_are_those_of_sequences_put_together_step_by_step(params):
    module = make_module(**params)
    features = [numpy(side).mean(1) for side in random_features()]
    embeddings = [numpy(side.encode_known()) for side in module.entities or ()]
    users, services, times = np.array(
        [(k % N_USERS, (2 * k) % N_SERVICES, time) for k, time in enumerate(range(-2, 24, 2))]
        + [(3, 4, 5), (0, 1, 1)]
    ).T
    expected = [
        slow_prediction(module, features, embeddings, *row)
        for row in zip(users, services, times, strict=True)
    ]
    assert np.ptp(expected) > 0.1
    assert_allclose(score(module, users, services, times), expected, **SINGLE)


def test_features_as_they_are_stand_side_by_side():
    """Rows of the input are user's and service's features of a step (eq. 7)."""
    module = make_module(token_dim=None, entities=False, step_encoding=False, history=None)
    with torch.no_grad():
        module.horizon_embeddings.zero_()
    users, services = (numpy(side).mean(1) for side in random_features())
    inputs = module._gather(
        encode(module, *NOBODY), torch.tensor([1, 3]), torch.tensor([4, 0]), torch.tensor([4, 2])
    )
    found = numpy(module._sequence(inputs))
    for k, (of_users, of_services) in enumerate(zip(users, services, strict=True)):
        full = [np.concatenate([of_users[step, 1], of_services[step, 4]]) for step in (1, 2, 3)]
        short = [np.concatenate([of_users[step, 3], of_services[step, 0]]) for step in (0, 1)]
        assert_allclose(found[k, 0], full, **SINGLE)
        assert_allclose(found[k, 1], [short[0], np.zeros(sum(WIDTHS)), short[1]], **SINGLE)


def test_the_start_is_what_it_predicts_beside_its_last_weights():
    module = make_module(initial_prediction=0.7)
    with torch.no_grad():
        module.layers[-1].weight.zero_()
    assert_allclose(score(module, [0, 1], [2, 3], [0, 30]), 0.7, rtol=1e-6)


def test_horizons_differ_by_their_embeddings_alone():
    module = make_module(history=None)
    found = [score(module, [1], [2], [time])[0] for time in (4, 5, 6, 8, 9, 19)]
    assert np.abs(np.diff(found[:4])).min() > 1e-3
    # Longer ones than training draws count as the longest.
    assert found[4] == found[5]
    with torch.no_grad():
        module.horizon_embeddings[:] = module.horizon_embeddings[:, :1]
    found = [score(module, [1], [2], [time])[0] for time in (4, 5, 6, 8, 9, 19)]
    assert_allclose(found, found[0], rtol=1e-5)


def test_dates_differ_by_the_time_of_the_day():
    """Steps of six hours: a day later nothing but the horizon is another, which is the longest."""
    module = make_module(calendar=Calendar(6 * 3600 * 10**9, 0, with_weekdays=False))
    found = score(module, [1] * 9, [2] * 9, np.arange(30, 39))
    assert np.abs(np.diff(found)).min() > 1e-3
    assert_allclose(found[4:], found[:5], rtol=1e-5)


def test_predictions_do_not_depend_on_the_other_rows():
    module = make_module()
    users, services, steps, _ = all_rows()
    times = torch.tensor(TIMES)[steps]
    whole = score(module, users, services, times)
    chosen = torch.randperm(len(users))[:9]
    found = score(module, users[chosen], services[chosen], times[chosen])
    assert_allclose(found, whole[chosen], **SINGLE)


def test_no_pairs_at_all():
    nothing = np.arange(0)
    interactions = Interactions(nothing, nothing, nothing, *NOBODY)
    found = predict_interactions(make_module(), interactions, torch.device("cpu"))
    assert found.shape == (0,)


# --- Training -----------------------------------------------------------------------------------


@every_variant
def test_training_sequences_are_those_of_prediction_where_all_tables_are_equal(params):
    module = make_module(equal=True, **params)
    users, services, steps, folds = all_rows()
    found = numpy(module.train()(users, services, steps, folds)).mean(0)
    expected = score(module.eval(), users, services, torch.tensor(TIMES)[steps])
    assert np.ptp(expected) > 0.1
    assert_allclose(found, expected, **SINGLE)


def test_training_rows_take_the_features_of_their_table():
    features = random_features()
    users, services, steps, folds = all_rows()
    found = numpy(make_module(features)(users, services, steps, folds)).mean(0)
    for k in range(N_FOLDS):
        alone = make_module([side[:, k : k + 1] for side in features])
        of_fold = folds == k
        expected = score(alone, users, services, torch.tensor(TIMES)[steps])
        assert_allclose(found[of_fold], expected[of_fold], **SINGLE)
        assert np.abs(found[~of_fold] - expected[~of_fold]).max() > 0.01


def test_training_as_newcomers_is_the_prediction_of_unknown_entities_with_that_context():
    module = make_module(equal=True, newcomer_share=1.0)
    users, services, steps, folds = all_rows()
    found = numpy(module.train()(users, services, steps, folds)).mean(0)
    expected = score(
        module.eval(),
        N_USERS + users,
        N_SERVICES + services,
        torch.tensor(TIMES)[steps],
        newcomers=(USERS, SERVICES),
    )
    assert np.ptp(expected) > 0.1
    assert_allclose(found, expected, **SINGLE)


def test_newcomers_in_training_are_the_average_of_their_table():
    features = random_features()
    users, services, steps, folds = all_rows()
    params = {"newcomer_share": 1.0, "entities": False, "history": None}
    found = numpy(make_module(features, **params).train()(users, services, steps, folds))
    means = [side.mean(3, keepdim=True).expand_as(side) for side in features]
    expected = make_module(means, entities=False, history=None)(users, services, steps, folds)
    assert_allclose(found, numpy(expected), **SINGLE)


def test_users_and_services_are_drawn_as_newcomers_apart():
    module = make_module(equal=True, entities=False, newcomer_share=0.3).train()
    n = 2000
    rows = [torch.full((n,), code) for code in (1, 2, 3, 0)]
    found = numpy(module(*rows)).mean(0)
    kinds = [
        score(module.eval(), [user], [service], [4], newcomers=(NEW_USERS, NEW_SERVICES))[0]
        for user in (1, N_USERS)
        for service in (2, N_SERVICES)
    ]
    shares = [np.isclose(found, kind, rtol=1e-4, atol=1e-6).mean() for kind in kinds]
    assert_allclose(shares, [0.49, 0.21, 0.21, 0.09], atol=0.05)
    assert sum(shares) == pytest.approx(1.0)


@pytest.mark.parametrize(("draw", "horizon"), [(0.0, 1), (0.5, 2), (0.999, MAX_HORIZON)])
def test_forecasts_in_training_are_the_prediction_of_that_horizon(monkeypatch, draw, horizon):
    """If no step is that far back, the last step before it is; if there is none, the own one."""
    module = make_module(equal=True, forecast_share=1.0).train()
    rows = all_rows()
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.zeros(*shape) + draw)
    found = numpy(module(*rows)).mean(0)
    for user, service, step, prediction in zip(*rows[:3], found, strict=True):
        ends = np.flatnonzero(TIMES[step] - TIMES >= horizon)
        row = int(user), int(service), TIMES[step]
        if len(ends):
            expected = score_from(module.eval(), *row, ends[-1])
        else:
            expected = score(module.eval(), *np.array([row]).T)[0]
        assert prediction == pytest.approx(expected, rel=1e-4, abs=1e-5)


def score_from(module, user, service, time, end):
    """Predict a time as if no later step than `end` had been measured."""
    twin = copy.deepcopy(module)
    times = TIMES[: end + 1]
    twin._set_steps(
        times, [side[:, : end + 1] for side in (twin.user_features, twin.service_features)]
    )
    return score(twin, [user], [service], [time])[0]


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        # The first step has none before it; the last one has none after it.
        (0.0, [[-1, 0, 2], [-1, 0, 3], [-1, 2, 4], [2, 3, 20], [3, 4, -1]]),
        # Forecasts from five steps before, or else the own step.
        (0.9, [[-1, 0, 2], [-1, 2, 3], [2, 3, 4], [3, 4, 20], [3, 4, -1]]),
    ],
)
def test_half_of_the_forecasts_in_training_are_in_a_gap(monkeypatch, draw, expected):
    module = make_module(n_later=1, forecast_share=1.0)
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.zeros(*shape) + draw)
    windows = module._training_windows(torch.arange(N_STEPS))
    assert np.where(windows.present, TIMES[windows.steps], -1).tolist() == expected
    assert windows.own.tolist() == list(range(N_STEPS))
    assert windows.distances.tolist() == [2, 1, 1, MAX_HORIZON, 0]


def test_horizons_are_drawn_the_short_ones_more_often():
    module = make_module(forecast_share=0.4)
    steps = torch.full((6000,), 3)
    horizons = numpy(module._training_windows(steps).horizons)
    # Steps 0, 2 and 3 come before step 4, at distances of 4, 2 and 1; 3 leads to step 0.
    shares = np.bincount(horizons, minlength=MAX_HORIZON + 1) / len(horizons)
    logarithms = np.log(np.arange(1, 7)) / np.log(MAX_HORIZON + 1)
    drawn = 0.4 * np.diff(logarithms)
    nothing = drawn[4]
    expected = [0.6 + nothing, drawn[0], drawn[1], 0, drawn[2] + drawn[3], 0]
    assert_allclose(shares, expected, atol=0.03)


@pytest.mark.parametrize("forecast_share", [0.0, 1.0])
@pytest.mark.parametrize("n_later", [0, 1])
def test_training_rows_do_not_see_their_own_cell(forecast_share, n_later):
    module = make_module(forecast_share=forecast_share, n_later=n_later).train()
    shape = N_STEPS, N_USERS, N_SERVICES

    def predict(row, changed_step, value):
        cell = StepCells(*np.array([[changed_step], row[:1], row[1:2]]), np.array([value]), shape)
        module.history.extend(cell, np.arange(N_STEPS))
        torch.manual_seed(0)
        return numpy(module(*(torch.tensor([code]) for code in row)))

    for row in zip(*(codes[::4].tolist() for codes in all_rows()), strict=True):
        step = row[2]
        assert_allclose(predict(row, step, -100.0), predict(row, step, 100.0), **SINGLE)
        if step:
            assert (np.abs(predict(row, 0, -100.0) - predict(row, 0, 100.0)) > 0.1).any()


def test_a_longer_horizon_starts_as_the_longest_one():
    module = make_module()
    times = [5, 6, 8, 9, 19]
    before = score(module, [1] * 5, [2] * 5, times)
    module.extend_horizons(3)
    assert module.max_horizon == MAX_HORIZON
    module.extend_horizons(16)
    found = score(module, [1] * 5, [2] * 5, times)
    # Horizon 5 was between 4 and 8; those of 8 and more have the embedding of 8.
    assert_allclose(found[:4], before[:4], **SINGLE)
    with torch.no_grad():
        module.horizon_embeddings[:, -1].normal_()
    assert np.abs(score(module, [1] * 5, [2] * 5, times)[4] - found[4]) > 1e-3


def test_dropout_of_embeddings_is_for_training_only():
    module = make_module(equal=True, entity_dropout=0.5)
    rows = all_rows()
    plain = numpy(module(*rows))
    assert_allclose(numpy(module(*rows)), plain)
    assert np.abs(numpy(module.train()(*rows)) - plain).max() > 0.01
    without = make_module(equal=True, entities=False, entity_dropout=0.5).train()
    assert torch.equal(without(*rows), without(*rows))


# --- Members ------------------------------------------------------------------------------------


MEMBER_VARIANTS = [
    {},
    {"encoder": "paper", "pooling": "mean"},
    {"encoder": "gru", "pooling": "last"},
    {"token_dim": None},
    {"entities": False, "target_features": False, "step_encoding": False},
]
every_member_variant = pytest.mark.parametrize("params", MEMBER_VARIANTS, ids=str)


@every_member_variant
@pytest.mark.parametrize("shared_features", [False, True])
def test_members_are_networks_of_their_own(params, shared_features):
    """They predict and learn as modules of one member do."""
    params = {**params, "features": random_features(n_members=1 if shared_features else 3)}
    alone = {**params, "features": random_features(n_members=1), "n_members": 1}
    check_members_alone(
        make_module(**params, n_members=3),
        lambda: make_module(**alone),
        lambda module: module(*all_rows()),
    )


@every_member_variant
def test_scores_are_the_average_of_the_members(params):
    module = make_module(**params, equal=True, n_members=3)
    users, services, steps, _ = all_rows()
    times = torch.tensor(TIMES)[steps]
    newcomers = NEW_USERS, NEW_SERVICES
    users[:3], services[2:5] = N_USERS + 1, N_SERVICES
    scores = [score(module, users, services, times, newcomers)]
    for member in range(3):
        alone = make_module(**params, n_members=1)
        alone.load_state_dict(of_member(module.state_dict(), member, 3))
        scores.append(score(alone, users, services, times, newcomers))
    assert np.ptp(scores, axis=0).max() > 0.01
    assert_allclose(scores[0], np.mean(scores[1:], axis=0), **SINGLE)


# --- Newcomers ----------------------------------------------------------------------------------


def test_newcomers_have_average_features_and_their_own_context():
    module = make_module()
    features = [numpy(side).mean(1) for side in random_features()]
    encoded = encode(module, NEW_USERS, NEW_SERVICES)
    for k, (n, n_new) in enumerate(((N_USERS, 2), (N_SERVICES, 1))):
        found = numpy((encoded.users, encoded.services)[k][1])
        assert_allclose(found[:, :, :n], features[k], **SINGLE)
        average = features[k].mean(2, keepdims=True)
        assert_allclose(found[:, :, n:], np.repeat(average, n_new, axis=2), **SINGLE)
    _, features, _, embeddings = zip(encoded.users, encoded.services, strict=True)
    features, embeddings = list(map(numpy, features)), list(map(numpy, embeddings))
    for side, embedding, new in zip(
        embeddings, module.entities, (NEW_USERS, NEW_SERVICES), strict=True
    ):
        known = embedding.encode_known()
        newcomers = embedding.encode_new(known.mean(1), new)
        assert_allclose(side, numpy(torch.cat([known, newcomers], dim=1)), **SINGLE)
    rows = [(N_USERS, N_SERVICES, 6), (N_USERS + 1, 3, 30), (0, N_SERVICES, 2)]
    expected = [slow_prediction(module, features, embeddings, *row) for row in rows]
    found = score(module, *np.array(rows).T, newcomers=(NEW_USERS, NEW_SERVICES))
    assert_allclose(found, expected, **SINGLE)


# --- What is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize("entities", [False, True])
def test_without_what_training_takes_predictions_are_the_same_to_the_last_bit(entities):
    module = make_module(entities=entities)
    rows = [0, N_USERS, 2], [3, 1, N_SERVICES], [-1, 6, 30]
    newcomers = NEW_USERS, NEW_SERVICES
    before = score(module, *rows, newcomers=newcomers)
    module.forget_training()
    assert (score(module, *rows, newcomers=newcomers) == before).all()
    buffers = {name for name, value in module.named_buffers() if "." not in name}
    kept = {"times", "window_steps", "window_present", "later_steps", "later_present"}
    kept |= {"user_features", "service_features"}
    assert buffers == {*kept, "horizon_shares"}


@every_variant
def test_every_parameter_gets_a_gradient(params):
    module = make_module(**params, newcomer_share=0.3, forecast_share=0.3).train()
    rows = [codes.repeat(3) for codes in all_rows()]
    module(*rows).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
        if name in ("position_embeddings", "horizon_embeddings"):
            assert parameter.grad.abs().sum(2).min() > 0, name


@every_variant
def test_every_tensor_is_a_parameter_or_a_buffer(params):
    module = make_module(**params)
    for forget in (False, True):
        if forget:
            module.forget_training()
        score(module, [0], [1], [2])
        for part in module.modules():
            assert not loose_tensors(part)


# --- Attention ----------------------------------------------------------------------------------


def test_attention_weights_are_those_of_the_sequence_predicted_from():
    module = make_module()
    # Windows that end at a step, have a gap, come after the last step, before the first.
    rows = [torch.tensor(codes) for codes in ([1, 0, 3, 2], [2, 0, 4, 1], [4, 2, 30, -1])]
    encoded = encode(module, *NOBODY)
    found = numpy(module.attention_weights(encoded, *rows))
    assert found.shape == (4, 2, 2, WINDOW, WINDOW)
    assert_allclose(found.sum(axis=4), 1, rtol=1e-5)
    # One step of the second window is padding, and two of the last ones.
    assert (found[1, ..., 1] == 0).all()
    assert (found[2:, ..., :2] == 0).all()
    assert (found[0] > 0).all()
    assert (found[1, ..., [0, 2]] > 0).all()
    seen = []
    for block in module.encoder.blocks:
        block.attention.register_forward_hook(
            lambda attention, args, _: seen.append(numpy(attention.weights(*args)))
        )
    module.score(encoded, *rows)
    seen = np.stack(seen, axis=2)
    assert np.ptp(seen, axis=0).max() > 0.01
    assert_allclose(found, seen.mean(0), rtol=1e-5)
