"""Progress of long-running work: bars in a terminal, a plain line from time to time elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from repro.formatting import duration

if TYPE_CHECKING:
    from repro.records.schema import EpochRecord
    from repro.training.loop import Step
    from repro.training.train import Started

PLAIN_SECONDS = 15.0  # between two plain lines


@contextmanager
def meter(console: Console, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress inside the block; yields the function to call with the count done and the total count."""
    started = last = time.monotonic()
    before: int | None = None  # done at the first call, by an earlier run of the command; not part of the speed

    def speed(done: int, total: int) -> float:
        nonlocal before
        if before is None:
            before = 0 if done == total else done
        return (done - before) / max(time.monotonic() - started, 1e-9)

    if animated(console):
        with _bar(console) as bar:
            task = bar.add_task(title, total=None, figures="")
            yield lambda done, total: bar.update(
                task, completed=done, total=total, figures=f"{speed(done, total):,.0f} {unit}/s"
            )
        return

    def show_line(done: int, total: int) -> None:
        nonlocal last
        per_second = speed(done, total)
        if done == total or time.monotonic() - last > PLAIN_SECONDS:
            last = time.monotonic()
            left = f", {duration((total - done) / per_second)} left" if per_second and done < total else ""
            console.print(f"{title}: {done:,} of {total:,} {unit}, {per_second:,.0f} {unit}/s{left}")

    yield show_line


@contextmanager
def training_display(console: Console) -> Iterator[Callable[[object], None]]:
    """Show the events of a run (`repro.training.train`): a bar for the whole run, and a line for each epoch."""
    with _bar(console) as bar:
        yield _TrainingDisplay(console, bar).show


@contextmanager
def baseline_display(console: Console) -> Iterator[Callable[[object], None]]:
    """Show the events of a baseline's run (`repro.baselines.train`): a meter per stage, and a line for each epoch."""
    from repro.baselines.train import AlreadyFinished, Progress, Started
    from repro.records.schema import EpochRecord

    with ExitStack() as stack:
        stage, update = "", None

        def show(event: object) -> None:
            nonlocal stage, update
            if not isinstance(event, Progress) or event.stage != stage:
                stack.close()
                stage, update = "", None
            if isinstance(event, Progress):
                if update is None:
                    stage, update = event.stage, stack.enter_context(meter(console, event.stage, event.unit))
                update(event.done, event.total)
            elif isinstance(event, AlreadyFinished):
                console.print(f"{event.path} is finished: nothing is left to train")
            elif isinstance(event, Started):
                console.print(f"{event.path.name} in {event.path.parent}", style="bold")
            elif isinstance(event, EpochRecord):
                console.print(epoch_line(event))

        yield show


def epoch_line(epoch: EpochRecord) -> str:
    """Return an epoch's loss, errors and speed in one line."""
    validation = ""
    if math.isfinite(epoch.val_top1_error):
        validation = f"validation error {epoch.val_top1_error:5.2f}% / {epoch.val_top5_error:5.2f}%  "
    return (
        f"epoch {epoch.epoch:3}  loss {epoch.train_loss:.3f}  training error {epoch.train_top1_error:5.2f}%  "
        f"{validation}lr {epoch.lr:g}  {epoch.images_per_second:,.0f} images/s"
    )


class _TrainingDisplay:
    """Shows events; in the other ranks of a data-parallel run there are none."""

    def __init__(self, console: Console, bar: Progress) -> None:
        self.console, self.bar = console, bar
        self.started: Started
        self.noted = False  # whether the last epoch had a note
        self.last = time.monotonic()

    def show(self, event: object) -> None:
        """Show one event."""
        from repro.records.schema import EpochRecord
        from repro.training.loop import Step
        from repro.training.train import AlreadyFinished, Started

        if isinstance(event, AlreadyFinished):
            self.console.print(f"{event.path} is finished, after {event.epochs} epochs: nothing is left to train")
        elif isinstance(event, Started):
            self.started = event
            self.bar.add_task("training", total=None, figures="")
            self.console.print(f"{event.path.name} in {event.path.parent}", style="bold")
        elif isinstance(event, Step):
            self._step(event)
        elif isinstance(event, EpochRecord):
            self._epoch(event)

    def _step(self, step: Step) -> None:
        figures = f"loss {step.loss:.3f}, error {step.top1_error:.1f}%, {step.images_per_second:,.0f} images/s"
        self.bar.update(
            self.bar.task_ids[0],
            description=f"epoch {step.epoch} of {self.started.epochs}",
            completed=(step.epoch - 1) * self.started.batches + step.batch,
            total=self.started.epochs * self.started.batches,
            figures=figures,
        )
        if not animated(self.console) and time.monotonic() - self.last > PLAIN_SECONDS:
            self.last = time.monotonic()
            self.console.print(f"epoch {step.epoch:3}  batch {step.batch} of {self.started.batches}  {figures}")

    def _epoch(self, epoch: EpochRecord) -> None:
        self.last = time.monotonic()
        self.console.print(epoch_line(epoch))
        if epoch.note:
            text = "still no better than chance" if self.noted else epoch.note
            self.console.print(f"           {text}", style="yellow")
        self.noted = epoch.note is not None


def animated(console: Console) -> bool:
    """Return whether the console can show a bar that moves."""
    return console.is_terminal and not console.is_dumb_terminal


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not animated(console),
    )
