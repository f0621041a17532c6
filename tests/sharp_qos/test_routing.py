"""Gates against their distribution; routing and fusion against loops over tasks and blocks."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.sharp_qos.routing import (
    LOG_ODDS_BOUND,
    STRETCH,
    CrossRouting,
    GatedFusion,
    HardConcreteGates,
    SubnetworkRouting,
)
from skqos.training import seeded

N, IN, OUT, TASKS, BLOCKS, MEMBERS = 5, 4, 3, 3, 2, 2
EXACT = {"rtol": 1e-10, "atol": 1e-10}
GAMMA, ZETA = -0.1, 1.1
N_DRAWS = 200_000


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


def logit(p):
    return np.log(p) - np.log(1 - p)


def stretch(s):
    return np.clip(s * (ZETA - GAMMA) + GAMMA, 0, 1)


def make_gates(log_odds, temperature=2 / 3):
    log_odds = torch.as_tensor(log_odds, dtype=torch.float64)
    gates = HardConcreteGates(*log_odds.shape, temperature=temperature, start=0.0).double()
    with torch.no_grad():
        gates.log_odds.copy_(log_odds)
    return gates


def draw(log_odds, temperature=2 / 3):
    """Draw one gate many times."""
    return make_gates(np.full(N_DRAWS, log_odds), temperature)().detach().numpy()


def share_below(z, log_odds, temperature):
    """P(stretched s <= z), by the distribution function of the concrete distribution."""
    s = (z - GAMMA) / (ZETA - GAMMA)
    return sigmoid(temperature * logit(s) - log_odds)


every_gate = pytest.mark.parametrize(
    ("log_odds", "temperature"), [(0.0, 2 / 3), (1.5, 2 / 3), (-2.0, 2 / 3), (0.5, 0.9), (-1, 0.3)]
)


# --- Hard concrete ------------------------------------------------------------------------------


def test_limits_are_those_of_the_paper():
    assert STRETCH == (GAMMA, ZETA)
    assert pytest.approx(np.log(100)) == LOG_ODDS_BOUND


def test_a_draw_follows_the_formula():
    log_odds = np.linspace(-3, 3, 20).reshape(4, 5)
    gates = make_gates(log_odds, temperature=0.7)
    state = torch.get_rng_state()
    found = gates().detach()
    torch.set_rng_state(state)
    u = torch.rand(4, 5, dtype=torch.float64).numpy()
    s = sigmoid((np.log(u) - np.log(1 - u) + log_odds) / 0.7)
    assert ((found > 0) & (found < 1)).sum() > 3
    assert_allclose(found, stretch(s), **EXACT)


def test_every_draw_is_another():
    gates = make_gates(np.zeros((4, 5)))
    assert not torch.equal(gates(), gates())


@pytest.mark.parametrize("training", [True, False])
def test_deterministic_form(training):
    log_odds = np.linspace(-4, 4, 20)
    gates = make_gates(log_odds, temperature=0.3).train(training)
    expected = stretch(sigmoid(log_odds))
    assert {0.0, 1.0} < set(expected)
    assert_allclose(gates.settled().detach(), expected, **EXACT)


def test_evaluation_takes_the_deterministic_form():
    gates = make_gates(np.linspace(-4, 4, 20)).eval()
    assert torch.equal(gates(), gates.settled())


@every_gate
def test_share_of_gates_that_are_exactly_closed(log_odds, temperature):
    z = draw(log_odds, temperature)
    expected = share_below(0.0, log_odds, temperature)
    assert (z == 0).mean() == pytest.approx(expected, abs=0.005)


@every_gate
def test_share_of_gates_that_are_exactly_open(log_odds, temperature):
    z = draw(log_odds, temperature)
    expected = 1 - share_below(1.0, log_odds, temperature)
    assert (z == 1).mean() == pytest.approx(expected, abs=0.005)


@every_gate
def test_mean_of_a_gate(log_odds, temperature):
    """Of a variable in [0, 1]: the integral of the probability to be larger."""
    z = (np.arange(2000) + 0.5) / 2000
    expected = 1 - share_below(z, log_odds, temperature).mean()
    assert draw(log_odds, temperature).mean() == pytest.approx(expected, abs=0.005)


@every_gate
def test_probability_to_be_open_is_the_share_of_draws_that_are_not_0(log_odds, temperature):
    probability = make_gates([log_odds], temperature).probabilities().item()
    assert probability == pytest.approx((draw(log_odds, temperature) > 0).mean(), abs=0.005)


def test_probabilities_follow_the_formula():
    log_odds = np.linspace(-3, 3, 6).reshape(2, 3)
    expected = sigmoid(log_odds - 0.7 * np.log(0.1 / 1.1))
    assert_allclose(make_gates(log_odds, 0.7).probabilities().detach(), expected, **EXACT)


def test_a_low_temperature_makes_gates_binary():
    undecided = [((z > 0) & (z < 1)).mean() for z in (draw(0.0, t) for t in (0.1, 2 / 3, 2.0))]
    assert undecided[0] < 0.2 < undecided[1] < undecided[2]


def test_log_odds_stay_within_bounds_in_training():
    gates = make_gates([-9.0, 0.5, 9.0])
    gates()
    assert_allclose(gates.log_odds.detach(), [-np.log(100), 0.5, np.log(100)], **EXACT)


def test_evaluation_leaves_log_odds_alone():
    gates = make_gates([-9.0, 9.0]).eval()
    gates()
    assert gates.log_odds.tolist() == [-9.0, 9.0]


def test_draws_at_the_bounds_are_finite_and_have_finite_gradients():
    gates = make_gates(np.repeat([-9.0, 9.0], 1000)).float()
    z = gates()
    z.sum().backward()
    assert z.isfinite().all()
    assert gates.log_odds.grad.isfinite().all()


@pytest.mark.parametrize("start", [0.0, 3.0])
def test_gates_start_near_the_log_odds_given(start):
    log_odds = HardConcreteGates(100, 100, temperature=2 / 3, start=start).log_odds.detach()
    assert abs(log_odds.mean() - start) < 1e-3
    assert log_odds.std().item() == pytest.approx(0.01, rel=0.05)


# --- SNR ----------------------------------------------------------------------------------------


def fix(module, log_odds):
    """Give all gates their deterministic form of known log odds."""
    module = module.double().eval()
    with torch.no_grad():
        module.gates.log_odds.copy_(torch.as_tensor(log_odds))
    return module


def log_odds_of(*shape):
    """Some gates shut, some open, most in between."""
    return np.linspace(-3, 3, int(np.prod(shape))).reshape(shape)


def slow_blocks(linear, x, k=0):
    """Outputs of each block of a member, one after the other."""
    W, b = (p.detach().numpy()[k] for p in (linear.weight, linear.bias))
    columns = [slice(block * OUT, (block + 1) * OUT) for block in range(BLOCKS)]
    return [np.maximum(x.detach().numpy() @ W[:, c] + b[0, c], 0) for c in columns]


def make_snr(log_odds, n_members=1):
    return fix(SubnetworkRouting(n_members, IN, OUT, TASKS, BLOCKS, 2 / 3, 0.0), log_odds)


def randn(*shape, requires_grad=False):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=requires_grad)


def test_snr_sums_blocks_by_the_gates_of_each_task():
    log_odds = log_odds_of(MEMBERS, TASKS, BLOCKS)
    router, x = make_snr(log_odds, MEMBERS), randn(MEMBERS, N, IN)
    gates = stretch(sigmoid(log_odds))
    found = router(x).detach()
    assert found.shape == (TASKS, MEMBERS, N, OUT)
    for member in range(MEMBERS):
        blocks = slow_blocks(router.blocks, x[member], member)
        for task in range(TASKS):
            expected = sum(gates[member, task, k] * blocks[k] for k in range(BLOCKS))
            assert_allclose(found[task, member], expected, **EXACT)


def test_snr_in_training_draws_its_gates_once_for_all_rows():
    router = SubnetworkRouting(1, IN, OUT, TASKS, BLOCKS, 2 / 3, 0.0).double()
    x = randn(1, 1, IN).expand(-1, N, -1)
    first, second = router(x).detach(), router(x).detach()
    assert not torch.equal(first, second)
    assert_allclose(first, first[:, :, :1].expand_as(first), **EXACT)


def test_members_draw_gates_of_their_own():
    router = SubnetworkRouting(MEMBERS, IN, OUT, TASKS, BLOCKS, 2 / 3, 0.0)
    first, second = router.gates().detach()
    assert not torch.equal(first, second)


def test_a_closed_gate_keeps_its_block_away_from_a_task():
    log_odds = np.zeros((1, TASKS, BLOCKS))
    log_odds[0, 1, 0] = -9
    router = make_snr(log_odds)
    torch.nn.init.ones_(router.blocks.bias)
    router(torch.zeros(1, N, IN, dtype=torch.float64))[1].sum().backward()
    of_blocks = router.blocks.bias.grad.reshape(BLOCKS, OUT)
    assert (of_blocks[0] == 0).all()
    assert (of_blocks[1] > 0).all()


def check_gradients(module, loss):
    loss.backward()
    for p in module.parameters():
        assert p.grad.isfinite().all()
    linear = module.blocks if isinstance(module, SubnetworkRouting) else module.blocks.linear
    by_block = linear.weight.grad.unflatten(2, (BLOCKS, OUT))
    assert (by_block.abs().sum((1, 3)) > 0).all()


def test_gradients_reach_all_blocks_and_gates_of_snr():
    router = make_snr(np.full((MEMBERS, TASKS, BLOCKS), 0.5), MEMBERS)
    check_gradients(router, router(randn(MEMBERS, 20, IN)).square().sum())
    assert (router.gates.log_odds.grad != 0).all()


# --- Cross-SNR ----------------------------------------------------------------------------------


def make_cross(log_odds, n_members=1):
    return fix(CrossRouting(n_members, IN, OUT, TASKS, BLOCKS, 2 / 3, 0.0), log_odds)


def test_cross_snr_sums_the_blocks_of_all_other_tasks():
    log_odds = log_odds_of(MEMBERS, TASKS, TASKS, BLOCKS)
    router, features = make_cross(log_odds, MEMBERS), randn(TASKS, MEMBERS, N, IN)
    gates = stretch(sigmoid(log_odds))
    expected = np.zeros((TASKS, MEMBERS, N, OUT))
    for task, other, member in np.ndindex(TASKS, TASKS, MEMBERS):
        if other == task:
            continue
        # Tasks come first among the weights.
        place = other * MEMBERS + member
        blocks = slow_blocks(router.blocks.linear, features[other, member], place)
        for k in range(BLOCKS):
            expected[task, member] += gates[member, task, other, k] * blocks[k]
    assert_allclose(router(features).detach(), expected, **EXACT)


@pytest.mark.parametrize("task", range(TASKS))
def test_a_task_never_routes_its_own_features_to_itself(task):
    router = make_cross(np.full((1, TASKS, TASKS, BLOCKS), 4.0))
    features = randn(TASKS, 1, N, IN, requires_grad=True)
    router(features)[task].sum().backward()
    for other in range(TASKS):
        assert bool((features.grad[other] == 0).all()) == (other == task)


def test_gradients_reach_all_blocks_and_all_gates_of_cross_snr_but_those_for_itself():
    router = make_cross(np.full((MEMBERS, TASKS, TASKS, BLOCKS), 0.5), MEMBERS)
    check_gradients(router, router(randn(TASKS, MEMBERS, 20, IN)).square().sum())
    has_gradient = (router.gates.log_odds.grad != 0).numpy()
    for task in range(TASKS):
        for other in range(TASKS):
            assert (has_gradient[:, task, other] == (task != other)).all()


def test_two_tasks_exchange_their_features():
    router = fix(CrossRouting(1, IN, OUT, 2, BLOCKS, 2 / 3, 0.0), np.full((1, 2, 2, BLOCKS), 9.0))
    features = randn(2, 1, N, IN)
    expected = [
        sum(slow_blocks(router.blocks.linear, features[other, 0], other)) for other in (1, 0)
    ]
    assert_allclose(router(features).detach()[:, 0], expected, **EXACT)


def test_cross_snr_needs_the_features_of_every_task():
    router = make_cross(np.zeros((1, TASKS, TASKS, BLOCKS)))
    with pytest.raises(RuntimeError):
        router(randn(2, 1, N, IN))


# --- Gated fusion -------------------------------------------------------------------------------


def affine(layer, x, k):
    weight, bias = layer.linear.weight[k].detach(), layer.linear.bias[k, 0].detach()
    return x @ weight.numpy() + bias.numpy()


@pytest.mark.parametrize("widths", [(6,), (2, 3), (1, 2, 3)])
def test_fusion_blends_each_dimension_by_a_gate(widths):
    fusion = GatedFusion(TASKS, MEMBERS, IN, sum(widths), OUT).double()
    own = randn(TASKS, MEMBERS, N, IN)
    shared = [randn(TASKS, MEMBERS, N, width) for width in widths]
    found = fusion(own, shared).detach()
    for task, member, row in np.ndindex(TASKS, MEMBERS, N):
        place = task * MEMBERS + member
        ours = own[task, member, row].numpy()
        joined = np.concatenate([part[task, member, row] for part in shared])
        gate = sigmoid(affine(fusion.gate, np.concatenate([ours, joined]), place))
        expected = gate * affine(fusion.own, ours, place)
        expected += (1 - gate) * affine(fusion.shared, joined, place)
        assert_allclose(found[task, member, row], expected, **EXACT)


def test_fusion_without_shared_features_projects_its_own():
    fusion = GatedFusion(1, 1, IN, 0, OUT).double()
    own = randn(1, 1, N, IN)
    expected = [affine(fusion.own, row, 0) for row in own[0, 0].numpy()]
    assert_allclose(fusion(own, []).detach()[0, 0], expected, **EXACT)
    assert {name for name, _ in fusion.named_parameters()} == {
        "own.linear.weight",
        "own.linear.bias",
    }
