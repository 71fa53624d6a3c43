"""What the kernels of conv1 show (Sec. 6.1, Figure 3)."""

from __future__ import annotations

from repro.paper.intervals import error_interval, welch_interval
from repro.paper.targets import Measurement
from repro.records.runs import Run
from repro.report.measurements.filters import colourfulness, oriented, towers


def tower_colour_difference(run: Run, _: str) -> Measurement | None:
    """Return the difference of the towers' mean colourfulness, larger minus smaller; None with fewer than 4 kernels."""
    kernels = run.conv1()
    if kernels is None or len(kernels) < 4:
        return None
    first, second = (colourfulness(tower) for tower in towers(kernels))
    if first.mean() < second.mean():  # which tower becomes the colourful one varies from run to run (Sec. 6.1)
        first, second = second, first
    difference = float(first.mean() - second.mean())
    interval = welch_interval(first.tolist(), second.tolist())
    return Measurement(difference, interval, len(kernels), "kernels", runs=(run.name,))


def oriented_share(run: Run, _: str) -> Measurement | None:
    """Return the share of kernels that have an orientation, in percent."""
    kernels = run.conv1()
    if kernels is None:
        return None
    count = int(oriented(kernels).sum())
    interval = error_interval(count, len(kernels))
    return Measurement(100 * count / len(kernels), interval, len(kernels), "kernels", runs=(run.name,))
