"""Fixtures of the tests in a browser."""

from test_page import browser

__all__ = ["browser"]
