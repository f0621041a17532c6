"""Layers with a member axis against separate layers of torch; dropout by bytes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skqos.members import (
    ByteDropout,
    MemberBatchNorm,
    MemberLinear,
    PairLinear,
    split_members,
)
from skqos.training import seeded

MEMBERS, N, DIM, OUT = 3, 10, 6, 4
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def some_rows(members=MEMBERS):
    return torch.randn(members, N, DIM, dtype=torch.float64, requires_grad=True)


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, **EXACT)


# --- Linear layers ------------------------------------------------------------------------------


def separate_linears(layer):
    """Return layers of torch with the weights of the members."""
    linears = []
    for member in range(MEMBERS):
        linear = nn.Linear(DIM, OUT, bias=layer.bias is not None).double()
        with torch.no_grad():
            linear.weight.copy_(layer.weight[member].T)
            if layer.bias is not None:
                linear.bias.copy_(layer.bias[member, 0])
        linears.append(linear)
    return linears


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_members_is_that_many_linear_layers(bias):
    layer = MemberLinear(MEMBERS, DIM, OUT, bias=bias).double()
    linears = separate_linears(layer)
    x = some_rows()
    rows = [of_member.detach().clone().requires_grad_(True) for of_member in x]
    expected = torch.stack([linear(part) for linear, part in zip(linears, rows, strict=True)])
    found = layer(x)
    assert_close(found, expected)
    loss_weights = torch.randn_like(found)
    (found * loss_weights).sum().backward()
    (expected * loss_weights).sum().backward()
    assert_close(x.grad, torch.stack([part.grad for part in rows]))
    assert_close(layer.weight.grad, torch.stack([linear.weight.grad.T for linear in linears]))
    if bias:
        assert_close(layer.bias.grad[:, 0], torch.stack([linear.bias.grad for linear in linears]))
    assert (layer.bias is not None) == bias


@pytest.mark.parametrize("as_shared", [lambda x: x, lambda x: x[0]], ids=["(1, n)", "(n)"])
@pytest.mark.parametrize("bias", [True, False])
def test_members_may_share_their_input(bias, as_shared):
    layer = MemberLinear(MEMBERS, DIM, OUT, bias=bias).double()
    x = some_rows(members=1)
    found = layer(as_shared(x))
    found.square().sum().backward()
    gradient, x.grad = x.grad, None
    expected = torch.stack([linear(x[0]) for linear in separate_linears(layer)])
    expected.square().sum().backward()
    assert_close(found, expected)
    assert_close(gradient, x.grad)


@pytest.mark.parametrize("shape", [(MEMBERS, 0, DIM), (0, DIM)])
def test_a_linear_layer_of_no_rows(shape):
    assert MemberLinear(MEMBERS, DIM, OUT)(torch.zeros(shape)).shape == (MEMBERS, 0, OUT)


def test_a_linear_layer_of_no_features_is_its_bias():
    layer = MemberLinear(MEMBERS, 0, OUT)
    assert torch.equal(layer(torch.zeros(MEMBERS, 2, 0)), layer.bias.expand(-1, 2, -1))


@pytest.mark.parametrize("in_dim", [4, 100])
def test_each_member_starts_as_a_linear_layer_of_torch_does(in_dim):
    layer, reference = MemberLinear(2, in_dim, 5000), nn.Linear(in_dim, 5000)
    for name in ("weight", "bias"):
        found, expected = getattr(layer, name), getattr(reference, name)
        for member in found:
            assert member.std().item() == pytest.approx(expected.std().item(), rel=0.05)
            assert member.abs().max().item() == pytest.approx(in_dim**-0.5, rel=0.02)
        assert not torch.equal(found[0], found[1])


# --- Linear layers on pairs ---------------------------------------------------------------------

USER, SERVICE = 5, 3


def test_the_parts_of_a_pair_layer_add_up_to_a_linear_layer_on_both():
    layer = PairLinear(MEMBERS, USER, SERVICE, OUT).double()
    u = torch.randn(MEMBERS, N, USER, dtype=torch.float64, requires_grad=True)
    s = torch.randn(MEMBERS, N, SERVICE, dtype=torch.float64, requires_grad=True)
    linears = [nn.Linear(USER + SERVICE, OUT).double() for _ in range(MEMBERS)]
    with torch.no_grad():
        for member, linear in enumerate(linears):
            parts = layer.user_weight[member], layer.service_weight[member]
            linear.weight.copy_(torch.cat(parts).T)
            linear.bias.copy_(layer.bias[member, 0])
    both = torch.cat([u, s], dim=2)
    found, expected = layer(u, s), torch.stack([f(x) for f, x in zip(linears, both, strict=True)])
    assert_close(found, expected)
    assert_close(found, layer.users(u) + layer.services(s))
    loss_weights = torch.randn_like(found)
    parameters = [layer.user_weight, layer.service_weight, layer.bias]
    of_linears = [linear.weight for linear in linears] + [linear.bias for linear in linears]
    found = torch.autograd.grad((found * loss_weights).sum(), [u, s, *parameters])
    expected = torch.autograd.grad((expected * loss_weights).sum(), [u, s, *of_linears])
    assert_close(found[:2], expected[:2])
    weights, biases = torch.stack(expected[2 : 2 + MEMBERS]), torch.stack(expected[2 + MEMBERS :])
    assert_close(torch.cat(found[2:4], dim=1), weights.transpose(1, 2))
    assert_close(found[4][:, 0], biases)


def test_the_bias_of_a_pair_layer_counts_once():
    layer = PairLinear(MEMBERS, USER, SERVICE, OUT)
    of_users = layer.users(torch.zeros(MEMBERS, 1, USER))
    of_services = layer.services(torch.zeros(MEMBERS, 1, SERVICE))
    assert torch.equal(of_users, torch.zeros(MEMBERS, 1, OUT))
    assert torch.equal(of_services, layer.bias)


def test_each_part_of_a_pair_layer_starts_as_that_of_a_linear_layer_on_both():
    layer, reference = PairLinear(2, 20, 80, 5000), nn.Linear(100, 5000)
    for found in layer.parameters():
        for member in found:
            assert member.std().item() == pytest.approx(reference.weight.std().item(), rel=0.05)
            assert member.abs().max().item() == pytest.approx(0.1, rel=0.02)
        assert not torch.equal(found[0], found[1])


# --- Batch normalisation ------------------------------------------------------------------------


def test_a_single_row_is_normalised_by_the_statistics_of_earlier_batches():
    layer = MemberBatchNorm(MEMBERS, DIM).double()
    for _ in range(3):
        layer(some_rows())
    row, running = some_rows()[:, :1], layer.norm.running_mean.clone()
    found = layer(row)
    assert torch.equal(layer.norm.running_mean, running)
    assert_close(found, layer.eval()(row))
    assert len(torch.autograd.grad(found.sum(), [row, layer.norm.bias])) == 2


def test_batch_normalisation_of_members_is_that_many_batch_normalisations():
    layer = MemberBatchNorm(MEMBERS, DIM).double()
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    singles = [nn.BatchNorm1d(DIM).double() for _ in range(MEMBERS)]
    with torch.no_grad():
        for member, single in enumerate(singles):
            part = slice(member * DIM, (member + 1) * DIM)
            single.weight.copy_(layer.norm.weight[part])
            single.bias.copy_(layer.norm.bias[part])

    def check(x):
        found = layer(x)
        expected = torch.stack([single(part) for single, part in zip(singles, x, strict=True)])
        assert_close(found, expected)
        loss_weights = torch.randn_like(found)
        parameters = [layer.norm.weight, layer.norm.bias]
        of_singles = [single.weight for single in singles] + [single.bias for single in singles]
        found = torch.autograd.grad((found * loss_weights).sum(), [x, *parameters])
        expected = torch.autograd.grad((expected * loss_weights).sum(), [x, *of_singles])
        assert_close(found[0], expected[0])
        assert_close(found[1], torch.cat(expected[1 : 1 + MEMBERS]))
        assert_close(found[2], torch.cat(expected[1 + MEMBERS :]))

    for _ in range(3):
        # Members differ in mean and spread.
        check(some_rows() * torch.tensor([1.0, 3.0, 0.2]).view(-1, 1, 1) + 2)
    for name in ("running_mean", "running_var"):
        assert_close(getattr(layer.norm, name), torch.cat([getattr(s, name) for s in singles]))
    for part in (layer, *singles):
        part.eval()
    check(some_rows())
    assert layer(torch.zeros(MEMBERS, 0, DIM, dtype=torch.float64)).shape == (MEMBERS, 0, DIM)


# --- Dropout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1 / 256, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_share_that_is_dropped_and_the_scale_of_what_stays(p, dtype):
    n = 400_000
    share = round(256 * p) / 256
    found = ByteDropout(p)(torch.full((n,), 3.0, dtype=dtype))
    assert found.dtype == dtype
    # Five standard deviations.
    noise = 5 * (share * (1 - share) / n) ** 0.5
    assert (found == 0).double().mean().item() == pytest.approx(share, abs=noise)
    assert abs(share - p) <= 1 / 512
    # Unbiased for the share that is dropped, not for the one that was asked for.
    kept = found[found != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 3 / (1 - share)))
    assert found.mean().item() == pytest.approx(3, abs=3 * noise / (1 - share))


@pytest.mark.parametrize(("p", "share"), [(1e-9, 1 / 256), (0.999, 255 / 256)])
def test_a_share_above_0_drops_some_and_one_below_1_leaves_some(p, share):
    n = 400_000
    found = ByteDropout(p)(torch.ones(n))
    noise = 5 * (share * (1 - share) / n) ** 0.5
    assert (found == 0).double().mean().item() == pytest.approx(share, abs=noise)
    assert found.max().item() == pytest.approx(1 / (1 - share))


def test_shares_of_0_and_1_are_exact():
    x = some_rows()
    assert_close(ByteDropout(0.0)(x), x)
    assert (ByteDropout(1.0)(x) == 0).all()
    with pytest.raises(ValueError, match="has to be between 0 and 1"):
        ByteDropout(1.5)


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_evaluation_drops_nothing(p):
    x = some_rows()
    assert_close(ByteDropout(p).eval()(x), x)


def test_gradients_are_those_of_the_values_that_stayed():
    x = some_rows()
    found = ByteDropout(0.4)(x)
    found.sum().backward()
    assert_close(x.grad, (found != 0).double() * 256 / (256 - 102))
    assert 0 < (found == 0).sum() < found.numel()


@settings(max_examples=50, deadline=None)
@given(shape=st.lists(st.integers(0, 9), min_size=1, max_size=3), is_transposed=st.booleans())
def test_tensors_of_any_shape(shape, is_transposed):
    """Numbers of values that fill no whole word, none at all, and values not in a row."""
    x = torch.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    x = x.transpose(0, -1) if is_transposed else x
    found = ByteDropout(0.5)(x)
    assert found.shape == x.shape
    assert ((found == 0) | (found == 2 * x)).all()


@pytest.mark.parametrize("n", [1, 7, 8, 9, 13])
def test_every_value_has_a_draw_of_its_own(n):
    """Those that do not fill a word, too: over many draws no two places agree."""
    dropout = ByteDropout(0.5)
    kept = torch.stack([dropout(torch.ones(n)) for _ in range(2000)]).numpy() > 0
    # Five standard deviations of a mean, and of a correlation.
    assert np.abs(kept.mean(0) - 0.5).max() < 5 * 0.5 / 2000**0.5
    correlations = np.corrcoef(kept.T.astype(float)).reshape(n, n) - np.eye(n)
    assert np.abs(correlations).max() < 5 / 2000**0.5


def test_torchs_seed_decides_the_draws():
    dropout, x = ByteDropout(0.5), torch.ones(1000)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append([dropout(x), dropout(x)])
    torch.testing.assert_close(draws[0], draws[1])
    assert not torch.equal(*draws[0])
    assert not torch.equal(draws[0][0], draws[2][0])


# --- Members side by side -----------------------------------------------------------------------


def test_members_side_by_side_get_an_axis_of_their_own():
    n_features, dim = 4, 2
    x = torch.randn(5, n_features, MEMBERS * dim)
    found = split_members(x, MEMBERS)
    assert found.shape == (MEMBERS, 5, n_features * dim)
    for member in range(MEMBERS):
        for row in range(5):
            expected = [
                x[row, feature, member * dim + k]
                for feature in range(n_features)
                for k in range(dim)
            ]
            assert found[member, row].tolist() == expected


def test_members_of_no_rows():
    assert split_members(torch.zeros(0, 4, 6), MEMBERS).shape == (MEMBERS, 0, 8)
