"""Exporting fitted models to ONNX, and predicting from the files without torch or scikit-learn."""

from skqos.export._predictor import OnnxPredictor
from skqos.export._to_onnx import to_onnx

__all__ = ["OnnxPredictor", "to_onnx"]
