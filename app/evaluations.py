"""What is asked of an evaluation: versions on a dataset, or a recipe over repeated folds."""
