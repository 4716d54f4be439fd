"""What every part of an attempt at a job shares: its document, its context, its way to speak, its files."""
