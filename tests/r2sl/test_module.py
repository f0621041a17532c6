"""The network against a convolution of the map itself, cell by cell; members; newcomers."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skqos.entities import UNKNOWN, EntityTable, Interactions
from skqos.prediction import encode, predict_interactions
from skqos.r2sl.module import KERNEL_WIDTHS, MIN_DEVIATION, EntityRows, PairLevels, R2SLModule
from skqos.training import seeded
from tests.common import copy_member, part_of_member, weight_of

EMBED, FILTERS, N_USERS, N_SERVICES = 3, 2, 6, 9
EXACT = {"rtol": 1e-10, "atol": 1e-10}
NAN = np.nan
# Kinds of region, states, known features of services beside the id.
MAPS = [(2, 5, 2), (2, 3, 2), (1, 8, 1), (0, 5, 2), (2, 4, 6), (1, 1, 2), (2, 2, 2)]


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def make_rows(
    n,
    n_categories,
    n_numeric,
    n_kinds,
    m,
    seed,
    dropout=0.0,
    n_members=1,
    has_levels=False,
    min_size=1,
):
    """Return the rows of n entities; kind k belongs to categorical column n_kinds - 1 - k."""
    rng = np.random.default_rng(seed)
    categories = np.empty((n, len(n_categories)), dtype=np.int64)
    for k, size in enumerate(n_categories):
        categories[:, k] = rng.permutation(np.arange(n) % size)
    table = EntityTable(categories, rng.normal(size=(n, n_numeric)))
    columns = range(n_kinds - 1, -1, -1)
    states = [(k, rng.dirichlet(np.ones(m), size=n_categories[k] + 1)) for k in columns]
    levels = [rng.normal(size=n_categories[k] + 1) for k in columns] if has_levels else ()
    rows = EntityRows(
        table,
        n_categories,
        states,
        m,
        n_members=n_members,
        dim=EMBED,
        dropout=dropout,
        log_levels=levels,
        min_size=min_size,
    )
    # As after training: entities and states differ.
    torch.nn.init.normal_(rows.state_vectors)
    torch.nn.init.normal_(rows.features.vectors)
    return rows.double(), states, table


def make_module(
    n_kinds=2,
    m=3,
    dropout=0.0,
    n_service_features=2,
    n_members=1,
    skip_connection=True,
    has_levels=False,
):
    options = dropout, n_members, has_levels
    users, *_ = make_rows(N_USERS, (3, 2), 1, n_kinds, m, 1, *options)
    categories = (4,) * n_service_features
    services, *_ = make_rows(N_SERVICES, categories, 0, n_kinds, m, 2, *options)
    levels = make_levels(n_kinds, n_members, users, services) if has_levels else None
    module = R2SLModule(
        users,
        services,
        n_members=n_members,
        n_filters=FILTERS,
        hidden_size=32,
        skip_connection=skip_connection,
        levels=levels,
    )
    return module.double().eval()


def make_levels(n_kinds, n_members, users, services):
    """Return levels whose scale is that of all pairs."""
    mismatch = np.arange(2.0, 2 + n_kinds)
    levels = PairLevels(mismatch, n_members=n_members, dim=EMBED, dropout=0.0).double()
    pairs = torch.cartesian_prod(torch.arange(N_USERS), torch.arange(N_SERVICES))
    levels.standardise(users.levels[pairs[:, 0]][None], services.levels[pairs[:, 1]][None])
    torch.nn.init.normal_(levels.vectors)
    return levels


def numpy(tensor):
    return tensor.detach().numpy()


# --- The paper's way ----------------------------------------------------------------------------


def slow_map(module, user, service):
    """Fill the map of a pair, (rows, width, channels), from the sides' features and shares."""
    fused = np.zeros((module.geometry.n_rows, module.geometry.width, EMBED))
    for side, (rows, entity) in enumerate(zip(module.sides, (user, service), strict=True)):
        features, shares, *_ = (numpy(part)[0, 0] for part in rows(torch.tensor([entity])))
        features = features.reshape(-1, EMBED)
        fused[side, : len(features)] = features
        vectors = numpy(rows.state_vectors)[0]
        for kind, of_states in enumerate(shares.reshape(vectors.shape[:2])):
            for state, share in enumerate(of_states):
                fused[2 + 2 * kind + side, state] = share * vectors[kind, state]
    if module.levels is not None:
        for kind, level in enumerate(slow_levels(module, user, service)):
            fused[2 + 2 * kind, -1] += level * numpy(module.levels.vectors)[0, kind]
    return fused


