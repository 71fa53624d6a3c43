"""Figure 2: a net drawn from its specification, with towers, connections, sizes and parameters (Sec. 3.5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from repro.paper.arithmetic import LayerCount, count
from repro.paper.networks import LRN, Conv, Linear, Local, Network, Pool, SpatialNorm
from repro.paper.variants import VARIANTS, configure
from repro.records.runs import Records
from repro.report.figures.style import COLOURS, INK, NARROW, Picture, finish

COLUMN = 1.06  # inches for each layer
MARGIN = 0.62  # inches for the labels of the rows of text
LABELS = ("kernels", "each sees", "output", "then", "neurons", "parameters")
ROWS = len(LABELS) + 1  # lines of text below each layer, its name first


@dataclass(frozen=True)
class DrawnStage:
    """A layer with weights, and what follows until the next one. `joined`: each tower sees both towers below."""

    row: LayerCount
    after: tuple[LayerCount, ...]
    joined: bool


def stages(network: Network) -> list[DrawnStage]:
    """Return the layers with weights in order."""
    found: list[tuple[LayerCount, list[LayerCount]]] = []
    for row in count(network):
        if isinstance(row.layer, Conv | Local | Linear):
            found.append((row, []))
        else:
            found[-1][1].append(row)
    return [
        DrawnStage(row, tuple(after), not (isinstance(row.layer, Conv) and row.layer.towers == 2))
        for row, after in found
    ]


def towers_of(network: Network) -> int:
    """Return 2 if the kernels of some layer see only their half of the maps, else 1."""
    return max(layer.towers for layer in network.layers if isinstance(layer, Conv))


def net_pictures(records: Records) -> Iterable[Picture]:
    """Yield Figure 2, the paper's net; then, with the architecture, the other nets that were run, each once."""
    text = configure("alexnet", "paper").network
    yield net_picture("figure2", "The paper's net", text)
    seen = {_shape(text)}
    for variant in dict.fromkeys(run.variant for run in records.runs):
        if variant not in VARIANTS:  # recorded by another version
            continue
        family = VARIANTS[variant].family
        recipe = "paper" if "paper" in family.recipes else "authors"
        network = configure(variant, recipe, classes=family.classes).network
        if _shape(network) not in seen:
            seen.add(_shape(network))
            yield net_picture(f"figure2-{variant}", variant, network, "net")


def _shape(network: Network) -> str:
    return str([text_below(stage) for stage in stages(network)])


def net_picture(name: str, title: str, network: Network, section: str = "figure-2") -> Picture:
    """Return a net in the manner of Figure 2: a row of blocks per tower, joined where the towers communicate."""
    rows, towers = stages(network), towers_of(network)
    total = sum(stage.row.parameters for stage in rows)
    neurons = sum(stage.row.neurons for stage in rows)
    joined = [stage.row.layer.name for stage in rows[1:-1] if stage.joined]
    communication = (
        f" The towers communicate where the lines are dashed, below {', '.join(joined)}."
        if towers == 2
        else " All kernels see all maps."
    )
    caption = (
        f"Drawn from the specification that the net is built from: {towers} tower{'s' if towers > 1 else ''}, "
        f"{neurons:,} neurons, {total:,} parameters.{communication} Beside each block the side of its maps in "
        f"positions, below it their number."
    )
    alt = "; ".join(f"{stage.row.layer.name}: {stage.row.neurons:,} neurons" for stage in rows)
    return finish(_draw(network), name, title, caption, alt, section, _draw_narrow(network))


