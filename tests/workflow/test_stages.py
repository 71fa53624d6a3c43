"""Which commands an experiment lists, in which order, and that done work is skipped."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import typer
from helpers import repro

from repro.cli import commands as cli
from repro.errors import ReproError
from repro.paper.experiments import EXPERIMENTS, GRIDS, PARTS
from repro.paper.variants import VARIANTS
from repro.preparation.prepare import prepare
from repro.verification.verify import verify
from repro.workflow.stages import Stage, Workspace, experiment


def smoke(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "runs", tmp_path / "stores", "smoke")


def words_of(stages: list[Stage], command: str) -> list[tuple[str, ...]]:
    return [stage.words for stage in stages if stage.words[0] == command]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_stage_once_and_nothing_before_what_it_needs(name: str, tmp_path: Path) -> None:
    stages = list(experiment(name, smoke(tmp_path)))
    assert len(set(stages)) == len(stages)
    made: set[str] = set()
    for stage in stages:
        needed = [word for word in stage.words if word.startswith(str(tmp_path))]
        target = str(stage.result.parent) if stage.result else ""
        if stage.words[0] == "train":  # its store, and the run that it begins from
            needed = [stage.words[stage.words.index("--data") + 1]]
            needed += [stage.words[stage.words.index("--init-from") + 1]] if "--init-from" in stage.words else []
        assert set(needed) <= made | {target}
        made.add(target)


def test_all_trains_every_variant(tmp_path: Path) -> None:
    trained = {
        words[words.index("--variant") + 1] for words in words_of(list(experiment("all", smoke(tmp_path))), "train")
    }
    assert trained == set(VARIANTS) - {"conv6"}  # the net of conv6-pretrained, from random weights


def test_the_pretraining_chain_comes_in_order(tmp_path: Path) -> None:
    trained = words_of(list(experiment("table2", smoke(tmp_path))), "train")
    order = [words[words.index("--variant") + 1] for words in trained if words[words.index("--seed") + 1] == "1"]
    assert order == ["alexnet", "conv6-fall2009", "conv6-fall2011", "conv6-pretrained"]


def write_errors(workspace: Workspace, rate: float, errors: list[float]) -> None:
    log = workspace.out / "synthetic-32" / f"cifar-relu-authors-smoke-lr{rate:g}-seed0" / "log.jsonl"
    log.parent.mkdir(parents=True)
    lines = [{"epoch": epoch, "train_top1_error": error} for epoch, error in enumerate(errors, 1)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))


def grid_trainings(workspace: Workspace) -> list[dict[str, str]]:
    """The options of the trainings of Figure 1's ReLU net by the authors' recipe."""
    trained = words_of(list(experiment("figure1", workspace)), "train")
    options = [dict(zip(words[1::2], words[2::2], strict=False)) for words in trained]
    return [each for each in options if each["--variant"] == "cifar-relu" and each["--recipe"] == "authors"]


def test_the_grid_s_winner_is_trained_from_all_seeds(tmp_path: Path) -> None:
    workspace = smoke(tmp_path)
    for rate, errors in ((0.001, [60, 40]), (0.002, [24, 26]), (0.004, [50, 24]), (0.008, [90, 90]), (0.016, [90, 90])):
        write_errors(workspace, rate, errors)
    assert [(each["--seed"], each["--lr"]) for each in grid_trainings(workspace)] == [
        ("0", "0.004"), ("0", "0.008"), ("0", "0.002"), ("0", "0.001"), ("0", "0.016"), ("1", "0.002"),
        ("2", "0.002"),
    ]  # fmt: skip


def test_a_rate_of_the_grid_goes_on_only_as_long_as_it_could_be_the_fastest(tmp_path: Path) -> None:
    workspace = smoke(tmp_path)
    write_errors(workspace, 0.004, [60, 50, 40, 30, 20])  # comes to 25% after 4.5 epochs
    write_errors(workspace, 0.002, [60, 40, 10])  # after 2.5
    trained = [(each["--lr"], each["--until-train-error"], each.get("--epochs")) for each in grid_trainings(workspace)]
    assert trained == [
        ("0.004", "25", None), ("0.008", "25", "5"), ("0.002", "25", "5"), ("0.001", "25", "3"),
        ("0.016", "25", "3"), ("0.002", "25", None), ("0.002", "25", None),
    ]  # fmt: skip


def test_an_unknown_experiment_and_a_missing_store(tmp_path: Path) -> None:
    with pytest.raises(ReproError, match="unknown experiment 'tabel1': did you mean table1 or table2"):
        next(experiment("tabel1", smoke(tmp_path)))
    with pytest.raises(ReproError, match=r"no store at '.*ilsvrc2010': repro prepare ilsvrc2010 --out .* --size 128"):
        next(experiment("table1", Workspace(tmp_path, tmp_path, "small")))
    with pytest.raises(ReproError, match=r"no store at '.*catsdogs': repro prepare folder --out .*catsdogs --size 128"):
        next(experiment("catsdogs", Workspace(tmp_path, tmp_path, "small")))  # anybody's pictures


def test_table1_at_smoke_scale_from_start_to_end_and_again(tmp_path: Path) -> None:
    places = ("--out", tmp_path / "runs", "--stores", tmp_path / "stores")
    words = ("run", "table1", "--scale", "smoke", *places, "--epochs", 1)
    listed = repro(*words, "--dry-run").stdout.splitlines()
    assert not list(tmp_path.iterdir())
    assert [line.split()[1] for line in listed] == ["prepare", "train", "evaluate", "evaluate"]
    first, second = repro(*words), repro(*words)
    assert first.returncode == second.returncode == 0, first.stderr
    assert [line for line in first.stdout.splitlines() if line.startswith("$ ")] == [f"$ {line}" for line in listed]
    assert second.stdout.count("(done)") == 4
    weights = tmp_path / "runs" / "synthetic-64" / "alexnet-authors-smoke-seed0" / "weights.safetensors"
    longer = repro(*words[:-1], 2)
    assert longer.returncode == 3
    assert longer.stderr.startswith(f"repro: '{weights.parent}' is done, but of 1 epochs, not 2: ask for --epochs 1, ")
    record = json.loads((weights.parent / "run.json").read_text())
    (weights.parent / "run.json").write_text(json.dumps({**record, "until_train_error": 100.0}))
    Stage(("train",), weights, 2).check()  # it came to what was to end it
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    third = repro(*words)
    assert third.returncode == 3
    assert third.stderr.startswith(f"repro: '{weights.parent}' is done, but damaged: weights.safetensors: its SHA-256 ")
    assert len(third.stderr.splitlines()) == 1


def test_everything_at_smoke_scale_from_start_to_end(tmp_path: Path) -> None:
    """`run all` and the report on it, as typed but in this process, on stores of few images prepared before."""
    for size in (32, 64):
        prepare("synthetic", tmp_path / "stores" / f"synthetic-{size}", size=size, limit_per_class=2, workers=1)
    command = typer.main.get_command(cli.app)
    places = ["--out", str(tmp_path / "runs"), "--stores", str(tmp_path / "stores")]
    command(["run", "all", "--scale", "smoke", "--epochs", "1", *places], standalone_mode=False)
    workspace = Workspace(tmp_path / "runs", tmp_path / "stores", "smoke")
    for part in PARTS:
        assert all(stage.done for stage in experiment(part.name, workspace)), part.name
    for folder in workspace.out.glob("*/*"):
        assert verify(folder) == []

    report = tmp_path / "report"
    words = ["report", "--runs", str(workspace.out), "--out", str(report), "--compare", "--strict"]
    command(words, standalone_mode=False)  # no claim is contradicted by a run that is not the paper's

    def measured(table: str, *places: str) -> list[str]:
        """The rows of the table with a number in every column of `places`, by their names and without recipe."""
        with (report / "tables" / f"{table}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = [
            row[next(name for name in row if name != "group")] for row in rows if all(row[each] for each in places)
        ]
        return [name.partition(", recipe")[0] for name in names]

    assert {"CNN", "CNN, centre patch alone"} <= {*measured("table1", "Top-1: measured", "Top-5: measured")}
    nets = {"1 CNN", "5 CNNs", "1 CNN*", "7 CNNs*"}
    assert nets == {*measured("table2", "Top-1 (val): measured", "Top-5 (val): measured")}
    assert [name.partition(" (")[0] for name in measured("others", "Top-1: measured")] == [
        "Fall 2009, net with conv6", "CIFAR-10 without normalisation, test", "CIFAR-10 with normalisation, test",
    ]  # fmt: skip
    assert len(measured("ablations", "Top-1: measured")) == 10
    grids = [(net, rates) for rates in GRIDS.values() for net in ("cifar-relu", "cifar-tanh")]
    assert measured("figure1", "Epochs: run 1") == [net for net, rates in grids for _ in rates]
    # The rate that the report takes for the fastest is the one that was trained from three seeds.
    assert measured("figure1", "Epochs: run 3", "Chosen") == [net for net, _ in grids]
    assert measured("retrieval", "Same class, %: fc7", "Same class, %: codes") == ["alexnet"]
    figures = {path.name for path in (report / "figures").glob("*.svg")}
    assert {"figure1.svg", "figure1-2.svg", "figure2.svg"} <= figures
    for start in ("figure3-", "figure4-labels-", "figure4-neighbours-", "curves-"):
        assert any(name.startswith(start) for name in figures), start
    assert sum("-tuned-" in name for name in measured("runs", "Training loss")) == 3  # cats against dogs
    shutil.rmtree(workspace.out)  # half a gigabyte, which pytest would keep
