"""The compute side: supervisor, runner and methods. Never imports the web framework."""
