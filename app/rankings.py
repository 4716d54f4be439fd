"""What is asked of a ranking: which backbones, for which dataset, in how much time."""
