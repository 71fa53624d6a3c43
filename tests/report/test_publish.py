"""Published records give the same report as the runs that they were copied from."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from made_records import write_evaluation, write_retrieval, write_run
from safetensors.numpy import load_file

from repro.records.file_names import CONV1, WEIGHTS
from repro.records.reading import read_records
from repro.report.build import judge
from repro.report.figures.draw import draw_figures
from repro.report.publish import publish
from repro.report.tables import every_table


def contents(runs: Path) -> tuple[list[str], list[bytes]]:
    """The tables and figures of the report, but for Figure 4."""
    records = read_records(runs)
    tables = every_table(records, judge(records)).values()
    return [table.markdown() for table in tables], [
        picture.png for picture in draw_figures(records) if picture.section != "figure-4"
    ]


def test_published_records_give_the_same_report(tmp_path: Path) -> None:
    runs, target = tmp_path / "runs", tmp_path / "published"
    for seed in range(2):
        write_run(runs / "more", seed=seed)
        write_evaluation(runs / "more", seeds=(seed,))
    write_evaluation(runs / "more", seeds=(0, 1))
    write_retrieval(runs / "more")
    unfinished = write_run(runs, recipe="paper", done=3, weights=False)
    folders = publish(runs, target)
    names = ["alexnet-authors-small-seed0", "alexnet-authors-small-seed1", "alexnet-authors-small-seeds0+1"]
    assert [folder.relative_to(target).as_posix() for folder in folders] == [f"more/{name}" for name in names]
    assert not list(target.rglob(WEIGHTS))
    assert not list(target.rglob("retrieval-*.npz"))  # they hold images of the dataset
    kernels, weights = (
        load_file(folder / names[0] / file) for folder, file in ((target / "more", CONV1), (runs / "more", WEIGHTS))
    )
    assert list(kernels) == ["conv1.weight"]
    np.testing.assert_array_equal(kernels["conv1.weight"], weights["conv1.weight"])
    shutil.rmtree(unfinished)
    assert contents(target) == contents(runs)


def test_as_typed(tmp_path: Path) -> None:
    write_run(tmp_path / "runs")
    command = [sys.executable, "-m", "repro.report.publish", "runs", "published"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "published in published: 1\n"
    command[-2] = "nothing"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "nothing is published: there is no folder nothing\n")
    done = subprocess.run(command[:-1], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "usage: python -m repro.report.publish RUNS TARGET\n")


def test_the_published_records_of_this_project_hold_neither_images_nor_weights() -> None:
    published = Path(__file__).parents[2] / "outputs" / "reference"
    found = [path for path in published.rglob("*") if path.is_file()]
    known = ("*.json", "log.jsonl", "predictions-*.npz", CONV1)
    assert found
    assert not [path for path in found if not any(map(path.match, known))]
