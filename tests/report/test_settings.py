"""What a user has set for matplotlib, threads and warnings neither changes the figures nor ends the report."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from repro.records.reading import read_records
from repro.report.figures.draw import draw_figures

PUBLISHED = Path(__file__).parents[2] / "outputs" / "reference" / "runs" / "catsdogs"
MATPLOTLIBRC = """
font.family: monospace
font.size: 20
axes.facecolor: black
axes.grid: True
lines.linewidth: 9
savefig.bbox: tight
savefig.dpi: 10
figure.constrained_layout.use: True
text.usetex: True
svg.fonttype: none
image.cmap: viridis
no.such.parameter: 1
"""
ENVIRONMENT = {
    "MPLBACKEND": "module://no_such_backend",
    "PYTHONWARNINGS": "error,default::no_such_category",
    "OMP_NUM_THREADS": "many",
    "OPENBLAS_NUM_THREADS": "0",
    "MKL_NUM_THREADS": "-1",
    "NUMBA_NUM_THREADS": "0",
    "COLUMNS": "7",
    "PYTHONUNBUFFERED": "1",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the published runs."""
    folder = tmp_path_factory.mktemp("runs")
    for run in sorted(PUBLISHED.iterdir())[:2]:
        shutil.copytree(run, folder / run.name)
    return folder


def test_figures_do_not_depend_on_the_caller_s_parameters(runs: Path) -> None:
    records = read_records(runs)
    usual = {picture.name: (picture.png, picture.svg) for picture in draw_figures(records)}
    assert usual
    hostile = {"font.family": "monospace", "font.size": 20, "axes.grid": True, "lines.linewidth": 9, "savefig.dpi": 10}
    with matplotlib.rc_context({**hostile, "savefig.bbox": "tight", "svg.fonttype": "none", "image.cmap": "viridis"}):
        assert {picture.name: (picture.png, picture.svg) for picture in draw_figures(records)} == usual
        assert matplotlib.rcParams["font.size"] == 20


def test_a_report_under_a_user_s_settings_is_the_same(runs: Path, tmp_path: Path) -> None:
    usual = {picture.name: picture.png for picture in draw_figures(read_records(runs))}
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC, encoding="utf-8")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "repro", "report", "--runs", str(runs), "--out", "report"],
        cwd=tmp_path,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for name, png in usual.items():
        assert (tmp_path / "report" / "figures" / f"{name}.png").read_bytes() == png, name
