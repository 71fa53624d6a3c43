"""Figure 1: how soon ReLU and tanh come to 25% training error, each at the rate that is fastest for it (Sec. 3.1)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from repro.paper.targets import Measurement, find_target
from repro.report.figures.style import COLOURS, INK, Picture, finish
from repro.report.measure import Context, Grid, context_of, grid, precedence, speed_ratio, train_errors
from repro.report.records import Records, Run

# As in the paper: ReLU solid, tanh dashed.
LINES: dict[str, tuple[str, Literal["-", "--"], str]] = {
    "cifar-relu": ("ReLU", "-", COLOURS[0]),
    "cifar-tanh": ("tanh", "--", COLOURS[1]),
}


def grids(records: Records) -> dict[Context, dict[str, Grid]]:
    """The grids of Figure 1's nets by recipe, data set and scale."""
    runs: dict[Context, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in records.runs:
        if run.variant in LINES:
            runs[context_of(run)][run.variant].append(run)
    found = {}
    for context in sorted(runs, key=precedence):
        nets = {name: each for name in LINES if (each := grid(runs[context][name]))}
        if nets:
            found[context] = nets
    return found


def epochs_taken(each: Grid, run: Run) -> str | float:
    """The epoch at which a run comes to the error; in words if it does not."""
    reached = each.crossing(run)
    if reached is not None:
        return reached
    count = len(run.log)
    return f"not in {count}" if run.finished else f"not yet in {count}"


def grid_rows(nets: Mapping[str, Grid]) -> list[tuple[str, float, str, list[str | float]]]:
    """Net, rate, whether it is the fastest, and the epochs to the error by seed; declared rates without a run too."""
    rows = []
    for name, each in nets.items():
        for rate in sorted({*each.rates, *each.need.lrs}):
            runs = each.rates.get(rate, ())
            chosen = "fastest" if rate == each.fastest_lr else ""
            rows.append((name, rate, chosen, [epochs_taken(each, run) for run in runs] or ["not trained"]))
    return rows


def speed_pictures(records: Records) -> Iterable[Picture]:
    """Figure 1 of each data set and scale."""
    for number, (context, nets) in enumerate(grids(records).items(), 1):
        name = "figure1" if number == 1 else f"figure1-{number}"
        yield _speed_picture(name, context, nets)


def _speed_picture(name: str, context: Context, nets: Mapping[str, Grid]) -> Picture:
    figure = Figure(figsize=(7.4, 4.6))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.12, 0.9, 0.85))
    until = next(iter(nets.values())).need.until_train_error
    last = max(len(run.log) for each in nets.values() for runs in each.rates.values() for run in runs)
    handles, words = [], []
    for number, (net, each) in enumerate(nets.items()):
        label, style, colour = LINES[net]
        for rate, runs in each.rates.items():
            if rate != each.fastest_lr:
                for run in runs:
                    axes.plot(
                        range(1, len(run.log) + 1), train_errors(run), style, color=colour, linewidth=0.8, alpha=0.35
                    )
        courses = [train_errors(run) for run in each.runs]
        means = [_mean(epoch) for epoch in zip_longest(*courses, fillvalue=math.nan)]
        epochs = range(1, len(means) + 1)
        axes.plot(epochs, means, style, color=colour, linewidth=2.2, marker="o" if len(means) == 1 else None)
        if len(courses) > 1:
            low, high = zip(*(_range(epoch) for epoch in zip_longest(*courses, fillvalue=math.nan)), strict=True)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        handles.append(
            Line2D([], [], color=colour, linestyle=style, linewidth=2.2, label=f"{label}, rate {each.fastest_lr:g}")
        )
        reached = [epoch for run in each.runs if (epoch := each.crossing(run)) is not None]
        if reached:
            axes.plot(reached, [until] * len(reached), "o", color=colour, markersize=5, zorder=4, clip_on=False)
            mean = math.exp(_mean([math.log(epoch) for epoch in reached]))
            axes.plot([mean, mean], [0, until], color=colour, linewidth=0.9, linestyle=":")
            late = mean > 0.75 * last  # then there is no room on the right
            axes.annotate(f"{label}: epoch {mean:.1f}", (mean, 0),
                          xytext=(-4 if late else 4, 4 + 12 * number),  # one above the other, however near they are
                          textcoords="offset points", ha="right" if late else "left", fontsize=8.5,
                          color=INK)  # fmt: skip
        words.append(_words(label, each, reached))
    if any(len(each.rates) > 1 for each in nets.values()):
        handles.append(Line2D([], [], color=INK, alpha=0.45, linewidth=0.8, label="the other rates"))
    measured = speed_ratio(nets.get("cifar-tanh"), nets.get("cifar-relu"))
    if measured:
        handles.append(Line2D([], [], linestyle="", label=f"tanh takes {_short(measured)} the epochs"))
    axes.axhline(until, color=INK, linewidth=0.9, dashes=(6, 3))
    axes.annotate(f"{until:g}%", (1, until), xycoords=("axes fraction", "data"), xytext=(0, 3),
                  textcoords="offset points", ha="right", fontsize=8.5)  # fmt: skip
    axes.set_xlim(0, last * 1.02)
    worst = max((max(train_errors(run)) for each in nets.values() for run in each.runs), default=0.0)
    axes.set_ylim(0, 80 if not worst > 79 else 100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epochs")
    axes.set_ylabel("training error, %")
    axes.legend(handles=handles, loc="upper right", fontsize=8.5)
    ratio = ratio_words(nets)
    caption = (
        f"Training error against epochs on {context.data.label} ({context.recipe} recipe, {context.scale} scale): the "
        f"four-layer net with ReLU (solid) and with tanh (dashed), each at the rate that brings it to {until:g}% "
        f"soonest; of several seeds the mean with the range shaded, thin lines the other rates. {' '.join(words)} "
        f"{ratio}"
    )
    return finish(
        figure, name, "Figure 1: ReLU against tanh", caption, f"Two curves that fall with the epochs. {ratio}"
    )


def _words(label: str, each: Grid, reached: Sequence[float]) -> str:
    seeds = f"{len(each.runs)} seed{'s' if len(each.runs) > 1 else ''}"
    if not reached:
        longest = max(len(run.log) for run in each.runs)
        return f"{label} has not come to {each.need.until_train_error:g}% in {longest} epochs ({seeds})."
    if len(reached) < len(each.runs):
        return f"{label} came to {each.need.until_train_error:g}% from {len(reached)} of {seeds}."
    span = f"{min(reached):.1f} to {max(reached):.1f}" if len(reached) > 1 else f"{reached[0]:.1f}"
    return f"{label}: {span} epochs ({seeds})."


def ratio_words(nets: Mapping[str, Grid]) -> str:
    """How many times as long tanh takes, beside the paper's number, in one sentence."""
    measured = speed_ratio(nets.get("cifar-tanh"), nets.get("cifar-relu"))
    paper = f"the paper's are {find_target('figure1-relu-speed').value:g}"
    if measured is None:
        return f"How many times as long tanh takes is not known yet; {paper}."
    if measured.bound:
        side = "more" if measured.bound > 0 else "less"
        return f"tanh takes {side} than {measured.value:.1f} times as many epochs; {paper}."
    spread = ""
    if measured.interval:
        spread = f" (95% interval over seeds {measured.interval[0]:.1f} to {measured.interval[1]:.1f})"
    return f"tanh takes {measured.value:.1f} times as many epochs{spread}; {paper}."


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _range(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)] or [math.nan]
    return min(finite), max(finite)


def _short(measured: Measurement) -> str:
    sign = {1: "> ", -1: "< ", 0: ""}[measured.bound]
    spread = f" [{measured.interval[0]:.1f}, {measured.interval[1]:.1f}]" if measured.interval else ""
    return f"{sign}{measured.value:.1f}×{spread}"
