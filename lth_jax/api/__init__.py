"""Experiments from Python: running one, and reading what one left behind."""
