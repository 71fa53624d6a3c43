"""The tables of the report: the paper's with what was measured, the architecture, the runs and their evaluations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repro.errors import ReproError
from repro.formatting import valid_text
from repro.paper.arithmetic import LayerCount, count, parameters
from repro.paper.baselines import BASELINES
from repro.paper.intervals import seeds_to_decide
from repro.paper.networks import LRN, Activation, Conv, Dropout, Layer, Linear, Network, Pool, SpatialNorm
from repro.paper.recipes import LrChange, Recipe
from repro.paper.targets import Measurement, Verdict, find_target, load_targets
from repro.paper.tolerances import MIN_SEEDS
from repro.paper.variants import BASES, VARIANTS, configure
from repro.records.runs import Records
from repro.records.schema import SPACES, DataRecord
from repro.report.activation_table import activation_table
from repro.report.comparisons import OwnComparison, own_comparisons
from repro.report.figures.figure1 import grid_rows, grids
from repro.report.measurements import measure
from repro.report.measurements.context import PAPER_DATASETS, evaluation_scale, run_scale, scale_of
from repro.report.measurements.evaluations import (
    SPLIT_NAMES,
    error_level,
    evaluation_scope,
    group_evaluations,
    net_name,
)
from repro.report.recipe_table import recipe_table
from repro.report.table import Cell, Column, Section, Table, columns, distinct, sample

Verdicts = Mapping[str, Sequence[Verdict]]
Measured = Mapping[str, Sequence[Measurement]]


@dataclass(frozen=True)
class ClaimRow:
    """A row of a table of claims: its label, and the target of each metric, None where the paper has no number."""

    label: str
    targets: tuple[str | None, ...]


TABLE_1 = (
    ClaimRow("Sparse coding (others)", ("table1-sparse-coding-top1", "table1-sparse-coding-top5")),
    ClaimRow("SIFT + FVs (others)", ("table1-sift-fv-top1", "table1-sift-fv-top5")),
    ClaimRow("CNN", ("table1-cnn-top1", "table1-cnn-top5")),
    ClaimRow("CNN, centre crop alone", ("one-view-top1", "one-view-top5")),
)
TABLE_2 = (
    ClaimRow("SIFT + FVs (others)", (None, None, "table2-sift-fv-top5-test")),
    ClaimRow("1 CNN", ("table2-1cnn-top1", "table2-1cnn-top5", None)),
    ClaimRow("5 CNNs", ("table2-5cnns-top1", "table2-5cnns-top5", "table2-5cnns-top5-test")),
    ClaimRow("1 CNN*", ("table2-1cnn-pretrained-top1", "table2-1cnn-pretrained-top5", None)),
    ClaimRow("7 CNNs*", ("table2-7cnns-top1", "table2-7cnns-top5", "table2-7cnns-top5-test")),
)
OTHERS = (
    ClaimRow("Fall 2009, best published before (others)", ("fall2009-previous-top1", "fall2009-previous-top5")),
    ClaimRow("Fall 2009, net with conv6 (6)", ("fall2009-top1", "fall2009-top5")),
    ClaimRow("CIFAR-10 without normalisation, test (3.3)", ("cifar-no-lrn", None)),
    ClaimRow("CIFAR-10 with normalisation, test (3.3)", ("cifar-lrn", None)),
)
ABLATIONS = (
    ClaimRow("One GPU, half the kernels (Sec. 3.2)", ("two-gpus-top1", "two-gpus-top5")),
    ClaimRow("No response normalisation (3.3)", ("lrn-top1", "lrn-top5")),
    ClaimRow("Pooling without overlap (3.4)", ("overlap-top1", "overlap-top5")),
    ClaimRow("No colour noise (4.1)", ("colour-top1", None)),
    ClaimRow("One view instead of ten (4.1)", ("ten-views-gain-top1", "ten-views-gain-top5")),
    ClaimRow("Without conv3 (7)", ("without-conv3-top1", None)),
    ClaimRow("Without conv4 (7)", ("without-conv4-top1", None)),
    ClaimRow("Without conv5 (7)", ("without-conv5-top1", None)),
    ClaimRow("One net instead of five averaged (6)", ("averaging-gain-top1", "averaging-gain-top5")),
    ClaimRow("Without conv6 and pre-training (6)", ("pretraining-gain-top1", "pretraining-gain-top5")),
)


def paper_tables(records: Records, verdicts: Verdicts) -> list[Table]:
    """Return Tables 1 and 2, the other errors and the effect of each ingredient, with what was measured.

    Beside a number that the paper quotes from others stands what the method measured here, if it was run.
    """
    measured = {name: [each.measurement for each in found if each.measurement] for name, found in verdicts.items()}
    measured |= {each.id: measure(each, records) for each in load_targets() if each.variant in BASELINES}
    return [
        _claims_table(
            "table1", "Table 1: ILSVRC-2010, test",
            "Error in percent, ten views unless stated otherwise. In brackets the 95% interval: exact for the images "
            "of one run, or over seeds.",
            "Model", ("Top-1", "Top-5"), TABLE_1, measured,
        ),
        _claims_table(
            "table2", "Table 2: ILSVRC-2012",
            "Error in percent, ten views. An asterisk marks nets with a sixth conv layer, pre-trained on ImageNet "
            "Fall 2011. The authors' notes contain no result of the averages.",
            "Model", ("Top-1 (val)", "Top-5 (val)", "Top-5 (test)"), TABLE_2, measured,
        ),
        _claims_table(
            "others", "Fall 2009 and CIFAR-10",
            "Error in percent, ten views.", "Net", ("Top-1", "Top-5"), OTHERS, measured,
        ),
        _claims_table(
            "ablations", "Effect of each ingredient",
            "Points of error that the net loses without the ingredient, above 0 where it helps. In brackets the 95% "
            "interval, paired by image, or over seeds.",
            "Change", ("Top-1", "Top-5"), ABLATIONS, measured, elsewhere=True,
        ),
    ]  # fmt: skip


KINDS = ("measured", "paper", "authors' run")  # the columns of each metric of a table of claims


def _claims_table(
    name: str,
    title: str,
    note: str,
    first: str,
    metrics: Sequence[str],
    layout: Sequence[ClaimRow],
    found: Measured,
    elsewhere: bool = False,
) -> Table:
    """Return a table of the paper with comparable measurements in its rows, further recipes in rows below.

    With `elsewhere`, measurements in other conditions follow, in a section for each: of effects, whose direction counts
    there too. Errors in other conditions have a table of their own.
    """
    ordered = (
        Column(first),
        *(Column(kind, metric, exact=kind == "authors' run") for metric in metrics for kind in KINDS),
    )
    comparable: list[dict[str, Cell]] = []
    others: dict[str, dict[str, dict[str, Cell]]] = {}
    for each in layout:
        row: dict[str, Cell] = {first: each.label}
        further: dict[str, dict[str, Cell]] = {}
        for metric, target_id in zip(metrics, each.targets, strict=True):
            if target_id is None:
                continue
            target = find_target(target_id)
            measured = f"{metric}: measured"
            row |= {f"{metric}: paper": target.value, f"{metric}: authors' run": target.authors}
            for measurement in found.get(target_id, ()):
                scope = measurement.scope
                assert scope is not None
                if scope == target.scope and measured not in row:
                    row[measured] = measurement
                    continue
                if scope == target.scope:
                    section = further
                elif elsewhere and scope.views == target.views and scope.split in ("val", "test"):
                    section = others.setdefault(f"{measurement.where}, {scope.split}, {scope.scale_label}", {})
                else:
                    continue
                name_of_row = f"{each.label}, recipe {measurement.recipe}"
                section.setdefault(name_of_row, {first: name_of_row})[measured] = measurement
        comparable += [row, *further.values()]
    sections = [("", comparable)]
    sections += [(f"Not comparable: {context}", list(rows.values())) for context, rows in others.items()]
    return Table(
        name, title, note, ordered,
        [Section(heading, [[row.get(c.label) for c in ordered] for row in rows]) for heading, rows in sections],
    )  # fmt: skip


METRICS = ("top1_error", "top5_error")


def smaller_table(records: Records) -> Table:
    """Return the errors on other images than the paper's or at a smaller scale, by dataset and split."""
    rows: dict[tuple[DataRecord, str], dict[tuple[str, str], dict[str, Cell]]] = {}
    samples: dict[tuple[DataRecord, str, str, str], dict[str, str]] = {}
    for key, nets in group_evaluations(records).items():
        data = key.context.data
        for net, evaluations in nets.items():
            scope = evaluation_scope(key, records, evaluations)
            if scope.dataset in PAPER_DATASETS and scope.scale == "paper" and not scope.changes:
                continue
            training = f"{key.context.recipe} recipe, {scope.scale_label}"
            on_images = rows.setdefault((data, key.split), {})
            row = on_images.setdefault((net, training), {"Net": net, "Training": training})
            for name, metric in zip(("Top-1", "Top-5"), METRICS, strict=True):
                if metric == "top1_error" or data.has_top5_error:
                    row[f"{_views(key.views)}: {name}"] = error_level(evaluations, metric)
            measured = row[f"{_views(key.views)}: Top-1"]
            if isinstance(measured, Measurement):
                by_views = samples.setdefault((data, key.split, net, training), {})
                by_views[_views(key.views)] = sample(measured)
                row["n"] = _samples(by_views)
    found = {name for each in rows.values() for row in each.values() for name, cell in row.items() if cell is not None}
    views = sorted({key.views for key in group_evaluations(records)})
    errors = [Column(name, _views(count)) for count in views for name in ("Top-1", "Top-5")]
    shown = (each for each in errors if each.label in found)
    ordered = (Column("Net"), *shown, *columns("n", "Training"))
    note = (
        "Error in percent, with its 95% interval over images, or over seeds; no evidence for or against the paper’s "
        "errors. Top-5 errors are left out where there are at most five classes."
    )
    headings = distinct(
        [f"{data.description}, {SPLIT_NAMES.get(split, split)} images" for data, split in rows],
        [f"store {data.fingerprint[:8]}" for data, _ in rows],
    )
    sections = [
        Section(heading, [[row.get(column.label) for column in ordered] for row in each.values()])
        for heading, each in zip(headings, rows.values(), strict=True)
    ]
    return Table("smaller", "Smaller datasets and scales", note, ordered, sections)


