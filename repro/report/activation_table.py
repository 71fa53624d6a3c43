"""What the layers of trained nets make of the images: spread and dead units, net by net."""

from __future__ import annotations

from collections import defaultdict

from repro.records.runs import Records
from repro.report.measurements.context import scale_of
from repro.report.table import Cell, Column, Section, Table, columns


def activation_table(records: Records) -> Table:
    """Return what each layer of a net makes of the images: dead units, and how far the images can be told apart."""
    layers = list(dict.fromkeys(layer.layer for each in records.activations for layer in each.layers))
    groups: dict[str, list[list[Cell]]] = defaultdict(list)
    for each in records.activations:
        spread = {layer.layer: float(f"{layer.spread:.2g}") for layer in each.layers}
        dead = ", ".join(f"{layer.dead:,} of {layer.layer}’s {layer.units:,}" for layer in each.layers if layer.dead)
        training = (
            f"{each.recipe} recipe, {scale_of(records, each).label}{', before training' if each.untrained else ''}"
        )
        row: list[Cell] = [each.variant, *(spread.get(layer) for layer in layers), dead or "none", training, each.seed]
        groups[f"{each.data.description}, {each.images:,} {each.split} images"].append(row)
    heads = (
        Column("Net"), *(Column(layer, "Spread over images", exact=True) for layer in layers),
        *columns("Dead units", "Training", "Seed"),
    )  # fmt: skip
    note = (
        "The spread is the standard deviation of a neuron over the images, averaged over the layer’s neurons, after "
        "the nonlinearity: where it vanishes, a net cannot tell the images apart. A dead unit is zero for every image."
    )
    return Table("activations", "Activations", note, heads, [Section(*group) for group in groups.items()])