def _draw(network: Network) -> Figure:
    rows, towers = stages(network), towers_of(network)
    width = MARGIN + COLUMN * (len(rows) + 1)
    height = (3.1 if towers == 2 else 2.1) + 0.17 * ROWS
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    text_top = 0.17 * ROWS + 0.12
    middle = text_top + (height - text_top) / 2 - 0.08
    lanes = [middle + 0.72, middle - 0.72] if towers == 2 else [middle]
    for line, label in enumerate(LABELS, 1):
        axes.text(0.08, text_top - 0.17 * (line + 1), label, fontsize=7, alpha=0.75)
    x, side = MARGIN + COLUMN / 2, network.input_size
    below = [_Block(axes, x, middle, 3, side, side, None)]
    _write(axes, x, text_top, "input", ("", "", f"{side}×{side}×3", "", f"{3 * side**2:,}", ""))
    for index, stage in enumerate(rows, 1):
        x += COLUMN
        positions = [middle] if index == len(rows) or towers == 1 else lanes
        colours = COLOURS if len(positions) == 2 else (COLOURS[-1],)
        maps = stage.row.maps // len(positions)
        blocks = [
            _Block(axes, x, y, maps, stage.row.size, side, colour)
            for y, colour in zip(positions, colours, strict=False)
        ]
        _connect(axes, below, blocks, stage)
        _write(axes, x, text_top, stage.row.layer.name, text_below(stage))
        below = blocks
    return figure


NARROW_ROW, LINE = 0.8, 0.14  # inches for each layer and each line of text of a narrow figure
TEXT_LEFT = 1.45  # inches


