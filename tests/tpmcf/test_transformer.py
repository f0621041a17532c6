"""The encoder over time against loops over members and rows; what is padded has no say."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skqos.tpmcf.transformer import (
    EncoderBlock,
    FeatureConvolution,
    MemberConvolution,
    MultiHeadAttention,
    RecurrentEncoder,
    TimeConvolution,
    TransformerEncoder,
    pool,
)
from skqos.training import seeded

MEMBERS, N, WINDOW, DIM, HEADS, HEAD_DIM, FILTERS = 3, 4, 5, 6, 2, 3, 7
EXACT = {"rtol": 1e-10, "atol": 1e-10}
# Steps present in each sequence; the rest is padding at the front.
LENGTHS = [5, 3, 1, 4]
PRESENT = torch.tensor([[k >= WINDOW - length for k in range(WINDOW)] for length in LENGTHS])


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, torch.device("cpu")):
        yield


def numpy(tensor):
    return tensor.detach().numpy()


def sequences(padding=0.0):
    """Return the same sequences every time, with something else where padded."""
    x = torch.tensor(np.random.default_rng(0).normal(size=(MEMBERS, N, WINDOW, DIM)))
    return torch.where(PRESENT.unsqueeze(2), x, padding)


def present_steps(x):
    """Return each member's number and steps of each sequence, without padding."""
    return [
        (member, of_row[WINDOW - length :])
        for member, of_member in enumerate(x)
        for of_row, length in zip(of_member, LENGTHS, strict=True)
    ]


def pairs_of_steps(found, x):
    """Member, steps found and steps given, sequence by sequence."""
    return [
        (member, numpy(after), numpy(before))
        for (member, after), (_, before) in zip(present_steps(found), present_steps(x), strict=True)
    ]


def linear(layer, member, rows):
    return rows @ numpy(layer.weight)[member] + numpy(layer.bias)[member]


# --- Attention ----------------------------------------------------------------------------------


def make_attention():
    return MultiHeadAttention(MEMBERS, DIM, HEADS, HEAD_DIM).double()


def softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def slow_heads(attention, member, steps):
    """Weights and output of each head for one sequence without padding."""
    projected = linear(attention.project, member, steps)
    # Columns: queries of all heads, then keys, then values.
    parts = [np.split(of_kind, HEADS, axis=1) for of_kind in np.split(projected, 3, axis=1)]
    weights, outputs = [], []
    for queries, keys, values in zip(*parts, strict=True):
        of_head = np.stack([softmax(keys @ query / np.sqrt(HEAD_DIM)) for query in queries])
        weights.append(of_head)
        outputs.append(of_head @ values)
    return np.stack(weights), np.concatenate(outputs, axis=1)


def slow_attention(attention, member, steps):
    return linear(attention.join, member, slow_heads(attention, member, steps)[1])


def test_attention_of_each_head_is_over_the_steps_present():
    attention = make_attention()
    found = attention(sequences(), PRESENT)
    for member, of_row, steps in pairs_of_steps(found, sequences()):
        assert_allclose(of_row, slow_attention(attention, member, steps), **EXACT)


def test_weights_are_those_the_attention_uses_and_0_for_padding():
    attention = make_attention()
    found = numpy(attention.weights(sequences(), PRESENT))
    assert found.shape == (MEMBERS, N, HEADS, WINDOW, WINDOW)
    assert_allclose(found.sum(axis=4), 1)
    of_rows = found.reshape(-1, HEADS, WINDOW, WINDOW)
    for of_row, (member, steps) in zip(of_rows, present_steps(sequences()), strict=True):
        first = WINDOW - len(steps)
        assert (of_row[:, :, :first] == 0).all()
        expected, _ = slow_heads(attention, member, numpy(steps))
        assert np.ptp(expected) > 0.1 or len(steps) == 1
        assert_allclose(of_row[:, first:, first:], expected, **EXACT)


def test_padding_has_no_say_in_attention():
    attention = make_attention()
    plain, padded = (attention(sequences(padding), PRESENT) for padding in (0.0, 100.0))
    assert torch.equal(plain[:, PRESENT], padded[:, PRESENT])
    assert not torch.equal(attention(sequences(100.0), torch.ones_like(PRESENT)), plain)


@pytest.mark.parametrize("window", [1, 4, 5, 16, 20])
@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_sequences_that_share_a_product_do_not_attend_to_one_another(window, n):
    """In evaluation each has a product of its own."""
    attention = make_attention()
    x = torch.randn(MEMBERS, n, window, DIM, dtype=torch.float64)
    present = torch.arange(window) >= torch.randint(window, (n, 1))
    together, apart = attention.train()(x, present), attention.eval()(x, present)
    assert together.shape == x.shape
    assert_allclose(numpy(together), numpy(apart), **EXACT)


# --- Convolutions -------------------------------------------------------------------------------


