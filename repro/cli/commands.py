"""The command line: parse, one library call, render, exit code.

Libraries are imported inside the commands, because `repro --help` must answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

import repro
from repro.errors import ReproError, Stopped

if TYPE_CHECKING:
    from repro.workflow.stages import Stage

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Reproduce the AlexNet paper (Krizhevsky, Sutskever, Hinton, 2012): its network, its recipe, its tables "
        "and figures, each number held against the paper's. Begin with: repro demo"
    ),
)
SHOWN = 20  # lines about single images; the manifest has them all
console = Console(soft_wrap=not sys.stdout.isatty())


def main() -> None:
    """Run the command line; exit codes as documented in the README."""
    code = _run()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # a rank: the process group's threads can abort its interpreter's end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    from repro.interrupts import stop_at_once

    stop_at_once()
    try:
        app(prog_name="repro")
    except SystemExit as end:  # how Typer always ends
        return int(end.code or 0)
    except ReproError as error:
        return _complain(str(error), 3)
    except Stopped as stop:
        return _complain(str(stop), 128 + stop.signal)
    return 0


def _complain(message: str, code: int) -> int:
    if message:  # of several ranks, those that have nothing to add to the first one's message are silent
        print(f"repro: {message}", file=sys.stderr)
    return code


def _show_version(value: bool) -> None:
    if value:
        print(f"repro {repro.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="ilsvrc2012, imagenette, folder, …; see: repro list datasets")],
    out: Annotated[Path, typer.Option(help="The store to make, a new folder.")],
    source: Annotated[Path | None, typer.Option(help="Where the images are; without it they are fetched.")] = None,
    size: Annotated[int | None, typer.Option(help="Shorter side and crop, pixels [default: the data set's]")] = None,
    limit_per_class: Annotated[int | None, typer.Option(help="Keep at most so many images of each class.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that decode [default: all processors]")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler, whose workers decode.")] = None,
    encoding: Annotated[Literal["raw", "jpeg"], typer.Option(help="jpeg: a fifth of the disk, but slower.")] = "raw",
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Go on without what is missing.")] = False,
    seed: Annotated[int, typer.Option(help="Of whatever is drawn: a split, a subset, generated images.")] = 0,
) -> None:
    """Turn images into a store: square, of one size, with their statistics (Sec. 2)."""
    from repro.cli.progress import meter
    from repro.preparation import prepare as stage

    with meter(console, "preparing", "images") as show:
        store = stage.prepare(
            dataset,
            out,
            source=source,
            size=size,
            limit_per_class=limit_per_class,
            workers=workers,
            scheduler=scheduler,
            encoding=encoding,
            allow_partial=allow_partial,
            seed=seed,
            on_progress=show,
            on_note=lambda line: console.print(line, markup=False, highlight=False),
        )
    counts = ", ".join(f"{len(split):,} {name}" for name, split in store.splits.items())
    console.print(f"{out}: {counts} images of {store.size}×{store.size} in {len(store.classes)} classes")
    for kind, what in (("rejected", "left out"), ("damaged", "damaged, but used,")):
        found = store.manifest[kind]
        for image in found[:SHOWN]:
            console.print(f"{what} {image['name']}: {image['reason']}", style="yellow", markup=False)
        if len(found) > SHOWN:
            console.print(f"… {len(found):,} in all, listed in manifest.json as {kind}", style="yellow")


@app.command()
def train(
    variant: Annotated[str, typer.Option(help="The net: alexnet, no-lrn, …; see: repro list variants")],
    data: Annotated[Path, typer.Option(help="The store that `repro prepare` made.")],
    out: Annotated[Path, typer.Option(help="Where the run's folder goes.")] = Path("outputs/runs"),
    recipe: Annotated[
        str, typer.Option(help="authors (their program), paper (the text); fan-in for Figure 1's nets.")
    ] = "authors",
    scale: Annotated[str, typer.Option(help="paper (224-pixel patches), small (112) or smoke (56).")] = "small",
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order, views and dropout.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Stop after so many [default: the scale's]")] = None,
    lr: Annotated[float | None, typer.Option(min=1e-9, help="The rate to begin with [default: the recipe's]")] = None,
    devices: Annotated[
        str | None, typer.Option(help="cpu, cuda:0, …; two for a tower on each [default: a GPU if there is one]")
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="bf16 is faster on processors that have it.")
    ] = "fp32",
    init_from: Annotated[Path | None, typer.Option(help="Begin with the weights of this finished run.")] = None,
    until_train_error: Annotated[
        float | None, typer.Option(min=0, max=100, help="Stop once the training error, in percent, is so low.")
    ] = None,
    save_minutes: Annotated[float, typer.Option(min=0, help="Time between two checkpoints within an epoch.")] = 10.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run if it has begun.")] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Go on from this one of the run's checkpoints, not from the newest.")
    ] = None,
) -> None:
    """Train a net of the paper (Sec. 3 to 5); stopped at any time, it goes on with --resume."""
    from repro.cli.progress import training_display
    from repro.interrupts import deferred
    from repro.training import train as stage
    from repro.training.loop import Settings

    settings = Settings(variant, recipe, scale, seed, epochs, lr, devices, precision, init_from, until_train_error)
    with deferred() as stop_signal, training_display(console) as show:
        for event in stage.train(settings, data, out, resume, stop_signal, save_minutes, checkpoint):
            show(event)


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="A run's folder; several are averaged.")],
    data: Annotated[Path, typer.Option(help="The store that the run was trained on.")],
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which images.")] = "val",
    views: Annotated[Literal["1", "10"], typer.Option(help="1: the centre; 10: as in Sec. 4.1.")] = "10",
    devices: Annotated[
        str | None, typer.Option(help="cpu, cuda:0, …; two for a tower on each [default: a GPU if there is one]")
    ] = None,
    search_weights: Annotated[
        bool, typer.Option("--search-weights", help="Average by weights searched on val, not by equal ones.")
    ] = False,
) -> None:
    """Measure top-1 and top-5 error; of several runs, that of their averaged softmax outputs (Sec. 6)."""
    from repro.cli.progress import meter
    from repro.evaluation import evaluate as stage

    with meter(console, "evaluating", "images") as show:
        path, record = stage.evaluate(runs, data, split, int(views), devices, show, search_weights)
    for guesses in ("top1", "top5"):
        low, high = record[f"{guesses}_interval"]
        console.print(f"{guesses} error {record[f'{guesses}_error']:.2f}%  (95% interval {low:.2f} to {high:.2f})")
    console.print(f"{record['images']:,} images of {split}, views: {views}; written to {path}")
    if search_weights:
        weights = ", ".join(f"{weight:.3f}" for weight in record["weights"])
        console.print(f"weights {weights}, selected on {record['weights_selected_on']}", highlight=False)
    if "note" in record:
        console.print(record["note"], style="yellow")


@app.command()
def retrieve(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    data: Annotated[Path, typer.Option(help="The store that the run was trained on.")],
    split: Annotated[Literal["val", "test"], typer.Option(help="Which images to search for.")] = "test",
    devices: Annotated[str | None, typer.Option(help="cpu, cuda:0, … [default: a GPU if there is one]")] = None,
) -> None:
    """Find the training images nearest to each test image, by fc7, by pixels, by short codes (Sec. 6.1)."""
    from repro.cli.progress import meter
    from repro.evaluation import retrieve as stage

    with meter(console, "looking at", "images") as show:
        path, record = stage.retrieve(run, data, split, devices, show)
    for name, precision in record["precision"].items():
        low, high = precision["interval"]
        console.print(
            f"{name}: {precision['value']:.1f}% of the six nearest are of the same class (95% interval {low:.1f} to "
            f"{high:.1f}), {1e6 * record['seconds_per_query'][name]:,.0f} µs an image"
        )
    console.print(f"{record['images']:,} images of {split}; written to {path}")


@app.command()
def report(
    runs: Annotated[Path, typer.Option(help="The folder of runs.")] = Path("outputs/runs"),
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("outputs/report"),
    compare: Annotated[bool, typer.Option("--compare", help="Hold every number against the paper's.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 if a claim is not reproduced.")] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Also write the curves in TensorBoard's format into this folder.")
    ] = None,
) -> None:
    """Make tables, figures, verdicts and the page from the runs' records."""
    from repro.report import build_report

    if strict and not compare:
        raise typer.BadParameter("it judges the comparison: add --compare", param_hint="--strict")
    made = build_report(runs, out, compare=compare)
    for problem in made.problems:
        console.print(problem, style="yellow", markup=False)
    console.print(str(made), markup=False)
    if tensorboard:
        from repro.report.records import read_records
        from repro.report.tensorboard import export

        console.print(f"{tensorboard}: the curves of {export(read_records(runs).runs, tensorboard)} runs", markup=False)
    if strict and made.strict_mismatches:
        missed = ", ".join(verdict.target.id for verdict in made.strict_mismatches)
        raise typer.Exit(_complain(f"not reproduced: {missed}", 4))


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A store, or a run's folder.")],
) -> None:
    """Check every checksum, count and statistic of a store, or all that a run has written."""
    from repro.cli.progress import meter
    from repro.verification import verify as stage

    with meter(console, "verifying", "bytes") as show:
        problems = stage.verify(path, show)
    if problems:
        raise ReproError(f"'{path}' is damaged: {'; '.join(problems)}")
    console.print(f"{path}: nothing is damaged")


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="table1, figure1, …, or all; see: repro list experiments")],
    scale: Annotated[str, typer.Option(help="paper, small, or smoke with generated images for everything.")] = "small",
    recipe: Annotated[str, typer.Option(help="authors or paper, where a net has both.")] = "authors",
    stores: Annotated[Path, typer.Option(help="The folder of stores, each named as its data set.")] = Path("stores"),
    data: Annotated[Path | None, typer.Option(help="One store that stands in for every ImageNet set.")] = None,
    out: Annotated[Path, typer.Option(help="Where the runs go, in a folder per data set.")] = Path("outputs/runs"),
    epochs: Annotated[int | None, typer.Option(min=1, help="Most of a training [default: the scale's]")] = None,
    devices: Annotated[str | None, typer.Option(help="Of every training [default: a GPU if there is one]")] = None,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of every training.")] = "fp32",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the commands, done ones too; open rates as a grid's first.")
    ] = False,
) -> None:
    """Everything that a table, figure or claim still lacks, in order; stopped at any time, it goes on."""
    from repro.workflow import stages as workflow

    options = ["--precision", precision]
    options += ["--devices", devices] if devices else []
    workspace = workflow.Workspace(out, stores, scale, recipe, data, epochs, tuple(options))
    stages = workflow.experiment(experiment, workspace)
    if dry_run:
        for stage in stages:
            print(stage)
    else:
        _work_through(stages)


