"""Fine-tuning a pretrained network: where it starts, what of it moves, which rate and how long, on which inputs."""