def slow_convolution(convolution, member, channels):
    """Channels (length, n_in) through three taps, ReLU, one tap."""
    first = convolution.first.linear
    taps = np.split(numpy(first.weight)[member], 3)
    length = len(channels)
    hidden = np.zeros((length, FILTERS))
    for at in range(length):
        total = numpy(first.bias)[member, 0].copy()
        for tap, offset in zip(taps, (-1, 0, 1), strict=True):
            if 0 <= at + offset < length:
                total += channels[at + offset] @ tap
        hidden[at] = np.maximum(total, 0)
    return linear(convolution.second, member, hidden)


def test_time_convolutions_run_along_time_over_the_features():
    convolution = TimeConvolution(MEMBERS, DIM, FILTERS, 0.0).double()
    found = numpy(convolution(sequences()))
    for member, row in np.ndindex(MEMBERS, N):
        expected = slow_convolution(convolution, member, numpy(sequences())[member, row])
        assert_allclose(found[member, row], expected, **EXACT)


def test_convolutions_are_those_of_torch():
    """Initial weights included: each in the range of its fan-in."""
    convolution = MemberConvolution(MEMBERS, DIM, 50)
    weight, x = convolution.linear.weight, sequences().float()
    for member in range(MEMBERS):
        reference = nn.Conv1d(DIM, 50, 3, padding="same")
        largest = (values.abs().max().item() for values in (weight[member], reference.weight))
        assert next(largest) == pytest.approx(next(largest), rel=0.02)
        with torch.no_grad():
            taps = weight[member].unflatten(0, (3, DIM))
            reference.weight.copy_(taps.permute(2, 1, 0))
            reference.bias.copy_(convolution.linear.bias[member, 0])
        expected = reference(x[member].transpose(1, 2)).transpose(1, 2)
        assert_allclose(numpy(convolution(x)[member]), numpy(expected), rtol=1e-4, atol=1e-5)


def test_feature_convolutions_run_along_the_features_over_the_steps():
    convolution = FeatureConvolution(MEMBERS, WINDOW, FILTERS, 0.0).double()
    found = numpy(convolution(sequences()))
    for member, row in np.ndindex(MEMBERS, N):
        expected = slow_convolution(convolution, member, numpy(sequences())[member, row].T).T
        assert_allclose(found[member, row], expected, **EXACT)


@pytest.mark.parametrize("make", [TimeConvolution, FeatureConvolution])
def test_dropout_falls_between_the_convolutions_in_training_only(make):
    n = 20
    convolution = make(MEMBERS, n, n, 0.5).double()
    with torch.no_grad():
        convolution.second.weight[:] = torch.eye(n)
        # Dropout after the second would fall on its bias, too.
        convolution.second.bias.fill_(5)
    x = torch.randn(MEMBERS, 8, n, n, dtype=torch.float64)
    dropped, whole = convolution.train()(x) - 5, convolution.eval()(x) - 5
    active = whole > 0
    kept = dropped[active] != 0
    assert (dropped[~active] == 0).all()
    assert 0.4 < kept.double().mean() < 0.6
    assert_allclose(numpy(dropped[active][kept]), 2 * numpy(whole[active][kept]))


# --- Blocks -------------------------------------------------------------------------------------


def make_block(convolution="time", dropout=0.0):
    """Return a block whose norms differ and are no mere standardisation."""
    made = {
        "time": lambda: TimeConvolution(MEMBERS, DIM, FILTERS, dropout),
        "paper": lambda: FeatureConvolution(MEMBERS, WINDOW, FILTERS, dropout),
    }[convolution]()
    block = EncoderBlock(MEMBERS, DIM, HEADS, HEAD_DIM, made).double()
    with torch.no_grad():
        for norm in (block.first_norm, block.second_norm):
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.uniform_(-0.5, 0.5)
    return block.eval()


def slow_norm(norm, member, steps):
    deviation = np.sqrt(steps.var(axis=1, keepdims=True) + 1e-5)
    scaled = (steps - steps.mean(axis=1, keepdims=True)) / deviation
    return scaled * numpy(norm.weight)[member, 0] + numpy(norm.bias)[member, 0]


def slow_block(block, member, steps):
    """Encode one sequence; what it lacks at the front for convolutions over steps is 0."""
    attended = slow_norm(
        block.first_norm, member, steps + slow_attention(block.attention, member, steps)
    )
    if isinstance(block.convolution, FeatureConvolution):
        padded = np.concatenate([np.zeros((WINDOW - len(steps), DIM)), attended])
        convolved = slow_convolution(block.convolution, member, padded.T).T[WINDOW - len(steps) :]
    else:
        convolved = slow_convolution(block.convolution, member, attended)
    return slow_norm(block.second_norm, member, attended + convolved)


both_convolutions = pytest.mark.parametrize("convolution", ["time", "paper"])


