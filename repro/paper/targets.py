"""The paper's claims as stored targets, and the rule by which a measurement is compared with one.

The claims are in `paper_targets/*.toml`, fixed before any run: a `[[target]]` each, whose keys are the fields of
`Target`; `[defaults]` gives the keys that the targets of a file share. `deviations.toml` is the ledger of points where
the text, the authors' program and this toolkit differ.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from repro.errors import ReproError, unknown
from repro.formatting import number, unit_sign, with_unit
from repro.paper.baselines import BASELINES
from repro.paper.intervals import Interval, seeds_to_decide
from repro.paper.invariants import INVARIANTS
from repro.paper.tolerances import MIN_SEEDS, tolerance_of_errors
from repro.paper.variants import ENSEMBLES, members_of

KINDS = ("invariant", "value", "delta", "ratio", "direction")
RELATIONS = ("equal", "at least", "at most")

MATCH, MISMATCH, MISSING, NOT_COMPARABLE = "match", "mismatch", "missing", "not comparable"
VERDICTS = (MATCH, MISMATCH, MISSING, NOT_COMPARABLE)

AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Target:
    """One claim of the paper.

    Attributes:
        id: unique name.
        section: section of the paper.
        quantity: the claim in words.
        kind: an "invariant" follows from the net and the recipe alone; a "value" is a level, such as an error in
            percent; a "delta" is `variant` minus `baseline`, in points; a "ratio" is `variant` over `baseline`; a
            "direction" states only on which side of `value` the quantity lies (of `variant` minus `baseline`, if there
            is one).
        measure: what is measured.
        source: where the paper states it.
        value: the paper's number.
        unit: its unit.
        relation: whether the quantity equals `value`, or is "at least" or "at most" `value`.
        argument: detail of `measure`: a layer, an error level.
        variant: the net, ensemble or method.
        baseline: the net, ensemble or method that it is compared with, if any.
        dataset: dataset of a comparable run; None for an invariant.
        split: split of a comparable evaluation; None for quantities of training.
        views: views per image; None for quantities of training.
        baseline_views: views of the baseline, if the claim compares numbers of views.
        scale: scale of a comparable run.
        rounding: half a unit of the last printed digit, doubled if the number is a difference of two printed ones. The
            tolerance of an error, or of a difference of errors, is derived from it (`repro.paper.tolerances`).
        tolerance: largest distance of a match, in the unit of `value`, fixed beforehand. Given for quantities other
            than errors; derived for errors.
        tolerance_reason: where the tolerance comes from.
        authors: the same quantity in the notes of the authors' program, to more digits.
        published_by_others: the paper quotes the number from others. A run of the method here is shown beside it, and
            never judged by it.
        known_contradiction: the paper contradicts the claim; a mismatch passes a strict check.
        explanation: what the quantity is, or how the paper contradicts it.
    """

    id: str
    section: str
    quantity: str
    kind: str
    measure: str
    source: str
    value: float
    unit: str = ""
    relation: str = "equal"
    argument: str = ""
    variant: str = "alexnet"
    baseline: str | None = None
    dataset: str | None = None
    split: str | None = None
    views: int | None = None
    baseline_views: int | None = None
    scale: str = "paper"
    rounding: float | None = None
    tolerance: float | None = None
    tolerance_reason: str = ""
    authors: float | None = None
    published_by_others: bool = False
    known_contradiction: bool = False
    explanation: str = ""

    @property
    def scope(self) -> Scope | None:
        """Where a measurement must come from to be comparable; None for an invariant."""
        return Scope(self.dataset, self.split, self.views, self.scale) if self.dataset else None

    @property
    def claimed(self) -> str:
        """The paper's value as text with its unit, and with a sign if it is a bound."""
        signs = ("> ", "< ") if self.kind == "direction" else ("≥ ", "≤ ")
        sign = {"equal": "", "at least": signs[0], "at most": signs[1]}[self.relation]
        decimals = 1 if self.rounding is not None and 0 < self.rounding < 0.5 else None  # as printed: 17.0, but 13
        return sign + with_unit(number(self.value, decimals), self.unit)

    @property
    def noted(self) -> str:
        """The value in the authors' notes as text; empty if they recorded none."""
        return "" if self.authors is None else number(self.authors, None) + unit_sign(self.unit)

    @property
    def no_effect(self) -> float | None:
        """The value that separates the paper's side from the other: no effect. None where a level has no sides."""
        return {"delta": 0.0, "ratio": 1.0, "direction": self.value}.get(self.kind)

    @property
    def side(self) -> int:
        """+1 if the paper states that the quantity is above `no_effect`, else −1."""
        if self.kind == "direction":
            return 1 if self.relation == "at least" else -1
        return 1 if self.no_effect is None or self.value > self.no_effect else -1

    @property
    def within_net(self) -> bool:
        """Whether variant and baseline are the same net, or one is an ensemble that contains the other."""
        nets = {self.variant, self.baseline}
        contained = any(name in nets and nets <= {name, *dict(members_of(name))} for name in ENSEMBLES)
        return len(nets) == 1 or contained

    @property
    def min_seeds(self) -> int:
        """Number of seeds of each net without which the claim is undecided.

        A difference of two nets can be attributed to what distinguishes them only if both were trained from several
        seeds. Differences within one net, and from a method that is no net, are decided by the images, and times by
        the epochs.
        """
        between_nets = self.baseline is not None and not self.within_net and self.baseline not in BASELINES
        return MIN_SEEDS if between_nets and self.measure != "seconds_per_epoch" else 1


