"""The console that all commands print to."""

from rich.console import Console

# Nothing is interpreted: a path may hold brackets or colons. Nothing is wrapped either: the terminal does that, and a
# path or a URL stays in one piece when it is copied.
console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
