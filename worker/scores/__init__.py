"""How right a model is on labelled items: metrics, intervals, calibration, paired verdicts. Torch-free."""
