"""The report as an HTML page and as Markdown: one template each, filled with what the other modules computed."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import repro
from repro.paper.targets import MISSING, NOT_COMPARABLE, UNDECIDED, VERDICTS, Verdict, load_deviations
from repro.paper.variants import BASES
from repro.records import Records, Run
from repro.report import summary
from repro.report.commands import commands
from repro.report.explorer import build_explorer, chart_style
from repro.report.figures.style import Picture
from repro.report.table import Table, escape_markdown, number, with_interval
from repro.report.tables import Verdicts, layer_order


@dataclass(frozen=True)
class Claim:
    """A claim as the page shows it: the verdict that counts, the other verdicts, the commands to measure it."""

    verdict: Verdict
    others: Sequence[Claim] = ()
    steps: Sequence[str] = ()

    @property
    def key(self) -> str:
        """CSS class of the verdict."""
        return self.verdict.verdict.replace(" ", "-")

    @property
    def paper(self) -> str:
        """The paper's value, with a sign if it is a bound."""
        target = self.verdict.target
        sign = {"equal": "", "at least": "≥ ", "at most": "≤ "}[target.relation]
        if target.kind == "direction":
            sign = {"at least": "> ", "at most": "< "}[target.relation]
        return sign + _with_unit(number(target.value, None), target.unit)

    @property
    def authors(self) -> str:
        """The value in the authors' notes; empty if they recorded none."""
        target = self.verdict.target
        return "" if target.authors is None else number(target.authors, None) + _sign(target.unit)

    @property
    def measured(self) -> str:
        """The measured value with its interval, if any."""
        measurement, unit = self.verdict.measurement, self.verdict.target.unit
        if measurement is None:
            return ""
        if self.verdict.target.kind == "invariant":
            value = measurement.value
            return number(value, None if value == round(value, 2) else 3) + _sign(unit)
        integral = abs(measurement.value) >= 100 or measurement.over == "counted"
        decimals = 0 if integral else 1 if unit in ("%", "points", "epochs") else 2
        return with_interval(measurement, decimals, _sign(unit))

    @property
    def direction(self) -> str:
        """Whether an effect agrees, disagrees or is undecided; empty for levels, and where the verdict says it."""
        return self.verdict.direction or "" if self.verdict.target.no_effect is not None else ""

    @property
    def tolerance(self) -> str:
        """The tolerance with its unit; empty for directions."""
        target = self.verdict.target
        return "" if target.tolerance is None else _with_unit(number(target.tolerance, None), target.unit)


@dataclass(frozen=True)
class Heading:
    """A section of the page, whose body is the template `sections/<id>.html.j2`.

    Attributes:
        id: anchor of the section.
        title: its heading.
        short: its name in the table of contents.
        parts: sections within it.
        of_claims: it is shown only if the measurements are compared with the claims.
    """

    id: str
    title: str
    short: str
    parts: tuple[Heading, ...] = ()
    of_claims: bool = False


CONTENTS = (
    Heading("map", "Claims by section of the paper", "Map of claims", of_claims=True),
    Heading("tables", "The paper’s tables", "Tables"),
    Heading(
        "figures", "The paper’s figures", "Figures",
        parts=(
            Heading("figure-1", "Figure 1: ReLU against tanh on CIFAR-10", "Figure 1"),
            Heading("figure-2", "Figure 2: the architecture", "Figure 2"),
            Heading("figure-3", "Figure 3: the kernels of conv1", "Figure 3"),
            Heading("figure-4", "Figure 4: test images and their nearest training images", "Figure 4"),
        ),
    ),
    Heading("runs", "Runs", "Runs"),
    Heading("limits", "What these runs can and cannot show", "Limits"),
    Heading("claims", "Every claim, with its verdict", "Claims", of_claims=True),
    Heading("net", "The architecture", "Architecture"),
    Heading("ledger", "Deviations and open points", "Deviations"),
    Heading("provenance", "Provenance", "Provenance"),
)  # fmt: skip


def _with_unit(text: str, unit: str) -> str:
    return text + (_sign(unit) or (f" {unit}" if unit else ""))


