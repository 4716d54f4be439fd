"""What may be wrong with a dataset, found in the features of its images. No torch."""
