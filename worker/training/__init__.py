"""Training: the probe on frozen features, and the one loop of gradient steps with its batches, views and losses."""
