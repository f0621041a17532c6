"""Training of the graph convolution together with the encoder of sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skqos.tpmcf.features import Sides
from skqos.tpmcf.gcmf import GCMF, TensorSides

SIDES = ("user", "service")
# Mean and standard deviation of the embeddings of users and of services, in `fit`.
Scales = list[tuple[Tensor, Tensor]]


def join_features(
    initial: TensorSides | None, embedded: TensorSides, scales: Scales | None
) -> TensorSides:
    """Concatenate the features of the sequences.

    Parameters
    ----------
    initial : sequence of Tensor of shape (n_folds, n_steps, n, width), or None
        Initial features of users and of services, which all members share. If None, sequences
        contain the embeddings alone.
    embedded : sequence of Tensor of shape (n_members, n_folds, n_steps, n, width)
        Embeddings.
    scales : list of tuple of Tensor, or None
        Scales with which embeddings are standardised and bounded by tanh. None for unbounded
        embeddings.

    Returns
    -------
    sequence of Tensor of shape (n_members, n_folds, n_steps, n, width)
    """
    if scales is not None:
        embedded = [
            torch.tanh((side - mean) / deviation)
            for side, (mean, deviation) in zip(embedded, scales, strict=True)
        ]
    if initial is None:
        return embedded
    return [
        torch.cat([first.expand(len(side), -1, -1, -1, -1), side], dim=4)
        for first, side in zip(initial, embedded, strict=True)
    ]


class JointFeatures(nn.Module):
    """Features of the sequences, computed in each training step by a graph convolution.

    It takes the place of tables of features while the units of the graph convolution are trained
    with the encoder. The scales of the embeddings do not change.

    Parameters
    ----------
    gcmf : GCMF
        Graph convolution with the graphs of all training steps.
    initial : tuple of ndarray of shape (n_folds, n_steps, n, width), or None
        Initial features, if the sequences contain them.
    scales : list of tuple of Tensor, or None
        Scales of the embeddings of users and of services; see `join_features`.
    """

    user_initial: Tensor | None
    service_initial: Tensor | None
    user_mean: Tensor | None
    service_mean: Tensor | None
    user_deviation: Tensor | None
    service_deviation: Tensor | None

    def __init__(self, gcmf: GCMF, initial: Sides | None, scales: Scales | None) -> None:
        super().__init__()
        self.gcmf = gcmf
        for k, side in enumerate(SIDES):
            of_side = None if initial is None else torch.as_tensor(initial[k])
            mean, deviation = (None, None) if scales is None else scales[k]
            self.register_buffer(f"{side}_initial", of_side)
            self.register_buffer(f"{side}_mean", mean)
            self.register_buffer(f"{side}_deviation", deviation)

    def forward(self, fold: Tensor) -> TensorSides:
        """Return the features of all nodes at all steps without a fold, for a training step.

        Parameters
        ----------
        fold : Tensor of int64 of shape (1,)
            The fold.

        Returns
        -------
        sequence of Tensor of shape (n_members, n_steps, n, width)
            Features of users and of services.
        """
        initial = self._initial()
        if initial is not None:
            initial = [side.index_select(0, fold) for side in initial]
        embedded = [side.unsqueeze(1) for side in self.gcmf.embed_training(fold)]
        return [side.squeeze(1) for side in join_features(initial, embedded, self._scales())]

    @torch.no_grad()
    def averages(self) -> TensorSides:
        """Return the features for prediction, the averages over the folds."""
        features = join_features(self._initial(), self.gcmf.embed_all(), self._scales())
        return [side.mean(1) for side in features]

    def _initial(self) -> TensorSides | None:
        return None if self.user_initial is None else [self.user_initial, self.service_initial]

    def _scales(self) -> Scales | None:
        if self.user_mean is None:
            return None
        return [
            (self.user_mean, self.user_deviation),
            (self.service_mean, self.service_deviation),
        ]