def slow_levels(module, user, service):
    """Average the mean QoS of a pair over the states of its regions, kind by kind."""
    values, levels = [], module.levels
    for kind, w in enumerate(numpy(levels.mismatch)):
        (*of_user, user_log), (*of_service, service_log) = (
            numpy(rows.levels)[entity].reshape(len(levels.mismatch), -1)[kind]
            for rows, entity in zip(module.sides, (user, service), strict=True)
        )
        mean = sum(
            p * q * np.exp(user_log + service_log) * (1 if j == k else w)
            for j, p in enumerate(of_user)
            for k, q in enumerate(of_service)
        )
        values.append((np.log(mean) - numpy(levels.mean)[kind]) / numpy(levels.deviation)[kind])
    return values


def kernels_of(module):
    """Return weights (height, width, channels, filters) and biases of each kernel."""
    start, kernels = 0, []
    for k, width in enumerate(KERNEL_WIDTHS):
        n_taps = module.geometry.height * width
        weight = numpy(module.kernels)[0, start : start + n_taps]
        kernels.append(
            (weight.reshape(-1, width, *weight.shape[1:]), numpy(module.kernel_bias)[0, k])
        )
        start += n_taps
    return kernels


def slow_convolutions(module, user, service):
    """Convolve the map of a pair, all cells; (kernels, rows, width, filters).

    Each cell is a sum over the kernel's window.
    """
    fused = slow_map(module, user, service)
    n_rows, n_columns, _ = fused.shape
    convolved = np.empty((len(KERNEL_WIDTHS), n_rows, n_columns, FILTERS))
    for k, (weight, bias) in enumerate(kernels_of(module)):
        height, width = weight.shape[:2]
        for row, column in np.ndindex(n_rows, n_columns):
            total = bias.copy()
            for h, w in np.ndindex(height, width):
                at = row + h - (height - 1) // 2, column + w - (width - 1) // 2
                if 0 <= at[0] < n_rows and 0 <= at[1] < n_columns:
                    total += fused[at] @ weight[h, w]
            convolved[k, row, column] = total
    return convolved


def dense(layers, hidden, skipped):
    """Go through the dense layers, of which the first adds what does not come by convolution."""
    for weight, bias in layers:
        hidden = np.maximum(hidden, 0) @ weight + bias + skipped
        skipped = 0.0
    return hidden[0]


def slow_skip(module, user, service):
    """Map the features of a pair linearly, as they are."""
    features = [
        numpy(rows(torch.tensor([entity]))[0])[0, 0]
        for rows, entity in zip(module.sides, (user, service), strict=True)
    ]
    return sum(
        np.concatenate(features) @ numpy(weight_of(skip))[0] + numpy(skip.bias)[0, 0]
        for skip in module.skip
    )


def layers_of(module):
    return [(numpy(layer.weight)[0], numpy(layer.bias)[0, 0]) for layer in module.layers]


def pairs(n=8):
    return torch.randint(N_USERS, (n,)), torch.randint(N_SERVICES, (n,))


@pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip"])
@pytest.mark.parametrize(("n_kinds", "m", "n_service_features"), MAPS)
def test_predictions_are_those_of_the_convolved_map(n_kinds, m, n_service_features, skip):
    """With a dense layer on all its cells: those left out act as a part of the layer's bias."""
    module = make_module(n_kinds, m, n_service_features=n_service_features, skip_connection=skip)
    assert len(module.skip) == skip
    users, services = pairs()
    of_pairs = list(zip(users.tolist(), services.tolist(), strict=True))
    maps = [slow_convolutions(module, *pair) for pair in of_pairs]
    kept = tuple(module.geometry.cells.T)
    (weight, bias), *others = layers_of(module)
    whole = np.random.default_rng(0).normal(size=(*maps[0].shape, weight.shape[1]))
    whole[kept] = weight.reshape(-1, FILTERS, weight.shape[1])
    constant = np.ones(maps[0].shape[:3], dtype=bool)
    constant[kept] = False
    of_bias = np.stack([np.broadcast_to(b, maps[0].shape[1:]) for _, b in kernels_of(module)])
    # What the module's first bias holds beside that of the layer on all cells.
    folded = np.einsum("nf,nfh->h", np.maximum(of_bias[constant], 0), whole[constant])
    layers = [(whole.reshape(-1, weight.shape[1]), bias - folded), *others]
    skipped = [slow_skip(module, *pair) for pair in of_pairs]
    expected = [dense(layers, x.ravel(), past) for x, past in zip(maps, skipped, strict=True)]
    assert np.ptp(expected) > 1e-3
    assert_allclose(numpy(module(users, services))[0], expected, **EXACT)


@pytest.mark.parametrize(("n_kinds", "m"), [(2, 5), (1, 8)])
def test_expected_levels_are_cells_of_the_map(n_kinds, m):
    """With m states in a map of at least 5 columns, the cell is in the last one."""
    module = make_module(n_kinds, m, has_levels=True)
    assert module.geometry.width == m + 1
    users, services = pairs()
    of_pairs = list(zip(users.tolist(), services.tolist(), strict=True))
    kept = tuple(module.geometry.cells.T)
    layers = layers_of(module)
    expected = [
        dense(layers, slow_convolutions(module, *pair)[kept].ravel(), slow_skip(module, *pair))
        for pair in of_pairs
    ]
    assert np.ptp([slow_levels(module, *pair) for pair in of_pairs]) > 0.1
    assert_allclose(numpy(module(users, services))[0], expected, rtol=1e-6, atol=1e-6)
    encoded = encode(module, NEW_USERS, NEW_SERVICES)
    assert_allclose(numpy(module.score(encoded, users, services)), expected, rtol=1e-6, atol=1e-6)


