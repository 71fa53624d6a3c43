"""The picture that a link to the report shows on other sites: the first rows of its first table."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.report.figures.style import INK, figure_style
from repro.report.summary import SummaryGroup, SummaryRow

FILE = "preview.png"
SIZE = (1200, 630)  # pixels, what Open Graph pictures have
MOST_ROWS = 6
SOFT, GROUND = "#625c52", "#fbf9f4"
LEFT, PAPER, HERE, RIGHT = 0.06, 0.5, 0.66, 0.94  # columns, as shares of the width


def draw_preview(groups: Sequence[SummaryGroup], counts: Mapping[str, int]) -> bytes:
    """Return the picture as PNG: measured rows first, and the number of claims by verdict."""
    rows = [(group, row) for group in groups for row in group.rows if row.needs_run]
    rows.sort(key=lambda each: not _measured(each[1]))
    with figure_style():
        figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), facecolor=GROUND)
        figure.text(LEFT, 0.86, "AlexNet, compared with its paper", fontsize=32, va="center")
        heads = ((LEFT, "Claim"), (PAPER, "Paper"), (HERE, "Here, with 95% interval"))
        for x, text in heads:
            figure.text(x, 0.74, text, fontsize=15, color=SOFT, va="center")
        for index, (group, row) in enumerate(rows[:MOST_ROWS]):
            y = 0.655 - 0.083 * index
            figure.add_artist(Line2D((LEFT, RIGHT), (y + 0.042, y + 0.042), color=INK, linewidth=0.5))
            figure.text(LEFT, y, f"{group.title} — {row.label}", fontsize=17, va="center")
            figure.text(PAPER, y, " / ".join(row.paper), fontsize=17, va="center")
            here = " / ".join(row.here) if _measured(row) else "—"
            figure.text(HERE, y, here, fontsize=17 if len(here) < 24 else 13, weight="bold", va="center")
        words = "   ·   ".join(f"{count} {verdict}" for verdict, count in counts.items())
        figure.text(LEFT, 0.09, words, fontsize=17, color=SOFT, va="center")
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=100, facecolor=GROUND, metadata={"Software": None})
    return png.getvalue()


def _measured(row: SummaryRow) -> bool:
    return any(each != "—" for each in row.here)
