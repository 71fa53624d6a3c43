"""The paper's claims as stored targets, and the rule by which a measurement is held against one.

The claims stand in `paper_targets/*.toml`, fixed before any run: a `[[target]]` each, whose keys are the fields
of `Target`; `[defaults]` gives the keys that a file's targets share. `deviations.toml` is the ledger of points
where the text, the authors' program and this toolkit differ.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from repro.errors import ReproError, unknown
from repro.paper.intervals import Interval, seed_factor
from repro.paper.invariants import INVARIANTS

KINDS = ("invariant", "value", "delta", "ratio", "direction")
RELATIONS = ("equal", "at least", "at most")

MATCH, MISMATCH, MISSING, NOT_COMPARABLE = "match", "mismatch", "missing", "not comparable"
VERDICTS = (MATCH, MISMATCH, MISSING, NOT_COMPARABLE)

AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Target:
    """One claim of the paper.

    `kind`: an *invariant* follows from the net and the recipe alone; a *value* is a level, such as an error in
    percent; a *delta* is `variant` minus `baseline`, in points; a *ratio* is `variant` over `baseline`; a
    *direction* says only on which side of `value` the quantity (of `variant` minus `baseline`, if there is
    one) lies. `measure` names what is measured, `argument` its detail (a layer, an error level).

    The claim is comparable with a run on `dataset`, `split`, `views` at `scale` only; `split` and `views` are
    absent where the quantity is one of training. `baseline_views` differs from `views` only where the views
    are what is compared. `relation` says whether the quantity equals `value` or is bounded by it.

    `tolerance`, in the unit of `value`, was fixed beforehand for `tolerance_reason`. `authors` is the same
    quantity in the authors' own runs, to more digits. `published_by_others` marks rows that the paper quotes:
    they are never measured. `known_contradiction` marks claims that the paper itself contradicts:
    `explanation` says how; they come out as `mismatch`, but a strict check lets them pass.
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
    def line(self) -> float | None:
        """The value that tells the paper's side from the other: no effect. None where a level has no sides."""
        return {"delta": 0.0, "ratio": 1.0, "direction": self.value}.get(self.kind)

    @property
    def side(self) -> int:
        """+1 if the paper says that the quantity is above `line`, else −1."""
        if self.kind == "direction":
            return 1 if self.relation == "at least" else -1
        return 1 if self.line is None or self.value > self.line else -1


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
    """One quantity as measured: its value, 95% interval (None: unknown), and the `n` of what it is `over`.

    `over` is what the interval speaks for: "seeds" for the recipe, "images" or "kernels" for the one run.
    `where` names the data for people. `bound`: the true value was not reached; it lies above `value` (1) or
    below it (−1).
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

    @property
    def deviation(self) -> float | None:
        """Over seeds the standard deviation, as the t interval of their mean implies it; None for all else."""
        if self.over != "seeds" or self.interval is None or self.n < 2:
            return None
        return (self.interval[1] - self.interval[0]) / 2 / seed_factor(self.n)


@dataclass(frozen=True)
class Verdict:
    """What a measurement says of a target, and why. `direction` is set where the two are not comparable."""

    target: Target
    verdict: str
    direction: str | None
    measurement: Measurement | None
    reason: str

    @property
    def fails_strict(self) -> bool:
        """A mismatch that the paper's own contradictions do not explain."""
        return self.verdict == MISMATCH and not self.target.known_contradiction


