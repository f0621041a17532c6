"""SHARP-QoS: sparsely gated hierarchical adaptive routing, several QoS parameters at once."""
