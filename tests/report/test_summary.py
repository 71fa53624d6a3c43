"""The first screen of the page, held against `comparison.json` and against numbers by hand."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_records import data_record, write_evaluation, write_grid, write_run

from repro.paper.experiments import EXPERIMENTS
from repro.paper.targets import find_target, load_targets
from repro.report import build_report
from repro.report.commands import experiment_of
from repro.report.page import CONTENTS


class Summary(HTMLParser):
    """The cells of the first table by its claims, the text of the findings, and the ids of the sections in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: dict[tuple[str, ...], list[str]] = {}
        self.findings = ""
        self.sections: list[str] = []
        self.contents: list[str] = []
        self._cells: list[str] | None = None
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "section":
            self.sections.append(given["id"])
        if tag == "nav":
            self._inside.append("nav")
        if tag == "a" and "nav" in self._inside:
            self.contents.append(given["href"].removeprefix("#"))
        if tag == "dl" and given.get("class") == "findings":
            self._inside.append("findings")
        if tag == "tr":
            self._cells = [] if "data-claims" in given else None
            if self._cells is not None:
                self.rows[tuple(given["data-claims"].split())] = self._cells
        if tag in ("th", "td") and self._cells is not None:
            self._cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if (tag == "nav" and "nav" in self._inside) or (tag == "dl" and "findings" in self._inside):
            self._inside.pop()
        if tag == "tr":
            self._cells = None

    def handle_data(self, data: str) -> None:
        if "findings" in self._inside:
            self.findings += re.sub(r"\s+", " ", data)
        if self._cells:
            self._cells[-1] += re.sub(r"\s+", " ", data)


