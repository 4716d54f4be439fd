"""What a finished transfer is on disk: the bundle, its graphs, its preprocessing."""
