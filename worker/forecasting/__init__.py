"""What more, or fewer, images would give: learning curves, power laws, and what they foretell. Torch-free."""
