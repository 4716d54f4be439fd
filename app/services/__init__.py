"""Use-cases: functions that take a session first; they flush, never commit."""