@both_convolutions
def test_blocks_encode_the_steps_present_and_leave_0_elsewhere(convolution):
    encoder = TransformerEncoder([make_block(convolution) for _ in range(2)])
    found = encoder(sequences(), PRESENT)
    assert (found[:, ~PRESENT] == 0).all()
    for member, of_row, expected in pairs_of_steps(found, sequences()):
        for block in encoder.blocks:
            expected = slow_block(block, member, expected)
        assert_allclose(of_row, expected, **EXACT)


def test_a_padded_sequence_is_encoded_as_the_short_one():
    encoder = TransformerEncoder([make_block() for _ in range(3)])
    found = encoder(sequences(), PRESENT)
    for row, length in enumerate(LENGTHS):
        steps = sequences()[:, [row], WINDOW - length :]
        alone = encoder(steps, torch.ones(1, length, dtype=torch.bool))
        assert_allclose(numpy(found[:, [row], WINDOW - length :]), numpy(alone), **EXACT)


@both_convolutions
def test_attention_weights_are_those_of_each_block(convolution):
    blocks = [make_block(convolution) for _ in range(3)]
    encoder = TransformerEncoder(blocks)
    found = encoder.attention_weights(sequences(), PRESENT)
    assert found.shape == (MEMBERS, N, 3, HEADS, WINDOW, WINDOW)
    x = sequences()
    for k, block in enumerate(blocks):
        assert torch.equal(found[:, :, k], block.attention.weights(x, PRESENT))
        x = block(x, PRESENT)
    assert (found[:, :, 0] - found[:, :, 1]).abs().max() > 0.01


def make_encoder(kind):
    if kind in ("gru", "lstm"):
        return RecurrentEncoder(MEMBERS, kind, DIM, 2).double()
    return TransformerEncoder([make_block(kind) for _ in range(2)])


every_encoder = pytest.mark.parametrize("kind", ["time", "paper", "gru", "lstm"])


@every_encoder
def test_sequences_do_not_influence_one_another(kind):
    encoder = make_encoder(kind)
    whole = encoder(sequences(), PRESENT)
    for row in range(N):
        alone = encoder(sequences()[:, [row]], PRESENT[[row]])
        assert_allclose(numpy(alone), numpy(whole[:, [row]]), **EXACT)


@every_encoder
def test_members_do_not_influence_one_another(kind):
    encoder = make_encoder(kind)
    whole = encoder(sequences(), PRESENT)
    for member in range(MEMBERS):
        changed = sequences() + 1.0
        changed[member] = sequences()[member]
        found = encoder(changed, PRESENT)
        assert_allclose(numpy(found[member]), numpy(whole[member]), **EXACT)
        assert (found - whole)[:, PRESENT].abs().amax((1, 2)).gt(1e-3).sum() == MEMBERS - 1


@every_encoder
def test_every_parameter_of_an_encoder_gets_a_gradient(kind):
    encoder = make_encoder(kind)
    pool(encoder(sequences(), PRESENT), PRESENT, "max").pow(3).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


# --- Recurrent stand-ins ------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "layers"), [("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_recurrent_layers_run_over_the_steps_present_alone(kind, layers):
    encoder = RecurrentEncoder(MEMBERS, kind, DIM, 2).double()
    assert [type(member) for member in encoder.members] == [layers] * MEMBERS
    assert encoder.members[0].num_layers == 2
    plain, padded = (encoder(sequences(padding), PRESENT) for padding in (0.0, 100.0))
    assert torch.equal(plain[:, PRESENT], padded[:, PRESENT])
    assert (padded[:, ~PRESENT] == 0).all()
    for member, of_row, steps in pairs_of_steps(plain, sequences()):
        alone, _ = encoder.members[member](torch.tensor(steps).unsqueeze(0))
        assert_allclose(of_row, numpy(alone[0]), **EXACT)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_recurrent_layers_pass_over_gaps(kind):
    encoder = RecurrentEncoder(MEMBERS, kind, DIM, 1).double()
    x = torch.tensor(np.random.default_rng(0).normal(size=(MEMBERS, 1, WINDOW, DIM)))
    present = torch.tensor([[False, True, False, False, True]])
    found = encoder(x, present)
    assert (found[:, :, ~present[0]] == 0).all()
    for member, layers in enumerate(encoder.members):
        alone, _ = layers(x[member, :, present[0]])
        assert_allclose(numpy(found[member, :, present[0]]), numpy(alone), **EXACT)


# --- Pooling ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "summarise"),
    [
        ("max", lambda steps: steps.max(axis=0)),
        ("mean", lambda steps: steps.mean(axis=0)),
        ("last", lambda steps: steps[-1]),
    ],
)
def test_sequences_are_summarised_over_the_steps_present(how, summarise):
    """Values are negative: a maximum over zeros of the padding would show."""
    x = torch.where(PRESENT.unsqueeze(2), sequences() - 10, 0.0)
    found = numpy(pool(x, PRESENT, how)).reshape(MEMBERS * N, DIM)
    for of_row, (_, steps) in zip(found, present_steps(x), strict=True):
        assert_allclose(of_row, summarise(numpy(steps)), **EXACT)