@dataclass(frozen=True)
class Scope:
    """What a number was measured on. Two numbers are comparable if their scopes are equal.

    Attributes:
        dataset: name of the dataset.
        split: split of the dataset; None for quantities of training.
        views: views per image; None for quantities of training.
        scale: name of the scale.
        changes: what differs from the dataset's, the recipe's or the scale's specification, in words.
    """

    dataset: str
    split: str | None
    views: int | None
    scale: str
    changes: tuple[str, ...] = ()

    @property
    def scale_label(self) -> str:
        """The scale and what was changed: "small scale, 10 epochs"."""
        return ", ".join((f"{self.scale} scale", *self.changes))

    def __str__(self) -> str:
        views = f"{self.views} view{'s' if self.views != 1 else ''}" if self.views else ""
        return ", ".join(filter(None, (self.dataset, self.split or "training", views, self.scale_label)))


@dataclass(frozen=True)
class Measurement:
    """A quantity as measured.

    Attributes:
        value: the quantity.
        interval: its 95% confidence interval; None if unknown.
        n: number of what the interval is over; of two nets, the smaller number.
        over: what the interval covers: "seeds" for any training of the recipe, "images", "kernels" or "epochs" for
            these runs only; "computed" or "counted" for exact numbers.
        scope: what it was measured on.
        recipe: recipe of the runs.
        where: the data in words.
        runs: names of the runs.
        bound: the quantity was not reached in training: it lies above `value` (1) or below it (−1).
        deviation: standard deviation over seeds: of a level that of one net, of a difference that of one net minus the
            other, of a ratio that of its logarithm. None without seeds.
        image_error: standard error from the sampling of the images, over which seeds do not help.
    """

    value: float
    interval: Interval | None = None
    n: int = 1
    over: str = "runs"
    scope: Scope | None = None
    recipe: str = ""
    where: str = ""
    runs: tuple[str, ...] = ()
    bound: int = 0
    deviation: float | None = None
    image_error: float = 0.0

    @property
    def data(self) -> str:
        """The data without its number of classes: "imagenette"."""
        return self.where.partition(" (")[0]


@dataclass(frozen=True)
class Needed:
    """What would decide an undecided claim if the measured value is true: `n` seeds of each net, or `n` images."""

    n: int
    over: str

    def __str__(self) -> str:
        return f"{self.n:,} {self.over}{' of each net' if self.over == 'seeds' else ''}"


