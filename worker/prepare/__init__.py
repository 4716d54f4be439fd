"""Gets a backbone ready once: found, downloaded or uploaded, checked, exported, proven; and the catalogue of all."""
