"""How long-running work shows itself: bars in a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from repro.formatting import duration

PLAIN_SECONDS = 15.0  # between two plain lines


@contextmanager
def meter(console: Console, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows work as it is done; gives the function to call with the count done and the count in all."""
    started = last = time.monotonic()
    before: int | None = None  # what was done at first: by an earlier call of the command, and no measure of speed

    def rate(done: int, total: int) -> float:
        nonlocal before
        if before is None:
            before = 0 if done == total else done
        return (done - before) / max(time.monotonic() - started, 1e-9)

    if console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(title, total=None, figures="")
            yield lambda done, total: bar.update(
                task, completed=done, total=total, figures=f"{rate(done, total):,.0f} {unit}/s"
            )
        return

    def line(done: int, total: int) -> None:
        nonlocal last
        speed = rate(done, total)
        if done == total or time.monotonic() - last > PLAIN_SECONDS:
            last = time.monotonic()
            left = f", {duration((total - done) / speed)} left" if speed and done < total else ""
            console.print(f"{title}: {done:,} of {total:,} {unit}, {speed:,.0f} {unit}/s{left}")

    yield line


@contextmanager
def training_display(console: Console) -> Iterator[Callable[[object], None]]:
    """Shows a run's events (`repro.training.train`): a bar for the whole run, and a line for each epoch."""
    from repro.training.loop import EpochRecord, Step
    from repro.training.train import Started

    started: Started
    noted = False
    last = time.monotonic()
    with _bar(console) as bar:

        def show(event: object) -> None:
            nonlocal started, noted, last
            if isinstance(event, Started):  # in one process of a data-parallel run: the others show nothing
                started = event
                bar.add_task("training", total=None, figures="")
                console.print(f"[bold]{event.path.name}[/bold] in {event.path.parent}", highlight=False)
            elif isinstance(event, Step):
                figures = (
                    f"loss {event.loss:.3f}, error {event.top1_error:.1f}%, {event.images_per_second:,.0f} images/s"
                )
                done = (event.epoch - 1) * started.batches + event.batch
                bar.update(
                    bar.task_ids[0],
                    description=f"epoch {event.epoch} of {started.epochs}",
                    completed=done,
                    total=started.epochs * started.batches,
                    figures=figures,
                )
                if not console.is_terminal and time.monotonic() - last > PLAIN_SECONDS:
                    last = time.monotonic()
                    place = f"epoch {event.epoch:3}  batch {event.batch} of {started.batches}"
                    console.print(f"{place}  {figures}", highlight=False)
            elif isinstance(event, EpochRecord):
                last = time.monotonic()
                validation = ""
                if event.val_top1_error is not None:
                    validation = f"validation {event.val_top1_error:5.2f}% / {event.val_top5_error:5.2f}%  "
                console.print(
                    f"epoch {event.epoch:3}  loss {event.train_loss:.3f}  training error "
                    f"{event.train_top1_error:5.2f}%  {validation}lr {event.lr:g}  "
                    f"{event.images_per_second:,.0f} images/s",
                    highlight=False,
                )
                if event.note:
                    again = "           still no better than chance"
                    console.print(again if noted else f"           {event.note}", style="yellow", highlight=False)
                noted = event.note is not None

        yield show


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
