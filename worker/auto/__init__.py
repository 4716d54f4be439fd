"""The recipe `auto`: what is tried in which order, what the time holds, what is kept, and why."""