def _samples(by_views: Mapping[str, str]) -> str:
    """Return the number of seeds or images, for each number of views if they differ."""
    if len(set(by_views.values())) == 1:
        return next(iter(by_views.values()))
    return "; ".join(f"{views.lower()}: {each}" for views, each in by_views.items())


def _views(count: int) -> str:
    return {1: "One view", 10: "Ten views"}.get(count, f"{count} views")


FIGURE_2 = {  # the caption's neurons, by layer
    layer: f"{layer}-neurons" for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
}


def architecture_table() -> Table:
    """Return the net layer by layer, from the paper's specification, beside the neurons of Figure 2's caption."""
    rows = count(BASES["paper"])
    total = parameters(BASES["paper"])
    body = [_layer_row(row, total) for row in rows if not isinstance(row.layer, Activation | Dropout)]
    neurons = sum(row.neurons for row in rows if isinstance(row.layer, Conv | Linear))
    body.append(["all layers", None, None, None, None, neurons, int(find_target("neurons").value), total, 100.0])
    heads = columns(
        "Layer", "Kernels", "Kernel", "Stride", "Output", "Neurons", "Neurons in the paper", "Parameters", "Share, %",
        exact=("Share, %",),
    )  # fmt: skip
    note = (
        "Computed from the specification that the nets are built from, with 1000 classes. A kernel of conv2, conv4 "
        "and conv5 sees the maps of its tower only. The number of neurons of conv1 contradicts the printed 253,440; "
        "see the claims."
    )
    return Table("architecture", "The architecture, layer by layer", note, heads, [Section("", body)])


