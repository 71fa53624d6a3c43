"""What `repro list` shows, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich import filesize
from rich.table import Column, Table

from repro.paper.experiments import EXPERIMENTS
from repro.paper.variants import ENSEMBLES, VARIANTS

if TYPE_CHECKING:
    from repro.workflow.plan import Plan


def _table(name: str, *heads: str) -> Table:
    """An empty table; nothing is cut short in a narrow terminal, and names stay in one piece, for they are typed."""
    others = (Column(head, overflow="fold") for head in heads)
    return Table(Column(name, no_wrap=True), *others, row_styles=["", "dim"])


def variants() -> Table:
    """Each variant with its section, its difference from `alexnet`, its recipes and what the paper says to expect."""
    table = _table("variant", "Sec.", "what it is", "recipes", "the paper's result")
    for variant in VARIANTS.values():
        recipes = ", ".join(variant.family.recipes)
        table.add_row(variant.name, variant.section, variant.summary, recipes, variant.expected)
    return table


def ensembles() -> Table:
    """Each ensemble and its members."""
    table = _table("ensemble", "members")
    for name, members in ENSEMBLES.items():
        table.add_row(name, ", ".join(f"{seeds} × {variant}" for variant, seeds in members))
    return table


def datasets() -> Table:
    """Each data set that can be prepared: what it is, how to get it, how large it is, what the paper used it for."""
    from repro.preparation.sources.datasets import DATASETS

    table = _table("data set", "what it is", "how to get it", "how large", "--source expects", "used for")
    for name, dataset in DATASETS.items():
        table.add_row(name, dataset.description, dataset.get, dataset.download, dataset.layout, dataset.used_for)
    return table


def experiments() -> Table:
    """Each experiment and the nets that it needs."""
    table = _table("experiment", "Sec.", "what it shows", "nets")
    for experiment in EXPERIMENTS.values():
        nets = (
            "" if experiment.name == "all" else ", ".join(dict.fromkeys(need.net for need in experiment.requirements))
        )
        table.add_row(experiment.name, experiment.section, experiment.summary, nets)
    return table


def targets() -> Table:
    """Each claim of the paper that the report checks."""
    from repro.paper.targets import load_targets

    table = _table("target", "Sec.", "kind", "what is claimed", "paper", "authors")
    for target in load_targets():
        authors = "" if target.authors is None else f"{target.authors:g}"
        table.add_row(target.id, target.section, target.kind, target.quantity, str(target.value), authors)
    return table


def plan_table(plans: Sequence[Plan]) -> Table:
    """What an experiment takes at each scale."""
    table = _table("scale", "trainings", "stores", "weights", "operations", "alexnet", "training time")
    for plan in plans:
        time = f"{plan.hours / 24:,.0f} days" if plan.hours > 48 else f"{plan.hours:.1f} hours"
        table.add_row(
            plan.scale,
            str(plan.runs),
            filesize.decimal(plan.store_bytes),
            filesize.decimal(plan.run_bytes),
            f"{plan.operations:.1e}",
            f"{plan.speed:,.0f} images/s",
            time,
        )
    return table


TABLES: dict[str, Callable[[], Table]] = {
    "variants": variants,
    "ensembles": ensembles,
    "datasets": datasets,
    "experiments": experiments,
    "targets": targets,
}
