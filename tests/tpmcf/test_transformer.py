"""The encoder over time against loops; what is padded has no say."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skqos.tpmcf.transformer import (
    EncoderBlock,
    FeatureConvolution,
    MultiHeadAttention,
    RecurrentEncoder,
    TimeConvolution,
    TransformerEncoder,
    pool,
)
from skqos.training import seeded

N, WINDOW, DIM, HEADS, HEAD_DIM, FILTERS = 4, 5, 6, 2, 3, 7
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
    x = torch.tensor(np.random.default_rng(0).normal(size=(N, WINDOW, DIM)))
    return torch.where(PRESENT.unsqueeze(2), x, padding)


def present_steps(x):
    """Steps of each sequence that are no padding."""
    return [of_row[WINDOW - length :] for of_row, length in zip(x, LENGTHS, strict=True)]


# --- Attention ----------------------------------------------------------------------------------


def make_attention():
    return MultiHeadAttention(DIM, HEADS, HEAD_DIM).double()


def softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def slow_heads(attention, steps):
    """Weights and output of each head for one sequence without padding."""
    weight, bias = numpy(attention.project.weight), numpy(attention.project.bias)
    # Rows of the projection: queries of all heads, then keys, then values.
    parts = [
        [steps @ of_head.T + constant for of_head, constant in zip(*of_kind, strict=True)]
        for of_kind in zip(
            weight.reshape(3, HEADS, HEAD_DIM, DIM), bias.reshape(3, HEADS, HEAD_DIM), strict=True
        )
    ]
    weights, outputs = [], []
    for queries, keys, values in zip(*parts, strict=True):
        of_head = np.stack([softmax(keys @ query / np.sqrt(HEAD_DIM)) for query in queries])
        weights.append(of_head)
        outputs.append(of_head @ values)
    return np.stack(weights), np.concatenate(outputs, axis=1)


def slow_attention(attention, steps):
    joined = slow_heads(attention, steps)[1]
    return joined @ numpy(attention.join.weight).T + numpy(attention.join.bias)


def test_attention_of_each_head_is_over_the_steps_present():
    attention = make_attention()
    found = attention(sequences(), PRESENT)
    for of_row, steps in zip(present_steps(found), present_steps(sequences()), strict=True):
        assert_allclose(numpy(of_row), slow_attention(attention, numpy(steps)), **EXACT)


def test_weights_are_those_the_attention_uses_and_0_for_padding():
    attention = make_attention()
    found = numpy(attention.weights(sequences(), PRESENT))
    assert found.shape == (N, HEADS, WINDOW, WINDOW)
    assert_allclose(found.sum(axis=3), 1)
    for of_row, steps, length in zip(found, present_steps(sequences()), LENGTHS, strict=True):
        first = WINDOW - length
        assert (of_row[:, :, :first] == 0).all()
        expected, _ = slow_heads(attention, numpy(steps))
        assert np.ptp(expected) > 0.1 or length == 1
        assert_allclose(of_row[:, first:, first:], expected, **EXACT)


def test_padding_has_no_say_in_attention():
    attention = make_attention()
    plain, padded = (attention(sequences(padding), PRESENT) for padding in (0.0, 100.0))
    assert torch.equal(plain[PRESENT], padded[PRESENT])
    assert not torch.equal(attention(sequences(100.0), torch.ones_like(PRESENT)), plain)


# --- Convolutions -------------------------------------------------------------------------------


def slow_convolution(convolution, channels):
    """Channels (n_in, length) through three taps, ReLU, one tap."""
    first, second = convolution.first, convolution.second
    length = channels.shape[1]
    hidden = np.zeros((first.out_channels, length))
    for filter_ in range(first.out_channels):
        for at in range(length):
            total = numpy(first.bias)[filter_]
            for tap, offset in enumerate((-1, 0, 1)):
                if 0 <= at + offset < length:
                    total += numpy(first.weight)[filter_, :, tap] @ channels[:, at + offset]
            hidden[filter_, at] = max(total, 0)
    return numpy(second.weight)[:, :, 0] @ hidden + numpy(second.bias)[:, None]


def test_time_convolutions_run_along_time_over_the_features():
    convolution = TimeConvolution(DIM, FILTERS, 0.0).double()
    found = numpy(convolution(sequences()))
    for of_row, steps in zip(found, numpy(sequences()), strict=True):
        assert_allclose(of_row, slow_convolution(convolution, steps.T).T, **EXACT)


def test_feature_convolutions_run_along_the_features_over_the_steps():
    convolution = FeatureConvolution(WINDOW, FILTERS, 0.0).double()
    found = numpy(convolution(sequences()))
    for of_row, steps in zip(found, numpy(sequences()), strict=True):
        assert_allclose(of_row, slow_convolution(convolution, steps), **EXACT)


@pytest.mark.parametrize("make", [TimeConvolution, FeatureConvolution])
def test_dropout_falls_between_the_convolutions_in_training_only(make):
    n = 20
    convolution = make(n, n, 0.5).double()
    with torch.no_grad():
        convolution.second.weight[:] = torch.eye(n).unsqueeze(2)
        # Dropout after the second would fall on its bias, too.
        convolution.second.bias.fill_(5)
    x = torch.randn(8, n, n, dtype=torch.float64)
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
        "time": lambda: TimeConvolution(DIM, FILTERS, dropout),
        "paper": lambda: FeatureConvolution(WINDOW, FILTERS, dropout),
    }[convolution]()
    block = EncoderBlock(DIM, HEADS, HEAD_DIM, made).double()
    with torch.no_grad():
        for norm in (block.first_norm, block.second_norm):
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.uniform_(-0.5, 0.5)
    return block.eval()


def slow_norm(norm, steps):
    deviation = np.sqrt(steps.var(axis=1, keepdims=True) + norm.eps)
    scaled = (steps - steps.mean(axis=1, keepdims=True)) / deviation
    return scaled * numpy(norm.weight) + numpy(norm.bias)


def slow_block(block, steps):
    """Encode one sequence; what it lacks at the front for convolutions over steps is 0."""
    attended = slow_norm(block.first_norm, steps + slow_attention(block.attention, steps))
    if isinstance(block.convolution, FeatureConvolution):
        padded = np.concatenate([np.zeros((WINDOW - len(steps), DIM)), attended])
        convolved = slow_convolution(block.convolution, padded)[WINDOW - len(steps) :]
    else:
        convolved = slow_convolution(block.convolution, attended.T).T
    return slow_norm(block.second_norm, attended + convolved)


both_convolutions = pytest.mark.parametrize("convolution", ["time", "paper"])


@both_convolutions
def test_blocks_encode_the_steps_present_and_leave_0_elsewhere(convolution):
    encoder = TransformerEncoder([make_block(convolution) for _ in range(2)])
    found = encoder(sequences(), PRESENT)
    assert (found[~PRESENT] == 0).all()
    for of_row, steps in zip(present_steps(found), present_steps(sequences()), strict=True):
        expected = numpy(steps)
        for block in encoder.blocks:
            expected = slow_block(block, expected)
        assert_allclose(numpy(of_row), expected, **EXACT)


def test_a_padded_sequence_is_encoded_as_the_short_one():
    encoder = TransformerEncoder([make_block() for _ in range(3)])
    found = encoder(sequences(), PRESENT)
    for of_row, steps in zip(present_steps(found), present_steps(sequences()), strict=True):
        alone = encoder(steps.unsqueeze(0), torch.ones(1, len(steps), dtype=torch.bool))
        assert_allclose(numpy(of_row), numpy(alone[0]), **EXACT)


@both_convolutions
def test_attention_weights_are_those_of_each_block(convolution):
    blocks = [make_block(convolution) for _ in range(3)]
    encoder = TransformerEncoder(blocks)
    found = encoder.attention_weights(sequences(), PRESENT)
    assert found.shape == (N, 3, HEADS, WINDOW, WINDOW)
    x = sequences()
    for k, block in enumerate(blocks):
        assert torch.equal(found[:, k], block.attention.weights(x, PRESENT))
        x = block(x, PRESENT)
    assert (found[:, 0] - found[:, 1]).abs().max() > 0.01


def make_encoder(kind):
    if kind in ("gru", "lstm"):
        return RecurrentEncoder(kind, DIM, 2).double()
    return TransformerEncoder([make_block(kind) for _ in range(2)])


every_encoder = pytest.mark.parametrize("kind", ["time", "paper", "gru", "lstm"])


@every_encoder
def test_sequences_do_not_influence_one_another(kind):
    encoder = make_encoder(kind)
    whole = encoder(sequences(), PRESENT)
    for row in range(N):
        alone = encoder(sequences()[row : row + 1], PRESENT[row : row + 1])
        assert_allclose(numpy(alone[0]), numpy(whole[row]), **EXACT)


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
    encoder = RecurrentEncoder(kind, DIM, 2).double()
    assert type(encoder.layers) is layers
    assert encoder.layers.num_layers == 2
    plain, padded = (encoder(sequences(padding), PRESENT) for padding in (0.0, 100.0))
    assert torch.equal(plain[PRESENT], padded[PRESENT])
    assert (padded[~PRESENT] == 0).all()
    for of_row, steps in zip(present_steps(plain), present_steps(sequences()), strict=True):
        alone, _ = encoder.layers(steps.unsqueeze(0))
        assert_allclose(numpy(of_row), numpy(alone[0]), **EXACT)


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
    found = numpy(pool(x, PRESENT, how))
    for of_row, steps in zip(found, present_steps(x), strict=True):
        assert_allclose(of_row, summarise(numpy(steps)), **EXACT)
