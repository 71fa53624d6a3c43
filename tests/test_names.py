"""Names of folders and files that are not UTF-8 go through all commands, and none of their bytes is lost."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from helpers import picture, run_here
from made_records import data_record, write_evaluation, write_run

import repro
from repro import atomic
from repro.formatting import valid_text
from repro.records.reading import read_run
from repro.report import build_report

CAFE, STRANGE = "caf\udce9", "st\udcffre"  # as Python reads the bytes caf\xe9 and st\xffre


def folder_with(parent: Path, name: str) -> Path:
    """Create a folder; skips the test where the file system refuses the name."""
    folder = parent / name
    try:
        folder.mkdir(parents=True)
        os.fsencode(folder).decode("latin1")
    except (OSError, ValueError) as error:
        pytest.skip(f"no such names here: {error}")
    return folder


def test_json_reads_back_as_it_was(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "names.json", [CAFE, "été 😀", STRANGE])
    assert json.loads((tmp_path / "names.json").read_text(encoding="utf-8")) == [CAFE, "été 😀", STRANGE]
    assert "été 😀" in (tmp_path / "names.json").read_text(encoding="utf-8")


def test_classes_stores_and_runs_of_any_name(tmp_path: Path) -> None:
    images, work = tmp_path / "images", folder_with(tmp_path, STRANGE)
    for seed, name in enumerate((CAFE, "été")):
        for split in ("train", "val", "test"):
            path = folder_with(images / split, name) / f"{STRANGE}.png"
            path.write_bytes(picture(seed, format="PNG"))
    store, runs = work / "store", work / "runs"
    run = runs / "alexnet-authors-smoke-seed0"
    photograph = images / "test" / CAFE / f"{STRANGE}.png"
    training = ("train", "--variant", "alexnet", "--scale", "smoke", "--epochs", "1", "--data", store, "--out", runs)
    for words in (
        ("prepare", "folder", "--source", images, "--out", store, "--size", "64"),
        training,
        ("evaluate", run, "--data", store, "--views", "1", "--confusion", work / "confusion.csv"),
        ("activations", run, "--data", store),
        ("predict", run, photograph, "--views", "1", "--figure", work / "figure.png"),
        ("export", run, "--out", work / "net.pth", "--format", "state-dict"),
        ("list", "runs", "--runs", tmp_path),
        ("verify", run),
        ("report", "--runs", tmp_path, "--out", work / "report", "--compare"),
        (*training, "--resume"),
    ):
        done = run_here(*words)
        assert done.returncode == 0, (words, done.stderr)
    record = read_run(run)
    assert [each.id for each in record.data.classes] == [CAFE, "été"]
    assert record.data.path == str(store)
    assert str(store) in record.command
    with (work / "confusion.csv").open(encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["class", "caf?", "été"]
    metadata = json.loads((work / "net.json").read_bytes())
    assert json.loads(metadata["classes"]) == [{"id": CAFE, "name": "caf?"}, {"id": "été", "name": "été"}]
    assert all(valid_text(str(each)) == each for each in (metadata["classes"], metadata["run"]))  # ONNX takes no other
    (found,) = json.loads(run_here("predict", run, photograph, "--views", "1", "--json").stdout)
    assert (found["image"], found["label"]) == (str(photograph), CAFE)
    assert {(each["id"], each["name"]) for each in found["guesses"]} == {(CAFE, "caf?"), ("été", "été")}


def test_names_that_would_break_a_line_or_command_a_terminal_are_escaped(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for seed, name in enumerate(("cat", "dog")):
        path = folder_with(images, name)
        for number in range(2):
            (path / f"{number}.png").write_bytes(picture(10 * seed + number, format="PNG"))
    (images / "cat" / "two\nlines\x1b[2J.png").write_bytes(b"")
    words = ("prepare", "folder", "--source", images, "--out", tmp_path / "store", "--size", 16)
    refused, done = run_here(*words), run_here(*words, "--allow-partial")
    assert "'cat/two\\nlines\\x1b[2J.png' (empty file)" in refused.stderr
    assert "left out 'cat/two\\nlines\\x1b[2J.png': empty file" in done.stdout
    assert "\x1b" not in refused.stderr + done.stdout


def test_the_report_and_the_frames_show_valid_text(tmp_path: Path) -> None:
    data = data_record(name=STRANGE, classes=[CAFE, "dog", "cat"])
    write_run(tmp_path / "runs", data=data, command=f"repro train --data {STRANGE}")
    write_evaluation(tmp_path / "runs", data=data, command=f"repro evaluate --data {STRANGE}")
    build_report(tmp_path / "runs", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert {name for name in ("caf?", "st?re", "repro train --data st?re") if name in page} == {
        "caf?", "st?re", "repro train --data st?re",
    }  # fmt: skip
    frames = repro.load_records(tmp_path / "runs")
    assert frames.runs["command"].tolist() == [valid_text(f"repro train --data {STRANGE}")]