@app.command()
def plan(
    experiment: Annotated[str, typer.Argument(help="table1, figure1, …, or all; see: repro list experiments")],
    images_per_second: Annotated[
        float | None, typer.Option(min=1e-9, help="Of alexnet's training at scale paper, if you know better.")
    ] = None,
    devices: Annotated[str | None, typer.Option(help="Where to measure [default: a GPU if there is one]")] = None,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="What to measure.")] = "fp32",
) -> None:
    """Disk, operations and hours that an experiment takes, from a short measurement on this machine."""
    from repro.cli.tables import plan_table
    from repro.workflow.plan import plan as estimate

    console.print(plan_table(estimate(experiment, devices, precision, images_per_second)))


@app.command(name="list")
def list_(
    what: Annotated[Literal["variants", "ensembles", "datasets", "experiments", "targets"], typer.Argument()],
) -> None:
    """Show what there is to choose from."""
    from repro.cli.tables import TABLES

    console.print(TABLES[what]())


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("outputs/demo")) -> None:
    """Everything on the built-in data, in minutes, ending at the report."""
    from repro.workflow.stages import demo as stages

    _work_through(stages(out))


def _work_through(stages: Iterable[Stage]) -> None:
    """Run each command that is not done, as if it were typed; what is done must be whole."""
    command = typer.main.get_command(app)
    for stage in stages:
        console.print(f"\n[bold]$ {escape(str(stage))}[/bold]" + ("  (done)" if stage.done else ""), highlight=False)
        if stage.done:
            stage.check()
        else:
            command(list(stage.words), standalone_mode=False)