def _layer_row(row: LayerCount, total: int) -> list[Cell]:
    layer = row.layer
    output = f"{row.size}×{row.size}×{row.maps}" if row.size > 1 else str(row.maps)
    match layer:
        case Conv():
            shape: list[Cell] = [layer.kernels, f"{layer.size}×{layer.size}×{row.kernel_depth}", layer.stride]
        case Linear():
            shape = [layer.units, f"{row.kernel_depth:,}", None]
        case Pool():
            return [layer.name, None, f"{layer.size}×{layer.size}", layer.stride, output, *[None] * 4]
        case _:
            return [layer.name, None, None, None, output, *[None] * 4]
    paper = int(find_target(FIGURE_2[layer.name]).value)
    share = round(100 * row.parameters / total, 2)
    return [layer.name, *shape, output, row.neurons, paper, row.parameters, share]


def layer_order(network: Network) -> str:
    """Return the layers of a net in order, in one line."""
    words = {LRN: "LRN", SpatialNorm: "spatial norm", Pool: "pool", Dropout: "dropout"}
    functions = {"relu": "ReLU"}
    return " → ".join(
        functions.get(layer.function, layer.function)
        if isinstance(layer, Activation)
        else words.get(type(layer), layer.name)
        for layer in network.layers
    )


def variant_table() -> Table:
    """Return each variant's difference from `alexnet`, found by comparing the two specifications."""
    rows: list[list[Cell]] = [
        [name, variant.section, variant.expected, "; ".join(differences(name)) or "the paper's net"]
        for name, variant in VARIANTS.items()
    ]
    note = "Found by comparing the specifications, under the paper's recipe where there is one."
    return Table(
        "variants", "Every variant's difference from alexnet", note,
        columns("Variant", "Section", "The paper expects", "Difference"), [Section("", rows)],
    )  # fmt: skip


