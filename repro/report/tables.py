"""The tables: rows of plain values, for the page, for Markdown and for CSV alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from repro.errors import ReproError
from repro.paper.arithmetic import LayerCount, count, parameters
from repro.paper.networks import LRN, Activation, Conv, Dropout, Layer, Linear, Network, Pool, SpatialNorm
from repro.paper.recipes import Recipe
from repro.paper.targets import Measurement, Verdict, find_target
from repro.paper.variants import BASES, VARIANTS, configure
from repro.report.figures.figure1 import grid_rows, grids
from repro.report.measure import entry, error_level, retrieval_scale, run_scale, scale_of
from repro.report.records import Records

Cell = str | float | int | None | Measurement
Verdicts = Mapping[str, Sequence[Verdict]]


@dataclass(frozen=True)
class Table:
    """A table: `groups` are its bodies, each with a heading (empty: none) and its rows.

    `heads` are the columns' names; "A: b" stands under a common head A. Floats are shown with one decimal, in
    the columns of `exact` as they are.
    """

    name: str
    title: str
    note: str
    heads: tuple[str, ...]
    groups: Sequence[tuple[str, Sequence[Sequence[Cell]]]]
    exact: tuple[str, ...] = ()

    @property
    def filled(self) -> bool:
        """Whether there is a row at all."""
        return any(body for _, body in self.groups)

    @property
    def spans(self) -> list[tuple[str, list[int]]]:
        """The common heads with the places of their columns, in order; a column without one has an empty head."""
        found: list[tuple[str, list[int]]] = []
        for place, head in enumerate(self.heads):
            common = head.rpartition(": ")[0]
            if common and found and found[-1][0] == common:
                found[-1][1].append(place)
            else:
                found.append((common, [place]))
        return found

    @property
    def worded(self) -> set[str]:
        """The heads of the columns that hold words rather than numbers."""
        rows = (row for _, body in self.groups for row in body)
        return {head for row in rows for head, cell in zip(self.heads, row, strict=True) if isinstance(cell, str)}

    def text(self, cell: Cell, head: str) -> str:
        """A cell as people read it; a dash where there is no number."""
        if isinstance(cell, Measurement):
            return spread(cell)
        if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
            return "—"
        if isinstance(cell, float):
            return number(cell, None if head in self.exact else 1)
        return f"{cell:,}" if isinstance(cell, int) else cell

    def write_csv(self, folder: Path) -> None:
        """Write `<name>.csv` into `folder`: all digits; a measured column has its interval's ends beside it."""
        rows = []
        for heading, body in self.groups:
            for cells in body:
                row: dict[str, str | float | int | None] = {"group": heading}
                for head, cell in zip(self.heads, cells, strict=True):
                    if isinstance(cell, Measurement):
                        low, high = cell.interval or (None, None)
                        row |= {head: cell.value, f"{head}, low": low, f"{head}, high": high, f"{head}, n": cell.n}
                    else:
                        row[head] = cell
                rows.append(row)
        # As objects, so that a count beside an empty cell stays a whole number.
        frame = pd.DataFrame(rows, dtype=object) if rows else pd.DataFrame(columns=["group", *self.heads])
        frame.to_csv(folder / f"{self.name}.csv", index=False)

    def write_latex(self, folder: Path) -> None:
        """Write `<name>.tex` into `folder`: a `tabular` to be put into a paper; needs the package booktabs."""
        (folder / f"{self.name}.tex").write_text(self.latex(), encoding="utf-8")

    def latex(self) -> str:
        """The table in LaTeX: of several seeds mean ± spread and their number, else the value with its interval."""
        alignment = "".join("l" if head in self.worded or not place else "r" for place, head in enumerate(self.heads))
        lines = [f"% {self.title}. {self.note}".replace("\n", " "), rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
        if any(common for common, _ in self.spans):
            lines.append(_latex_row(
                rf"\multicolumn{{{len(places)}}}{{c}}{{{escape_latex(common)}}}" for common, places in self.spans
            ))  # fmt: skip
        lines += [_latex_row(escape_latex(head.rpartition(": ")[2]) for head in self.heads), r"\midrule"]
        for number, (heading, body) in enumerate(self.groups):
            if heading:
                lines += [r"\addlinespace"] if number else []
                lines.append(
                    _latex_row([rf"\multicolumn{{{len(self.heads)}}}{{l}}{{\emph{{{escape_latex(heading)}}}}}"])
                )
            for cells in body:
                texts = (
                    plus_minus(cell) if isinstance(cell, Measurement) else self.text(cell, head)
                    for cell, head in zip(cells, self.heads, strict=True)
                )
                lines.append(_latex_row(escape_latex(text) for text in texts))
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def markdown(self) -> str:
        """The table in Markdown; a group's heading is a row of its own."""
        lines = [list(self.heads), ["---"] * len(self.heads)]
        for heading, body in self.groups:
            if heading:
                lines.append([f"*{escape_markdown(heading)}*", *[""] * (len(self.heads) - 1)])
            for cells in body:
                texts = (self.text(cell, head) for cell, head in zip(cells, self.heads, strict=True))
                lines.append([escape_markdown(text) for text in texts])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in "\\|<>*_`[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$",
    "×": r"$\times$", "→": r"$\to$", "α": r"$\alpha$", "<": "$<$", ">": "$>$", "≥": r"$\ge$", "≤": r"$\le$", "—": "---",
    "–": "--", "’": "'", "…": r"\dots{}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(LATEX.get(sign, sign) for sign in text).replace("\n", " ")


def _latex_row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def plus_minus(measurement: Measurement) -> str:
    """Over seeds "25.0 ± 1.0 (3 seeds)", mean and standard deviation; else the value with its interval."""
    if measurement.over != "seeds" or measurement.deviation is None:
        return spread(measurement)
    return f"{number(measurement.value)} ± {number(measurement.deviation)} ({measurement.n} seeds)"


def number(value: float, decimals: int | None = 1) -> str:
    """A number for people: with so many decimals, or (None) with the digits it has; a true minus sign."""
    text = f"{value:,.6f}".rstrip("0").rstrip(".") if decimals is None else f"{value:,.{decimals}f}"
    return text.replace("-", "−")


def spread(measurement: Measurement, decimals: int = 1, sign: str = "") -> str:
    """A measured value with its interval, if that is not empty: "37.6% [37.3, 37.8]"."""
    value = {1: "> ", -1: "< ", 0: ""}[measurement.bound] + number(measurement.value, decimals) + sign
    if measurement.interval and measurement.interval[0] < measurement.interval[1]:
        value += f" [{', '.join(number(end, decimals) for end in measurement.interval)}]"
    return value


TABLE_1 = (
    ("Sparse coding (others)", "table1-sparse-coding-top1", "table1-sparse-coding-top5"),
    ("SIFT + FVs (others)", "table1-sift-fv-top1", "table1-sift-fv-top5"),
    ("CNN", "table1-cnn-top1", "table1-cnn-top5"),
    ("CNN, centre patch alone", "one-view-top1", "one-view-top5"),
)
TABLE_2 = (
    ("SIFT + FVs (others)", None, None, "table2-sift-fv-top5-test"),
    ("1 CNN", "table2-1cnn-top1", "table2-1cnn-top5", None),
    ("5 CNNs", "table2-5cnns-top1", "table2-5cnns-top5", "table2-5cnns-top5-test"),
    ("1 CNN*", "table2-1cnn-pretrained-top1", "table2-1cnn-pretrained-top5", None),
    ("7 CNNs*", "table2-7cnns-top1", "table2-7cnns-top5", "table2-7cnns-top5-test"),
)
ABLATIONS = (
    ("One GPU, half the kernels (Sec. 3.2)", "two-gpus-top1", "two-gpus-top5"),
    ("No response normalisation (3.3)", "lrn-top1", "lrn-top5"),
    ("Pooling without overlap (3.4)", "overlap-top1", "overlap-top5"),
    ("No colour noise (4.1)", "colour-top1", None),
    ("One view instead of ten (4.1)", "ten-views-gain-top1", "ten-views-gain-top5"),
    ("Without conv3 (7)", "without-conv3-top1", None),
    ("Without conv4 (7)", "without-conv4-top1", None),
    ("Without conv5 (7)", "without-conv5-top1", None),
    ("One net instead of five averaged (6)", "averaging-gain-top1", "averaging-gain-top5"),
    ("Without conv6 and pre-training (6)", "pretraining-gain-top1", "pretraining-gain-top5"),
)


OTHERS = (
    ("Fall 2009, best published before (others)", "fall2009-previous-top1", "fall2009-previous-top5"),
    ("Fall 2009, net with conv6 (6)", "fall2009-top1", "fall2009-top5"),
    ("CIFAR-10 without normalisation, test (3.3)", "cifar-no-lrn", None),
    ("CIFAR-10 with normalisation, test (3.3)", "cifar-lrn", None),
)


def paper_tables(verdicts: Verdicts) -> list[Table]:
    """Tables 1 and 2 as the paper sets them, and the worth of each ingredient, with what was measured."""
    return [
        _claims_table(
            "table1", "Table 1: ILSVRC-2010, test",
            "Error in percent, ten views unless said. In brackets the 95% interval: exact for the images of one "
            "run, or over seeds.",
            "Model", ("Top-1", "Top-5"), TABLE_1, verdicts,
        ),
        _claims_table(
            "table2", "Table 2: ILSVRC-2012",
            "Error in percent, ten views. An asterisk marks nets with a sixth conv layer, pre-trained on ImageNet "
            "Fall 2011. The authors' notes hold no result of the averages.",
            "Model", ("Top-1 (val)", "Top-5 (val)", "Top-5 (test)"), TABLE_2, verdicts, splits=(),
        ),
        _claims_table(
            "others", "Fall 2009 and CIFAR-10",
            "Error in percent; Fall 2009 with ten views, CIFAR-10 with one. One view against ten on ILSVRC-2010 is in "
            "Table 1, the difference among the ingredients.",
            "Net", ("Top-1", "Top-5"), OTHERS, verdicts,
        ),
        _claims_table(
            "ablations", "What each ingredient is worth",
            "Points of error that the net loses without it, above 0 where it helps. In brackets the 95% interval, "
            "paired image by image, or over seeds.",
            "Change", ("Top-1", "Top-5"), ABLATIONS, verdicts,
        ),
    ]  # fmt: skip


def _claims_table(
    name: str,
    title: str,
    note: str,
    first: str,
    columns: Sequence[str],
    layout: Sequence[tuple[str, *tuple[str | None, ...]]],
    verdicts: Verdicts,
    splits: Sequence[str] = ("val", "test"),
) -> Table:
    """The paper's rows with what is comparable beside them; below, a group for each other place of measurement.

    Those groups show the splits `splits`; if there are none, each column its target's own.
    """
    heads = [first]
    for column in columns:
        heads += [f"{column}: paper", f"{column}: authors' run", f"{column}: measured"]
    published: list[list[Cell]] = []
    elsewhere: dict[str, dict[str, list[Cell]]] = {}
    for label, *ids in layout:
        row: list[Cell] = [label, *[None] * (3 * len(columns))]
        more: dict[str, list[Cell]] = {}
        for index, target_id in enumerate(ids, 1):
            if target_id is None:
                continue
            target = find_target(target_id)
            place = 3 * index  # of the measured value; the paper's and the authors' stand before it
            row[place - 2 : place] = target.value, target.authors
            for measurement in filter(None, (each.measurement for each in verdicts.get(target_id, ()))):
                scope = measurement.scope
                assert scope is not None
                if scope == target.scope and row[place] is None:
                    row[place] = measurement
                    continue
                if scope == target.scope:
                    group = more
                elif scope.views == target.views and scope.split in (splits or (target.split,)):
                    group = elsewhere.setdefault(f"{measurement.where}, {scope.split}, {scope.scale} scale", {})
                else:
                    continue
                name_of_row = f"{label}, recipe {measurement.recipe}"
                cells = group.setdefault(name_of_row, [name_of_row, *[None] * (3 * len(columns))])
                cells[place] = measurement
        published += [row, *more.values()]
    groups = [("", published)]
    groups += [(f"Not comparable: {place}", list(rows.values())) for place, rows in elsewhere.items()]
    exact = tuple(head for head in heads if head.endswith("authors' run"))
    return Table(name, title, note, tuple(heads), groups, exact)


FIGURE_2 = {  # the caption's neurons, by layer
    layer: f"{layer}-neurons" for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
}


def architecture_table() -> Table:
    """The net layer by layer, from the text's specification, beside the neurons of Figure 2's caption."""
    rows = count(BASES["paper"])
    total = parameters(BASES["paper"])
    body = [_layer_row(row, total) for row in rows if not isinstance(row.layer, Activation | Dropout)]
    neurons = sum(row.neurons for row in rows if isinstance(row.layer, Conv | Linear))
    body.append(["all layers", None, None, None, None, neurons, int(find_target("neurons").value), total, 100.0])
    heads = (
        "Layer", "Kernels", "Kernel", "Stride", "Output", "Neurons", "Neurons in the paper", "Parameters", "Share, %",
    )  # fmt: skip
    note = (
        "Computed from the specification that the nets are built from, with 1000 classes. A kernel of conv2, conv4 "
        "and conv5 sees the maps of its own tower only. conv1's neurons and the printed 253,440 contradict each "
        "other; see the claims."
    )
    return Table("architecture", "The architecture, layer by layer", note, heads, [("", body)], exact=("Share, %",))


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
    """The layers in the order in which they act, in one line."""
    words = {Activation: "ReLU", LRN: "LRN", SpatialNorm: "spatial norm", Pool: "pool", Dropout: "dropout"}
    return " → ".join(words.get(type(layer), layer.name) for layer in network.layers)


def variant_table() -> Table:
    """Each variant's difference from `alexnet`, found by comparing the two specifications."""
    rows: list[list[Cell]] = [
        [name, variant.section, variant.expected, "; ".join(differences(name)) or "the paper's net itself"]
        for name, variant in VARIANTS.items()
    ]
    note = "Found by comparing the specifications, here under the recipe of the text; ± is the paper's, in points."
    return Table(
        "variants", "Every variant's difference from alexnet", note,
        ("Variant", "Section", "The paper expects", "Difference"), [("", rows)],
    )  # fmt: skip


def differences(variant: str) -> list[str]:
    """What `variant` changes in `alexnet`, in words; layers first, then the recipe. The text's, if it has one."""
    try:
        ours = configure(variant, "paper")
    except ReproError:
        ours = configure(variant, "authors")  # a net that the text does not spell out
    base = configure("alexnet", ours.recipe.name)
    if ours.network.layers[-1].name != base.network.layers[-1].name:
        return [f"a net of its own: {layer_order(ours.network)}"]
    new = {layer.name: layer for layer in ours.network.layers}
    old = {layer.name: layer for layer in base.network.layers}
    words = []
    if gone := [name for name in old if name not in new]:
        words.append(f"without {', '.join(gone)}")
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
    """The fields in which two values of one class differ, "kernels 96 → 48"."""
    words = []
    for field in dataclasses.fields(old):  # type: ignore[arg-type]
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        if dataclasses.is_dataclass(before) and type(before) is type(after):
            words.append(_changed(before, after))
        else:
            words.append(f"{field.name} {_word(before)} → {_word(after)}")
    return ", ".join(words)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "on" if dataclasses.is_dataclass(value) else "off" if value is None else str(value)


def rate_table(records: Records) -> Table:
    """The declared grid of Figure 1: how soon each net comes to 25% training error at each rate, by seed."""
    rows = {context: grid_rows(nets) for context, nets in grids(records).items()}
    seeds = max((len(epochs) for each in rows.values() for *_, epochs in each), default=1)
    groups: list[tuple[str, list[list[Cell]]]] = []
    for context, each in rows.items():
        body: list[list[Cell]] = []
        for net, rate, chosen, epochs in each:
            body.append([net, rate, *epochs, *[None] * (seeds - len(epochs)), chosen])
        groups.append((f"{context.data.description}, {context.recipe} recipe, {context.scale} scale", body))
    heads = ("Net", "Rate", *(f"Epochs: run {number}" for number in range(1, seeds + 1)), "Chosen")
    note = (
        "Epochs to 25% training error. Each net counts at the rate that brings it there soonest, by its first seed; "
        "a run that ended before leaves a bound only."
    )
    return Table("figure1", "Figure 1: the rates tried", note, heads, groups, exact=("Rate",))


def run_table(records: Records) -> Table:
    """Every training run: how far it got, and what it noted."""
    body: list[list[Cell]] = []
    for run in records.runs:
        state = "finished" if run.finished else f"{len(run.log)} of {run.epochs} epochs"
        figures: list[Cell] = [run.log[-1].train_loss, run.log[-1].val_top1_error] if run.log else [None, None]
        noted = _ranges([epoch.epoch for epoch in run.log if epoch.note])
        setting: list[Cell] = [run.name, run.variant, run.recipe, run_scale(run), run.seed, run.data.description]
        body.append([*setting, state, *figures, noted or None])
    heads = ("Run", "Variant", "Recipe", "Scale", "Seed", "Data", "State",
             "Training loss", "Validation top-1, %", "Noted at epochs")  # fmt: skip
    note = "The figures are those of the last epoch."
    return Table("runs", "Every run", note, heads, [("", body)], exact=("Training loss",))


def _ranges(epochs: Sequence[int]) -> str:
    """Ascending numbers in short: "1–6, 9"."""
    starts = [each for each in epochs if each - 1 not in epochs]
    ends = [each for each in epochs if each + 1 not in epochs]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))


