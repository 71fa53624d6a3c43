"""What `repro list` and `repro plan` print: tables that never cut or split a word, whatever the width."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import filesize
from rich.console import Console
from rich.table import Table
from rich.text import Text

from repro.errors import ReproError
from repro.paper.baselines import BASELINES, RECIPE
from repro.paper.experiments import EXPERIMENTS
from repro.paper.variants import ENSEMBLES, VARIANTS

if TYPE_CHECKING:
    from repro.evaluation.audit import AuditRow
    from repro.records.schema import LayerActivity
    from repro.workflow.plan import Plan

WIDE = 10_000  # no row is wider
NARROW = 12  # a column of several words that is narrower than this is hard to read


@dataclass(frozen=True)
class Listing:
    """A table as text: its headings, and the cells of each row."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, head: str) -> list[str]:
        """Return the cells below a heading."""
        return [row[self.heads.index(head)] for row in self.rows]


def print_listing(console: Console, listing: Listing) -> None:
    """Print a table if the terminal is wide enough for it, else a paragraph per row.

    Each row is one line in a pipe or file, for grep and for other programs.
    """
    if not console.is_terminal:
        wide = Console(file=console.file, width=WIDE, markup=False, emoji=False, highlight=False)
        wide.print(_table(listing, WIDE))
    elif _width(_narrowest(listing)) <= console.width:
        console.print(_table(listing, console.width), soft_wrap=False)
    else:
        for row in listing.rows:
            console.print(_paragraph(listing.heads, row, console.width), markup=False, highlight=False, soft_wrap=True)


def _table(listing: Listing, width: int) -> Table:
    """Return the table with its columns as wide as their cells, or shrunk in proportion to fit `width`."""
    narrowest = _narrowest(listing)
    widest = [max(map(len, cells)) for cells in _columns(listing)]
    wanted = [most - least for most, least in zip(widest, narrowest, strict=True)]
    share = min(1.0, (width - _width(narrowest)) / max(sum(wanted), 1))
    table = Table(row_styles=["", "dim"])
    for head, least, more in zip(listing.heads, narrowest, wanted, strict=True):
        table.add_column(head, width=least + int(share * more))
    for row in listing.rows:
        table.add_row(*map(Text, row))  # brackets are no markup
    return table


def _columns(listing: Listing) -> list[tuple[str, ...]]:
    return list(zip(listing.heads, *listing.rows, strict=True))


def _narrowest(listing: Listing) -> list[int]:
    """Return the least width of each column: that of its longest word; names in the first stay in one piece."""
    first, *others = _columns(listing)
    widths = [max(map(len, first))]
    for cells in others:
        longest_word = max(len(word) for cell in cells for word in cell.split())
        widths.append(min(max(map(len, cells)), max(NARROW, longest_word)))
    return widths


def _width(columns: Sequence[int]) -> int:
    """Return the width of a table with columns of these widths, a space on each side of a cell, and lines."""
    return sum(columns) + 3 * len(columns) + 1


