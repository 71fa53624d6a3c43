"""The report as an HTML page and as Markdown: one template each, filled with what the other modules computed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import repro
from repro.paper.targets import MISSING, NOT_COMPARABLE, UNDECIDED, count_verdicts, load_deviations
from repro.paper.variants import BASES
from repro.records.runs import Records, Run
from repro.records.schema import EpochRecord
from repro.report import citation, preview, summary
from repro.report.claims import claims_of
from repro.report.explorer import build_explorer, chart_style
from repro.report.figures.style import Picture
from repro.report.limits import limitations
from repro.report.table import Table, escape_markdown
from repro.report.tables import Verdicts, layer_order


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


MOST_COMMANDS = 100  # that the page lists, of runs and of evaluations

CONTENTS = (
    Heading("summary", "What was reproduced", "Summary", of_claims=True),
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
    Heading("cite", "How to cite", "Cite"),
)  # fmt: skip


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
    claims = claims_of(verdicts, records)
    directions = Counter(claim.direction for claim in claims if claim.verdict.verdict == NOT_COMPARABLE)
    return {
        "version": repro.__version__,
        "contents": [section for section in CONTENTS if verdicts or not section.of_claims],
        "headings": {each.id: each.title for section in CONTENTS for each in (section, *section.parts)},
        "groups": summary.summary_groups(claims) if claims else [],
        "findings": summary.findings(claims),
        "missing": summary.missing_experiments(claims),
        "counts": count_verdicts(claim.verdict for claim in claims),
        "map_rows": summary.claims_map(claims),
        "strict_note": summary.strict_note(claims),
        "directions": directions,
        "undecided": sum(claim.verdict.verdict == MISSING and claim.direction == UNDECIDED for claim in claims),
        "claims": claims,
        "tables": tables,
        "pictures": pictures,
        "limitations": limitations(records),
        "deviations": load_deviations(),
        "orders": {"the text": layer_order(BASES["paper"]), "the authors' program": layer_order(BASES["authors"])},
        "explorer": build_explorer(records.runs),
        "runs": records.runs,
        "evaluations": records.evaluations,
        "most_commands": MOST_COMMANDS,
        "datasets": list(dict.fromkeys(run.data for run in records.runs)),
        "provenance": provenance(records.runs),
        "notes": first_notes(records.runs),
        "problems": records.problems,
        "citations": (citation.PAPER, citation.toolkit()),
        "preview": preview.FILE,
    }


def provenance(runs: Sequence[Run]) -> dict[str, dict[str, list[str]]]:
    """Return each dataset, machine and set of versions, with the names of the runs that share it."""
    found: dict[str, dict[str, list[str]]] = {"Data": {}, "Machines": {}, "Versions": {}}
    for run in runs:
        images = ", ".join(f"{count:,} {split}" for split, count in run.data.images.items())
        data = f"{run.data.description}; {images or 'number of images unknown'}; {run.data.size} pixels"
        if run.data.fingerprint:
            data += f"; fingerprint {run.data.fingerprint[:16]}"
        machine = ", ".join(f"{key} {value}" for key, value in vars(run.machine).items() if value)
        versions = ", ".join(f"{key} {value}" for key, value in run.versions.items())
        versions += f", revision {run.git_revision[:12]}" if run.git_revision else ""
        for kind, text in (("Data", data), ("Machines", machine), ("Versions", versions)):
            found[kind].setdefault(text or "not recorded", []).append(run.name)
    return {kind: entries for kind, entries in found.items() if entries}


def first_notes(runs: Sequence[Run]) -> list[tuple[str, EpochRecord]]:
    """Return the first epoch with a note of each run that has one, with the run's name."""
    noted = [(run.name, next((epoch for epoch in run.log if epoch.note), None)) for run in runs]
    return [(name, epoch) for name, epoch in noted if epoch]


def capital(text: str) -> str:
    """Return text that begins with a capital, unless its first word is a name with digits, such as cifar10."""
    return text[:1].upper() + text[1:] if text.partition(",")[0].partition(" ")[0].isalpha() else text


def few(names: Sequence[str], most: int = 6) -> str:
    """Return names in a row, of many the first ones and the number of the others."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _environment(autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("repro.report"),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["few"] = few
    environment.filters["capital"] = capital
    environment.filters["data_uri"] = data_uri
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:].rstrip(".") + "."
    return environment


def data_uri(svg: bytes) -> Markup:
    """Return a drawing as the value of an attribute in double quotes, also of `srcset`, which splits at spaces.

    What only a file needs is left out, paths have two decimals, and most signs stand for themselves: half the length of
    base64.
    """
    text = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", svg.decode(), flags=re.DOTALL)
    text = re.sub(r'(?<= d=")[^"]*', lambda path: _short_path(path[0]), text)
    # Letters are references to drawn glyphs, each with its place in the line.
    text = re.sub(r'(<use )xlink:(href="[^"]*")(?: transform="translate\(([\d.]+) 0\)")?/>', _short_use, text)
    text = text.replace("DejaVuSans-", "d")
    text = re.sub(r"\s+", " ", text).replace("> <", "><").replace("'", "&apos;").replace('"', "'")
    for sign, code in (("%", "%25"), ("#", "%23"), (" ", "%20"), ("&", "&amp;")):
        text = text.replace(sign, code)
    return Markup("data:image/svg+xml," + text)  # the signs above are all that could end or change the attribute


def _short_use(use: re.Match[str]) -> str:
    place = f' x="{float(use[3]):.2f}"' if use[3] else ""
    return f"{use[1]}{use[2]}{place}/>"


def _short_path(path: str) -> str:
    path = re.sub(r"(\.\d\d)\d+", r"\1", path.strip())
    return re.sub(r"\s+", ",", re.sub(r"\s*([A-Za-z])\s*", r"\1", path))
