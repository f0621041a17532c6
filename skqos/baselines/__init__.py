"""What a method has to beat: neighbourhoods (UIPCC), PMF, and a plain network."""

from skqos.baselines.collaborative import PMFRegressor, UIPCCRegressor
from skqos.baselines.embedding_mlp import EmbeddingMLPRegressor

__all__ = ["EmbeddingMLPRegressor", "PMFRegressor", "UIPCCRegressor"]
