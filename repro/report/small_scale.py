"""What the small-scale reproduction decides: the direction of each claim on two sets of images (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from repro.paper.baselines import BASELINES
from repro.paper.targets import AGREES, DISAGREES, UNDECIDED, Measurement
from repro.paper.tolerances import MIN_SEEDS
from repro.report.claims import Claim
from repro.report.measurements.context import AT_CHANCE
from repro.report.measurements.pretraining import PRETRAINED_ON
from repro.report.table import Cell, Section, Table, columns

SETS = {"A": "imagenette", "B": "caltech100"}
SUPPORTED, CONTRADICTED = "supported", "contradicted"
NOTE = (
    "A is ten ImageNet classes, B 100 classes of Caltech-101. A claim is supported if its direction agrees with the "
    "paper's on one of the two and does not disagree on the other, and contradicted in the opposite case. One view "
    "decides, unless the claim is about views or only ten were measured; the paper's numbers are of ten, so that only "
    "directions can be compared. Intervals over seeds allow for the number of images too. Pre-training is done on the "
    "other set. Where an ingredient has no effect, one interval in twenty lies on one side of zero by chance."
)


def small_scale_table(claims: Sequence[Claim]) -> Table:
    """Return the claims that were measured on A or B, each with both directions and what they decide together."""
    body: list[list[Cell]] = []
    shown: set[tuple[Measurement | None, ...]] = set()
    for claim in claims:
        measured = [_measured_on(claim, dataset) for dataset in SETS.values()]
        found = [each for each in measured if each]
        measurements = tuple(each.measurement if each else None for each in measured)
        if found and measurements not in shown:  # two claims about different images can be one on these
            shown.add(measurements)
            directions = [f"{each.measured}, {_direction(each)}" if each else None for each in measured]
            samples = ", ".join(dict.fromkeys(each.sample for each in found))
            failures = [words for each in found for words in _failures(each)]
            decided = ", ".join((decision([_direction(each) for each in found]), *failures))
            body.append([claim.target.quantity, claim.target.section, claim.paper, *directions, samples, decided])
    heads = columns("Claim", "Sec.", "Paper", *(f"{name} [95% interval]" for name in SETS), "n", "At small scale")
    return Table("small-scale", "What the small scale decides", NOTE, heads, [Section("", body)])


def _direction(each: Claim) -> str:
    """Return the direction by the protocol, which asks for three seeds of the earlier methods too."""
    assert each.measurement
    seeds = each.measurement.n if each.measurement.over == "seeds" else 1
    return UNDECIDED if each.target.baseline in BASELINES and seeds < MIN_SEEDS else each.direction


def decision(directions: Collection[str]) -> str:
    """Return what the directions on all sets decide together."""
    agrees, disagrees = AGREES in directions, DISAGREES in directions
    if agrees == disagrees:
        return UNDECIDED
    return SUPPORTED if agrees else CONTRADICTED


def _measured_on(claim: Claim, dataset: str) -> Claim | None:
    """Return the claim with the measurement that counts on a set, by one view if there is one; None without."""
    planned = [each for each in (claim, *claim.others) if _planned(each, dataset)]
    one_view = [each for each in planned if each.scope and each.scope.views == 1]
    return next(iter(one_view or planned), None)


def _planned(each: Claim, dataset: str) -> bool:
    """Return whether a measurement is the protocol's: of unchanged runs, on validation images or during training."""
    measurement, scope = each.measurement, each.scope
    if not (measurement and scope and each.direction):
        return False
    return (
        measurement.data == dataset
        and measurement.recipe == "authors"
        and scope.scale == "small"
        and scope.split in (None, "val")
        and set(scope.changes) <= {*_failures(each), *_planned_pretraining(dataset)}
    )


def _planned_pretraining(dataset: str) -> list[str]:
    """Return, in words, the pre-training that the protocol plans for nets fine-tuned on a set: on the other one."""
    return [f"{PRETRAINED_ON} {other}" for other in SETS.values() if other != dataset]


def _failures(each: Claim) -> tuple[str, ...]:
    """Return how many runs have not learned, in words; they count like any other."""
    return tuple(words for words in (each.scope.changes if each.scope else ()) if words.endswith(AT_CHANCE))
