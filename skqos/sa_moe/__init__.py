"""SA-MoE: a self-augmented mixture of experts."""