def _sign(unit: str) -> str:
    return unit if unit in ("%", "×") else ""


def claims_of(verdicts: Verdicts, records: Records) -> list[Claim]:
    """Return the claim of every target, by section of the paper."""
    claims = []
    for first, *others in verdicts.values():
        steps = commands(first.target, records) if first.verdict in (MISSING, NOT_COMPARABLE) else ()
        claims.append(Claim(first, [Claim(other) for other in others], steps))
    return sorted(claims, key=lambda claim: _section_order(claim.verdict.target.section))


def _section_order(section: str) -> tuple[float, ...]:
    return tuple(float(part) for part in section.split("."))


def render_page(context: Mapping[str, Any]) -> str:
    """Return the self-contained HTML page."""
    environment = _environment(autoescape=True)
    files = resources.files("repro.report") / "templates"
    css, explorer_css, js = (
        (files / name).read_text(encoding="utf-8") for name in ("page.css", "explorer.css", "page.js")
    )
    styles = Markup("\n".join((css, chart_style(), explorer_css)))
    return environment.get_template("page.html.j2").render(**context, css=styles, js=Markup(js))


def render_markdown(context: Mapping[str, Any]) -> str:
    """Return the report in Markdown, which refers to the figures' files."""
    return _environment(autoescape=False).get_template("page.md.j2").render(**context)


def page_context(
    records: Records, verdicts: Verdicts, tables: Mapping[str, Table], pictures: Sequence[Picture]
) -> dict[str, Any]:
    """Return the variables of the templates."""
    firsts = [each[0] for each in verdicts.values()]
    claims = claims_of(verdicts, records)
    counts = Counter(each.verdict for each in firsts)
    directions = Counter(claim.direction for claim in claims if claim.verdict.verdict == NOT_COMPARABLE)
    return {
        "version": repro.__version__,
        "contents": [section for section in CONTENTS if verdicts or not section.of_claims],
        "headline": summary.headline(firsts),
        "result": summary.result(verdicts) if verdicts else "",
        "strict_note": summary.strict_note(firsts),
        "headings": {each.id: each.title for section in CONTENTS for each in (section, *section.parts)},
        "counts": {word: counts[word] for word in VERDICTS},
        "directions": directions,
        "undecided": sum(each.verdict == MISSING and each.direction == UNDECIDED for each in firsts),
        "claims": claims,
        "sections": list(dict.fromkeys(claim.verdict.target.section for claim in claims)),
        "tables": tables,
        "pictures": pictures,
        "limitations": summary.limitations(records),
        "deviations": load_deviations(),
        "orders": {"the text": layer_order(BASES["paper"]), "the authors' program": layer_order(BASES["authors"])},
        "explorer": build_explorer(records.runs),
        "runs": records.runs,
        "evaluations": records.evaluations,
        "datasets": list(dict.fromkeys(run.data for run in records.runs)),
        "provenance": provenance(records.runs),
        "problems": records.problems,
    }


def provenance(runs: Sequence[Run]) -> dict[str, dict[str, list[str]]]:
    """Return each dataset, machine and set of versions, with the names of the runs that share it."""
    found: dict[str, dict[str, list[str]]] = {"Data": {}, "Machine": {}, "Versions": {}}
    for run in runs:
        images = ", ".join(f"{count:,} {split}" for split, count in run.data.images.items())
        data = f"{run.data.description}; {images or 'number of images unknown'}; {run.data.size} pixels"
        if run.data.fingerprint:
            data += f"; fingerprint {run.data.fingerprint[:16]}"
        machine = ", ".join(f"{key} {value}" for key, value in vars(run.machine).items() if value)
        versions = ", ".join(f"{key} {value}" for key, value in run.versions.items())
        versions += f", revision {run.git_revision[:12]}" if run.git_revision else ""
        for kind, text in (("Data", data), ("Machine", machine), ("Versions", versions)):
            found[kind].setdefault(text or "not recorded", []).append(run.name)
    return found


def _environment(autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("repro.report"),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["data_uri"] = _data_uri
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:].rstrip(".") + "."
    return environment


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
