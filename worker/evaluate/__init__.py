"""What a report asks of a finished candidate: its sections, flags, features and choices. Torch-free."""
