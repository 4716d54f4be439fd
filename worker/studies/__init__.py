"""Studies of recipes and of published versions: folds, other datasets, images without labels, reproductions."""
