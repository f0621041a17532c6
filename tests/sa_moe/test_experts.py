"""Each expert against an explicit loop over rows (paper, appendix A.2)."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skqos.sa_moe.experts import AttentionExpert, LHUCExpert, MLPExpert, PairLinear
from skqos.training import seeded

DIM, OUT, N = 8, 5, 12
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


@pytest.fixture
def u():
    return torch.randn(N, DIM, dtype=torch.float64)


@pytest.fixture
def s():
    return torch.randn(N, DIM, dtype=torch.float64)


def run(expert, u, s):
    return expert(expert.users(u), expert.services(s)).detach().numpy()


def weights(layer):
    """Return W and b of a linear layer."""
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    exp = np.exp(x - x.max())
    return exp / exp.sum()


# --- A linear layer on pairs --------------------------------------------------------------------


def test_the_parts_of_a_pair_layer_add_up_to_a_linear_layer_on_both(u, s):
    layer = PairLinear(DIM, OUT).double()
    whole = nn.Linear(2 * DIM, OUT).double()
    whole.load_state_dict(layer.state_dict())
    expected = whole(torch.cat([u, s], dim=1))
    assert_allclose((layer.users(u) + layer.services(s)).detach(), expected.detach(), **EXACT)
    assert_allclose(layer(torch.cat([u, s], dim=1)).detach(), expected.detach(), **EXACT)


def test_the_bias_of_a_pair_layer_counts_once():
    layer = PairLinear(DIM, OUT)
    nobody = torch.zeros(1, DIM)
    assert torch.equal(layer.users(nobody), torch.zeros(1, OUT))
    assert torch.equal(layer.services(nobody)[0], layer.bias)


# --- Attention ----------------------------------------------------------------------------------


def slow_attention(expert, u, s, n_heads):
    layers = [weights(layer) for layer in (expert.query, expert.key, expert.value)]
    W_out, b_out = weights(expert.output)
    width = DIM // n_heads
    rows = []
    for user, service in zip(u.numpy(), s.numpy(), strict=True):
        query, key, value = (np.stack([W @ user + b, W @ service + b]) for W, b in layers)
        tokens = np.zeros((2, DIM))
        for head in range(n_heads):
            part = slice(head * width, (head + 1) * width)
            for token in range(2):
                logits = [query[token, part] @ key[other, part] for other in range(2)]
                alpha = softmax(np.array(logits) / np.sqrt(width))
                tokens[token, part] = alpha[0] * value[0, part] + alpha[1] * value[1, part]
        rows.append(W_out @ np.concatenate([tokens[0], tokens[1]]) + b_out)
    return np.array(rows)


@pytest.mark.parametrize("n_heads", [1, 2, 4, 8])
def test_attention_over_two_tokens(u, s, n_heads):
    expert = AttentionExpert(DIM, OUT, n_heads, dropout=0.5).double().eval()
    assert_allclose(run(expert, u, s), slow_attention(expert, u, s, n_heads), **EXACT)


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_attention_is_that_of_torch_with_an_identity_for_its_output_projection(u, s, n_heads):
    expert = AttentionExpert(DIM, OUT, n_heads, dropout=0.5).double().eval()
    reference = nn.MultiheadAttention(DIM, n_heads, dropout=0.5, batch_first=True)
    reference = reference.double().eval()
    with torch.no_grad():
        layers = expert.query, expert.key, expert.value
        reference.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        reference.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        reference.out_proj.weight.copy_(torch.eye(DIM))
        reference.out_proj.bias.zero_()
        tokens = torch.stack([u, s], dim=1)
        attended, _ = reference(tokens, tokens, tokens)
        expected = expert.output(attended.flatten(1))
    assert_allclose(run(expert, u, s), expected, **EXACT)


def test_attention_dropout_falls_on_the_weights_of_each_head_and_pair_of_tokens(u, s):
    class Mask(nn.Module):
        alphas = []

        def forward(self, alpha):
            self.alphas.append(alpha.detach())
            return torch.zeros_like(alpha)

    expert = AttentionExpert(DIM, OUT, 2, dropout=0.5).double()
    assert expert.dropout.p == 0.5
    expert.dropout = Mask()
    assert_allclose(run(expert, u, s), np.tile(weights(expert.output)[1], (N, 1)), **EXACT)
    assert [alpha.numel() for alpha in expert.dropout.alphas] == [N * 2 * 2, N * 2 * 2]
    for alpha in expert.dropout.alphas:
        assert_allclose(alpha.sum(dim=1), np.ones((N, 2)), **EXACT)


def test_attention_is_random_in_training_only(u, s):
    expert = AttentionExpert(DIM, OUT, 2, dropout=0.5).double()
    assert (run(expert, u, s) != run(expert, u, s)).any()
    expert.eval()
    assert (run(expert, u, s) == run(expert, u, s)).all()


# --- LHUC (eq. 14) ------------------------------------------------------------------------------


def slow_norm(norm, rows, training):
    """Batch normalisation, feature by feature."""
    gamma, beta = weights(norm)
    result = np.empty_like(rows)
    for k in range(rows.shape[1]):
        column = rows[:, k]
        if training:
            mean = sum(column) / len(column)
            variance = sum((column - mean) ** 2) / len(column)
        else:
            mean, variance = norm.running_mean[k].item(), norm.running_var[k].item()
        result[:, k] = gamma[k] * (column - mean) / np.sqrt(variance + norm.eps) + beta[k]
    return result


def slow_lhuc(expert, u, s, training):
    W_1, b_1 = weights(expert.user_layer)
    W_2, b_2 = weights(expert.hidden_layer)
    (W_3, b_3), (W_4, b_4) = (weights(layer) for layer in expert.service_layers)
    rows = [
        2 * sigmoid(W_3 @ service + b_3) * relu(W_1 @ user + b_1)
        for user, service in zip(u.numpy(), s.numpy(), strict=True)
    ]
    hidden = slow_norm(expert.norm_1, np.array(rows), training)
    rows = [
        2 * sigmoid(W_4 @ service + b_4) * relu(W_2 @ h + b_2)
        for h, service in zip(hidden, s.numpy(), strict=True)
    ]
    return slow_norm(expert.norm_2, np.array(rows), training)


@pytest.fixture
def lhuc():
    """Return an expert whose normalisations are far from those of a fresh one."""
    expert = LHUCExpert(DIM, OUT).double()
    for norm in (expert.norm_1, expert.norm_2):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return expert


def test_lhuc_in_evaluation_mode_uses_running_statistics(lhuc, u, s):
    lhuc.eval()
    assert_allclose(run(lhuc, u, s), slow_lhuc(lhuc, u, s, training=False), **EXACT)


def test_lhuc_in_training_mode_uses_the_statistics_of_the_batch(lhuc, u, s):
    expected = slow_lhuc(lhuc, u, s, training=True)
    before = lhuc.norm_1.running_mean.clone(), lhuc.norm_2.running_mean.clone()
    assert_allclose(run(lhuc.train(), u, s), expected, **EXACT)
    assert not torch.equal(lhuc.norm_1.running_mean, before[0])
    assert not torch.equal(lhuc.norm_2.running_mean, before[1])


def test_contributions_lie_between_0_and_2(lhuc):
    contributions = torch.cat(lhuc.services(20 * torch.randn(100, DIM, dtype=torch.float64)))
    assert contributions.min() < 0.1
    assert contributions.max() > 1.9
    assert contributions.min() >= 0
    assert contributions.max() <= 2


# --- MLP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(64, 64, 32), (7, 3), (5,)])
def test_mlp_has_a_relu_after_each_layer_but_the_last(u, s, sizes):
    expert = MLPExpert(DIM, sizes).double()
    layers = [expert.first, *expert.rest]
    assert [layer.out_features for layer in layers] == list(sizes)
    rows = []
    for user, service in zip(u.numpy(), s.numpy(), strict=True):
        hidden = np.concatenate([user, service])
        for k, layer in enumerate(layers):
            W, b = weights(layer)
            hidden = W @ hidden + b
            if k < len(layers) - 1:
                hidden = relu(hidden)
        rows.append(hidden)
    assert_allclose(run(expert, u, s), rows, **EXACT)


# --- All ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expert",
    [AttentionExpert(DIM, OUT, 2, 0.5), LHUCExpert(DIM, OUT), MLPExpert(DIM, (7, OUT))],
    ids=lambda expert: type(expert).__name__,
)
def test_no_pairs_are_allowed(expert):
    expert.eval()
    users, services = (part(torch.zeros(0, DIM)) for part in (expert.users, expert.services))
    assert expert(users, services).shape == (0, OUT)
