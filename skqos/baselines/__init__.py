"""Baselines: medians, neighbourhoods (UIPCC), PMF, and a multilayer perceptron."""

from skqos.baselines.collaborative import PMFRegressor, UIPCCRegressor
from skqos.baselines.embedding_mlp import EmbeddingMLPRegressor
from skqos.baselines.median import MedianRegressor

__all__ = ["EmbeddingMLPRegressor", "MedianRegressor", "PMFRegressor", "UIPCCRegressor"]
