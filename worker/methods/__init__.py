"""One file for each recipe, its parts beside it, and what all of them are compared with."""
