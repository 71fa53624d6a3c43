"""Notes for the user of the library or the command line, each shown once per process."""

from __future__ import annotations

import logging
from functools import cache

_logger = logging.getLogger("repro")


@cache
def note_once(message: str) -> None:
    """Log `message` as a warning of the logger "repro", which by default prints it to stderr, once per process."""
    _logger.warning(message)