def differences(variant: str) -> list[str]:
    """Return what `variant` changes in `alexnet`, in words: layers first, then the recipe (the paper's, if any)."""
    try:
        ours = configure(variant, "paper")
    except ReproError:
        ours = configure(variant, "authors")  # a net that the text does not specify
    base = configure("alexnet", ours.recipe.name)
    if ours.network.layers[-1].name != base.network.layers[-1].name:
        return [f"a different net: {layer_order(ours.network)}"]
    new = {layer.name: layer for layer in ours.network.layers}
    old = {layer.name: layer for layer in base.network.layers}
    words = []
    if removed := [name for name in old if name not in new]:
        words.append(f"without {', '.join(removed)}")
    if added := [name for name in new if name not in old]:
        words.append(f"with {', '.join(added)}")
    changes: dict[str, list[str]] = {}
    for name in old:
        if name in new and (change := _changed(old[name], new[name])):
            changes.setdefault(change, []).append(name)
    words += [f"{', '.join(names)}: {change}" for change, names in changes.items()]
    if change := _changed(base.recipe, ours.recipe):
        words.append(change)
    return words


def _changed(old: Layer | Recipe | object, new: Layer | Recipe | object) -> str:
    """Return the fields in which two values of one class differ, "kernels 96 → 48"."""
    words = []
    for field in dataclasses.fields(old):  # type: ignore[arg-type]
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after or field.name == "source":
            continue
        if dataclasses.is_dataclass(before) and type(before) is type(after):
            words.append(_changed(before, after))
        else:
            words.append(f"{field.name} {_word(before)} → {_word(after)}")
    return ", ".join(words)


