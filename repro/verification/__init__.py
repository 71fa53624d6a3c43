"""Checks that stores and runs are undamaged."""
