"""TPMCF: temporal prediction with graph convolution and a predictive transformer encoder."""
