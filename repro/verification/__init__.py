"""Checks that stores and runs are still what was written."""
