"""Experiments as lists of commands, and their cost."""
