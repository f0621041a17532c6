"""Each expert against an explicit loop over members and rows (paper, appendix A.2)."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skqos.sa_moe.experts import AttentionExpert, LHUCExpert, MLPExpert
from skqos.training import seeded
from tests.common import weight_of

MEMBERS, USER, SERVICE, DIM, OUT, N = 3, 7, 6, 8, 5, 12
SIDES = MEMBERS, USER, SERVICE
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


@pytest.fixture
def u():
    return torch.randn(MEMBERS, N, USER, dtype=torch.float64)


@pytest.fixture
def s():
    return torch.randn(MEMBERS, N, SERVICE, dtype=torch.float64)


def run(expert, u, s):
    return expert(expert.users(u), expert.services(s)).detach().numpy()


def weights(layer, member):
    """Return W and b of a member's linear layer, W to be multiplied from the left."""
    return weight_of(layer)[member].detach().numpy().T, layer.bias[member, 0].detach().numpy()


def each_row(u, s):
    """Yield the vectors of each member's pairs."""
    for user, service in zip(u.numpy(), s.numpy(), strict=True):
        yield list(zip(user, service, strict=True))


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    exp = np.exp(x - x.max())
    return exp / exp.sum()


# --- Attention ----------------------------------------------------------------------------------


def make_attention(n_heads=2, shared=False, dropout=0.5, user_dim=USER, service_dim=SERVICE):
    """Return an expert whose width is neither that of its tokens nor that of its output."""
    return AttentionExpert(
        MEMBERS, user_dim, service_dim, DIM, OUT, n_heads=n_heads, shared=shared, dropout=dropout
    ).double()


def slow_attention(expert, u, s, n_heads):
    width = DIM // n_heads
    outputs = []
    for member, pairs in enumerate(each_row(u, s)):
        W_user, b_user = weights(expert.user_projection, member)
        W_service, b_service = weights(expert.service_projection, member)
        W_out, b_out = weights(expert.output, member)
        rows = []
        for user, service in pairs:
            projected = W_user @ user + b_user, W_service @ service + b_service
            query, key, value = np.stack(projected).reshape(2, 3, DIM).transpose(1, 0, 2)
            tokens = np.zeros((2, DIM))
            for head in range(n_heads):
                part = slice(head * width, (head + 1) * width)
                for token in range(2):
                    logits = [query[token, part] @ key[other, part] for other in range(2)]
                    alpha = softmax(np.array(logits) / np.sqrt(width))
                    tokens[token, part] = alpha[0] * value[0, part] + alpha[1] * value[1, part]
            rows.append(W_out @ np.concatenate([tokens[0], tokens[1]]) + b_out)
        outputs.append(rows)
    return np.array(outputs)


@pytest.mark.parametrize("n_heads", [1, 2, 4, 8])
def test_attention_over_two_tokens(u, s, n_heads):
    expert = make_attention(n_heads).eval()
    assert_allclose(run(expert, u, s), slow_attention(expert, u, s, n_heads), **EXACT)


@pytest.mark.parametrize("n_heads", [1, 4])
def test_tokens_of_one_width_may_share_their_projections(u, n_heads):
    s = torch.randn_like(u)
    shared = make_attention(n_heads, shared=True, service_dim=USER).eval()
    separate = make_attention(n_heads, shared=False, service_dim=USER).eval()
    sizes = [sum(p.numel() for p in expert.parameters()) for expert in (shared, separate)]
    assert sizes[1] - sizes[0] == MEMBERS * 3 * DIM * (USER + 1)
    for expert in (shared, separate):
        assert_allclose(run(expert, u, s), slow_attention(expert, u, s, n_heads), **EXACT)
    with torch.no_grad():
        for side in (separate.user_projection, separate.service_projection):
            side.load_state_dict(shared.user_projection.state_dict())
        separate.output.load_state_dict(shared.output.state_dict())
    assert_allclose(run(separate, u, s), run(shared, u, s), **EXACT)


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_attention_is_that_of_torch_with_an_identity_for_its_output_projection(n_heads):
    """In the paper tokens, queries and outputs have one width, and projections are shared."""
    u, s = torch.randn(2, MEMBERS, N, DIM, dtype=torch.float64)
    expert = make_attention(n_heads, shared=True, user_dim=DIM, service_dim=DIM).eval()
    found = run(expert, u, s)
    for member in range(MEMBERS):
        reference = nn.MultiheadAttention(DIM, n_heads, dropout=0.5, batch_first=True)
        reference = reference.double().eval()
        with torch.no_grad():
            reference.in_proj_weight.copy_(expert.user_projection.weight[member].T)
            reference.in_proj_bias.copy_(expert.user_projection.bias[member, 0])
            reference.out_proj.weight.copy_(torch.eye(DIM))
            reference.out_proj.bias.zero_()
            tokens = torch.stack([u[member], s[member]], dim=1)
            attended, _ = reference(tokens, tokens, tokens)
        W, b = weights(expert.output, member)
        assert_allclose(found[member], attended.flatten(1).numpy() @ W.T + b, **EXACT)


def test_attention_dropout_falls_on_the_weights_of_each_head_and_pair_of_tokens(u, s):
    class Mask(nn.Module):
        alphas = []

        def forward(self, alpha):
            self.alphas.append(alpha.detach())
            return torch.zeros_like(alpha)

    expert = make_attention(n_heads=2)
    assert expert.dropout.p == 0.5
    expert.dropout = Mask()
    bias = expert.output.bias.detach().expand(-1, N, -1)
    assert_allclose(run(expert, u, s), bias, **EXACT)
    # Of each token: what it attends to, member, pair and head.
    assert [alpha.shape for alpha in expert.dropout.alphas] == [(2, MEMBERS, N, 2)] * 2
    for alpha in expert.dropout.alphas:
        assert_allclose(alpha.sum(dim=0), np.ones((MEMBERS, N, 2)), **EXACT)


