"""Baselines: medians, neighbourhoods (UIPCC), PMF, AMF, and a multilayer perceptron."""

from skqos.baselines.amf import AMFRegressor
from skqos.baselines.collaborative import PMFRegressor, UIPCCRegressor
from skqos.baselines.embedding_mlp import EmbeddingMLPRegressor
from skqos.baselines.median import MedianRegressor

__all__ = [
    "AMFRegressor",
    "EmbeddingMLPRegressor",
    "MedianRegressor",
    "PMFRegressor",
    "UIPCCRegressor",
]
