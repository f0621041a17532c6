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

N, IN, OUT, TASKS, BLOCKS = 5, 4, 3, 3, 2
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
    gates = HardConcreteGates(*log_odds.shape, temperature=temperature).double()
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


def test_gates_start_near_even_odds():
    log_odds = HardConcreteGates(100, 100, temperature=2 / 3).log_odds.detach()
    assert abs(log_odds.mean()) < 1e-3
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


def slow_blocks(blocks, x):
    """Outputs of each block, one after the other."""
    W, b = (p.detach().numpy() for p in (blocks.linear.weight, blocks.linear.bias))
    rows = [slice(k * OUT, (k + 1) * OUT) for k in range(BLOCKS)]
    return [np.maximum(x.detach().numpy() @ W[row].T + b[row], 0) for row in rows]


def test_snr_sums_blocks_by_the_gates_of_each_task():
    log_odds = log_odds_of(TASKS, BLOCKS)
    router = fix(SubnetworkRouting(IN, OUT, TASKS, BLOCKS, 2 / 3), log_odds)
    x = torch.randn(N, IN, dtype=torch.float64)
    gates, blocks = stretch(sigmoid(log_odds)), slow_blocks(router.blocks, x)
    expected = [
        sum(gates[task, block] * blocks[block] for block in range(BLOCKS)) for task in range(TASKS)
    ]
    assert_allclose(router(x).detach(), expected, **EXACT)


def test_snr_in_training_draws_its_gates_once_for_all_rows():
    router = SubnetworkRouting(IN, OUT, TASKS, BLOCKS, 2 / 3).double()
    x = torch.randn(1, IN, dtype=torch.float64).expand(N, -1)
    first, second = router(x).detach(), router(x).detach()
    assert not torch.equal(first, second)
    assert_allclose(first, first[:, :1].expand_as(first), **EXACT)


def test_a_closed_gate_keeps_its_block_away_from_a_task():
    log_odds = np.zeros((TASKS, BLOCKS))
    log_odds[1, 0] = -9
    router = fix(SubnetworkRouting(IN, OUT, TASKS, BLOCKS, 2 / 3), log_odds)
    torch.nn.init.ones_(router.blocks.linear.bias)
    router(torch.zeros(N, IN, dtype=torch.float64))[1].sum().backward()
    of_blocks = router.blocks.linear.bias.grad.unflatten(0, (BLOCKS, OUT))
    assert (of_blocks[0] == 0).all()
    assert (of_blocks[1] > 0).all()


def check_gradients(module, loss):
    loss.backward()
    for p in module.parameters():
        assert p.grad.isfinite().all()
    for part in [module.blocks] if isinstance(module, SubnetworkRouting) else module.blocks:
        by_block = part.linear.weight.grad.unflatten(0, (BLOCKS, OUT))
        assert (by_block.abs().sum((1, 2)) > 0).all()


def test_gradients_reach_all_blocks_and_gates_of_snr():
    router = fix(SubnetworkRouting(IN, OUT, TASKS, BLOCKS, 2 / 3), np.full((TASKS, BLOCKS), 0.5))
    check_gradients(router, router(torch.randn(20, IN).double()).square().sum())
    assert (router.gates.log_odds.grad != 0).all()


# --- Cross-SNR ----------------------------------------------------------------------------------


def make_cross(log_odds):
    return fix(CrossRouting(IN, OUT, TASKS, BLOCKS, 2 / 3), log_odds)


def some_features(requires_grad=False):
    return [
        torch.randn(N, IN, dtype=torch.float64, requires_grad=requires_grad) for _ in range(TASKS)
    ]


def test_cross_snr_sums_the_blocks_of_all_other_tasks():
    log_odds = log_odds_of(TASKS, TASKS, BLOCKS)
    router, features = make_cross(log_odds), some_features()
    gates = stretch(sigmoid(log_odds))
    expected = np.zeros((TASKS, N, OUT))
    for task in range(TASKS):
        for other in range(TASKS):
            if other == task:
                continue
            blocks = slow_blocks(router.blocks[other], features[other])
            for k in range(BLOCKS):
                expected[task] += gates[task, other, k] * blocks[k]
    assert_allclose(router(features).detach(), expected, **EXACT)


@pytest.mark.parametrize("task", range(TASKS))
def test_a_task_never_routes_its_own_features_to_itself(task):
    router, features = make_cross(np.full((TASKS, TASKS, BLOCKS), 4.0)), some_features(True)
    router(features)[task].sum().backward()
    for other in range(TASKS):
        assert bool((features[other].grad == 0).all()) == (other == task)


def test_gradients_reach_all_blocks_and_all_gates_of_cross_snr_but_those_for_itself():
    router = make_cross(np.full((TASKS, TASKS, BLOCKS), 0.5))
    features = [torch.randn(20, IN).double() for _ in range(TASKS)]
    check_gradients(router, router(features).square().sum())
    has_gradient = (router.gates.log_odds.grad != 0).numpy()
    for task in range(TASKS):
        for other in range(TASKS):
            assert (has_gradient[task, other] == (task != other)).all()


def test_two_tasks_exchange_their_features():
    router = fix(CrossRouting(IN, OUT, 2, BLOCKS, 2 / 3), np.full((2, 2, BLOCKS), 9.0))
    features = some_features()[:2]
    expected = [sum(slow_blocks(router.blocks[other], features[other])) for other in (1, 0)]
    assert_allclose(router(features).detach(), expected, **EXACT)


def test_cross_snr_needs_the_features_of_every_task():
    router = make_cross(np.zeros((TASKS, TASKS, BLOCKS)))
    with pytest.raises(ValueError, match="zip"):
        router(some_features()[:2])


# --- Gated fusion -------------------------------------------------------------------------------


def affine(layer, x):
    return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()


@pytest.mark.parametrize("widths", [(6,), (2, 3), (1, 2, 3)])
def test_fusion_blends_each_dimension_by_a_gate(widths):
    fusion = GatedFusion(IN, sum(widths), OUT).double()
    own = torch.randn(N, IN, dtype=torch.float64)
    shared = [torch.randn(N, width, dtype=torch.float64) for width in widths]
    rows = []
    for k in range(N):
        joined = np.concatenate([part[k] for part in shared])
        gate = sigmoid(affine(fusion.gate, np.concatenate([own[k], joined])))
        rows.append(gate * affine(fusion.own, own[k].numpy()))
        rows[-1] += (1 - gate) * affine(fusion.shared, joined)
    assert_allclose(fusion(own, shared).detach(), rows, **EXACT)


def test_fusion_without_shared_features_projects_its_own():
    fusion = GatedFusion(IN, 0, OUT).double()
    own = torch.randn(N, IN, dtype=torch.float64)
    expected = [affine(fusion.own, row) for row in own.numpy()]
    assert_allclose(fusion(own, []).detach(), expected, **EXACT)
    assert {name for name, _ in fusion.named_parameters()} == {"own.weight", "own.bias"}
