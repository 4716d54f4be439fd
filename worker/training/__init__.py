"""Training: the probe on frozen features, and gradient steps from there."""