def test_levels_of_training_pairs_are_standardised():
    module = make_module(has_levels=True)
    levels = [
        slow_levels(module, user, service)
        for user in range(N_USERS)
        for service in range(N_SERVICES)
    ]
    assert_allclose(np.mean(levels, axis=0), 0, atol=1e-5)
    assert_allclose(np.std(levels, axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize(("n_kinds", "m", "n_service_features"), MAPS)
def test_just_the_cells_that_are_the_same_for_all_pairs_are_left_out(
    n_kinds, m, n_service_features
):
    module = make_module(n_kinds, m, n_service_features=n_service_features)
    with torch.no_grad():
        for rows in module.sides:
            # One state has a share of 1 everywhere.
            rows.shares.uniform_(0.1, 1)
    maps = [slow_convolutions(module, *pair) for pair in ((0, 0), (1, 1), (2, 2))]
    varies = (np.ptp(maps, axis=0) > 0).any(axis=-1)
    expected = np.argwhere(varies)
    cells = module.geometry.cells
    assert_array_equal(cells[np.lexsort(cells.T[::-1])], expected)
    assert len(cells) == len(np.unique(cells, axis=0))
    assert module.layers[0].weight.shape[1] == FILTERS * len(expected)


def test_five_states_and_two_kinds_are_the_papers_map():
    module = make_module(n_kinds=2, m=5)
    assert (module.geometry.n_rows, module.geometry.width) == (6, 5)
    assert [weight.shape[:2] for weight, _ in kernels_of(module)] == [(5, 1), (5, 3), (5, 5)]
    assert len(KERNEL_WIDTHS) * FILTERS * 30 == module.layers[0].weight.shape[1]
    assert [layer.weight.shape[2] for layer in module.layers] == [32, 16, 8, 1]


@pytest.mark.parametrize(
    ("n_kinds", "m", "n_service_features", "shape", "height"),
    [(0, 5, 2, (2, 5), 2), (2, 8, 2, (6, 8), 6), (2, 3, 7, (6, 8), 3), (1, 1, 2, (4, 5), 1)],
)
def test_the_map_grows_with_kinds_states_and_features(
    n_kinds, m, n_service_features, shape, height
):
    geometry = make_module(n_kinds, m, n_service_features=n_service_features).geometry
    assert (geometry.n_rows, geometry.width) == shape
    assert geometry.height == height


def test_kernels_start_as_those_of_torch():
    rows = [make_rows(4, (3, 2), 1, 2, 5, seed=3)[0] for _ in range(2)]
    module = R2SLModule(*rows, n_members=40, n_filters=50, hidden_size=4, skip_connection=False)
    start = 0
    for k, width in enumerate(KERNEL_WIDTHS):
        theirs = torch.nn.Conv2d(EMBED, 4000, (5, width))
        weight = module.kernels[:, start : start + 5 * width]
        for ours, like in ((weight, theirs.weight), (module.kernel_bias[:, k], theirs.bias)):
            assert ours.abs().max().item() == pytest.approx(like.abs().max().item(), rel=0.01)
            assert ours.std().item() == pytest.approx(like.std().item(), rel=0.05)
        start += 5 * width


# --- Members ------------------------------------------------------------------------------------


def make_with_singles(n_kinds, n_members=3):
    """Return a module, and one of one member for each of its members."""
    module = make_module(n_kinds, n_members=n_members)
    singles = [make_module(n_kinds) for _ in range(n_members)]
    for member, single in enumerate(singles):
        copy_member(module, single, member)
    return module, singles


def close(found, expected):
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("n_kinds", [0, 2])
def test_members_train_as_networks_of_one_member_do(n_kinds):
    module, singles = make_with_singles(n_kinds)
    users, services = pairs(30)
    found = module(users, services)
    expected = torch.cat([single(users, services) for single in singles])
    assert found.shape == (3, 30)
    assert (found.std(0) > 1e-3).all()
    close(found, expected)
    loss_weights = torch.randn_like(found)
    (found * loss_weights).sum().backward()
    (expected * loss_weights).sum().backward()
    parameters = dict(module.named_parameters())
    for member, single in enumerate(singles):
        for name, of_single in single.named_parameters():
            close(part_of_member(parameters[name].grad, of_single, member), of_single.grad)


@pytest.mark.parametrize("n_kinds", [0, 2])
def test_the_prediction_is_the_average_of_the_members_also_for_newcomers(n_kinds):
    module, singles = make_with_singles(n_kinds)
    new = NEW_USERS, NEW_SERVICES
    users, services = torch.arange(N_USERS + 2), torch.arange(N_USERS + 2) + N_SERVICES - N_USERS
    found = module.score(encode(module, *new), users, services)
    expected = [single.score(encode(single, *new), users, services) for single in singles]
    assert torch.stack(expected).std(0).min() > 1e-4
    close(found, torch.stack(expected).mean(0))


@pytest.mark.parametrize("n_kinds", [0, 2])
def test_members_grow_as_networks_of_one_member_do(n_kinds):
    module, singles = make_with_singles(n_kinds)
    rng = np.random.default_rng(0)
    # Two entities and a category more on each side.
    tables = [
        EntityTable(rng.integers(3, size=(N_USERS + 2, 2)), rng.normal(size=(N_USERS + 2, 1))),
        EntityTable(rng.integers(5, size=(N_SERVICES + 2, 2)), np.empty((N_SERVICES + 2, 0))),
    ]
    sizes = (4, 3), (5, 5)
    for grown in (module, *singles):
        for rows, table, n_categories in zip(grown.sides, tables, sizes, strict=True):
            rows.grow(table, n_categories)
            rows.double()
    users = torch.arange(N_USERS + 2)
    expected = torch.cat([single(users, users + 3) for single in singles])
    close(module(users, users + 3), expected)


# --- Shares and newcomers -----------------------------------------------------------------------


def test_shares_are_standardised_over_entities():
    rows, states, table = make_rows(N_USERS, (3, 2), 1, 2, 4, seed=3, n_members=2)
    _, shares = rows(torch.arange(N_USERS))
    for kind, (column, probabilities) in enumerate(states):
        plain = probabilities[table.categories[:, column]]
        expected = (plain - plain.mean(0)) / np.maximum(plain.std(0), MIN_DEVIATION)
        for of_member in numpy(shares):
            found = of_member.reshape(N_USERS, 2, 4)[:, kind]
            assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_shares_that_hardly_vary_are_not_blown_up():
    """Neither those of known regions nor, at a new entity, those of an unknown one."""
    table = EntityTable(np.zeros((4, 1), dtype=np.int64), np.empty((4, 0)))
    states = [(0, np.array([[0.3, 0.7], [0.4, 0.6]]))]
    rows = EntityRows(table, [1], states, 2, n_members=1, dim=EMBED, dropout=0.0)
    assert_allclose(numpy(rows(torch.arange(4))[1]), 0)
    _, average = rows.encode_known()
    new = EntityTable(np.array([[UNKNOWN]]), np.empty((1, 0)))
    _, shares = rows.encode_new(average, new)
    assert_allclose(numpy(shares)[0, 0], [0.1 / MIN_DEVIATION, -0.1 / MIN_DEVIATION], rtol=1e-5)


def new_table(categories, numerics):
    return EntityTable(np.array(categories, dtype=np.int64), np.array(numerics, dtype=np.float64))


NEW_USERS = new_table([[1, UNKNOWN], [UNKNOWN, 0]], [[0.1], [NAN]])
NEW_SERVICES = new_table([[2, 0], [UNKNOWN, 1]], np.empty((2, 0)))


def test_rare_regions_have_no_embedding():
    """Of column 0, three regions of two entities each; of column 1, two regions of three."""
    rows, *_ = make_rows(N_USERS, (3, 2), 1, 2, 4, seed=3, min_size=3)
    plain, *_ = make_rows(N_USERS, (3, 2), 1, 2, 4, seed=3)
    plain.load_state_dict(rows.state_dict(), strict=False)
    codes = torch.arange(N_USERS)
    found, expected = (
        numpy(one(codes)[0]).reshape(N_USERS, -1, EMBED).copy() for one in (rows, plain)
    )
    assert (expected[:, 1] != 0).all()
    expected[:, 1] = 0
    assert_array_equal(found, expected)
    _, average = rows.eval().encode_known()
    features = numpy(rows.encode_new(average, NEW_USERS)[0]).reshape(2, -1, EMBED)
    # A rare region, and an unknown one, which is the average: that of rare regions.
    assert_array_equal(features[:, 1], 0)
    assert (features[:, 2] != 0).all()


def test_newcomers_have_the_states_of_their_region_or_the_priors():
    rows, states, _ = make_rows(N_USERS, (3, 2), 1, 2, 4, seed=3)
    new = new_table([[2, UNKNOWN], [UNKNOWN, 1]], [[NAN], [0.5]])
    known, average = rows.eval().encode_known()
    known_features, known_shares = rows(torch.arange(N_USERS))
    assert_allclose(numpy(known[0]), numpy(known_features))
    assert_allclose(numpy(known[1]), numpy(known_shares))
    features, shares = rows.encode_new(average, new)
    for kind, (column, probabilities) in enumerate(states):
        scaled = numpy(getattr(rows, f"shares_{kind}"))
        assert len(scaled) == len(probabilities)
        for row, code in enumerate(new.categories[:, column]):
            expected = scaled[-1] if code == UNKNOWN else scaled[code]
            assert_allclose(numpy(shares)[0, row].reshape(2, 4)[kind], expected)
    ids = slice(EMBED)
    assert_allclose(numpy(features[0, 0, ids]), numpy(known_features[0, :, ids]).mean(0), rtol=1e-5)


def test_an_appended_entity_has_the_states_of_its_region_and_a_new_region_those_of_an_unknown():
    rows, states, table = make_rows(N_USERS, (3, 2), 1, 2, 4, seed=3)
    before = numpy(rows.shares).copy()
    categories = np.vstack([table.categories, [[2, 2], [3, 1]]])
    rows.grow(EntityTable(categories, np.zeros((N_USERS + 2, 1), "f")), (4, 3))
    assert_array_equal(numpy(rows.shares)[:N_USERS], before)
    for kind, (column, probabilities) in enumerate(states):
        scaled = numpy(getattr(rows, f"shares_{kind}"))
        assert len(scaled) == len(probabilities) + 1
        of_new = numpy(rows.shares)[N_USERS:].reshape(2, 2, 4)[:, kind]
        assert_array_equal(of_new, scaled[categories[N_USERS:, column]])
        assert_array_equal(scaled[-2], scaled[-1])


@pytest.mark.parametrize("n_kinds", [0, 1, 2])
def test_encode_and_score_equal_the_training_pass_in_evaluation_mode(n_kinds):
    module = make_module(n_kinds, n_members=2)
    users, services = pairs(30)
    encoded = encode(module, NEW_USERS, NEW_SERVICES)
    for side, n in ((encoded.users, N_USERS), (encoded.services, N_SERVICES)):
        assert {part.shape[1] for part in side} == {n + 2}
    expected = numpy(module(users, services).mean(0))
    assert_allclose(numpy(module.score(encoded, users, services)), expected, **EXACT)
    newcomer = module.score(encoded, torch.tensor([N_USERS]), torch.tensor([N_SERVICES]))
    assert newcomer not in expected


def test_known_entities_hold_only_cells_that_read_a_feature():
    module = make_module(2, 5, n_members=2)
    known = module.encode_known()
    width = FILTERS * module.geometry.n_known
    assert width < FILTERS * len(module.geometry.cells)
    for (cells, shares, skipped), n in ((known.users, N_USERS), (known.services, N_SERVICES)):
        assert cells.shape == (2, n, width)
        assert shares.shape == (1, n, 10)
        assert skipped.shape == (2, n, 32)


def test_dropout_falls_on_features_and_shares_of_each_member_in_training_only():
    rows, *_ = make_rows(40, (3, 2), 1, 2, 4, seed=3, dropout=0.5, n_members=2)
    codes = torch.arange(40)
    whole = [numpy(part) for part in rows.eval()(codes)]
    dropped = [numpy(part) for part in rows.train()(codes)]
    for part, full in zip(dropped, whole, strict=True):
        kept = part != 0
        assert 0.3 < kept.mean() < 0.7
        assert (kept[0] != kept[1]).any()
        assert_allclose(part[kept], 2 * full[kept], rtol=1e-5)


def test_shares_are_no_parameters_and_every_parameter_gets_a_gradient():
    module = make_module(n_members=2).train()
    assert {name.split(".")[-1] for name, _ in module.named_parameters()} == {
        "vectors",
        "state_vectors",
        "kernels",
        "kernel_bias",
        "user_weight",
        "service_weight",
        "weight",
        "bias",
    }
    module(*pairs(200)).square().sum().backward()
    assert not [name for name, p in module.named_parameters() if p.grad is None]


@pytest.mark.parametrize("n_kinds", [0, 2])
def test_no_pairs_at_all(n_kinds):
    module = make_module(n_kinds).float()
    nothing = np.arange(0)
    nobody = (EntityTable(np.empty((0, 2), dtype=np.int64), np.empty((0, k), "f")) for k in (1, 0))
    interactions = Interactions(nothing, nothing, None, *nobody)
    assert predict_interactions(module, interactions, torch.device("cpu")).shape == (0,)