ILSVRC = data_record("ilsvrc2010", classes=["x"] * 1000, train=1_261_406, val=50_000, test=150_000)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table 1's net at the paper's scale, Figure 1, and views and normalisation on a small set."""
    runs, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("report")
    on_paper: dict[str, Any] = {"scale": "paper", "data": ILSVRC}
    write_run(runs / "paper", epochs=93, done=1, **on_paper)
    write_evaluation(runs / "paper", error=37.6, split="test", images=150_000, predictions=False, **on_paper)
    for seed in range(3):
        for variant, error in (("alexnet", 24 + seed / 2), ("no-lrn", 31 + seed / 2)):
            write_run(runs, variant, seed=seed, done=1)
            write_evaluation(runs, variant, seeds=(seed,), error=error)
    write_grid(runs / "cifar10", "cifar-relu", 0.002, [45, 22, 15])
    write_grid(runs / "cifar10", "cifar-tanh", 0.001, [70, 60, 52, 46, 41, 37, 33, 30, 28, 26, 24, 22])
    build_report(runs, out)
    return out


@pytest.fixture(scope="module")
def summary(report: Path) -> Summary:
    return Summary((report / "report.html").read_text(encoding="utf-8"))


def compared(report: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in json.loads((report / "comparison.json").read_text(encoding="utf-8"))["targets"]}


def numbers(text: str) -> list[float]:
    """The numbers of a cell in order, as they are printed."""
    return [float(each.replace(",", "").replace("−", "-")) for each in re.findall(r"−?[\d,]*\.?\d+", text)]


def test_every_number_of_the_first_table_is_in_the_comparison(report: Path, summary: Summary) -> None:
    rows = compared(report)
    shown = 0
    for claims, (_, paper, authors, here, n, verdict) in summary.rows.items():
        found = [rows[claim] for claim in claims]
        assert numbers(paper) == [each["paper"] for each in found], claims
        if any(each["authors"] is not None for each in found):
            assert numbers(authors) == pytest.approx([each["authors"] for each in found], abs=0.005)
        expected: list[float] = []
        for each in found:
            has_direction = each["kind"] in ("delta", "ratio", "direction")
            if each["measured"] is not None and (each["verdict"] != "not comparable" or has_direction):
                expected += [each["measured"], *(each["interval"] or ())]
        assert numbers(here) == pytest.approx(expected, abs=0.051), claims
        shown += len(expected)
        assert {each["verdict"] for each in found} == set(re.findall("not comparable|mismatch|match|missing", verdict))
        if expected and found[0]["over"] in ("seeds", "images"):
            assert numbers(n)[0] == found[0]["n"]
    assert shown > 10


def test_a_level_on_other_images_is_not_beside_the_papers(summary: Summary) -> None:
    """The net of Table 2 was not measured, and its error on the small set is no evidence."""
    label, paper, _, here, n, verdict = summary.rows["table2-1cnn-top1", "table2-1cnn-top5"]
    assert (label.strip(), here.strip(), n.strip()) == ("1 CNN", "—", "")
    assert verdict.strip() == "not comparable"
    assert paper.split() == ["40.7", "/", "18.2"]


def test_what_points_the_same_way_is_named_with_its_place(summary: Summary) -> None:
    _, _, _, here, n, verdict = summary.rows["lrn-top1", "lrn-top5"]
    assert here.split(" [")[0].strip() == "7.0"  # 31 to 32 against 24 to 25
    assert n.strip() == "3 seeds"
    assert "not comparable, agrees" in verdict
    assert "ten classes, small scale" in verdict
    assert "Points the same way" in summary.findings
    assert "No response normalisation: rise in top-1 error (7.0 [" in summary.findings


def test_the_first_sentences_name_matches_and_the_command_for_the_rest(report: Path, summary: Summary) -> None:
    rows = [row for row in compared(report).values() if row["kind"] != "invariant"]
    matches = [row for row in rows if row["verdict"] == "match"]
    lacking = [row for row in rows if row["verdict"] in ("missing", "not comparable")]
    text = " ".join(summary.findings.split())
    assert f"Of the {len(rows)} that need a run, {len(matches)} match on the paper’s data and scale: " in text
    assert sum(row["quantity"] in text for row in matches) == min(len(matches), 6)  # of more, the number
    assert "CNN, top-1 error (37.6% [" in text
    assert f"{len(lacking)} claims are not decided on the paper’s data and scale" in text
    assert text.endswith("repro run all --scale paper --stores STORES --out RUNS")


def test_without_runs_the_first_table_has_the_papers_numbers_only(tmp_path: Path) -> None:
    made = build_report(tmp_path / "none", tmp_path / "out")
    found = Summary(made.page.read_text(encoding="utf-8"))
    measured = {claims: cells[3].strip() for claims, cells in found.rows.items() if cells[3].strip() != "—"}
    assert list(measured) == [("parameters", "neurons")]
    assert "37 of the 42 claims that need no run hold" in found.findings
    assert "none is reproduced yet" in found.findings


def test_the_sections_are_in_the_order_of_the_contents(summary: Summary) -> None:
    expected = [each.id for section in CONTENTS for each in (section, *section.parts)]
    assert summary.sections == expected == summary.contents
    assert expected[:3] == ["summary", "map", "tables"]


@pytest.mark.parametrize(
    ("target", "experiment"),
    [("table1-cnn-top1", "table1"), ("table2-7cnns-top5-test", "table2"), ("figure1-relu-speed", "figure1"),
     ("lrn-top1", "ablations"), ("without-conv3-top1", "layers"), ("two-gpus-time", "two-gpus"),
     ("retrieval-not-pixels", "figure4"), ("dropout-overfit", "ablations"), ("fall2009-top1", "fall2009"),
     ("ten-views-gain-top1", "table1"), ("contest-sift-fv-top1", "contest")],
)  # fmt: skip
def test_the_experiment_of_a_claim(target: str, experiment: str) -> None:
    found = experiment_of(find_target(target))
    assert found is not None
    assert found.name == experiment


def test_every_claim_that_needs_a_run_has_an_experiment() -> None:
    for target in load_targets():
        if target.dataset and not target.published_by_others:
            found = experiment_of(target)
            assert found is not None, target.id
            assert found.name in EXPERIMENTS


def test_the_picture_for_links_has_the_usual_size(report: Path) -> None:
    content = (report / "preview.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert [int.from_bytes(content[start : start + 4], "big") for start in (16, 20)] == [1200, 630]
    assert '<meta property="og:image" content="preview.png">' in (report / "report.html").read_text(encoding="utf-8")
