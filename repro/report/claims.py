"""Claims as the report shows them: numbers with units, intervals and signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro.formatting import number, unit_sign, with_unit
from repro.paper.sections import section_order
from repro.paper.targets import MISSING, NOT_COMPARABLE, Measurement, Scope, Target, Verdict
from repro.records.runs import Records
from repro.report.commands import commands
from repro.report.table import sample, with_interval
from repro.report.tables import Verdicts


@dataclass(frozen=True)
class Claim:
    """A claim: the verdict that counts, those of other measurements, the commands to measure it."""

    verdict: Verdict
    others: Sequence[Claim] = ()
    steps: Sequence[str] = ()

    @property
    def target(self) -> Target:
        """What the paper claims."""
        return self.verdict.target

    @property
    def measurement(self) -> Measurement | None:
        """What was measured, if anything."""
        return self.verdict.measurement

    @property
    def scope(self) -> Scope | None:
        """What it was measured on; None for counts of the net alone, and if nothing was measured."""
        return self.measurement.scope if self.measurement else None

    @property
    def key(self) -> str:
        """CSS class of the verdict."""
        return self.verdict.verdict.replace(" ", "-")

    @property
    def paper(self) -> str:
        """The paper's value, with a sign if it is a bound."""
        return self.target.claimed

    @property
    def authors(self) -> str:
        """The value in the authors' notes; empty if they recorded none."""
        return self.target.noted

    @property
    def measured(self) -> str:
        """The measured value with its interval, if any."""
        if self.measurement is None:
            return ""
        return with_interval(self.measurement, self._decimals, unit_sign(self.target.unit))

    @property
    def _decimals(self) -> int | None:
        measurement, target = self.measurement, self.target
        assert measurement is not None
        if target.kind == "invariant":
            return None if measurement.value == round(measurement.value, 2) else 3
        integral = abs(measurement.value) >= 100 or measurement.over == "counted"
        return 0 if integral else 1 if target.unit in ("%", "points", "epochs") else 2

    @property
    def sample(self) -> str:
        """Number of what the interval is over: "3 seeds", "3,925 images"; empty if nothing was measured."""
        return sample(self.measurement) if self.measurement else ""

    @property
    def where(self) -> str:
        """Data and scale of a measurement that is not comparable, with its views if others count; empty for others."""
        measurement, scope = self.measurement, self.scope
        if self.verdict.verdict != NOT_COMPARABLE or measurement is None or scope is None:
            return ""
        words = [measurement.data, scope.scale_label]
        if scope.views and scope.views != self.target.views:
            words.append("1 view" if scope.views == 1 else f"{scope.views} views")
        return ", ".join(words)

    @property
    def direction(self) -> str:
        """Whether an effect agrees, disagrees or is undecided; empty for levels, and where the verdict says it."""
        return self.verdict.direction or "" if self.target.no_effect is not None else ""

    @property
    def tolerance(self) -> str:
        """The tolerance with its unit; empty for directions."""
        target = self.target
        return "" if target.tolerance is None else with_unit(number(target.tolerance, None), target.unit)


def claims_of(verdicts: Verdicts, records: Records) -> list[Claim]:
    """Return the claim of every target, by section of the paper."""
    claims = []
    for first, *others in verdicts.values():
        steps = commands(first.target, records) if first.verdict in (MISSING, NOT_COMPARABLE) else ()
        claims.append(Claim(first, [Claim(other) for other in others], steps))
    return sorted(claims, key=lambda claim: section_order(claim.target.section))
