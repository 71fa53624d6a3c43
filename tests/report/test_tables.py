"""The tables as DataFrames, CSV and LaTeX, compiled if there is a compiler."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_records import data_record, write_evaluation, write_run

from repro.paper.targets import Measurement
from repro.records.reading import read_records
from repro.report import build_report
from repro.report.table import Column, Section, Table, distinct, escape_latex, plus_minus
from repro.report.tables import smaller_table


def test_mean_and_standard_deviation_over_seeds_are_printed(tmp_path: Path) -> None:
    for seed, error in enumerate((24.0, 25.0, 26.0)):
        write_run(tmp_path, seed=seed)
        write_evaluation(tmp_path, seeds=(seed,), error=error)
    build_report(tmp_path, tmp_path / "out")
    small = (tmp_path / "out" / "tables" / "smaller.tex").read_text()
    assert (
        r"alexnet & 25.0 $\pm$ 1.0 (3 seeds) & 6.2 $\pm$ 0.2 (3 seeds) & 3 seeds & authors recipe, small scale \\"
        in small
    )
    text = (tmp_path / "out" / "tables" / "table1.tex").read_text()
    assert r"SIFT + FVs (others) & --- & 45.7 & --- & --- & 25.7 & --- \\" in text
    assert r" & \multicolumn{3}{c}{Top-1} & \multicolumn{3}{c}{Top-5} \\" in text.splitlines()
    assert {path.stem for path in (tmp_path / "out" / "tables").glob("*.tex")} == {
        path.stem
        for path in (tmp_path / "out" / "tables").glob("*.csv")
        if path.stem != "curves"  # data, not a table
    }


def test_a_single_run_is_printed_with_its_interval() -> None:
    assert plus_minus(Measurement(37.6, (37.3, 37.8), 150_000, "images")) == "37.6 [37.3, 37.8]"


def test_repeated_headings_name_their_store() -> None:
    assert distinct(["a", "b", "a"], ["store 1", "store 2", "store 3"]) == ["a, store 1", "b", "a, store 3"]


def test_two_stores_of_one_name_have_rows_of_their_own(tmp_path: Path) -> None:
    for name, error in (("one", 20.0), ("two", 40.0)):
        data = replace(data_record(classes=["cat", "dog"], name="pets"), fingerprint=f"{name}-fingerprint")
        write_run(tmp_path / name, done=1, data=data)
        write_evaluation(tmp_path / name, error=error, data=data)
    table = smaller_table(read_records(tmp_path))
    assert [(section.heading, len(section.rows)) for section in table.sections] == [
        (f"pets (2 classes), validation images, store {name}-fing", 1) for name in ("one", "two")
    ]
    assert {column.label for column in table.columns} == {"Net", "Ten views: Top-1", "n", "Training"}  # no top-5
    assert list(table.frame["Ten views", "Top-1"].map(lambda cell: cell.value)) == [20, 40]


def test_the_number_of_seeds_is_given_for_each_number_of_views(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, seed=seed, done=1)
        write_evaluation(tmp_path, seeds=(seed,), views=1)
    assert list(smaller_table(read_records(tmp_path)).frame["", "n"]) == ["3 seeds"]
    write_evaluation(tmp_path, seeds=(0,), views=10)
    assert list(smaller_table(read_records(tmp_path)).frame["", "n"]) == ["one view: 3 seeds; ten views: 2,000 images"]


def test_special_characters_of_latex_are_escaped() -> None:
    assert escape_latex(r"a_b & 5% of {x} \ $1 #2 ~ ^ −3×") == (
        r"a\_b \& 5\% of \{x\} \textbackslash{} \$1 \#2 \textasciitilde{} \textasciicircum{} $-$3$\times$"
    )
    table = Table(
        "t", "T", "N", (Column("Name"), Column("a", "Points")), [Section("Not & comparable", [["x_y", 1.25]])]
    )
    assert table.latex().splitlines()[1:] == [
        r"\begin{tabular}{lr}", r"\toprule", r" & Points \\", r"Name & a \\",
        r"\midrule", r"\multicolumn{2}{l}{\emph{Not \& comparable}} \\", r"x\_y & 1.2 \\", r"\bottomrule",
        r"\end{tabular}",
    ]  # fmt: skip


def test_fall2009_and_cifar10_have_their_rows(tmp_path: Path) -> None:
    cifar = data_record("cifar10", "", ["x"] * 10, train=50_000, test=10_000)
    write_run(tmp_path, "cifar-lrn", scale="paper", epochs=520, done=1, data=cifar)
    write_evaluation(
        tmp_path, "cifar-lrn", scale="paper", error=11.5, split="test", views=10, images=10_000, data=cifar
    )
    build_report(tmp_path, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "tables" / "others.csv").set_index("Net")
    assert table.loc["Fall 2009, net with conv6 (6)", "Top-1: paper"] == 67.4
    row = table.loc["CIFAR-10 with normalisation, test (3.3)"]
    assert (row["Top-1: paper"], row["Top-1: measured"]) == (11, 11.5)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_latex_accepts_every_table(tmp_path: Path) -> None:
    build_report(tmp_path / "none", tmp_path / "out")
    names = sorted(path.stem for path in (tmp_path / "out" / "tables").glob("*.tex"))
    body = "\n\n".join(rf"\input{{out/tables/{name}}}" for name in names)
    (tmp_path / "all.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    )
    subprocess.run(["pdflatex", "-halt-on-error", "all.tex"], cwd=tmp_path, check=True, capture_output=True)