def _paragraph(heads: Sequence[str], row: Sequence[str], width: int) -> str:
    """Return a row as its name and a line per cell; words longer than the terminal are left to it."""
    lines = [row[0]]
    for head, cell in zip(heads[1:], row[1:], strict=True):
        if cell:
            lines += textwrap.wrap(
                f"{head}: {cell}",
                width,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join([*lines, ""])


def activity_listing(layers: Sequence[LayerActivity]) -> Listing:
    """Return the activity of each layer: its dead units, the size of its activations and their spread over images."""
    heads = ("layer", "units", "dead", "mean absolute activation", "spread over images")
    rows = (
        (each.layer, f"{each.units:,}", f"{each.dead:,}", f"{each.size:.3g}", f"{each.spread:.2g}") for each in layers
    )
    return Listing(heads, tuple(rows))


def variants() -> Listing:
    """Return each variant with its section, its difference from `alexnet`, its recipes and the paper's result.

    The methods that preceded the paper follow the nets.
    """
    heads = ("variant", "Sec.", "description", "recipes", "result in the paper")
    nets = ((v.name, v.section, v.summary, ", ".join(v.family.recipes), v.expected) for v in VARIANTS.values())
    others = ((each.name, each.section, each.summary, RECIPE, each.expected) for each in BASELINES.values())
    return Listing(heads, (*nets, *others))


def ensembles() -> Listing:
    """Return each ensemble and its members."""
    rows = [
        (name, recipe, ", ".join(f"{seeds} × {net}" for net, seeds in members))
        for name, readings in ENSEMBLES.items()
        for recipe, members in readings.items()
    ]
    return Listing(("ensemble", "recipe", "members"), tuple(rows))


def datasets() -> Listing:
    """Return each dataset: description, how to get it, size, expected layout, and what the paper used it for."""
    from repro.preparation.sources.datasets import DATASETS

    heads = ("dataset", "description", "how to get it", "size", "layout of --source", "used for")
    rows = ((name, d.description, d.get, d.download, d.layout, d.used_for) for name, d in DATASETS.items())
    return Listing(heads, tuple(rows))


def experiments() -> Listing:
    """Return each experiment and the networks that it needs."""
    rows = []
    for experiment in EXPERIMENTS.values():
        nets = (
            "all"
            if experiment.name == "all"
            else ", ".join(dict.fromkeys(need.net for need in experiment.requirements))
        )
        rows.append((experiment.name, experiment.section, experiment.summary, nets))
    return Listing(("experiment", "Sec.", "what it shows", "networks"), tuple(rows))


def targets() -> Listing:
    """Return each claim of the paper that the report checks."""
    from repro.paper.targets import load_targets

    rows = ((each.id, each.section, each.kind, each.quantity, each.claimed, each.noted) for each in load_targets())
    return Listing(("target", "Sec.", "kind", "claim", "paper", "authors"), tuple(rows))


def plan_listing(plans: Sequence[Plan]) -> Listing:
    """Return what an experiment takes at each scale."""
    heads: tuple[str, ...] = ("scale", "runs", "stores", "weights", "operations", "speed of alexnet", "training time")
    described = any(plan.feature_bytes for plan in plans)
    if described:  # there are baselines
        heads = (*heads, "features", "time of features")
    rows = []
    for plan in plans:
        time = _hours(plan.hours)
        disk = filesize.decimal(plan.store_bytes), filesize.decimal(plan.run_bytes)
        row = (plan.scale, str(plan.runs), *disk, f"{plan.operations:.1e}", f"{plan.speed:,.0f} images/s", time)
        features = (filesize.decimal(plan.feature_bytes), _hours(plan.feature_hours)) if described else ()
        rows.append((*row, *features))
    return Listing(heads, tuple(rows))


def _hours(hours: float) -> str:
    return f"{hours / 24:,.0f} days" if hours > 48 else f"{hours:.1f} hours"


def published() -> Listing:
    """Return each net whose weights others published: file, preprocessing and published errors."""
    from repro.paper.published import MODELS

    rows = []
    for model in MODELS.values():
        settings = model.preprocessing
        errors = "; ".join(
            f"{result.top1_error:.2f}/{result.top5_error:.2f} ({result.views} view{'s' * (result.views > 1)})"
            for result in model.results
        )
        images = f"{settings.resize} to {settings.image_size}, crops of {settings.crop_size}"
        rows.append((model.name, model.summary, ", ".join(model.files) or "90.417, ...", images, errors))
    return Listing(("net", "description", "files", "images", "top-1/top-5 error"), tuple(rows))


def audit_listing(audited: Sequence[AuditRow]) -> Listing:
    """Return each published error beside the measured one."""
    rows = tuple(
        (
            row.model,
            row.metric.removesuffix("_error").replace("top", "top-"),
            str(row.views),
            f"{row.published:.2f}%",
            f"{row.measured:.2f}% [{row.interval[0]:.2f}, {row.interval[1]:.2f}]",
            row.verdict,
            row.reason,
        )
        for row in audited
    )
    return Listing(("net", "error", "views", "published", "measured", "verdict", "reason"), rows)


def run_listing(folder: Path) -> Listing:
    """Return each run below `folder` with its epochs and errors so far. Raises ReproError if there is none."""
    from repro.records.reading import read_records

    records = read_records(folder)
    rows = []
    for run in records.runs:
        evaluated = [
            f"{each.split} {each.views}: {each.top1_error:.1f}" + f"/{each.top5_error:.1f}" * each.data.has_top5_error
            for each in records.evaluations
            if each.folder == run.folder
        ]
        last = run.log[-1] if run.log else None
        error = f"{last.val_top1_error:.1f}%" if last and math.isfinite(last.val_top1_error) else ""
        state = "finished" if run.finished else "unfinished"
        epochs = f"{len(run.log)}/{run.epochs}" if run.epochs else ""
        rows.append((run.name, run.data.label, state, epochs, error, "; ".join(evaluated)))
    if not rows:
        raise ReproError(f"no runs below '{folder}': name another folder with --runs")
    return Listing(("run", "data", "state", "epochs", "val top-1", "evaluated: top-1/top-5"), tuple(rows))


TABLES: dict[str, Callable[[], Listing]] = {
    "variants": variants,
    "ensembles": ensembles,
    "datasets": datasets,
    "experiments": experiments,
    "targets": targets,
    "published": published,
}