def test_attention_is_random_in_training_only(u, s):
    expert = make_attention()
    assert (run(expert, u, s) != run(expert, u, s)).any()
    expert.eval()
    assert (run(expert, u, s) == run(expert, u, s)).all()


# --- LHUC (eq. 14) ------------------------------------------------------------------------------


def slow_norm(layer, rows, member, training):
    """Batch normalisation of a member, feature by feature."""
    norm, n_features = layer.norm, rows.shape[1]
    result = np.empty_like(rows)
    for k in range(n_features):
        column, place = rows[:, k], member * n_features + k
        if training:
            mean = sum(column) / len(column)
            variance = sum((column - mean) ** 2) / len(column)
        else:
            mean, variance = norm.running_mean[place].item(), norm.running_var[place].item()
        gamma, beta = norm.weight[place].item(), norm.bias[place].item()
        result[:, k] = gamma * (column - mean) / np.sqrt(variance + norm.eps) + beta
    return result


def slow_lhuc(expert, u, s, training=False):
    outputs = []
    for member, pairs in enumerate(each_row(u, s)):
        W_1, b_1 = weights(expert.user_layer, member)
        W_2, b_2 = weights(expert.hidden_layer, member)
        W, b = weights(expert.service_layer, member)
        (W_3, W_4), (b_3, b_4) = np.split(W, 2), np.split(b, 2)
        is_normalised = not isinstance(expert.norm_1, nn.Identity)
        hidden = np.array(
            [2 * sigmoid(W_3 @ service + b_3) * relu(W_1 @ user + b_1) for user, service in pairs]
        )
        if is_normalised:
            hidden = slow_norm(expert.norm_1, hidden, member, training)
        output = np.array(
            [
                2 * sigmoid(W_4 @ service + b_4) * relu(W_2 @ h + b_2)
                for h, (_, service) in zip(hidden, pairs, strict=True)
            ]
        )
        if is_normalised:
            output = slow_norm(expert.norm_2, output, member, training)
        outputs.append(output)
    return np.array(outputs)


@pytest.fixture
def lhuc():
    """Return an expert whose normalisations are far from those of a fresh one."""
    expert = LHUCExpert(*SIDES, OUT, batch_norm=True).double()
    for norm in (expert.norm_1.norm, expert.norm_2.norm):
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
    norms = lhuc.norm_1.norm, lhuc.norm_2.norm
    before = [norm.running_mean.clone() for norm in norms]
    assert_allclose(run(lhuc.train(), u, s), expected, **EXACT)
    for norm, mean in zip(norms, before, strict=True):
        assert (norm.running_mean != mean).all()


@pytest.mark.parametrize("training", [True, False])
def test_lhuc_without_batch_normalisation(u, s, training):
    expert = LHUCExpert(*SIDES, OUT, batch_norm=False).double().train(training)
    assert not list(expert.buffers())
    assert_allclose(run(expert, u, s), slow_lhuc(expert, u, s), **EXACT)


def test_contributions_lie_between_0_and_2(lhuc):
    services = 20 * torch.randn(MEMBERS, 100, SERVICE, dtype=torch.float64)
    contributions = lhuc.services(services)
    assert contributions.min() < 0.1
    assert contributions.max() > 1.9
    assert contributions.min() >= 0
    assert contributions.max() <= 2


# --- MLP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(64, 64, 32), (7, 3), (5,)])
def test_mlp_has_a_relu_after_each_layer_but_the_last(u, s, sizes):
    expert = MLPExpert(*SIDES, sizes).double()
    layers = [expert.first, *expert.rest]
    assert [weight_of(layer).shape[2] for layer in layers] == list(sizes)
    found = run(expert, u, s)
    for member, pairs in enumerate(each_row(u, s)):
        rows = []
        for pair in pairs:
            hidden = np.concatenate(pair)
            for k, layer in enumerate(layers):
                W, b = weights(layer, member)
                hidden = W @ hidden + b
                if k < len(layers) - 1:
                    hidden = relu(hidden)
            rows.append(hidden)
        assert_allclose(found[member], rows, **EXACT)


# --- All ----------------------------------------------------------------------------------------


EVERY_EXPERT = {
    "attention": lambda: make_attention(),
    "lhuc": lambda: LHUCExpert(*SIDES, OUT, batch_norm=False).double(),
    "lhuc, normalised": lambda: LHUCExpert(*SIDES, OUT, batch_norm=True).double(),
    "mlp": lambda: MLPExpert(*SIDES, (7, OUT)).double(),
}
every_expert = pytest.mark.parametrize("name", EVERY_EXPERT)


@every_expert
def test_no_pairs_are_allowed(name):
    expert = EVERY_EXPERT[name]().eval()
    nobody = (torch.zeros(MEMBERS, 0, dim, dtype=torch.float64) for dim in (USER, SERVICE))
    assert run(expert, *nobody).shape == (MEMBERS, 0, OUT)


@every_expert
def test_members_do_not_hear_of_each_other(name, u, s):
    """The gradient of a member's output stays with its own inputs."""
    expert = EVERY_EXPERT[name]()
    u.requires_grad_(True)
    s.requires_grad_(True)
    expert(expert.users(u), expert.services(s))[1].square().sum().backward()
    for side in (u, s):
        assert (side.grad[[0, 2]] == 0).all()
        assert (side.grad[1] != 0).any()
