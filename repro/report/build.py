"""`repro report`: read the records, compare them with the claims, write the page, its tables and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro import atomic
from repro.errors import ReproError
from repro.paper.targets import Measurement, Target, Verdict, compare, compute, count_verdicts, load_targets
from repro.records.reading import read_records
from repro.records.runs import Records
from repro.report import preview
from repro.report.commands import commands
from repro.report.figures.draw import draw_figures
from repro.report.frames import epochs_frame
from repro.report.measurements import measure
from repro.report.page import page_context, render_markdown, render_page
from repro.report.tables import Verdicts, every_table

CURVES = "curves.csv"  # among the tables: a row per run and epoch


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        page: path of the HTML page.
        verdicts: the verdict that counts of each target; empty without comparison.
        problems: records that were left out, and why, a line each.
    """

    page: Path
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of targets by verdict, in the order of `VERDICTS`."""
        return count_verdicts(self.verdicts)

    @property
    def strict_mismatches(self) -> tuple[Verdict, ...]:
        """The mismatches that a strict check counts: all but contradictions within the paper."""
        return tuple(each for each in self.verdicts if each.fails_strict)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        return f"{self.page}: {counts}" if self.verdicts else str(self.page)


def build_report(runs_dir: Path | Sequence[Path], out_dir: Path, compare: bool = True) -> Report:
    """Write the report on the runs below one or several folders, which are only read, into `out_dir`.

    Without runs it contains what follows from the architecture, and the commands that measure the rest. Without
    `compare` it contains the tables and figures only. Raises ReproError if `out_dir` cannot be written.
    """
    records = read_records(runs_dir)
    verdicts = judge(records)
    tables = every_table(records, verdicts)
    pictures = draw_figures(records)
    shown: Verdicts = verdicts if compare else {}
    context = page_context(records, shown, tables, pictures)
    try:
        for folder in (out_dir, out_dir / "tables", out_dir / "figures"):
            folder.mkdir(parents=True, exist_ok=True)
        for table in tables.values():
            table.write_csv(out_dir / "tables")
            table.write_latex(out_dir / "tables")
        epochs_frame(records).to_csv(out_dir / "tables" / CURVES, index=False)
        for picture in pictures:
            picture.write(out_dir / "figures")
        if compare:
            (out_dir / preview.FILE).write_bytes(preview.draw_preview(context["groups"], context["counts"]))
        # Names of folders and files need not be UTF-8.
        (out_dir / "report.html").write_text(render_page(context), encoding="utf-8", errors="replace")
        (out_dir / "report.md").write_text(render_markdown(context), encoding="utf-8", errors="replace")
        if compare:
            atomic.write_json(out_dir / "comparison.json", comparison(verdicts, records))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReproError(f"cannot write the report to '{out_dir}' ({reason}): choose another --out") from error
    return Report(out_dir / "report.html", tuple(each[0] for each in shown.values()), records.problems)


def judge(records: Records) -> dict[str, list[Verdict]]:
    """Return the verdicts on each target by id: the one that counts, then those of other measurements."""
    return {target.id: _verdicts(target, records) for target in load_targets() if not target.published_by_others}


def _verdicts(target: Target, records: Records) -> list[Verdict]:
    if target.kind == "invariant":
        return [compare(target, compute(target))]
    return [compare(target, each) for each in measure(target, records)] or [compare(target, None)]


def comparison(verdicts: Mapping[str, list[Verdict]], records: Records) -> dict[str, Any]:
    """Return the contents of `comparison.json`; numbers that are not finite become null."""
    return {
        "format": 1,
        "targets": [_row(first, others, records) for first, *others in verdicts.values()],
        "published_by_others": [
            {"id": each.id, "section": each.section, "quantity": each.quantity, "paper": each.value}
            for each in load_targets()
            if each.published_by_others
        ],
        "problems": list(records.problems),
    }


def _row(verdict: Verdict, others: list[Verdict], records: Records) -> dict[str, Any]:
    target = verdict.target
    return {
        "id": target.id,
        "kind": target.kind,
        "section": target.section,
        "quantity": target.quantity,
        "unit": target.unit,
        "source": target.source,
        "relation": target.relation,
        "scope": str(target.scope) if target.scope else None,
        "verdict": verdict.verdict,
        "direction": verdict.direction,
        "reason": verdict.reason,
        "needed": {"n": verdict.needed.n, "over": verdict.needed.over} if verdict.needed else None,
        "known_contradiction": target.known_contradiction,
        "paper": target.value,
        "tolerance": target.tolerance,
        "authors": target.authors,
        **_measured(verdict.measurement),
        "others": [
            {"verdict": each.verdict, "direction": each.direction, **_measured(each.measurement)} for each in others
        ],
        "commands": commands(target, records) if verdict.verdict == "missing" else [],
    }


def _measured(measurement: Measurement | None) -> dict[str, Any]:
    if measurement is None:
        return {"measured": None, "bound": None, "interval": None, "n": 0, "over": None, "on": None, "recipe": None,
                "runs": []}  # fmt: skip
    interval = measurement.interval
    known = math.isfinite(measurement.value)
    return {
        "measured": measurement.value if known and not measurement.bound else None,
        "bound": [measurement.bound, measurement.value] if known and measurement.bound else None,
        "interval": list(interval) if interval and all(map(math.isfinite, interval)) else None,
        "n": measurement.n,
        "over": measurement.over,
        "on": str(measurement.scope) if measurement.scope else None,
        "recipe": measurement.recipe or None,
        "runs": list(measurement.runs),
    }