def evaluation_table(records: Records) -> Table:
    """Every evaluation: of which runs, on what, with which errors."""
    body: list[list[Cell]] = []
    for each in records.evaluations:
        seeds = "+".join(map(str, each.seeds))
        net: list[Cell] = [entry(records, each), each.recipe, scale_of(records, each), seeds, each.data.description]
        errors: list[Cell] = [error_level([each], metric) for metric in ("top1_error", "top5_error")]
        body.append([*net, each.split, each.views, each.images, *errors])
    heads = (
        "Net", "Recipe", "Scale", "Seeds", "Data", "Split", "Views", "Images", "Top-1 error, %", "Top-5 error, %",
    )  # fmt: skip
    note = "In brackets the exact 95% interval that the number of images allows."
    if any(each.weights_selected_on == each.split for each in records.evaluations):
        note += " Where an average's weights were selected on these very images, the errors are optimistic."
    return Table("evaluations", "Every evaluation", note, heads, [("", body)])


def retrieval_table(records: Records) -> Table:
    """Figure 4 in numbers: how often the six nearest training images are of the same class, and how long it takes."""
    body: list[list[Cell]] = []
    for each in records.retrievals:
        scale = retrieval_scale(records, each)
        row: list[Cell] = [each.variant, each.recipe, scale, each.seed, each.data.description, each.split, each.images]
        for value, interval in (*(each.precision[space] for space in ("fc7", "pixels", "codes")), each.overlap):
            row.append(Measurement(value, interval, each.images, "images"))
        row.insert(10, each.precision_at_random)
        body.append([*row, each.bits, each.seconds["codes"] and each.seconds["fc7"] / each.seconds["codes"]])
    heads = (
        "Net", "Recipe", "Scale", "Seed", "Data", "Split", "Images", "Same class, %: fc7", "Same class, %: pixels",
        "Same class, %: codes", "Same class, %: by chance", "Of fc7’s six among those of pixels, %", "Bits",
        "Codes quicker by",
    )  # fmt: skip
    note = (
        "Of the six nearest training images of each image. Codes are those of an auto-encoder on fc7, and are "
        "searched as exhaustively; in brackets the 95% interval over images."
    )
    return Table("retrieval", "Figure 4 in numbers: nearest training images", note, heads, [("", body)])


def every_table(records: Records, verdicts: Verdicts) -> dict[str, Table]:
    """All tables by name, in the order of the page."""
    tables = [
        *paper_tables(verdicts),
        rate_table(records),
        retrieval_table(records),
        architecture_table(),
        variant_table(),
        run_table(records),
        evaluation_table(records),
    ]
    return {table.name: table for table in tables}
