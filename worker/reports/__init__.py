"""The report of a transfer: each kind held against what a user could have had without it, and what taught it."""
