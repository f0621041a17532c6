"""R2SL: regional latent states, a fused feature map, the E-Huber loss."""
