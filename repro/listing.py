"""What `repro list` shows, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from repro.paper.networks import Network
from repro.paper.variants import BASES, ENSEMBLES, VARIANTS


def variants() -> Table:
    """Each variant with its section, its difference from `alexnet` and what the paper says to expect."""
    table = Table("variant", "Sec.", "what it is", "layers that differ from alexnet's (authors)", "the paper's result")
    base = BASES["authors"]
    for variant in VARIANTS.values():
        changed = differing_layers(base, variant.network(base.edit(variant.layer)))
        table.add_row(variant.name, variant.section, variant.summary, changed, variant.expected)
    return table


def differing_layers(base: Network, network: Network) -> str:
    """The layers of `network` that are not those of `base`, those that are gone with a minus sign."""
    before, now = ({layer.name: layer for layer in net.layers} for net in (base, network))
    gone = [f"−{name}" for name in before if name not in now]
    return ", ".join(gone + [name for name, layer in now.items() if before.get(name) != layer])


def ensembles() -> Table:
    """Each ensemble and its members."""
    table = Table("ensemble", "members", "how")
    for name, (variant, seeds) in ENSEMBLES.items():
        table.add_row(name, f"{variant}, seeds 0 to {seeds - 1}", "repro evaluate RUN RUN …")
    return table


def datasets() -> Table:
    """Each data set that can be prepared: what it is, how to get it, what the paper used it for."""
    from repro.prepare import DATASETS

    table = Table("data set", "what it is", "how to get it", "--source expects", "used for")
    for name, dataset in DATASETS.items():
        table.add_row(name, dataset.description, dataset.get, dataset.layout, dataset.used_for)
    return table


def targets() -> Table:
    """Each claim of the paper that the report checks."""
    from repro.paper.targets import load_targets

    table = Table("target", "Sec.", "kind", "what is claimed", "paper", "authors")
    for target in load_targets():
        authors = "" if target.authors is None else f"{target.authors:g}"
        table.add_row(target.id, target.section, target.kind, target.quantity, str(target.value), authors)
    return table


TABLES: dict[str, Callable[[], Table]] = {
    "variants": variants,
    "ensembles": ensembles,
    "datasets": datasets,
    "targets": targets,
}
