"""All figures of a report, drawn from records."""

from __future__ import annotations

from itertools import islice

from repro.records.runs import Records
from repro.report.figures.confusion import confusion_pictures
from repro.report.figures.curves import curve_pictures
from repro.report.figures.effects import effect_pictures
from repro.report.figures.figure1 import speed_pictures
from repro.report.figures.figure2 import net_pictures
from repro.report.figures.figure3 import kernel_pictures
from repro.report.figures.figure4 import retrieval_pictures
from repro.report.figures.style import Picture, figure_style

MOST_PICTURES = 6  # of a kind: of thousands of runs, more would be large and not looked at
MOST_CURVES = 4  # pictures of training curves: the page's chart draws those of any run


class Pictures(tuple[Picture, ...]):
    """Figures in order, which a notebook shows below each other."""

    def _repr_html_(self) -> str:
        return "".join(picture.html for picture in self)


def draw_figures(records: Records) -> Pictures:
    """Return the effects on the top-1 error, the paper's figures in its order, and the training curves of each dataset.

    Figure 2 is followed by the other nets that were run; Figure 3 is of the first `alexnet` run of each recipe,
    dataset and scale; Figure 4 is followed by the confused classes of each dataset. Of each kind at most six are
    drawn, of curves four: those of the data and scale that count most.
    """
    kinds = (
        effect_pictures(records),
        speed_pictures(records),
        net_pictures(records),
        kernel_pictures(records),
        retrieval_pictures(records),
        confusion_pictures(records),
        islice(curve_pictures(records), MOST_CURVES),
    )
    with figure_style():
        return Pictures(picture for pictures in kinds for picture in islice(pictures, MOST_PICTURES))
