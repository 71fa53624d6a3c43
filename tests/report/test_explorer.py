"""The data of the page's chart of runs, and the library that draws it."""

import hashlib
import json
import math
import re
from importlib import resources
from pathlib import Path

import pytest
from made_records import data_record, write_grid, write_run

from repro.records.reading import read_records
from repro.report import build_report
from repro.report.explorer import MOST_NUMBERS, build_explorer, explorer_data, points_per_curve, thin

VENDORED = resources.files("repro.report") / "vendor" / "uplot"


def test_the_curves_are_those_of_the_logs(tmp_path: Path) -> None:
    write_run(tmp_path, epochs=3)
    write_run(tmp_path, "no-lrn", epochs=5, done=2, weights=False)
    write_grid(tmp_path / "cifar", "cifar-relu", 0.002, [45, 22])
    runs = read_records(tmp_path).runs
    data = explorer_data(runs, 400)
    top1 = data["metrics"].index("Validation top-1 error, %")
    loss = data["metrics"].index("Training loss, nats")
    for run, row in zip(runs, data["runs"], strict=True):
        assert row["name"] == run.name
        assert data["epochs"][row["epochs"]] == [epoch.epoch for epoch in run.log]
        assert row["curves"][loss] == pytest.approx([epoch.train_loss for epoch in run.log], abs=5e-5)
        if "cifar" in run.name:
            assert row["curves"][top1] is None  # without validation
        else:
            assert row["curves"][top1] == pytest.approx([epoch.val_top1_error for epoch in run.log], abs=5e-3)
    # CIFAR-10 at the paper's scale counts most; of its five learning rates one is drawn at first.
    assert [runs[index].variant for index in data["shown"]] == ["cifar-relu"]


def test_epochs_without_a_finite_value_are_null(tmp_path: Path) -> None:
    path = write_run(tmp_path, epochs=2)
    with (path / "log.jsonl").open("a") as log:
        log.write('{"epoch": 3, "train_loss": NaN, "val_top1_error": 50}\n')
    data = explorer_data(read_records(tmp_path).runs, 400)
    assert data["runs"][0]["curves"][data["metrics"].index("Training loss, nats")][2] is None
    assert math.isfinite(data["runs"][0]["curves"][0][2])


def test_long_curves_keep_epochs_at_equal_distances() -> None:
    assert thin(range(1, 8), 7) == range(1, 8)
    assert thin(range(1, 102), 5) == [1, 26, 51, 76, 101]
    kept = thin(range(1, 91), 18)
    assert (kept[0], kept[-1], len(set(kept))) == (1, 90, 18)


def test_the_size_is_bounded_and_the_page_states_what_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, epochs=30)
    runs = read_records(tmp_path).runs * 2000
    points = points_per_curve(runs)
    assert 2000 * 4 * points <= MOST_NUMBERS
    explorer = build_explorer(runs)
    assert explorer.points == points < 30
    assert len(explorer.data) < 1_800_000
    assert build_explorer(runs[:1]).points is None


def test_names_cannot_end_the_element_that_holds_the_data(tmp_path: Path) -> None:
    write_run(tmp_path / "a<!--<script>b", epochs=1, data=data_record(name="</script>"))
    build_report(tmp_path, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="explorer-data">(.*?)</script>', page)
    assert found
    assert "<" not in found[1]
    assert json.loads(found[1])["runs"][0]["name"].startswith("a<!--<script>b/")


def test_without_runs_there_is_neither_chart_nor_library(tmp_path: Path) -> None:
    build_report(tmp_path / "none", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "explorer-data" not in page
    assert "uPlot=function" not in page


def test_the_library_is_the_one_that_its_readme_names() -> None:
    """The files are unchanged, and the page carries their licence."""
    readme = (VENDORED / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| `[^`]+` \| `([0-9a-f]{64})` \|$", readme, re.MULTILINE)
    assert [name for name, _ in rows] == ["uPlot.iife.min.js", "uPlot.min.css", "LICENSE"]
    for name, checksum in rows:
        assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == checksum, name
    version = re.search(r"# uPlot (\S+)", readme)
    assert version
    assert f"(v{version[1]})" in (VENDORED / "uPlot.iife.min.js").read_text(encoding="utf-8")[:80]
    script = str(build_explorer(()).script)
    assert "Copyright (c) 2022 Leon Sorokin" in script
    assert "Permission is hereby granted" in script
