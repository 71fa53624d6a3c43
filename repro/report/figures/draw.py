"""All figures of a report, drawn from records."""

from __future__ import annotations

from repro.records import Records
from repro.report.figures.curves import curve_pictures
from repro.report.figures.figure1 import speed_pictures
from repro.report.figures.figure2 import net_pictures
from repro.report.figures.figure3 import kernel_pictures
from repro.report.figures.figure4 import retrieval_pictures
from repro.report.figures.style import Picture, figure_style


def draw_figures(records: Records) -> list[Picture]:
    """Return the paper's figures in its order, then the training curves of each dataset.

    Figure 2 is followed by the other nets that were run; Figure 3 is of the first `alexnet` run of each recipe,
    dataset and scale.
    """
    with figure_style():
        return [
            *speed_pictures(records),
            *net_pictures(records),
            *kernel_pictures(records),
            *retrieval_pictures(records),
            *curve_pictures(records),
        ]