def _word(value: object) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case None:
            return "off"
        case ():
            return "none"
        case LrChange():
            start = f" from update {value.after_updates:,}" if value.after_updates else ""
            start = f" after epoch {value.after:g}" if value.after else start
            return f"{value.pattern} ×{value.factor:g}{start}"
        case tuple():
            return ", ".join(map(_word, value))
    return "on" if dataclasses.is_dataclass(value) else str(value)


def lr_table(records: Records) -> Table:
    """Return the grids of Figure 1: the epoch at which each net reaches 25% training error, by rate and run."""
    rows = {context: grid_rows(nets) for context, nets in grids(records).items()}
    most_runs = max((len(row.epochs) for each in rows.values() for row in each), default=1)
    headings = distinct([context.label for context in rows], [f"store {each.data.fingerprint[:8]}" for each in rows])
    sections = []
    for heading, each in zip(headings, rows.values(), strict=True):
        body: list[list[Cell]] = [
            [row.net, row.lr, *row.epochs, *[None] * (most_runs - len(row.epochs)), row.note] for row in each
        ]
        sections.append(Section(heading, body))
    runs = [Column(f"run {number}", "Epochs") for number in range(1, most_runs + 1)]
    heads = (Column("Net"), Column("Learning rate", exact=True), *runs, Column("Result"))
    note = (
        "Epochs to 25% training error. Run 1 of each learning rate chooses the fastest and does not count; the ratio "
        "is that of the other runs. A rate is within the spread of the fastest if its run lies in the 95% prediction "
        "interval of one more run at the fastest. A run that ended without reaching the error gives a bound only."
    )
    return Table("figure1", "Figure 1: the learning rates tried", note, heads, sections)


def comparison_table(records: Records) -> Table:
    """Return the comparisons that the runs allow beyond the paper's claims: of starting weights and of recipes."""
    sections: dict[str, list[list[Cell]]] = {}
    for each in own_comparisons(records):
        row: list[Cell] = [each.first, each.second, each.difference, *each.errors, _conclusion(each)]
        sections.setdefault(f"{each.net} on {each.data}, {each.evaluation}", []).append(row)
    errors = [Column(name, "Top-1 error, %") for name in ("first", "second")]
    heads = (*columns("First", "Second", "Difference, points"), *errors, Column("Conclusion"))
    note = (
        "Nets that differ in their starting weights or their recipe, and in whatever else is named. Intervals are over "
        "seeds and images, or of one pair of nets over images only."
    )
    bodies = [Section(heading, rows) for heading, rows in sections.items()]
    return Table("comparisons", "Comparisons beyond the paper", note, heads, bodies)


def _conclusion(comparison: OwnComparison) -> str:
    """Return what a comparison shows; in words what would decide it, if it is undecided."""
    difference, seeds = comparison.difference, f"{comparison.seeds} seeds of each"
    low, high = difference.interval or (-math.inf, math.inf)
    if comparison.seeds < MIN_SEEDS:
        return f"these nets only: fewer than {MIN_SEEDS} seeds"
    if not low <= 0 <= high:
        return f"{comparison.first if difference.value < 0 else comparison.second} is better, {seeds}"
    count = seeds_to_decide(
        abs(difference.value), difference.deviation or 0.0, difference.image_error, comparison.seeds + 1
    )
    needed = f"about {max(count, MIN_SEEDS)}" if count else "more images, not seeds,"
    return f"undecided with {seeds}; {needed} would decide if the difference is true"


