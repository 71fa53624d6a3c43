"""The whole report: the files it writes, from all kinds of records."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_records import TEN, data_record, made_kernels, write_evaluation, write_run

from repro.errors import ReproError
from repro.paper.targets import find_target, load_targets
from repro.paper.variants import VARIANTS
from repro.records.reading import read_records
from repro.report import build_report
from repro.report.commands import commands
from repro.report.figures.curves import chance_level, stalled
from repro.report.figures.draw import draw_figures
from repro.report.figures.figure3 import columns_for, kernel_grid
from repro.report.limits import limitations
from repro.report.tables import differences

FIELDS = {"id", "kind", "section", "verdict", "direction", "paper", "authors", "measured", "interval", "n", "runs"}


class Tags(HTMLParser):
    """The tags of a page with their attributes; `open` holds those that are not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recipes, three seeds, an ablation, an unfinished run, and class names with markup."""
    folder = tmp_path_factory.mktemp("runs")
    data = data_record(classes=["<script>alert(1)</script>", 'a"b', *TEN[2:]], name="mine & <b>yours</b>")
    for seed in range(3):
        write_run(folder, seed=seed, epochs=30, data=data)
        write_evaluation(folder, seeds=(seed,), error=24 + seed, data=data)
    write_run(folder, recipe="paper", stall=6, data=data)
    write_evaluation(folder, recipe="paper", error=30, data=data)
    write_run(folder, "no-lrn", level=27, data=data)
    write_evaluation(folder, "no-lrn", error=28, data=data)
    half = write_run(folder, "one-gpu", done=2, weights=False, data=data)
    with (half / "log.jsonl").open("a") as log:
        log.write('{"epoch": 3, "train_loss": NaN}\n{"epoch": 4, "tr')
    return folder


@pytest.fixture(scope="module")
def report(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    build_report(runs, out)
    return out


def test_the_learning_curves_are_a_table(report: Path, runs: Path) -> None:
    curves = pd.read_csv(report / "tables" / "curves.csv")
    assert len(curves) == sum(len(run.log) for run in read_records(runs).runs)
    lines = (runs / "alexnet-authors-small-seed1" / "log.jsonl").read_text().splitlines()
    found = curves[curves["run"] == "alexnet-authors-small-seed1"]
    for key in ("epoch", "lr", "train_loss", "val_top1_error", "val_top5_error"):
        assert list(found[key]) == pytest.approx([json.loads(line)[key] for line in lines])


def test_fine_tuned_runs_share_a_figure_with_those_from_random_weights(tmp_path: Path) -> None:
    data = data_record("catsdogs", classes=["cat", "dog"])
    for seed in range(3):
        write_run(tmp_path, seed=seed, epochs=3, data=data, settings={"lr": 0.01})
        tuned = {"settings": {"lr": 0.001}, "init_from": {"run": "alexnet"}}
        write_run(tmp_path / "tuned", seed=seed, epochs=3, level=5, data=data, **tuned)
    curves = [picture for picture in draw_figures(read_records(tmp_path)) if picture.name.startswith("curves-")]
    assert len(curves) == 1
    plain, tuned = re.findall(r"alexnet, recipe authors(|, fine-tuned): validation top-1 error", curves[0].alt)
    assert (plain, tuned) == ("", ", fine-tuned")
    assert b"alexnet, recipe authors, fine-tuned, 3 seeds" in curves[0].svg
    assert "started from the weights of another run" in curves[0].caption
    assert curves[0].alt.startswith("3 panels")  # with two classes, one of five guesses is always right


def test_everything_is_written(report: Path) -> None:
    written = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "comparison.json", "tables/table1.csv", "tables/table2.csv"} <= written
    for name in ("figure3-alexnet-authors-small-seed0", "figure3-alexnet-paper-small-seed0", "curves-1"):
        assert {f"figures/{name}.png", f"figures/{name}.svg"} <= written


def test_comparison_holds_every_target_and_no_infinite_number(report: Path) -> None:
    def refuse(name: str) -> float:
        raise AssertionError(name)

    content = json.loads((report / "comparison.json").read_text(), parse_constant=refuse)
    assert {row["id"] for row in content["targets"]} == {
        target.id for target in load_targets() if not target.published_by_others
    }
    assert all(set(row) >= FIELDS for row in content["targets"])
    small = [row for row in content["targets"] if row["kind"] != "invariant"]
    assert {row["verdict"] for row in small} == {"missing", "not comparable"}
    lrn = next(row for row in small if row["id"] == "lrn-top1")
    assert lrn["direction"] in ("agrees", "disagrees", "undecided")
    assert lrn["runs"] == ["no-lrn-authors-small-seed0", "alexnet-authors-small-seed0"]
    assert lrn["measured"] == pytest.approx(4)


def test_missing_claims_list_the_commands_that_measure_them(report: Path) -> None:
    rows = {row["id"]: row for row in json.loads((report / "comparison.json").read_text())["targets"]}
    train = "repro train --variant {} --recipe authors --scale paper --seed {} --data STORE --out RUNS --precision fp32"
    evaluate = "repro evaluate RUNS/{}-authors-paper-seed{} --data STORE --split {} --views {}"
    seeds = [(variant, seed) for variant in ("one-gpu", "alexnet") for seed in range(3)]
    assert rows["two-gpus-top1"]["commands"] == [
        "repro prepare ilsvrc2010 --out STORE",
        *(train.format(*each) for each in seeds),
        *(evaluate.format(*each, "test", 10) for each in seeds),
    ]
    assert rows["ten-views-gain-top1"]["commands"][-2:] == [
        evaluate.format("alexnet", 0, "test", 1), evaluate.format("alexnet", 0, "test", 10),
    ]  # fmt: skip
    assert [step for step in rows["dropout-overfit"]["commands"] if "evaluate" in step and "seed0" in step] == [
        evaluate.format(variant, 0, split, 1) for variant in ("no-dropout", "alexnet") for split in ("val", "train")
    ]
    assert rows["retrieval-not-pixels"]["commands"][-1] == (
        "repro retrieve RUNS/alexnet-authors-paper-seed0 --data STORE --split test"
    )


@pytest.mark.parametrize(
    ("target", "experiment"),
    [("table2-7cnns-top1", "table2"), ("averaging-gain-top1", "table2"), ("pretraining-gain-top5", "table2"),
     ("fall2009-top1", "fall2009"), ("figure1-relu-speed", "figure1")],
)  # fmt: skip
def test_claims_that_need_many_runs_list_the_experiment(target: str, experiment: str, tmp_path: Path) -> None:
    steps = commands(find_target(target), read_records(tmp_path))
    assert steps[-1] == f"repro run {experiment} --scale paper --stores STORES --out RUNS"
    if "7cnns" in target:
        datasets = [step.split()[2] for step in steps[:-1]]
        assert set(datasets) == {"ilsvrc2012", "fall2009", "fall2011"}


def test_unfinished_runs_are_resumed_and_finished_ones_not_repeated(tmp_path: Path) -> None:
    data = data_record("ilsvrc2010", classes=["x"] * 1000, train=1_261_406, val=50_000, test=150_000)
    write_run(tmp_path, scale="paper", epochs=93, data=data)
    write_run(tmp_path, "one-gpu", scale="paper", epochs=93, done=9, weights=False, data=data)
    steps = [step for step in commands(find_target("two-gpus-top1"), read_records(tmp_path)) if "train" in step]
    assert [step.endswith("--resume") for step in steps] == [True, False, False, False, False]
    assert [step.split()[3] + step.split()[9] for step in steps] == [
        "one-gpu0", "one-gpu1", "one-gpu2", "alexnet1", "alexnet2",
    ]  # fmt: skip


def test_the_page_is_well_formed_self_contained_and_accessible(report: Path) -> None:
    page = (report / "report.html").read_text()
    tags = Tags(page)
    assert tags.open == []
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    for image in tags.all("img"):
        assert "alt" in image
        assert str(image.get("src", "data:")).startswith("data:")
    ids = [str(attributes["id"]) for _, attributes in tags.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in tags.tags:
        for name in ("aria-labelledby", "href"):
            value = attributes.get(name) or ""
            if name == "aria-labelledby" and value:
                assert value in ids
            elif value.startswith("#"):
                assert value[1:] in ids
    headings = [int(tag[1]) for tag, _ in tags.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert all(region["tabindex"] == "0" for region in tags.all("div") if region.get("role") == "region")
    assert all(cell.get("scope") for cell in tags.all("th"))


def test_names_from_records_are_escaped(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "mine &amp; &lt;b&gt;yours&lt;/b&gt;" in page
    assert "<script>alert" not in page
    assert "<b>yours" not in (report / "report.md").read_text().replace(r"\<b\>", "")


def test_the_page_states_what_is_not_comparable_and_why(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "mine &amp; &lt;b&gt;yours&lt;/b&gt; (10 classes), validation images" in page
    assert "no evidence for or against the paper’s errors" in page
    assert "What these runs can and cannot show" in page
    assert "253,440" in page
    assert "290,400" in page
    assert "alexnet-paper-small-seed0, epoch 6: the loss is still that of guessing." in page
    assert "the loss is not finite after epoch 2" in page
    assert "RUNS/no-overlap-authors-paper-seed0" in page


def test_the_length_of_training_is_compared_with_that_on_the_same_dataset(tmp_path: Path) -> None:
    """91 epochs on ILSVRC-2012; 93 are those on ILSVRC-2010."""
    sentences = []
    for epochs in (91, 60):
        write_run(tmp_path / str(epochs), scale="paper", epochs=epochs, data=data_record("ilsvrc2012"))
        (found,) = limitations(read_records(tmp_path / str(epochs)))
        sentences.append(found.cannot[0])
    assert sentences == ["Any error of the paper.", "Any error of the paper. Training takes 60 epochs instead of 91."]


def test_tables_as_csv(report: Path) -> None:
    table = pd.read_csv(report / "tables" / "table1.csv", keep_default_na=False)
    assert list(table["Model"][:3]) == ["Sparse coding (others)", "SIFT + FVs (others)", "CNN"]
    assert list(table["Top-1: paper"]) == [47.1, 45.7, 37.5, 39.0]
    assert table["Top-1: authors' run"][2] == "37.4727"
    assert set(table["Top-1: measured"]) == {""}  # errors of small sets are in the table "smaller"
    small = pd.read_csv(report / "tables" / "smaller.csv")
    assert list(small["Net"]) == ["alexnet", "no-lrn", "alexnet"]
    assert list(small["Training"]) == [f"{name} recipe, small scale" for name in ("authors", "authors", "paper")]
    assert list(small["Ten views: Top-1"]) == [25, 28, 30]
    assert list(small["Ten views: Top-1, n"]) == [3, 2000, 2000]
    net = pd.read_csv(report / "tables" / "architecture.csv").set_index("Layer")
    assert list(net.loc[["conv1", "conv2", "fc8"], "Neurons"]) == [290_400, 186_624, 1000]
    assert list(net.loc[["conv1", "conv2", "fc8"], "Neurons in the paper"]) == [253_440, 186_624, 1000]
    assert net.loc["all layers", "Parameters"] == 60_965_224


def test_without_runs_invariants_are_compared_and_everything_else_is_missing(tmp_path: Path) -> None:
    made = build_report(tmp_path / "none", tmp_path / "out")
    assert made.counts == {"match": 37, "mismatch": 5, "missing": len(made.verdicts) - 42, "not comparable": 0}
    assert made.strict_mismatches == ()
    assert (
        "repro train --variant one-gpu --recipe authors --scale paper" in (tmp_path / "out" / "report.html").read_text()
    )
    assert "37 match, 5 mismatch" in str(made)


def test_without_comparison_there_are_no_verdicts(runs: Path, tmp_path: Path) -> None:
    made = build_report(runs, tmp_path, compare=False)
    assert made.verdicts == ()
    assert not (tmp_path / "comparison.json").exists()
    page = (tmp_path / "report.html").read_text()
    assert 'id="claims"' not in page
    assert Tags(page).open == []


@pytest.mark.parametrize(
    "changes",
    [
        {"done": 0, "weights": False},
        {"data": data_record(classes=[])},
        {"data": data_record(classes=["only one"])},
        {"variant": "a-$variant$-of_tomorrow"},
        {"scale": "huge"},
        {"recipe": "mine"},
        {"machine": None, "versions": None, "devices": None, "started": None},
    ],
    ids=str,
)
def test_unusual_runs_are_reported(tmp_path: Path, changes: dict[str, object]) -> None:
    write_run(tmp_path / "runs", **changes)  # type: ignore[arg-type]
    write_evaluation(tmp_path / "runs", error=25, top1_error=float("nan"))
    made = build_report(tmp_path / "runs", tmp_path / "out")
    assert made.strict_mismatches == ()


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    write_run(tmp_path / "runs")
    contents = []
    for out in (tmp_path / "a", tmp_path / "b"):
        build_report(tmp_path / "runs", out)
        contents.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert contents[0] == contents[1]


def test_an_output_folder_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReproError, match="choose another --out"):
        build_report(tmp_path, tmp_path / "file" / "out")


def test_the_report_imports_no_torch() -> None:
    code = "import sys, repro.report; sys.exit(any(name.split('.')[0] == 'torch' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("kernels", "columns"), [(48, 16), (24, 12), (12, 12), (32, 16), (20, 10), (23, 16), (1, 1)])
def test_kernels_per_row(kernels: int, columns: int) -> None:
    assert columns_for(kernels) == columns


def test_kernels_are_scaled_one_by_one_around_grey() -> None:
    kernels = made_kernels(48)
    kernels[5] = 0
    image = kernel_grid(kernels, 16)
    assert image.shape == (3 * 12 - 1, 16 * 12 - 1, 4)
    assert np.all(image[:11, 5 * 12 : 5 * 12 + 11, :3] == 0.5)
    first = image[:11, :11, :3]
    assert np.abs(first - 0.5).max() == pytest.approx(0.5)
    assert first == pytest.approx(0.5 + 0.5 * (kernels[0] / np.abs(kernels[0]).max()).transpose(1, 2, 0), abs=1e-6)
    assert np.all(image[11] == 0)


def test_chance_and_stall(tmp_path: Path) -> None:
    assert chance_level("val_top1_error", 10) == pytest.approx(90)
    assert chance_level("val_top5_error", 1000) == pytest.approx(99.5)
    assert chance_level("val_top5_error", 3) == 0
    assert chance_level("train_loss", 10) == pytest.approx(2.302585)
    write_run(tmp_path, stall=6)
    (run,) = read_records(tmp_path).runs
    assert stalled(run.log, 10) == [1, 2, 3, 4, 5, 6]


def test_differences_from_alexnet() -> None:
    assert differences("alexnet") == []
    assert differences("no-conv3") == ["without conv3, relu3"]
    assert "conv1: kernels 96 → 48" in differences("one-gpu")
    assert differences("no-weight-decay") == ["weight_decay 0.0005 → 0.0"]
    assert all(differences(variant) for variant in VARIANTS if variant != "alexnet")
    words = "; ".join(word for variant in VARIANTS for word in differences(variant))
    assert "LrChange" not in words
    assert "conv1.* ×0 after epoch 71" in words
    assert "conv1 → tanh → pool" in differences("cifar-tanh")[0]