@dataclass(frozen=True)
class Verdict:
    """The result of comparing a measurement with a target.

    Attributes:
        target: the claim.
        verdict: one of `VERDICTS`.
        direction: whether the effect agrees with the paper where the verdict is "not comparable"; "undecided" also
            where a comparable measurement leaves open whether there is an effect at all. Else None.
        measurement: what was measured, if anything.
        reason: why, in words.
        needed: what would decide an undecided effect; None if nothing is undecided, or no number of seeds would do.
    """

    target: Target
    verdict: str
    direction: str | None
    measurement: Measurement | None
    reason: str
    needed: Needed | None = None

    @property
    def fails_strict(self) -> bool:
        """Whether a strict check fails: a mismatch that contradictions within the paper do not explain."""
        return self.verdict == MISMATCH and not self.target.known_contradiction


@dataclass(frozen=True)
class Deviation:
    """A point where the text, the authors' program and this toolkit differ, or the text is silent.

    Attributes:
        id: unique name.
        topic: what it is about.
        section: section of the paper.
        paper: what the text states.
        authors: what the authors' program does.
        repro: what this toolkit does, by recipe; "both" where the recipes do the same.
        why: the reason.
        effect: the measured effect of the difference; empty if it was not measured.
    """

    id: str
    topic: str
    section: str
    paper: str
    authors: str
    repro: Mapping[str, str]
    why: str
    effect: str = ""


def compare(target: Target, measurement: Measurement | None) -> Verdict:
    """Return the verdict on `target`.

    - `not comparable`: the measurement's scope is not the target's. The direction of an effect `agrees` if the whole
      interval lies on the paper's side of no effect (0 for a delta, 1 for a ratio, the value of a direction),
      `disagrees` if it lies on the other side, else it is `undecided`.
    - `missing`: there is no finite measurement; or only a bound was measured, and values within the tolerance lie
      beyond it; or the effect is undecided: the interval contains no effect, or a difference of two nets was measured
      with fewer than `Target.min_seeds` seeds of each. The direction is then `undecided`.
    - `match`: the value is within the tolerance of the paper's, or passes a bound by no less than −tolerance; and for a
      delta, ratio or direction, the whole interval lies on the paper's side of no effect.
    - `mismatch`: otherwise.

    Raises ValueError for numbers that were published by others.
    """
    if target.published_by_others:
        raise ValueError(f"{target.id} was published by others and is never measured")
    if measurement is None or not math.isfinite(measurement.value):
        reason = "no run has measured it" if measurement is None else "the records contain no finite number"
        return Verdict(target, MISSING, None, None, reason)
    direction = _direction(target, measurement)
    needed = _needed(target, measurement) if direction == UNDECIDED else None
    if measurement.scope != target.scope:
        reason = f"measured on {measurement.scope}; the claim is about {target.scope}"
        if target.no_effect is None:
            reason += "; a level measured elsewhere is no evidence for it"
        elif direction == UNDECIDED:
            reason += f"; {_undecided_reason(target, measurement, needed)}"
        return Verdict(target, NOT_COMPARABLE, direction, measurement, reason, needed)
    if target.min_seeds > _seeds(measurement):
        reason = _undecided_reason(target, measurement, needed)
        return Verdict(target, MISSING, UNDECIDED, measurement, reason, needed)
    if target.kind == "direction":
        if direction == UNDECIDED:
            reason = _undecided_reason(target, measurement, needed)
            return Verdict(target, MISSING, UNDECIDED, measurement, reason, needed)
        verdict = MATCH if direction == AGREES else MISMATCH
        return Verdict(target, verdict, None, measurement, f"the whole interval {direction} with the paper")
    return _compare_value(target, measurement, direction, needed)


