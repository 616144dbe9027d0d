"""Measurements for people: each a command, none a test."""
