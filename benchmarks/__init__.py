"""Measurements and trials that take too long for a test; each is a command."""