def _compare_value(target: Target, measurement: Measurement, direction: str, needed: Needed | None) -> Verdict:
    """Return the verdict on a number of the paper, from a comparable measurement."""
    assert target.tolerance is not None
    excess = measurement.value - target.value
    if measurement.bound and excess * measurement.bound <= target.tolerance:
        side = "above" if measurement.bound > 0 else "below"
        reason = f"known only to lie {side} {measurement.value:,.4g}: train for more epochs"
        return Verdict(target, MISSING, None, measurement, reason)
    distance = {"equal": abs(excess), "at least": -excess, "at most": excess}[target.relation]
    # Decimal numbers as printed: 0.3 is within 0.1 of 0.4.
    if distance > target.tolerance + 1e-9:
        verdict = MISMATCH
    elif target.no_effect is None or direction == AGREES:
        verdict = MATCH
    elif direction == UNDECIDED:
        reason = _undecided_reason(target, measurement, needed)
        return Verdict(target, MISSING, UNDECIDED, measurement, reason, needed)
    else:
        verdict = MISMATCH
    if verdict == MISMATCH and target.known_contradiction:
        reason = target.explanation
    elif target.relation == "equal":
        reason = f"{abs(excess):,.4g} from the paper's; tolerance {target.tolerance:,g}" if excess else "the same"
        if measurement.interval and not measurement.interval[0] <= target.value <= measurement.interval[1]:
            reason += "; the interval excludes the paper's value"
    else:
        reason = f"{measurement.value:,.4g} where the paper states {target.relation} {target.value:,g}"
    return Verdict(target, verdict, None, measurement, reason)


def _seeds(measurement: Measurement) -> int:
    """Return the number of seeds of each net; 1 for an interval over anything else."""
    return measurement.n if measurement.over == "seeds" else 1


def _direction(target: Target, measurement: Measurement) -> str:
    if target.no_effect is None or measurement.interval is None or not all(map(math.isfinite, measurement.interval)):
        return UNDECIDED
    if target.min_seeds > _seeds(measurement):
        return UNDECIDED
    low, high = measurement.interval
    if low <= target.no_effect <= high:
        return UNDECIDED
    return AGREES if (low > target.no_effect) == (target.side > 0) else DISAGREES


def _undecided_reason(target: Target, measurement: Measurement, needed: Needed | None) -> str:
    seeds = _seeds(measurement)
    if target.min_seeds > seeds:
        nets = "one net of each kind" if seeds == 1 else f"{seeds} nets of each kind"
        reason = f"{nets} measured: the difference may be due to their seeds"
    else:
        reason = f"the interval includes {target.no_effect:g}, no effect"
    return f"{reason}; undecided" + (f" with fewer than {needed}" if needed else "")


def _needed(target: Target, measurement: Measurement) -> Needed | None:
    """Return what would decide an undecided effect if the measured value is true."""
    if target.no_effect is None or measurement.bound:
        return None
    value, no_effect = measurement.value, target.no_effect
    if target.kind == "ratio":
        value, no_effect = math.log(value), math.log(no_effect)
    distance = abs(value - no_effect)
    if target.min_seeds > 1 or measurement.over == "seeds":
        if measurement.deviation is None:
            return Needed(target.min_seeds, "seeds")
        least = 1 + max(_seeds(measurement), 1)
        count = seeds_to_decide(distance, measurement.deviation, measurement.image_error, least)
        return Needed(max(count, target.min_seeds), "seeds") if count else None
    if measurement.interval is None or measurement.over != "images" or distance == 0:
        return None
    half = (measurement.interval[1] - measurement.interval[0]) / 2
    return Needed(math.ceil(measurement.n * (half / distance) ** 2), "images")


def compute(target: Target) -> Measurement:
    """Return the value of an invariant, computed from the paper's network and recipe."""
    return Measurement(INVARIANTS[target.measure](target.argument), over="computed")


@cache
def load_targets(folder: Path | None = None) -> tuple[Target, ...]:
    """Return every target, by file name and line. Raises ReproError for a faulty one."""
    targets: dict[str, Target] = {}
    for path in sorted((folder or _targets_folder()).glob("*.toml")):
        if path.name == "deviations.toml":
            continue
        content = _read(path, "target", "defaults")
        for entry in content.get("target", []):
            target = _with_tolerance(_build(Target, {**content.get("defaults", {}), **entry}, path))
            if target.id in targets:
                raise ReproError(f"{path.name}: the target id '{target.id}' is used twice; ids must be unique")
            _check(target, path)
            targets[target.id] = target
    return tuple(targets.values())


