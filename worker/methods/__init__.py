"""One file per transfer method."""
