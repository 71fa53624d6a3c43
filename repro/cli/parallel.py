"""One display for the commands that run at the same time: a row for each device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from repro.cli.progress import animated
from repro.interrupts import deferred
from repro.workflow.parallel import ParallelEvent, StageEnded, StageOutput, StageStarted, run_in_parallel
from repro.workflow.stages import Stage


def run_stages_in_parallel(
    console: Console, list_stages: Callable[[], Iterable[Stage]], devices: Sequence[str]
) -> None:
    """Run the stages on `devices` and show them: rows in a terminal, elsewhere each line with its device before it.

    Raises ReproError if a command has failed, and Stopped after a signal.
    """
    moving = animated(console)
    overall = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*overall, console=console, transient=True, disable=not moving) as bar:
        total = bar.add_task("commands", total=None)
        rows = {device: bar.add_task(f"{device}: idle", total=None) for device in dict.fromkeys(devices)}
        with deferred() as stop_signal:
            for event in run_in_parallel(list_stages, devices, stop_signal):
                if not isinstance(event, StageOutput):
                    bar.update(total, completed=event.done, total=event.total)
                text = _text(event)
                if text is None:
                    continue
                for device in event.devices:
                    bar.update(rows[device], description=f"{device}: {text}")
                if not moving or not isinstance(event, StageOutput):
                    style = "bold" if isinstance(event, StageStarted) else None
                    console.print(f"[{','.join(event.devices)}] {text}", style=style)


def _text(event: ParallelEvent) -> str | None:
    """Return what to show of an event; None for a line that is not shown."""
    if isinstance(event, StageStarted):
        return f"$ {event.stage}"
    if isinstance(event, StageEnded):
        return f"ended: {event.problem}" if event.problem else f"done: {event.stage.result}"
    return None if not event.line or event.line.startswith("next: ") else event.line