@dataclass(frozen=True)
class Deviation:
    """One point where the text, the authors' program and this toolkit differ, or the text is silent.

    `repro` says what this toolkit does, by recipe ("both" where the recipes do the same). `effect` is what the
    difference was measured to do; empty if it was not measured.
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
    """The verdict on `target`.

    - `missing`: there is no finite measurement; or the target is a direction, the scope is the target's, and
      the interval holds the line, so that more seeds or images are what is missing; or only a bound was measured,
      and values within the tolerance lie beyond it.
    - `not comparable`: the measurement's data set, split, views or scale is not the target's. It then has a
      direction: `agrees` if the whole interval lies on the paper's side of "no effect" (0 for a delta, 1 for a
      ratio, the line of a direction), `disagrees` if it lies on the other side, else `undecided`.
    - `match`: |measured − paper| ≤ tolerance; for an "at least" or "at most" claim, the measured value passes
      the bound by no less than −tolerance; for a direction, the whole interval lies on the paper's side.
    - `mismatch`: otherwise.

    The interval is reported beside, but decides only directions: tolerances hold the sampling error and the
    spread over seeds already, of the paper's single runs as of ours.
    """
    if target.published_by_others:
        raise ValueError(f"{target.id} was published by others and is never measured")
    if measurement is None or not math.isfinite(measurement.value):
        reason = "no run has measured it" if measurement is None else "the records hold no finite number"
        return Verdict(target, MISSING, None, None, reason)
    direction = _direction(target, measurement)
    if measurement.scope != target.scope:
        reason = f"measured on {measurement.scope}; the claim is about {target.scope}"
        if target.line is None:
            reason += "; a level elsewhere says nothing about it"
        return Verdict(target, NOT_COMPARABLE, direction, measurement, reason)
    if target.kind == "direction":
        if direction == UNDECIDED:
            reason = "the interval holds no effect and effects of both signs: more seeds or images would decide"
            return Verdict(target, MISSING, None, measurement, reason)
        word = MATCH if direction == AGREES else MISMATCH
        return Verdict(target, word, None, measurement, f"the whole interval {direction} with the paper")
    assert target.tolerance is not None
    excess = measurement.value - target.value
    if measurement.bound and excess * measurement.bound <= target.tolerance:
        side = "above" if measurement.bound > 0 else "below"
        reason = f"all that is known is that it lies {side} {measurement.value:,.4g}: longer training would tell"
        return Verdict(target, MISSING, None, measurement, reason)
    distance = {"equal": abs(excess), "at least": -excess, "at most": excess}[target.relation]
    # Decimal numbers as typed: 0.3 is within 0.1 of 0.4.
    verdict = MATCH if distance <= target.tolerance + 1e-9 else MISMATCH
    if target.relation == "equal":
        reason = f"{abs(excess):,.6g} from the paper's; tolerance {target.tolerance:,g}" if excess else "the same"
    else:
        reason = f"{measurement.value:,.4g} where the paper says {target.relation} {target.value:,g}"
    if verdict == MISMATCH and target.known_contradiction:
        reason = target.explanation
    return Verdict(target, verdict, None, measurement, reason)


def _direction(target: Target, measurement: Measurement) -> str:
    if target.line is None or measurement.interval is None or not all(map(math.isfinite, measurement.interval)):
        return UNDECIDED
    low, high = measurement.interval
    if low <= target.line <= high:
        return UNDECIDED
    return AGREES if (low > target.line) == (target.side > 0) else DISAGREES


def compute(target: Target) -> Measurement:
    """An invariant's value, computed from the paper's network and recipe."""
    return Measurement(INVARIANTS[target.measure](target.argument), over="computed")


@cache
def load_targets(folder: Path | None = None) -> tuple[Target, ...]:
    """Every target, in the order of the files' names and of the lines in them; ReproError names a faulty one."""
    targets: dict[str, Target] = {}
    for path in sorted((folder or _targets_folder()).glob("*.toml")):
        if path.name == "deviations.toml":
            continue
        content = _read(path, "target", "defaults")
        for entry in content.get("target", []):
            target = _build(Target, {**content.get("defaults", {}), **entry}, path)
            if target.id in targets:
                raise ReproError(f"{path.name}: the target id '{target.id}' is there twice; ids must be unique")
            _check(target, path)
            targets[target.id] = target
    return tuple(targets.values())


@cache
def load_deviations(folder: Path | None = None) -> tuple[Deviation, ...]:
    """The ledger of deviations, in its own order; ReproError names a faulty entry."""
    path = (folder or _targets_folder()) / "deviations.toml"
    entries = _read(path, "deviation").get("deviation", [])
    return tuple(_build(Deviation, entry, path) for entry in entries)


def find_target(name: str) -> Target:
    """The target of that id; ReproError with the nearest ids if there is none."""
    targets = {target.id: target for target in load_targets()}
    if name not in targets:
        raise unknown("target", name, targets)
    return targets[name]


def _targets_folder() -> Path:
    """`paper_targets/`: inside the package when installed from a wheel, beside it in a clone."""
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
    """The rules that hold between a target's fields."""

    def demand(holds: bool, rule: str) -> None:
        if not holds:
            raise ReproError(f"{path.name}: {target.id}: {rule}")

    demand(target.kind in KINDS, f"kind '{target.kind}' is none of {', '.join(KINDS)}")
    demand(target.relation in RELATIONS, f"relation '{target.relation}' is none of {', '.join(RELATIONS)}")
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
        demand(target.tolerance is not None and target.tolerance >= 0, "tolerance must be given, 0 or more")
        demand(bool(target.tolerance_reason), "tolerance_reason must be given")
    if target.known_contradiction:
        demand(bool(target.explanation), "a known contradiction needs an explanation")
