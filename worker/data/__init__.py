"""From an uploaded archive to checked, split, stored samples."""
