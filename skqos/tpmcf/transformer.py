"""The predictive transformer encoder (PTE) over a window of time steps, and recurrent encoders.

Sequences have the shape (n_members, n, window, dim). A mask of shape (n, window), shared by all
members, is False for padding, which precedes the other steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skqos.members import ByteDropout, MemberLinear

KERNEL_WIDTH = 3
# Number of steps up to which sequences share a matrix product, because small products are slow.
STEPS_PER_PRODUCT = 16


def each_step(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer of rows (n_members, n, width) to every step (n_members, n, window, width)."""
    return layer(x.flatten(1, 2)).unflatten(1, x.shape[1:3])


class MultiHeadAttention(nn.Module):
    """Multi-head attention between the steps of a window (eq. 8).

    Parameters
    ----------
    n_members : int
        Number of members.
    dim : int
        Width of a step.
    n_heads : int
        Number of heads h.
    head_dim : int
        Width of queries, keys and values of a head (d_k = d_v).
    """

    def __init__(self, n_members: int, dim: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = MemberLinear(n_members, dim, 3 * n_heads * head_dim)
        self.join = MemberLinear(n_members, n_heads * head_dim, dim)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Attend over the steps that are present.

        Parameters
        ----------
        x : Tensor of shape (n_members, n, window, dim)
            Sequences.
        present : Tensor of bool of shape (n, window)
            False for padding.

        Returns
        -------
        Tensor of the shape of `x`
        """
        _, n, window, dim = x.shape
        # Only in training, because torch.export cannot trace it for any number of sequences.
        n_together = max(STEPS_PER_PRODUCT // window, 1) if self.training else 1
        n_missing = -n % n_together
        # Sequences that share a product are concatenated and do not attend to one another.
        rows = F.pad(x, (0, 0, 0, 0, 0, n_missing)).reshape(len(x), -1, n_together * window, dim)
        queries, keys, values = (part.flatten(0, 1) for part in self._heads(rows))
        mask = _attended(F.pad(present, (0, 0, 0, n_missing), value=True), n_together)
        # Members and sequences share an axis, because torch has a fused kernel for four axes.
        heads = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask.repeat(len(x), 1, 1, 1)
        )
        joined = each_step(self.join, heads.transpose(1, 2).flatten(2).unflatten(0, rows.shape[:2]))
        return joined.reshape(len(x), -1, window, dim)[:, :n]

    def weights(self, x: Tensor, present: Tensor) -> Tensor:
        """Return the attention of each step (second last axis) to each step (last axis).

        Its shape is (n_members, n, n_heads, window, window).
        """
        queries, keys, _ = self._heads(x)
        scores = queries @ keys.transpose(3, 4) / keys.shape[-1] ** 0.5
        return scores.masked_fill(~present[:, None, None], -torch.inf).softmax(dim=-1)

    def _heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Project to queries, keys and values; (n_members, n, n_heads, window, head_dim) each."""
        projected = each_step(self.project, x).unflatten(3, (3, self.n_heads, -1))
        return projected.permute(3, 0, 1, 4, 2, 5).unbind(0)


def _attended(present: Tensor, n_together: int) -> Tensor:
    """Return which steps attend to which, for several concatenated sequences.

    Parameters
    ----------
    present : Tensor of bool of shape (n, window)
        False for padding.
    n_together : int
        Number of concatenated sequences; a divisor of n.

    Returns
    -------
    Tensor of bool of shape (n / n_together, 1, n_together * window, n_together * window)
    """
    of_keys = present.view(-1, 1, n_together * present.shape[1])
    sequence = torch.arange(n_together, device=present.device).repeat_interleave(present.shape[1])
    return (of_keys & (sequence[:, None] == sequence)).unsqueeze(1)


class MemberConvolution(nn.Module):
    """A convolution over three neighbours for each member, with zero padding.

    It is initialised like ``torch.nn.Conv1d``. Multiplying the concatenated neighbours by one
    matrix per member is faster than ``conv1d`` with one group per member.

    Parameters
    ----------
    n_members : int
        Number of members.
    in_channels, out_channels : int
        Number of channels.
    """

    def __init__(self, n_members: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = MemberLinear(n_members, KERNEL_WIDTH * in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (n_members, n, length, in_channels) along the length."""
        length = x.shape[2]
        padded = F.pad(x, (0, 0, 1, 1))
        taps = [padded[:, :, k : k + length] for k in range(KERNEL_WIDTH)]
        return each_step(self.linear, torch.cat(taps, dim=3))


class TimeConvolution(nn.Module):
    """Two convolutions along time: over three steps, then over one. They are not in the paper.

    Parameters
    ----------
    n_members : int
        Number of members.
    dim, n_filters : int
        Width of a step, and number of filters between the convolutions.
    dropout : float
        Dropout rate between the convolutions.
    """

    def __init__(self, n_members: int, dim: int, n_filters: int, dropout: float) -> None:
        super().__init__()
        self.first = MemberConvolution(n_members, dim, n_filters)
        self.second = MemberLinear(n_members, n_filters, dim)
        self.dropout = ByteDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve sequences, 0 where padded."""
        return each_step(self.second, self.dropout(F.relu(self.first(x))))


class FeatureConvolution(TimeConvolution):
    """Two convolutions along the features, with the steps as channels, as in the paper.

    Parameters
    ----------
    n_members : int
        Number of members.
    window, n_filters : int
        Steps of the window, and channels between the two convolutions.
    dropout : float
        Dropout rate between the convolutions.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve sequences, 0 where padded."""
        return super().forward(x.transpose(2, 3)).transpose(2, 3)


class MemberLayerNorm(nn.Module):
    """Layer normalisation with a scale and a shift for each member.

    Parameters
    ----------
    n_members : int
        Number of members.
    dim : int
        Width of a step.
    """

    def __init__(self, n_members: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_members, 1, 1, dim))
        self.bias = nn.Parameter(torch.zeros(n_members, 1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every step."""
        return torch.addcmul(self.bias, self.weight, F.layer_norm(x, x.shape[-1:]))


class EncoderBlock(nn.Module):
    """Attention and convolutions, each added to its input and normalised (fig. 3b).

    Parameters
    ----------
    n_members : int
        Number of members.
    dim : int
        Width of a step.
    n_heads, head_dim : int
        Number and width of the attention heads.
    convolution : Module
        Convolution of sequences.
    """

    def __init__(
        self, n_members: int, dim: int, n_heads: int, head_dim: int, convolution: nn.Module
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(n_members, dim, n_heads, head_dim)
        self.first_norm = MemberLayerNorm(n_members, dim)
        self.convolution = convolution
        self.second_norm = MemberLayerNorm(n_members, dim)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Encode sequences; padded steps are 0, before and after."""
        mask = present.unsqueeze(2)
        attended = mask * self.first_norm(x + self.attention(x, present))
        return mask * self.second_norm(attended + self.convolution(attended))


class TransformerEncoder(nn.Module):
    """Blocks in sequence (the C_1 blocks of the PTE)."""

    def __init__(self, blocks: list[EncoderBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Encode sequences, 0 where not present."""
        for block in self.blocks:
            x = block(x, present)
        return x

    def attention_weights(self, x: Tensor, present: Tensor) -> Tensor:
        """Attention in each block; (n_members, n, n_blocks, n_heads, window, window)."""
        weights = []
        for block in self.blocks:
            weights.append(block.attention.weights(x, present))
            x = block(x, present)
        return torch.stack(weights, dim=2)


class RecurrentEncoder(nn.Module):
    """A GRU or LSTM in place of the transformer (table VII of the paper).

    Members are processed sequentially, because torch's recurrent layers have one set of weights.

    Parameters
    ----------
    n_members : int
        Number of members.
    kind : {"gru", "lstm"}
        Kind of recurrent layer.
    dim : int
        Width of a step.
    n_layers : int
        Number of layers.
    """

    def __init__(self, n_members: int, kind: str, dim: int, n_layers: int) -> None:
        super().__init__()
        layers = {"gru": nn.GRU, "lstm": nn.LSTM}[kind]
        self.members = nn.ModuleList(
            layers(dim, dim, n_layers, batch_first=True) for _ in range(n_members)
        )

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Encode sequences, 0 where not present."""
        # Missing steps are moved to the end, where they do not affect the states.
        places = _places_present_first(present)
        order = torch.zeros_like(places).scatter(1, places, _positions(present))
        moved = _take_steps(x, order)
        states = torch.stack(
            [layers(of_member)[0] for layers, of_member in zip(self.members, moved, strict=True)]
        )
        return present.unsqueeze(2) * _take_steps(states, places)


def _places_present_first(present: Tensor) -> Tensor:
    """Return the place of each step if the present ones come first, in order; (n, window).

    Computed by counting, because ONNX has no stable sorting.
    """
    n_present = present.long().cumsum(dim=1)
    n_missing = (~present).long().cumsum(dim=1)
    return torch.where(present, n_present, n_present[:, -1:] + n_missing) - 1


def _positions(present: Tensor) -> Tensor:
    """Return the position of each step; (n, window)."""
    return torch.arange(present.shape[1], device=present.device).expand(present.shape)


def _take_steps(x: Tensor, steps: Tensor) -> Tensor:
    return x.gather(2, steps.unsqueeze(2).expand(x.shape))


def pool(x: Tensor, present: Tensor, how: str, last: int = -1) -> Tensor:
    """Summarise sequences over time.

    Parameters
    ----------
    x : Tensor of shape (n_members, n, window, dim)
        Sequences, 0 where padded.
    present : Tensor of bool of shape (n, window)
        False for padding; the last step is always present.
    how : {"max", "mean", "last"}
        Maximum (as in the paper), mean, or last step.
    last : int
        Position of the last step.

    Returns
    -------
    Tensor of shape (n_members, n, dim)
    """
    if how == "max":
        return x.masked_fill(~present.unsqueeze(2), -torch.inf).amax(dim=2)
    if how == "mean":
        return x.sum(dim=2) / present.sum(dim=1, keepdim=True)
    return x[:, :, last]


def make_encoder(
    kind: str,
    dim: int,
    *,
    n_members: int,
    n_blocks: int,
    n_heads: int,
    head_dim: int,
    convolution: str,
    window: int,
    n_filters: int,
    dropout: float,
) -> nn.Module:
    """Create an encoder of sequences.

    Parameters
    ----------
    kind : {"transformer", "gru", "lstm"}
        Kind of encoder.
    dim : int
        Width of a step.
    n_members : int
        Number of members.
    n_blocks : int
        Number of blocks, or of recurrent layers.
    n_heads, head_dim : int
        Number and width of the attention heads.
    convolution : {"time", "paper"}
        Convolution along time, or along features.
    window, n_filters : int
        Number of steps of a sequence, and of filters of the convolution.
    dropout : float
        Dropout rate between the convolutions.
    """
    if kind != "transformer":
        return RecurrentEncoder(n_members, kind, dim, n_blocks)
    make_convolution, width = {
        "time": (TimeConvolution, dim),
        "paper": (FeatureConvolution, window),
    }[convolution]
    return TransformerEncoder(
        [
            EncoderBlock(
                n_members,
                dim,
                n_heads,
                head_dim,
                make_convolution(n_members, width, n_filters, dropout),
            )
            for _ in range(n_blocks)
        ]
    )
