"""Numerical solvers for heads on cached features: folds, logistic regression, ridge. Torch-free."""
