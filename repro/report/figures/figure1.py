"""Figure 1: epochs of ReLU and tanh to 25% training error, each at its fastest learning rate (Sec. 3.1)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from repro.paper.targets import Measurement, find_target
from repro.records.runs import Records, Run
from repro.report.figures.style import COLOURS, INK, NARROW, WIDE, Picture, finish
from repro.report.measurements.context import Context, context_of, precedence
from repro.report.measurements.grid import Grid, build_grid, speed_ratio, train_errors


@dataclass(frozen=True)
class NetStyle:
    """Label, line style and colour of a net in Figure 1."""

    label: str
    line: Literal["-", "--"]
    colour: str


# As in the paper: ReLU solid, tanh dashed.
STYLES = {
    "cifar-relu": NetStyle("ReLU", "-", COLOURS[0]),
    "cifar-tanh": NetStyle("tanh", "--", COLOURS[1]),
}


@dataclass(frozen=True)
class GridRow:
    """The runs of one net at one learning rate: the epochs that they take, or in words why there is no number."""

    net: str
    lr: float
    note: str
    epochs: tuple[str | float, ...]


def grids(records: Records) -> dict[Context, dict[str, Grid]]:
    """Return the grids of Figure 1's nets by context and net."""
    runs: dict[Context, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in records.runs:
        if run.variant in STYLES:
            runs[context_of(run)][run.variant].append(run)
    found = {}
    for context in sorted(runs, key=precedence):
        nets = {name: each for name in STYLES if (each := build_grid(runs[context][name]))}
        if nets:
            found[context] = nets
    return found


def grid_rows(nets: Mapping[str, Grid]) -> list[GridRow]:
    """Return a row per net and learning rate, declared rates without a run included."""
    rows = []
    for name, grid in nets.items():
        for lr in sorted({*grid.runs_by_lr, *grid.requirement.lrs}):
            epochs = tuple(_epochs_cell(grid, run) for run in grid.runs_by_lr.get(lr, ()))
            rows.append(GridRow(name, lr, _note(grid, lr), epochs or ("not trained",)))
    return rows


def _note(grid: Grid, lr: float) -> str:
    if lr == grid.fastest_lr:
        reached = any(grid.epochs_taken(run) is not None for run in grid.fastest)
        return "fastest" if reached else "lowest error so far"
    return "within the spread of the fastest" if lr in grid.runs_by_lr and grid.as_fast(lr) else ""


def _epochs_cell(grid: Grid, run: Run) -> str | float:
    reached = grid.epochs_taken(run)
    if reached is not None:
        return reached
    return f"not in {len(run.log)}" if run.finished else f"not yet in {len(run.log)}"


def speed_pictures(records: Records) -> Iterable[Picture]:
    """Yield Figure 1 of each context."""
    for number, (context, nets) in enumerate(grids(records).items(), 1):
        yield _speed_picture("figure1" if number == 1 else f"figure1-{number}", context, nets)


def _speed_picture(name: str, context: Context, nets: Mapping[str, Grid]) -> Picture:
    until = next(iter(nets.values())).requirement.until_train_error
    ratio = ratio_sentence(nets)
    crossings = " ".join(_crossing_sentence(STYLES[net].label, grid) for net, grid in nets.items())
    caption = (
        f"Training error against epochs on {context.data.label} ({context.recipe} recipe, {context.scale.label}): the "
        f"four-layer net with ReLU (solid) and with tanh (dashed), each at the learning rate that reaches {until:g}% "
        f"first with seed 0; of the seeds that count, the others, the mean with the range shaded, thin lines the other "
        f"learning rates. {crossings} "
        f"{ratio}"
    )
    alt = f"Two curves that fall with the epochs. {ratio}"
    title = f"Recipe {context.recipe}, {context.scale.label}"
    return finish(_draw(nets, until), name, title, caption, alt, "figure-1", _draw(nets, until, narrow=True))


def _draw(nets: Mapping[str, Grid], until: float, narrow: bool = False) -> Figure:
    """Draw the errors of all nets; the legend is below the axes of a narrow figure."""
    figure = Figure(figsize=(NARROW, 4.4) if narrow else (WIDE, 4.6))
    axes = figure.add_axes((0.15, 0.35, 0.83, 0.63) if narrow else (0.085, 0.12, 0.9, 0.85))
    last = max(len(run.log) for grid in nets.values() for runs in grid.runs_by_lr.values() for run in runs)
    for number, (net, grid) in enumerate(nets.items()):
        _draw_other_rates(axes, grid, STYLES[net])
        _draw_mean(axes, grid, STYLES[net])
        _mark_crossing(axes, grid, STYLES[net], line=number, last=last)
    axes.axhline(until, color=INK, linewidth=0.9, dashes=(6, 3))
    axes.annotate(f"{until:g}%", (1, until), xycoords=("axes fraction", "data"), xytext=(0, 3),
                  textcoords="offset points", ha="right", fontsize=8.5)  # fmt: skip
    axes.set_xlim(0, last * 1.02)
    highest = max((max(train_errors(run)) for grid in nets.values() for run in grid.runs), default=0.0)
    axes.set_ylim(0, 80 if not highest > 79 else 100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epochs")
    axes.set_ylabel("training error, %")
    if narrow:
        figure.legend(handles=_handles(nets), loc="lower left", fontsize=8.5)
    else:
        axes.legend(handles=_handles(nets), loc="upper right", fontsize=8.5)
    return figure


def _draw_other_rates(axes: Axes, grid: Grid, style: NetStyle) -> None:
    for lr, runs in grid.runs_by_lr.items():
        if lr == grid.fastest_lr:
            continue
        for run in runs:
            epochs = range(1, len(run.log) + 1)
            axes.plot(epochs, train_errors(run), style.line, color=style.colour, linewidth=0.8, alpha=0.35)


def _draw_mean(axes: Axes, grid: Grid, style: NetStyle) -> None:
    """Draw the mean over seeds at the fastest learning rate, with the range shaded."""
    by_epoch = list(zip_longest(*(train_errors(run) for run in grid.runs), fillvalue=math.nan))
    epochs = range(1, len(by_epoch) + 1)
    means = [_mean(errors) for errors in by_epoch]
    axes.plot(epochs, means, style.line, color=style.colour, linewidth=2.2, marker="o" if len(means) == 1 else None)
    if len(grid.runs) > 1:
        lowest, highest = zip(*(_range(errors) for errors in by_epoch), strict=True)
        axes.fill_between(epochs, lowest, highest, color=style.colour, alpha=0.2, linewidth=0)


def _mark_crossing(axes: Axes, grid: Grid, style: NetStyle, line: int, last: int) -> None:
    """Mark where each run reaches the error, and their geometric mean on the axis, on line `line` of the labels."""
    reached, until = _crossings(grid), grid.requirement.until_train_error
    if not reached:
        return
    axes.plot(reached, [until] * len(reached), "o", color=style.colour, markersize=5, zorder=4, clip_on=False)
    mean = math.exp(_mean([math.log(epoch) for epoch in reached]))
    axes.plot([mean, mean], [0, until], color=style.colour, linewidth=0.9, linestyle=":")
    on_the_left = mean > 0.75 * last  # then there is no room on the right
    # One label above the other, however close the crossings are.
    axes.annotate(f"{style.label}: epoch {mean:.1f}", (mean, 0), xytext=(-4 if on_the_left else 4, 4 + 12 * line),
                  textcoords="offset points", ha="right" if on_the_left else "left", fontsize=8.5,
                  color=INK)  # fmt: skip


def _handles(nets: Mapping[str, Grid]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=STYLES[net].colour, linestyle=STYLES[net].line, linewidth=2.2,
               label=f"{STYLES[net].label}, learning rate {grid.fastest_lr:g}")
        for net, grid in nets.items()
    ]  # fmt: skip
    if any(len(grid.runs_by_lr) > 1 for grid in nets.values()):
        handles.append(Line2D([], [], color=INK, alpha=0.45, linewidth=0.8, label="the other learning rates"))
    if measured := speed_ratio(nets.get("cifar-tanh"), nets.get("cifar-relu")):
        handles.append(Line2D([], [], linestyle="", label=f"tanh takes {_short(measured)} the epochs"))
    return handles


def _crossings(grid: Grid) -> list[float]:
    return [epoch for run in grid.runs if (epoch := grid.epochs_taken(run)) is not None]


def _crossing_sentence(label: str, grid: Grid) -> str:
    reached, until = _crossings(grid), grid.requirement.until_train_error
    seeds = f"{len(grid.runs)} seed{'s' if len(grid.runs) > 1 else ''}"
    if not reached:
        longest = max(len(run.log) for run in grid.runs)
        return f"{label} has not reached {until:g}% in {longest} epoch{'s' if longest > 1 else ''} ({seeds})."
    if len(reached) < len(grid.runs):
        return f"{label} reached {until:g}% with {len(reached)} of {seeds}."
    span = " to ".join(dict.fromkeys(f"{each:.1f}" for each in (min(reached), max(reached))))
    return f"{label}: {span} epochs ({seeds})."


def ratio_sentence(nets: Mapping[str, Grid]) -> str:
    """Return a sentence with the ratio of tanh's epochs to ReLU's beside the paper's number."""
    measured = speed_ratio(nets.get("cifar-tanh"), nets.get("cifar-relu"))
    paper = f"in the paper it takes {find_target('figure1-relu-speed').value:g} times as many"
    if measured is None:
        return f"How many times as many epochs tanh takes is not known yet; {paper}."
    if measured.bound:
        side = "more" if measured.bound > 0 else "less"
        return f"tanh takes {side} than {measured.value:.1f} times as many epochs; {paper}."
    interval = ""
    if measured.interval:
        interval = f" (95% interval over seeds {measured.interval[0]:.1f} to {measured.interval[1]:.1f})"
    return f"tanh takes {measured.value:.1f} times as many epochs{interval}; {paper}."


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _range(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)] or [math.nan]
    return min(finite), max(finite)


def _short(measured: Measurement) -> str:
    sign = {1: "> ", -1: "< ", 0: ""}[measured.bound]
    interval = f" [{measured.interval[0]:.1f}, {measured.interval[1]:.1f}]" if measured.interval else ""
    return f"{sign}{measured.value:.1f}×{interval}"
