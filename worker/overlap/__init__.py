"""What of the scored items was met before, by the job or by its backbone: copies, leakage, exposure. Torch-free."""