def run_table(records: Records) -> Table:
    """Return every training run: how far it got, and the epochs with notes."""
    body: list[list[Cell]] = []
    for run in records.runs:
        state = "finished" if run.finished else f"{len(run.log)} of {run.epochs} epoch{'s' if run.epochs != 1 else ''}"
        last: list[Cell] = [None, None]
        if run.log:
            last = [run.log[-1].val_top1_error, run.log[-1].train_loss]
        noted = _ranges([epoch.epoch for epoch in run.log if epoch.note])
        setting: list[Cell] = [run.variant, run.recipe, str(run_scale(run)), run.seed, run.data.description]
        body.append([valid_text(run.name), *last, state, *setting, noted or None])
    heads = columns("Run", "Validation top-1, %", "Training loss", "State", "Variant", "Recipe", "Scale", "Seed",
                    "Data", "Notes at epochs", exact=("Training loss",))  # fmt: skip
    note = "Loss and error are those of the last epoch."
    return Table("runs", "Every run", note, heads, [Section("", body)])


def _ranges(epochs: Sequence[int]) -> str:
    """Return ascending numbers as ranges: "1–6, 9"."""
    starts = [each for each in epochs if each - 1 not in epochs]
    ends = [each for each in epochs if each + 1 not in epochs]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))


def evaluation_table(records: Records) -> Table:
    """Return every evaluation: of which runs, on which images, with which errors."""
    body: list[list[Cell]] = []
    for each in records.evaluations:
        seeds = "+".join(map(str, each.seeds))
        scale = str(evaluation_scale(records, each))
        metrics = METRICS if each.data.has_top5_error else METRICS[:1]
        errors: list[Cell] = [error_level([each], metric) for metric in metrics]
        on: list[Cell] = [each.data.description, each.split, each.views, each.images]
        body.append([net_name(records, each), *errors, *[None] * (2 - len(errors)), *on, each.recipe, scale, seeds])
    heads = columns(
        "Net", "Top-1 error, %", "Top-5 error, %", "Data", "Split", "Views", "Images", "Recipe", "Scale", "Seeds",
    )  # fmt: skip
    note = "In brackets the exact 95% interval for the number of images."
    if any(each.weights_selected_on == each.split for each in records.evaluations):
        note += " Where an average's weights were selected on these very images, the errors are optimistic."
    return Table("evaluations", "Every evaluation", note, heads, [Section("", body)])


def retrieval_table(records: Records) -> Table:
    """Return Figure 4 in numbers: how often the six nearest training images are of the same class, and the speed."""
    body: list[list[Cell]] = []
    for each in records.retrievals:
        fc7, pixels, codes, overlap = (
            Measurement(estimate.value, estimate.interval, each.images, "images")
            for estimate in (*(each.precision[space] for space in SPACES), each.overlap)
        )
        seconds = each.seconds_per_query
        speedup = seconds["codes"] and seconds["fc7"] / seconds["codes"]
        body.append([
            each.variant, fc7, pixels, codes, each.precision_at_random, overlap, each.bits, speedup,
            each.data.description, each.split, each.images, each.recipe, str(scale_of(records, each)), each.seed,
        ])  # fmt: skip
    same_class = [Column(name, "Same class, %") for name in ("fc7", "pixels", "codes", "by chance")]
    heads = (
        Column("Net"), *same_class, *columns("Of fc7’s six among those of pixels, %", "Bits", "Speedup of codes"),
        *columns("Data", "Split", "Images", "Recipe", "Scale", "Seed"),
    )  # fmt: skip
    note = (
        "Of the six nearest training images of each image; in brackets the 95% interval over images. Codes are those "
        "of an auto-encoder on fc7. Both searches are exhaustive; other work on the machine affects the speedup."
    )
    return Table("retrieval", "Figure 4 in numbers: nearest training images", note, heads, [Section("", body)])


def every_table(records: Records, verdicts: Verdicts) -> dict[str, Table]:
    """Return all tables by name, in the order of the page."""
    tables = [
        *paper_tables(records, verdicts),
        smaller_table(records),
        lr_table(records),
        comparison_table(records),
        recipe_table(records),
        retrieval_table(records),
        activation_table(records),
        architecture_table(),
        variant_table(),
        run_table(records),
        evaluation_table(records),
    ]
    return {table.name: table for table in tables}
