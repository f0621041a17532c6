"""The predictive transformer encoder (PTE) over a window of time steps, and recurrent stand-ins."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL_WIDTH = 3


class MultiHeadAttention(nn.Module):
    """Attention of each step of a window to all its steps, by several heads (eq. 8).

    Parameters
    ----------
    dim : int
        Width of a step.
    n_heads : int
        Number of heads h.
    head_dim : int
        Width of queries, keys and values of a head (d_k = d_v).
    """

    def __init__(self, dim: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(dim, 3 * n_heads * head_dim)
        self.join = nn.Linear(n_heads * head_dim, dim)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Attend over the steps that are present.

        Parameters
        ----------
        x : Tensor of shape (n, window, dim)
            Sequences.
        present : Tensor of bool of shape (n, window)
            False for padding.

        Returns
        -------
        Tensor of the shape of `x`
        """
        heads = F.scaled_dot_product_attention(*self._heads(x), attn_mask=present[:, None, None])
        return self.join(heads.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, present: Tensor) -> Tensor:
        """Attention of each step (third axis) to each (fourth); (n, n_heads, window, window)."""
        queries, keys, _ = self._heads(x)
        scores = queries @ keys.transpose(2, 3) / keys.shape[-1] ** 0.5
        return scores.masked_fill(~present[:, None, None], -torch.inf).softmax(dim=-1)

    def _heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Project to queries, keys and values; (n, n_heads, window, head_dim) each."""
        projected = self.project(x).unflatten(2, (3, self.n_heads, -1))
        return projected.permute(2, 0, 3, 1, 4).unbind(0)


class TimeConvolution(nn.Module):
    """Two convolutions along time: over three steps, then over one (ours).

    Parameters
    ----------
    dim, n_filters : int
        Width of a step, before and after as well as between.
    dropout : float
        Between the two.
    """

    def __init__(self, dim: int, n_filters: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(dim, n_filters, KERNEL_WIDTH, padding="same")
        self.second = nn.Conv1d(n_filters, dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve sequences (n, window, dim), 0 where padded."""
        hidden = self.dropout(F.relu(self.first(x.transpose(1, 2))))
        return self.second(hidden).transpose(1, 2)


class FeatureConvolution(nn.Module):
    """Two convolutions along the features, with the steps of the window as channels (the paper).

    Parameters
    ----------
    window, n_filters : int
        Steps of the window, and channels between the two convolutions.
    dropout : float
        Between the two.
    """

    def __init__(self, window: int, n_filters: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(window, n_filters, KERNEL_WIDTH, padding="same")
        self.second = nn.Conv1d(n_filters, window, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve sequences (n, window, dim), 0 where padded."""
        return self.second(self.dropout(F.relu(self.first(x))))


class EncoderBlock(nn.Module):
    """Attention and convolutions, each added to its input and normalised (fig. 3b).

    Parameters
    ----------
    dim : int
        Width of a step.
    n_heads, head_dim : int
        Of the attention.
    convolution : Module
        From and to sequences (n, window, dim).
    """

    def __init__(self, dim: int, n_heads: int, head_dim: int, convolution: nn.Module) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, n_heads, head_dim)
        self.first_norm = nn.LayerNorm(dim)
        self.convolution = convolution
        self.second_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Encode sequences (n, window, dim); padded steps are 0, before and after."""
        mask = present.unsqueeze(2)
        attended = mask * self.first_norm(x + self.attention(x, present))
        return mask * self.second_norm(attended + self.convolution(attended))


class TransformerEncoder(nn.Module):
    """Blocks in sequence (the C_1 blocks of the PTE)."""

    def __init__(self, blocks: list[EncoderBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Encode sequences (n, window, dim), 0 where not present."""
        for block in self.blocks:
            x = block(x, present)
        return x

    def attention_weights(self, x: Tensor, present: Tensor) -> Tensor:
        """Attention in each block; (n, n_blocks, n_heads, window, window)."""
        weights = []
        for block in self.blocks:
            weights.append(block.attention.weights(x, present))
            x = block(x, present)
        return torch.stack(weights, dim=1)


class RecurrentEncoder(nn.Module):
    """A GRU or LSTM in the place of the transformer (table VII of the paper).

    Parameters
    ----------
    kind : {"gru", "lstm"}
        Which.
    dim : int
        Width of a step.
    n_layers : int
        Layers in sequence.
    """

    def __init__(self, kind: str, dim: int, n_layers: int) -> None:
        super().__init__()
        layers = {"gru": nn.GRU, "lstm": nn.LSTM}[kind]
        self.layers = layers(dim, dim, n_layers, batch_first=True)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Encode sequences (n, window, dim), padded at the front."""
        window = x.shape[1]
        # Padding moves to the end, where it comes too late to change a state.
        shift = window - present.sum(1, keepdim=True)
        order = torch.arange(window, device=x.device)
        states, _ = self.layers(_take_steps(x, (order + shift) % window))
        return present.unsqueeze(2) * _take_steps(states, (order - shift) % window)


def _take_steps(x: Tensor, steps: Tensor) -> Tensor:
    return x.gather(1, steps.unsqueeze(2).expand(-1, -1, x.shape[2]))


def pool(x: Tensor, present: Tensor, how: str) -> Tensor:
    """Summarise sequences over time.

    Parameters
    ----------
    x : Tensor of shape (n, window, dim)
        Sequences, padded at the front by zeros.
    present : Tensor of bool of shape (n, window)
        False for padding.
    how : {"max", "mean", "last"}
        The largest value (the paper), the average, or the last step's.

    Returns
    -------
    Tensor of shape (n, dim)
    """
    if how == "max":
        return x.masked_fill(~present.unsqueeze(2), -torch.inf).amax(dim=1)
    if how == "mean":
        return x.sum(dim=1) / present.sum(dim=1, keepdim=True)
    return x[:, -1]
