"""Pre-training: where the runs that a net started from differ from those of the paper (Sec. 6)."""

from __future__ import annotations

from repro.errors import ReproError
from repro.paper.variants import VARIANTS
from repro.records.runs import Records, Run
from repro.report.measurements.context import data_changes, fine_tuned, run_scale, specified

PRETRAINED_ON = "pre-trained on"


def pretraining_changes(run: Run, records: Records) -> tuple[str, ...]:
    """Return, in words, what differs in the pre-training that the variant of a run requires, over the whole chain.

    The runs of the chain are found among the records by the checksums of their weights. Empty for a net that starts
    from random weights, and for one whose user chose to fine-tune it, which its context says.
    """
    words: list[str] = []
    while run.init_from and not fine_tuned(run):
        before = records.origin(run)
        if before is None:
            words.append("pre-training not recorded")
            break
        words += _changes(run, before)
        run = before
    return tuple(dict.fromkeys(words))


def _changes(run: Run, before: Run) -> list[str]:
    """Return how the run that `run` started from differs from the one that its variant starts from."""
    words = []
    try:
        expected = specified(run.variant, run.recipe, run.scale, run.data.dataset).starts_from
    except ReproError:  # recorded by another version
        expected = None
    if expected and before.variant != expected:
        words.append(f"starting from {before.variant}")
    if before.variant in VARIANTS and before.data.dataset != VARIANTS[before.variant].dataset:
        words.append(f"{PRETRAINED_ON} {before.data.label}")
    words += [f"pre-trained with {change}" for change in (*run_scale(before).changes, *data_changes(before.data))]
    return words
