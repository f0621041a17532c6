"""The network of TPMCF: sequences put together by loops, training against prediction."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.embeddings import FeatureEmbedding
from skqos.entities import UNKNOWN, EntityTable, Interactions
from skqos.prediction import encode, predict_interactions
from skqos.tpmcf.module import TPMCFModule, lay_windows
from skqos.tpmcf.transformer import (
    EncoderBlock,
    FeatureConvolution,
    RecurrentEncoder,
    TimeConvolution,
    TransformerEncoder,
)
from skqos.training import seeded
from tests.common import Cost
from tests.tpmcf.members import check_members_alone, of_member
from tests.tpmcf.test_gcmf import loose_tensors

N_TABLES, N_USERS, N_SERVICES, WINDOW, N_MEMBERS = 3, 4, 5, 3, 2
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


def random_features(n_tables=N_TABLES, equal=False, n_members=N_MEMBERS):
    rng = np.random.default_rng(0)
    sides = [
        rng.normal(size=(n_members, n_tables, N_STEPS, n, width))
        for n, width in zip((N_USERS, N_SERVICES), WIDTHS, strict=True)
    ]
    if equal:
        sides = [np.stack([side[:, 0]] * n_tables, axis=1) for side in sides]
    return [torch.tensor(side, dtype=torch.float32) for side in sides]


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
    features=None, equal=False, vectors=True, encoder="time", n_members=N_MEMBERS, **params
):
    """Return a module in evaluation mode; the same weights for the same shapes."""
    torch.manual_seed(0)
    if features is None:
        features = random_features(equal=equal, n_members=n_members)
    if vectors:
        vectors = (
            FeatureEmbedding(USERS, [2], ENTITY_DIM, n_members),
            FeatureEmbedding(SERVICES, [2, 3], ENTITY_DIM, n_members),
        )
    token_dim = params.get("token_dim", TOKEN_DIM)
    dim = sum(WIDTHS) if token_dim is None else token_dim
    settings = {
        "n_members": n_members,
        "token_dim": token_dim,
        "window": WINDOW,
        "hidden_sizes": (16, 12),
        "pooling": "max",
        "step_encoding": True,
        "target_features": True,
        "vector_dropout": 0.0,
        "newcomer_share": 0.0,
        "forecast_share": 0.0,
        "start": 0.3,
        **params,
    }
    encoder = make_encoder(encoder, dim, n_members)
    module = TPMCFModule(TIMES, features, vectors or None, encoder, **settings)
    with torch.no_grad():
        # As after training: everything has its say.
        for values in (module.step_vectors, module.position_vectors, module.ahead_vectors):
            if values is not None:
                values.normal_()
        for side in module.vectors or ():
            side.vectors.normal_()
        for layer in module.layers:
            layer.weight.mul_(2)
    return module.eval()


def all_rows():
    """Every user with every service at every step, the table in turn."""
    users, services, steps = np.indices((N_USERS, N_SERVICES, N_STEPS)).reshape(3, -1)
    tables = np.arange(len(users)) % N_TABLES
    return [torch.tensor(codes) for codes in (users, services, steps, tables)]


def score(module, users, services, times, newcomers=NOBODY):
    encoded = encode(module, *newcomers)
    rows = (torch.as_tensor(codes).contiguous() for codes in (users, services, times))
    return numpy(module.score(encoded, *rows))


# --- Windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "steps", "ahead"),
    [
        (4, [1, 2, 3], 0),
        (3, [None, 1, 2], 0),
        (2, [0, None, 1], 0),
        (0, [None, None, 0], 0),
        (20, [None, None, 4], 0),
        # Between steps, after the last, before the first.
        (1, [None, None, 0], 1),
        (5, [1, 2, 3], 1),
        (19, [1, 2, 3], 1),
        (21, [None, None, 4], 1),
        (10**12, [None, None, 4], 1),
        (-3, [None, None, 0], 1),
    ],
)
def test_windows_hold_the_steps_at_their_distance(time, steps, ahead):
    windows = make_module().windows(torch.tensor([time]))
    assert windows.present.tolist() == [[step is not None for step in steps]]
    assert windows.steps.tolist() == [[step or 0 for step in steps]]
    assert windows.ahead.tolist() == [ahead]


@pytest.mark.parametrize("window", [1, 3, 20])
@pytest.mark.parametrize("first", [-3, 0, 10**15])
def test_without_gaps_windows_are_the_last_steps(window, first):
    """As they were when steps were numbered in their order, whatever lay between."""
    steps, present = lay_windows(first + np.arange(9), window)
    expected = torch.arange(9).unsqueeze(1) + torch.arange(1 - window, 1)
    assert torch.equal(steps, expected.clamp(min=0))
    assert torch.equal(present, expected >= 0)


def test_a_gap_takes_no_memory():
    """Integers at both ends of the range wrap around, and find nothing."""
    least, largest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    with Cost() as cost:
        steps, present = lay_windows(np.array([least, 0, 1, 10**9, largest]), 4)
    assert cost.peak < 10_000
    assert present.tolist() == [
        [False, False, False, True],
        [False, False, False, True],
        [False, False, True, True],
        [False, False, False, True],
        [False, False, False, True],
    ]
    assert steps[2].tolist() == [0, 0, 1, 2]


# --- Prediction ---------------------------------------------------------------------------------


def linear(layer, member, x):
    return x @ numpy(layer.weight)[member] + numpy(layer.bias)[member, 0]


def slow_prediction(module, features, vectors, *row):
    """Average the members; features and vectors of both sides have them first."""
    predictions = [
        slow_member(
            module, member, [side[member] for side in features], [v[member] for v in vectors], *row
        )
        for member in range(N_MEMBERS)
    ]
    assert np.ptp(predictions) > 1e-3
    return np.mean(predictions)


def slow_member(module, member, features, vectors, user, service, time):
    """Predict one pair; features (n_steps, n, width) and vectors (n, dim) of both sides."""
    end = max([step for step, other in enumerate(TIMES) if other <= time], default=0)
    steps = [step for step in range(end + 1) if TIMES[end] - TIMES[step] < WINDOW]
    ahead = int(TIMES[end] != time)
    present = torch.zeros(WINDOW, dtype=bool)
    pair = list(zip(features, (user, service), strict=True))
    own = [of_side[code] for of_side, code in zip(vectors, (user, service), strict=False)]
    sequence = np.zeros((WINDOW, module.ahead_vectors.shape[2]))
    for step in steps:
        back = TIMES[end] - TIMES[step]
        token = numpy(module.ahead_vectors)[member, ahead].copy()
        parts = [side[step, code] for side, code in pair]
        if hasattr(module.mix_features[0], "weight"):
            layers = module.mix_features
            token += sum(linear(*side) for side in zip(layers, [member] * 2, parts, strict=True))
        else:
            token += np.concatenate(parts)
        if own:
            layers = module.mix_vectors
            token += sum(linear(*side) for side in zip(layers, [member] * 2, own, strict=True))
        if module.step_vectors is not None:
            token += numpy(module.step_vectors)[member, step]
            token += numpy(module.position_vectors)[member, WINDOW - 1 - back]
        sequence[WINDOW - 1 - back] = token
        present[WINDOW - 1 - back] = True
    # The other members read the same sequence, which has no say here.
    sequences = torch.tensor(sequence, dtype=torch.float32).expand(N_MEMBERS, 1, -1, -1)
    encoded = module.encoder(sequences, present.unsqueeze(0))
    encoded = numpy(encoded[member, 0])[present.numpy()]
    hidden = {"max": encoded.max(0), "mean": encoded.mean(0), "last": encoded[-1]}[module.pooling]
    if module.target_features:
        hidden = np.concatenate([hidden, *(side[steps[-1], code] for side, code in pair), *own])
    for layer in module.layers[:-1]:
        hidden = np.maximum(linear(layer, member, hidden), 0)
    return linear(module.layers[-1], member, hidden)[0]


VARIANTS = [
    {},
    {"encoder": "paper"},
    {"encoder": "gru", "pooling": "last"},
    {"pooling": "mean"},
    {"vectors": False},
    {"vectors": False, "target_features": False},
    {"target_features": False},
    {"step_encoding": False},
    {"token_dim": None},
    {"token_dim": None, "vectors": False, "step_encoding": False, "target_features": False},
    {"hidden_sizes": ()},
]
every_variant = pytest.mark.parametrize("params", VARIANTS, ids=str)


@every_variant
def test_predictions_are_those_of_sequences_put_together_step_by_step(params):
    module = make_module(**params)
    features = [numpy(side).mean(1) for side in random_features()]
    vectors = [numpy(side.encode_known()) for side in module.vectors or ()]
    users, services, times = np.array(
        [(k % N_USERS, (2 * k) % N_SERVICES, time) for k, time in enumerate(range(-2, 24, 2))]
        + [(3, 4, 5), (0, 1, 1)]
    ).T
    expected = [
        slow_prediction(module, features, vectors, *row)
        for row in zip(users, services, times, strict=True)
    ]
    assert np.ptp(expected) > 0.1
    assert_allclose(score(module, users, services, times), expected, **SINGLE)


def test_features_as_they_are_stand_side_by_side():
    """Rows of the input are user's and service's features of a step (eq. 7)."""
    module = make_module(token_dim=None, vectors=False, step_encoding=False)
    with torch.no_grad():
        module.ahead_vectors.zero_()
    users, services = (numpy(side).mean(1) for side in random_features())
    mixed, _, vectors, windows = module._gather(
        encode(module, *NOBODY), torch.tensor([1, 3]), torch.tensor([4, 0]), torch.tensor([4, 2])
    )
    found = numpy(module._sequence(mixed, vectors, windows))
    for k, (of_users, of_services) in enumerate(zip(users, services, strict=True)):
        full = [np.concatenate([of_users[step, 1], of_services[step, 4]]) for step in (1, 2, 3)]
        short = [np.concatenate([of_users[step, 3], of_services[step, 0]]) for step in (0, 1)]
        assert_allclose(found[k, 0], full, **SINGLE)
        assert_allclose(found[k, 1], [short[0], np.zeros(sum(WIDTHS)), short[1]], **SINGLE)


def test_the_start_is_what_it_predicts_beside_its_last_weights():
    module = make_module(start=0.7)
    with torch.no_grad():
        module.layers[-1].weight.zero_()
    assert_allclose(score(module, [0, 1], [2, 3], [0, 30]), 0.7, rtol=1e-6)


def test_a_time_between_steps_differs_from_the_step_before_by_the_vector_for_it():
    module = make_module()
    step, between, later = (score(module, [1], [2], [time])[0] for time in (4, 5, 21))
    assert abs(step - between) > 1e-3
    with torch.no_grad():
        module.ahead_vectors[:, 0] = module.ahead_vectors[:, 1]
    assert_allclose(score(module, [1], [2], [4])[0], between, rtol=1e-6)
    assert abs(later - between) > 1e-3


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
    users, services, steps, tables = all_rows()
    found = numpy(module.train()(users, services, steps, tables)).mean(0)
    expected = score(module.eval(), users, services, torch.tensor(TIMES)[steps])
    assert np.ptp(expected) > 0.1
    assert_allclose(found, expected, **SINGLE)


def test_training_rows_take_the_features_of_their_table():
    features = random_features()
    users, services, steps, tables = all_rows()
    found = numpy(make_module(features)(users, services, steps, tables)).mean(0)
    for k in range(N_TABLES):
        alone = make_module([side[:, k : k + 1] for side in features])
        of_table = tables == k
        expected = score(alone, users, services, torch.tensor(TIMES)[steps])
        assert_allclose(found[of_table], expected[of_table], **SINGLE)
        assert np.abs(found[~of_table] - expected[~of_table]).max() > 0.01


def test_training_as_newcomers_is_the_prediction_of_unknown_entities_with_that_context():
    module = make_module(equal=True, newcomer_share=1.0)
    users, services, steps, tables = all_rows()
    found = numpy(module.train()(users, services, steps, tables)).mean(0)
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
    users, services, steps, tables = all_rows()
    params = {"newcomer_share": 1.0, "vectors": False}
    found = numpy(make_module(features, **params).train()(users, services, steps, tables))
    means = [side.mean(3, keepdim=True).expand_as(side) for side in features]
    expected = make_module(means, vectors=False)(users, services, steps, tables)
    assert_allclose(found, numpy(expected), **SINGLE)


def test_users_and_services_are_drawn_as_newcomers_apart():
    module = make_module(equal=True, vectors=False, newcomer_share=0.3).train()
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


def test_forecasts_in_training_are_the_prediction_of_a_step_not_seen():
    """Between the steps lies a time that is predicted from the steps before, but in a row."""
    module = make_module(equal=True, forecast_share=1.0)
    rows = all_rows()
    has_gap = np.diff(TIMES, prepend=-9)[rows[2]] > 1
    users, services, steps, tables = (codes[has_gap] for codes in rows)
    assert steps.unique().tolist() == [0, 1, 4]
    found = numpy(module.train()(users, services, steps, tables)).mean(0)
    # The first step has none before it.
    times = torch.tensor(TIMES)[steps] - (steps > 0).long()
    expected = score(module.eval(), users, services, times)
    assert_allclose(found, expected, **SINGLE)


def test_a_share_of_the_rows_is_forecast():
    module = make_module(equal=True, forecast_share=0.3).train()
    rows = [torch.full((2000,), code) for code in (1, 2, 4, 0)]
    found = numpy(module(*rows)).mean(0)
    own, before = (score(module.eval(), [1], [2], [time])[0] for time in (20, 19))
    shares = [np.isclose(found, kind, rtol=1e-4, atol=1e-6).mean() for kind in (own, before)]
    assert_allclose(shares, [0.7, 0.3], atol=0.05)


def test_dropout_of_vectors_is_for_training_only():
    module = make_module(equal=True, vector_dropout=0.5)
    rows = all_rows()
    plain = numpy(module(*rows))
    assert_allclose(numpy(module(*rows)), plain)
    assert np.abs(numpy(module.train()(*rows)) - plain).max() > 0.01
    without = make_module(equal=True, vectors=False, vector_dropout=0.5).train()
    assert torch.equal(without(*rows), without(*rows))


# --- Members ------------------------------------------------------------------------------------


MEMBER_VARIANTS = [
    {},
    {"encoder": "paper", "pooling": "mean"},
    {"encoder": "gru", "pooling": "last"},
    {"token_dim": None},
    {"vectors": False, "target_features": False, "step_encoding": False},
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
        found = numpy((encoded.users, encoded.services)[k][0])
        assert_allclose(found[:, :, :n], features[k], **SINGLE)
        average = features[k].mean(2, keepdims=True)
        assert_allclose(found[:, :, n:], np.repeat(average, n_new, axis=2), **SINGLE)
    features, _, vectors = zip(encoded.users, encoded.services, strict=True)
    features, vectors = list(map(numpy, features)), list(map(numpy, vectors))
    for side, embedding, new in zip(
        vectors, module.vectors, (NEW_USERS, NEW_SERVICES), strict=True
    ):
        known = embedding.encode_known()
        newcomers = embedding.encode_new(known.mean(1), new)
        assert_allclose(side, numpy(torch.cat([known, newcomers], dim=1)), **SINGLE)
    rows = [(N_USERS, N_SERVICES, 6), (N_USERS + 1, 3, 30), (0, N_SERVICES, 2)]
    expected = [slow_prediction(module, features, vectors, *row) for row in rows]
    found = score(module, *np.array(rows).T, newcomers=(NEW_USERS, NEW_SERVICES))
    assert_allclose(found, expected, **SINGLE)


# --- What is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize("vectors", [False, True])
def test_without_the_training_tables_predictions_are_the_same_to_the_last_bit(vectors):
    module = make_module(vectors=vectors)
    rows = [0, N_USERS, 2], [3, 1, N_SERVICES], [-1, 6, 30]
    newcomers = NEW_USERS, NEW_SERVICES
    before = score(module, *rows, newcomers=newcomers)
    module.forget_training_tables()
    assert (score(module, *rows, newcomers=newcomers) == before).all()
    names = {name for name, _ in module.named_buffers() if "." not in name}
    kept = {"times", "window_steps", "window_present", "user_features", "service_features"}
    assert names == kept


@every_variant
def test_every_parameter_gets_a_gradient(params):
    module = make_module(**params, newcomer_share=0.3, forecast_share=0.3).train()
    rows = [codes.repeat(3) for codes in all_rows()]
    module(*rows).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
        if name in ("step_vectors", "position_vectors", "ahead_vectors"):
            assert parameter.grad.abs().sum(2).min() > 0, name


@every_variant
def test_every_tensor_is_a_parameter_or_a_buffer(params):
    module = make_module(**params)
    for forget in (False, True):
        if forget:
            module.forget_training_tables()
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
