"""Processes are killed in the middle of everything, and what was acknowledged stays."""
