"""`python -m repro`."""

from repro.cli.commands import main

main()
