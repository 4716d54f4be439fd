"""What a ranking of backbones is made of: which images, which scores, which order. No torch."""
