"""What a method is given, the task, and what it gives back: an outcome with its candidates and their heads."""