def count_verdicts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Return the number of verdicts of each kind, in the order of `VERDICTS`."""
    counts = Counter(each.verdict for each in verdicts)
    return {word: counts[word] for word in VERDICTS}


@cache
def load_deviations() -> tuple[Deviation, ...]:
    """Return the ledger of deviations in its order. Raises ReproError for a faulty entry."""
    path = _targets_folder() / "deviations.toml"
    entries = _read(path, "deviation").get("deviation", [])
    return tuple(_build(Deviation, entry, path) for entry in entries)


def find_target(name: str) -> Target:
    """Return the target of that id. Raises ReproError with similar ids if there is none."""
    targets = {target.id: target for target in load_targets()}
    if name not in targets:
        raise unknown("target", name, targets)
    return targets[name]


def _with_tolerance(target: Target) -> Target:
    """Return the target with the tolerance that its rounding implies, if that is given."""
    if target.rounding is None or target.tolerance is not None:
        return target
    tolerance, reason = tolerance_of_errors(target)
    return dataclasses.replace(target, tolerance=tolerance, tolerance_reason=reason)


def _targets_folder() -> Path:
    """Return `paper_targets/`: inside the package when installed from a wheel, beside it in a clone."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "paper_targets", package.parent / "paper_targets"):
        if (folder / "deviations.toml").is_file():
            return folder
    raise ReproError(f"no paper_targets/ in {package} or beside it: install repro again, or run it from its clone")


def _read(path: Path, *tables: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ReproError(f"{path.name} cannot be read: {error}") from error
    for key in content:
        if key not in tables:
            raise ReproError(f"{path.name}: {unknown('table', key, tables)}")
    return content


def _build(kind: type[Entry], content: Mapping[str, Any], path: Path) -> Entry:
    """Return a `kind` from a TOML table; unknown keys, missing keys and values of a wrong type are refused."""
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    where = f"{path.name}: {content.get('id', 'an entry without id')}"
    for key in content:
        if key not in known:
            raise ReproError(f"{where}: {unknown('key', key, known)}")
    missing = [name for name, field in known.items() if field.default is dataclasses.MISSING and name not in content]
    if missing:
        raise ReproError(f"{where}: {' and '.join(missing)} must be given")
    try:
        msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        key = re.split(r"[.\[`]", place)[0]
        raise ReproError(f"{where}: {key} = {content.get(key)!r} has the wrong type: {reason}") from error
    return kind(**content)  # not the converted one: numbers are shown as they are typed, 5 and not 5.0


def _check(target: Target, path: Path) -> None:
    """Check the rules that hold between the fields of a target."""

    def demand(holds: bool, rule: str) -> None:
        if not holds:
            raise ReproError(f"{path.name}: {target.id}: {rule}")

    demand(target.kind in KINDS, f"kind '{target.kind}' is not one of {', '.join(KINDS)}")
    demand(target.relation in RELATIONS, f"relation '{target.relation}' is not one of {', '.join(RELATIONS)}")
    if target.kind == "invariant":
        demand(target.measure in INVARIANTS, f"'{target.measure}' is not among the computed invariants")
        demand(target.dataset is None, "an invariant has no dataset")
    else:
        demand(target.dataset is not None, "dataset must be given")
        demand((target.split is None) == (target.views is None), "split and views go together")
    if target.kind in ("delta", "ratio"):
        demand(target.baseline is not None, f"a {target.kind} needs a baseline")
    if target.kind == "direction":
        demand(target.relation != "equal", "a direction is 'at least' or 'at most' its value")
        demand(target.tolerance is None, "a direction has no tolerance: its interval decides")
    elif not target.published_by_others:
        demand(
            target.tolerance is not None and target.tolerance >= 0, "tolerance must be given, or rounding for errors"
        )
        demand(bool(target.tolerance_reason), "tolerance_reason must be given")
    if target.known_contradiction:
        demand(bool(target.explanation), "a known contradiction needs an explanation")
