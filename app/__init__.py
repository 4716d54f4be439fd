"""The API process, and everything that both processes agree on. Never imports torch."""

VERSION = "0.1.0"
