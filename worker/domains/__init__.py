"""Two domains, a labelled source and a target without labels: ways to bring one to the other, and how to choose."""
