"""From a candidate to a bundle: assembled, verified, with a second graph in 8 bits or half precision."""
