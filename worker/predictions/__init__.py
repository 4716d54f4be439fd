"""Predictions over a dataset or an upload: where the images come from, chunks, and the file with a row for each."""