def _draw_narrow(network: Network) -> Figure:
    """Draw the net from the top down, the text of each layer beside its blocks."""
    rows, towers = stages(network), towers_of(network)
    height = NARROW_ROW * (len(rows) + 1)
    figure = Figure(figsize=(NARROW, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, NARROW)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    middle, side = 0.7, network.input_size
    lanes = [middle - 0.35, middle + 0.35] if towers == 2 else [middle]
    y = height - NARROW_ROW / 2
    below = [_Bar(axes, middle, y, 3, side, side, COLOURS[-1])]
    _write_beside(axes, y, "input", (f"{side}×{side}×3", f"{3 * side**2:,} values"))
    for index, stage in enumerate(rows, 1):
        y -= NARROW_ROW
        positions = [middle] if index == len(rows) or towers == 1 else lanes
        colours = COLOURS if len(positions) == 2 else (COLOURS[-1],)
        maps = stage.row.maps // len(positions)
        bars = [
            _Bar(axes, x, y, maps, stage.row.size, side, colour) for x, colour in zip(positions, colours, strict=False)
        ]
        for start in below:
            for end in bars:
                _connect_down(axes, start, end, stage, across=len(below) == len(bars) == 2 and start.x != end.x)
        kernels, size, output, then, neurons, parameters = text_below(stage)
        follows = ", ".join(filter(None, (output, then and f"then {then}")))
        lines = (f"{kernels} {size}", follows, f"{neurons} neurons", f"{parameters} parameters")
        _write_beside(axes, y, stage.row.layer.name, lines)
        below = bars
    return figure


def _write_beside(axes: Axes, y: float, name: str, lines: Sequence[str]) -> None:
    shown = [line for line in lines if line]
    top = y + LINE * len(shown) / 2
    axes.text(TEXT_LEFT, top, name, fontsize=8.5, weight="bold", va="center")
    for number, text in enumerate(shown, 1):
        axes.text(TEXT_LEFT, top - LINE * number, text, fontsize=8, va="center")


class _Bar:
    """Output of a layer in one tower of a narrow figure: taller for larger maps, wider for more of them."""

    def __init__(self, axes: Axes, x: float, y: float, maps: int, size: int, largest: int, colour: str) -> None:
        width = 0.06 + 0.045 * math.log2(maps)
        height = 0.12 + 0.38 * math.sqrt(size / largest)
        self.x, self.top, self.bottom = x, y + height / 2, y - height / 2
        corner = (x - width / 2, self.bottom)
        axes.add_patch(Rectangle(corner, width, height, facecolor=colour, alpha=0.42, linewidth=0, zorder=2))
        axes.add_patch(
            Rectangle(corner, width, height, facecolor="none", edgecolor=INK, linewidth=0.6, zorder=3)
        )  # fmt: skip


def _connect_down(axes: Axes, start: _Bar, end: _Bar, stage: DrawnStage, across: bool) -> None:
    """Draw a line from a bar to one of the next layer if that sees it: dashed across towers."""
    if across and not stage.joined:
        return
    style = "--" if across else "-"
    axes.plot([start.x, end.x], [start.bottom, end.top], style, color=INK, linewidth=1.0 if across else 0.8, zorder=1)


def _write(axes: Axes, x: float, top: float, name: str, lines: Sequence[str]) -> None:
    axes.text(x, top - 0.17, name, ha="center", fontsize=8, weight="bold")
    for line, text in enumerate(lines, 1):
        axes.text(x, top - 0.17 * (line + 1), text, ha="center", fontsize=7)


def text_below(stage: DrawnStage) -> tuple[str, ...]:
    """Return the text under a layer, in the order of `LABELS`."""
    row, layer = stage.row, stage.row.layer
    if isinstance(layer, Linear):
        kernels, size = "all of the", "layer before"
    else:
        assert isinstance(layer, Conv | Local)
        kernels = f"{layer.kernels} " + ("local" if isinstance(layer, Local) else "kernels")
        stride = f", /{layer.stride}" if isinstance(layer, Conv) and layer.stride > 1 else ""
        size = f"{layer.size}×{layer.size}×{row.kernel_depth}{stride}"
    follows = [_after(each) for each in stage.after]
    output = f"{row.size}×{row.size}×{row.maps}" if row.size > 1 else ""
    return kernels, size, output, ", ".join(filter(None, follows)), f"{row.neurons:,}", f"{row.parameters:,}"


def _after(row: LayerCount) -> str:
    layer = row.layer
    if isinstance(layer, Pool):
        return f"{layer.kind.replace('max', 'pool')} {layer.size}/{layer.stride}"
    return "LRN" if isinstance(layer, LRN) else "norm" if isinstance(layer, SpatialNorm) else ""


class _Block:
    """Output of a layer in one tower: taller for larger maps, wider for more of them."""

    def __init__(self, axes: Axes, x: float, y: float, maps: int, size: int, largest: int, colour: str | None) -> None:
        flat = size == 1
        self.x, self.y = x, y
        self.height = 1.0 if flat else 0.28 + 0.72 * math.sqrt(size / largest)
        self.width = 0.13 if flat else 0.06 + 0.055 * math.log2(maps)
        slant = 0.0 if flat else 0.32 * self.height
        left, right = x - self.width / 2 - slant / 2, x + self.width / 2 - slant / 2
        low, high = y - self.height / 2 - slant / 3, y + self.height / 2 - slant / 3
        shade = colour or "#8a8378"
        faces: list[tuple[Sequence[tuple[float, float]], float]] = [
            ([(left, low), (right, low), (right, high), (left, high)], 0.42)
        ]
        if slant:
            up = slant * 2 / 3
            faces += [
                ([(left, high), (right, high), (right + slant, high + up), (left + slant, high + up)], 0.22),
                ([(right, low), (right + slant, low + up), (right + slant, high + up), (right, high)], 0.3),
            ]
        for corners, alpha in faces:
            axes.add_patch(Polygon(corners, closed=True, facecolor=shade, alpha=alpha, linewidth=0, zorder=2))
            axes.add_patch(Polygon(corners, closed=True, facecolor="none", edgecolor=INK, linewidth=0.6, zorder=3))
        self.left, self.right = left, right + slant
        axes.text((left + right) / 2, low - 0.03, f"{maps:,}", ha="center", va="top", fontsize=7, zorder=4)
        if not flat:
            axes.text(left - 0.03, (low + high) / 2, str(size), ha="right", va="center", fontsize=7, zorder=4)


def _connect(axes: Axes, before: Sequence[_Block], blocks: Sequence[_Block], stage: DrawnStage) -> None:
    """Draw lines from what a layer sees to it: within a tower, and across where it sees both."""
    for start in before:
        for end in blocks:
            across = len(before) == len(blocks) == 2 and start.y != end.y
            if across and not stage.joined:
                continue
            axes.plot(
                [start.right + 0.02, end.left - (0.02 if stage.row.size == 1 else 0.2)], [start.y, end.y],
                color=INK, linewidth=1.1 if across else 0.8, linestyle="--" if across else "-", zorder=1,
            )  # fmt: skip
