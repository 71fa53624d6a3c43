"""The commands: parse, one library call, render, exit code.

Libraries are imported inside the commands, because `repro --help` must answer at once. A command returns the command
to type next, or None.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import repro
from repro.cli import options as opt
from repro.cli.console import console
from repro.errors import ReproError, Stopped
from repro.formatting import command_line
from repro.remote import remote_url

if TYPE_CHECKING:
    from repro.data.store import Store
    from repro.workflow.stages import Stage

Next = tuple[object, ...] | None

MANY = 100_000  # training images: with fewer, the scale of the paper is not worth its hours
AFTER_LIST: dict[str, Next] = {
    "variants": ("train", "--variant", "no-lrn", "--data", "stores/imagenette"),
    "ensembles": ("plan", "table2"),
    "datasets": ("prepare", "imagenette", "--out", "stores/imagenette", "--size", "128"),
    "experiments": ("plan", "table1"),
    "targets": ("report", "--compare"),
    "published": ("audit", "weights", "--data", "stores/ilsvrc2012"),
}
SHOWN = 20  # lines about single images; the manifest lists all of them


def _show_next(next_command: Next, **options: object) -> None:
    if next_command:
        console.print(f"next: {command_line(('repro', *next_command))}", style="dim")


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,  # plain help: nothing in it is taken for markup, and it fits every terminal
    result_callback=_show_next,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Reproduce the AlexNet paper (Krizhevsky, Sutskever, Hinton, NIPS 2012): its network, training recipes, "
        "tables and figures, each number compared with the paper's. To begin, run: repro demo"
    ),
)


def _show_version(value: bool) -> None:
    if value:
        print(f"repro {repro.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[  # read by `repro.cli.main`
        bool, typer.Option("--debug", help="Show the traceback of an error; may be given anywhere.")
    ] = False,
) -> None:
    pass


@app.command()
def prepare(
    dataset: opt.DatasetArgument,
    out: opt.StoreOutOption,
    source: opt.SourceOption = None,
    size: opt.SizeOption = None,
    limit_per_class: opt.LimitOption = None,
    workers: opt.WorkersOption = None,
    scheduler: opt.SchedulerOption = None,
    encoding: opt.EncodingOption = "raw",
    allow_partial: opt.AllowPartialOption = False,
    seed: opt.PrepareSeedOption = 0,
    no_splits: opt.NoSplitsOption = False,
    orientation: opt.OrientationOption = None,
    resize: opt.ResizeOption = "shorter-side",
) -> Next:
    """Preprocess a dataset into a store of square images. They are scaled and cropped as in Sec. 2."""
    from repro.cli.progress import meter
    from repro.preparation import prepare as stage
    from repro.preparation.formats import quoted

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
            split_folders=not no_splits,
            orientation=orientation,
            resize=resize,
            on_progress=show,
            on_note=console.print,
        )
    counts = ", ".join(f"{len(split):,} {name}" for name, split in store.splits.items())
    console.print(f"{out}: {counts} images of {store.size}×{store.size} pixels in {len(store.classes)} classes")
    for kind, what in (("rejected", "left out"), ("damaged", "damaged, but used,")):
        found = store.manifest[kind]
        for image in found[:SHOWN]:
            console.print(f"{what} {quoted(image['name'])}: {image['reason']}", style="yellow")
        if len(found) > SHOWN:
            console.print(f"… {len(found):,} in all, listed in manifest.json as {kind}", style="yellow")
    return _train_on(out, store)


@app.command()
def train(
    variant: opt.VariantOption,
    data: opt.DataOption,
    out: opt.RunsOutOption = Path("outputs/runs"),
    recipe: opt.RecipeOption = "authors",
    scale: opt.ScaleOption = "small",
    seed: opt.TrainSeedOption = 0,
    epochs: opt.EpochsOption = None,
    lr: opt.LrOption = None,
    devices: opt.DevicesOption = None,
    precision: opt.PrecisionOption = "fp32",
    init_from: opt.InitFromOption = None,
    until_train_error: opt.UntilTrainErrorOption = None,
    save_minutes: opt.SaveMinutesOption = 10.0,
    resume: opt.ResumeOption = False,
    checkpoint: opt.CheckpointOption = None,
    keep_checkpoints: opt.KeepCheckpointsOption = False,
    workers: opt.FeatureWorkersOption = None,
    scheduler: opt.FeatureSchedulerOption = None,
) -> Next:
    """Train a network of the paper. Stop it at any time; --resume continues it (Sec. 3 to 5)."""
    from repro.paper.baselines import BASELINES, check_recipe

    chosen = {
        "--epochs": epochs, "--lr": lr, "--devices": devices, "--init-from": init_from, "--checkpoint": checkpoint,
        "--until-train-error": until_train_error, "--keep-checkpoints": keep_checkpoints or None,
        "--precision": None if precision == "fp32" else precision,
    }  # fmt: skip
    if variant in BASELINES:
        check_recipe(variant, recipe)
        _refuse(chosen, f"'{variant}' is no net")
        return _train_baseline(variant, data, out, scale, seed, resume, workers, scheduler, save_minutes)
    _refuse({"--workers": workers, "--scheduler": scheduler}, f"'{variant}' is a net")
    from repro.cli.progress import training_display
    from repro.interrupts import deferred
    from repro.training import train as stage
    from repro.training.settings import Settings

    settings = Settings(variant, recipe, scale, seed, epochs, lr, devices, precision, init_from, until_train_error)
    folder: Path | None = None
    with deferred() as stop_signal, training_display(console) as show:
        for event in stage.train(settings, data, out, resume, stop_signal, save_minutes, checkpoint, keep_checkpoints):
            show(event)
            folder = event.path if isinstance(event, stage.Started | stage.AlreadyFinished) else folder
    return ("evaluate", folder, "--data", data) if folder else None


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raise ReproError if any of the options was given."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ReproError(f"{given[0]} does not apply, {why}: leave it out")


def _train_baseline(
    variant: str,
    data: Path,
    out: Path,
    scale: str,
    seed: int,
    resume: bool,
    workers: int | None,
    scheduler: str | None,
    save_minutes: float,
) -> Next:
    from repro.baselines import train as stage
    from repro.baselines.settings import BaselineSettings
    from repro.cli.progress import baseline_display

    settings = BaselineSettings(variant, scale, seed)
    with baseline_display(console) as show:
        for event in stage.train_baseline(settings, data, out, resume, workers, scheduler, save_minutes):
            show(event)
    return "evaluate", out / settings.run_name, "--data", data, "--views", "1"


@app.command()
def evaluate(
    runs: opt.RunsArgument,
    data: opt.DataOption,
    split: opt.SplitOption = "val",
    views: opt.ViewsOption = "10",
    devices: opt.ReplicasOption = None,
    search_weights: opt.SearchWeightsOption = False,
    confusion: opt.ConfusionOption = None,
    batch_size: opt.BatchSizeOption = 128,
    threads: opt.ThreadsOption = None,
) -> Next:
    """Measure top-1 and top-5 error. The softmax outputs of several runs are averaged (Sec. 6)."""
    from repro.cli.progress import meter
    from repro.evaluation import evaluate as stage
    from repro.evaluation.submission import is_unlabelled, submit
    from repro.models.devices import cpu_threads

    if is_unlabelled(data, split):
        if confusion:
            raise ReproError(f"--confusion needs labels, and the split '{split}' of '{data}' has none: leave it out")
        with meter(console, "predicting", "images") as show, cpu_threads(threads):
            path = submit(runs, data, split, int(views), devices, show, search_weights, batch_size)
        console.print(f"{split} has no labels; the submission for the challenge's server is written to {path}")
        return None
    if confusion:
        from repro import atomic
        from repro.evaluation.confusion import check_classes
        from repro.records.reading import read_run

        check_classes(len(read_run(runs[0]).data.classes))
        atomic.check_file(confusion)
    with meter(console, "evaluating", "images") as show, cpu_threads(threads):
        path, record = stage.evaluate(runs, data, split, int(views), devices, show, search_weights, batch_size)
    for guesses in ("top1", "top5") if record.data.has_top5_error else ("top1",):
        low, high = getattr(record, f"{guesses}_interval")
        error = record.error(f"{guesses}_error")
        console.print(f"{guesses} error {error:.2f}%  (95% interval {low:.2f} to {high:.2f})")
    console.print(f"{record.images:,} images of {split}, views: {record.views}; written to {path}")
    if search_weights:
        weights = ", ".join(f"{weight:.3f}" for weight in record.weights)
        console.print(f"weights {weights}, selected on {record.weights_selected_on}")
    if record.note:
        console.print(record.note, style="yellow")
    if confusion:
        from repro.cli.predictions import show_confusion

        show_confusion(console, path.with_name(record.predictions), record.data.classes, confusion)
    return _report_on(path.parent.parent)


@app.command()
def retrieve(
    run: opt.RunArgument,
    data: opt.DataOption,
    split: opt.SearchSplitOption = "test",
    devices: opt.ReplicasOption = None,
    batch_size: opt.BatchSizeOption = 128,
    threads: opt.ThreadsOption = None,
) -> Next:
    """Find the training images nearest to each test image. By fc7 features, pixels and short codes (Sec. 6.1)."""
    from repro.cli.progress import meter
    from repro.evaluation import retrieve as stage
    from repro.models.devices import cpu_threads

    with meter(console, "computing features", "images") as show, cpu_threads(threads):
        path, record = stage.retrieve(run, data, split, devices, show, batch_size)
    for name, precision in record.precision.items():
        low, high = precision.interval
        console.print(
            f"{name}: {precision.value:.1f}% of the {record.neighbours} nearest are of the same class (95% interval "
            f"{low:.1f} to {high:.1f}), {1e6 * record.seconds_per_query[name]:,.0f} µs per query"
        )
    console.print(f"{record.images:,} images of {split}; written to {path}")
    return _report_on(path.parent.parent)


@app.command()
def activations(
    run: opt.RunArgument,
    data: opt.DataOption,
    split: opt.ActivationsSplitOption = "val",
    untrained: opt.UntrainedOption = False,
    batch_size: opt.BatchSizeOption = 128,
    threads: opt.ThreadsOption = None,
) -> Next:
    """Measure the activations of each layer of a net. Shows dead units and the spread over the images."""
    from repro.cli.progress import meter
    from repro.cli.tables import activity_listing, print_listing
    from repro.evaluation import activations as stage
    from repro.models.devices import cpu_threads

    with meter(console, "computing activations", "images") as show, cpu_threads(threads):
        path, record = stage.measure_activations(run, data, split, show, batch_size, untrained)
    print_listing(console, activity_listing(record.layers))
    console.print(f"{record.images:,} images of {split}; written to {path}")
    return _report_on(path.parent.parent)


@app.command()
def predict(
    run: opt.RunArgument,
    images: opt.ImagesArgument,
    others: opt.PredictRunsOption = None,
    views: opt.ViewsOption = "10",
    top: opt.TopOption = 5,
    label: opt.LabelOption = None,
    as_json: opt.JsonOption = False,
    as_csv: opt.CsvOption = False,
    figure: opt.FigureOption = None,
    batch_size: opt.BatchSizeOption = 32,
    threads: opt.ThreadsOption = None,
    devices: opt.DevicesOption = None,
) -> Next:
    """Classify your own images. Each is preprocessed as by prepare and evaluate; the store is not needed."""
    from repro.cli import predictions
    from repro.evaluation.predict import predict_images
    from repro.models.devices import cpu_threads

    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv", param_hint="--csv")

    def note(line: str) -> None:
        typer.echo(line, err=True)

    if figure:
        predictions.check_figure(figure)
    found = predict_images(
        [run, *(others or [])], images, int(views), top, label, devices, on_note=note, batch_size=batch_size
    )
    form: predictions.Form = "json" if as_json else "csv" if as_csv else "table"
    with cpu_threads(threads):  # images are classified as they are shown
        shown = predictions.show(console, found, form, keep=figure is not None)
    if figure:
        predictions.draw(shown, figure)
    return None


@app.command()
def export(
    run: opt.RunArgument,
    out: opt.ExportOutOption,
    format: opt.FormatOption = "onnx",
    preprocessing: opt.PreprocessingOption = False,
    views: opt.ExportViewsOption = "1",
) -> Next:
    """Export a trained net for other programs. ONNX, torch.export, timm or a state dict."""
    from repro.evaluation.export_run import export_run

    path = export_run(run, out, format, preprocessing, int(views))
    console.print(f"{path}: {run} as {format}")
    return None


@app.command(name="import")
def import_(
    weights: opt.WeightsArgument,
    out: opt.RunOutOption,
    name: opt.PublishedNameOption = None,
    classes: opt.ClassesOption = None,
    data: opt.MeanStoreOption = None,
) -> Next:
    """Import published weights as a run. It can be evaluated, exported and fine-tuned like any other."""
    from repro.evaluation.import_weights import import_weights

    run = import_weights(weights, out, name, classes, data)
    console.print(f"{out}: {run.variant}, {len(run.data.classes):,} classes")
    return "predict", out, "IMAGE"


@app.command()
def audit(
    weights: opt.WeightsFilesArgument,
    data: opt.DataOption,
    out: opt.AuditOutOption = Path("outputs/audit"),
    classes: opt.ClassesOption = None,
    devices: opt.DevicesOption = None,
) -> Next:
    """Evaluate published weights beside their published errors. It checks data, nets and evaluation in minutes."""
    from repro.cli.progress import meter
    from repro.cli.tables import audit_listing, print_listing
    from repro.evaluation.audit import audit as stage
    from repro.evaluation.class_lists import read_classes

    with meter(console, "evaluating", "images") as show:
        path, rows = stage(weights, data, out, read_classes(classes) if classes else (), devices, show)
    print_listing(console, audit_listing(rows))
    console.print(f"written to {path}")
    return None


@app.command()
def report(
    more: opt.MoreRunsArgument = None,
    runs: opt.ReportRunsOption = None,
    out: opt.ReportOutOption = Path("outputs/report"),
    compare: opt.CompareOption = False,
    strict: opt.StrictOption = False,
    format: opt.ReportFormatOption = "page",
    tensorboard: opt.TensorboardOption = None,
) -> Next:
    """Write the report of all runs. It has tables, figures and, with --compare, a verdict on each claim."""
    from repro.records.reading import read_records
    from repro.report import build_report

    if strict and not compare:
        raise typer.BadParameter("it applies to the comparison: add --compare", param_hint="--strict")
    if compare and format == "notebook":
        raise typer.BadParameter("a notebook has no comparison: leave out --compare", param_hint="--format")
    named = [*(runs or []), *(more or [])]
    folders = named or [Path("outputs/runs")]
    names = ", ".join(f"'{folder}'" for folder in folders)
    if strict and not ((records := read_records(folders)).runs or records.evaluations):
        raise ReproError(f"no runs in {names}: --strict has nothing to check; name the folder of the runs with --runs")
    if named and not any(folder.is_dir() for folder in named):  # mistyped: an empty report would replace the last one
        raise ReproError(f"there is no folder {names}: name the folder of the runs with --runs")
    if format == "notebook":
        from repro.report.notebook import write_notebook

        console.print(f"written to {write_notebook(folders, out)}")
        return None
    made = build_report(folders, out, compare=compare)
    for problem in made.problems:
        console.print(problem, style="yellow")
    console.print(str(made))
    if tensorboard:
        from repro.report.tensorboard import export

        console.print(f"{tensorboard}: curves of {export(read_records(folders).runs, tensorboard)} runs")
    if strict and made.strict_mismatches:
        raise _NotReproduced(f"not reproduced: {', '.join(each.target.id for each in made.strict_mismatches)}")
    return ("list", "experiments") if compare else _report_on(folders, out)


class _NotReproduced(ReproError):
    """Claims of the paper that the runs contradict, with `report --strict`."""

    exit_code = 4


@app.command()
def verify(path: opt.PathArgument) -> Next:
    """Check a store or a run for damage. Checksums, counts, statistics and records are compared."""
    from repro.cli.progress import meter
    from repro.verification import verify as stage

    url = remote_url(path)
    with meter(console, "verifying", "bytes") as show:
        problems = stage.verify(path, show)
    if problems:
        raise ReproError(f"'{url or path}' is damaged: {'; '.join(problems)}")
    console.print(f"{url or path}: nothing is damaged")
    from repro.data.store import MANIFEST, open_store

    if url or (path / MANIFEST).exists():
        return _train_on(path, open_store(path))
    return _report_on(path.parent)


@app.command()
def run(
    experiment: opt.ExperimentArgument,
    scale: opt.ScaleOption = "small",
    recipe: opt.RecipeOption = "authors",
    stores: opt.StoresOption = Path("stores"),
    data: opt.StandInOption = None,
    out: opt.RunsOutOption = Path("outputs/runs"),
    epochs: opt.EpochsOption = None,
    devices: opt.DevicesOption = None,
    precision: opt.PrecisionOption = "fp32",
    parallel: opt.ParallelOption = False,
    dry_run: opt.DryRunOption = False,
) -> Next:
    """Run the commands that an experiment still needs. Repeat the same command to continue."""
    from repro.workflow import stages as workflow

    if parallel and not devices:
        raise typer.BadParameter("name a device for each command: --devices cuda:0,cuda:1", param_hint="--parallel")
    each = None if parallel else devices  # in parallel, a command gets one of the devices when it starts
    workspace = workflow.Workspace(out, stores, scale, recipe, data, epochs, each, precision)
    stages = workflow.experiment(experiment, workspace)
    if dry_run:
        for stage in stages:
            console.print(str(stage))
        words = [word for word in sys.argv[1:] if word not in ("--dry-run", "--debug")]
        return tuple(words) if console.is_terminal else None  # in a file, the commands alone are a script
    if parallel and devices:
        from repro.cli.parallel import run_stages_in_parallel

        run_stages_in_parallel(console, lambda: workflow.experiment(experiment, workspace), devices.split(","))
    else:
        _run_stages(stages)
    return _report_on(out)


@app.command()
def plan(
    experiment: opt.ExperimentArgument,
    images_per_second: opt.ImagesPerSecondOption = None,
    devices: opt.DevicesOption = None,
    precision: opt.PrecisionOption = "fp32",
) -> Next:
    """Estimate disk space and hours of an experiment. The speed is measured on this machine."""
    from repro.cli.tables import plan_listing, print_listing
    from repro.workflow.plan import plan as estimate

    print_listing(console, plan_listing(estimate(experiment, devices, precision, images_per_second)))
    return "run", experiment, "--dry-run"


@app.command(name="list")
def list_(what: opt.ListArgument, runs: opt.RunsOption = Path("outputs/runs")) -> Next:
    """List variants, datasets, experiments, your runs and more."""
    from repro.cli.tables import TABLES, print_listing, run_listing

    print_listing(console, run_listing(runs) if what == "runs" else TABLES[what]())
    if not console.is_terminal:  # other programs read the rows
        return None
    return _report_on(runs) if what == "runs" else AFTER_LIST[what]


@app.command()
def demo(out: opt.DemoOutOption = Path("outputs/demo")) -> Next:
    """Run the whole pipeline on generated images. It takes minutes and ends with a report."""
    from repro.workflow.stages import demo as stages

    _run_stages(stages(out))
    console.print(
        "\nThe run with recipe 'paper' is at chance, as expected: with the text's initial weights and half the width a "
        "net learns nothing in its first several hundred updates, and the demo stops there. The run with recipe "
        "'authors' has learned."
    )
    return "prepare", "imagenette", "--out", "stores/imagenette", "--size", "128"


def _train_on(path: Path, store: Store) -> Next:
    """Return the command that trains on a store, at the largest scale that its images suffice for."""
    from repro.paper.scales import CIFAR_SCALES, SCALES

    if store.size == CIFAR_SCALES["paper"].image_size:
        return "train", "--variant", "cifar-relu", "--scale", "small", "--data", path
    scales = [scale for scale in SCALES.values() if scale.image_size <= store.size]
    if len(store.splits["train"]) < MANY:
        scales = [scale for scale in scales if scale.name != "paper"]
    if not scales:
        return None
    largest = max(scales, key=lambda scale: scale.image_size)
    return "train", "--variant", "alexnet", "--scale", largest.name, "--data", path


def _report_on(runs: Path | Sequence[Path], out: Path = Path("outputs/report")) -> Next:
    """Return the command that compares the runs below one or several folders with the paper."""
    folders = [runs] if isinstance(runs, Path) else list(runs)
    where = () if folders == [Path("outputs/runs")] else tuple(word for each in folders for word in ("--runs", each))
    target = () if out == Path("outputs/report") else ("--out", out)
    return "report", *where, *target, "--compare"


def _run_stages(stages: Iterable[Stage]) -> None:
    """Run each command that is not done yet, as if it were typed, and check those that are."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for stage in stages:
        console.print(f"\n$ {stage}" + ("  (done)" if stage.done else ""), style="bold")
        if stage.done:
            stage.check()
        else:
            name, *words = stage.words
            try:
                commands[name](words, prog_name=f"repro {name}", standalone_mode=False)
            except Stopped as stopped:  # a training names its own --resume
                message = str(stopped).partition(";")[0]
                hint = "; run the same command again to continue"
                raise Stopped(stopped.signal, message and message + hint) from stopped
