"""The commands of an experiment and their order, and which finished work is skipped or refused."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from helpers import run_here

from repro.cli import commands as cli
from repro.errors import ReproError
from repro.paper.baselines import BASELINES
from repro.paper.datasets import DATASET_SIZES
from repro.paper.experiments import EXPERIMENTS, GRIDS, PARTS
from repro.paper.variants import VARIANTS
from repro.preparation.prepare import prepare
from repro.training.settings import Settings
from repro.verification.verify import verify
from repro.workflow.stages import Kind, Stage, Workspace, experiment


def smoke(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "runs", tmp_path / "stores", "smoke")


def words_of(stages: list[Stage], kind: Kind) -> list[tuple[str, ...]]:
    return [stage.words for stage in stages if stage.kind == kind]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_stage_comes_once_and_after_what_it_needs(name: str, tmp_path: Path) -> None:
    stages = list(experiment(name, smoke(tmp_path)))
    assert len(set(stages)) == len(stages)
    made: set[str] = set()
    results: set[Path | None] = set()
    for stage in stages:
        assert set(stage.needs) <= results
        results.add(stage.result)
        needed = [word for word in stage.words if word.startswith(str(tmp_path))]
        target = str(stage.result.parent) if stage.result else ""
        if stage.kind == Kind.TRAIN:  # its store, and the run that initialises it
            needed = [stage.words[stage.words.index("--data") + 1]]
            needed += [stage.words[stage.words.index("--init-from") + 1]] if "--init-from" in stage.words else []
        assert set(needed) <= made | {target}
        made.add(target)


def test_the_contest_trains_every_baseline_and_the_net_on_one_store(tmp_path: Path) -> None:
    stages = list(experiment("contest", smoke(tmp_path)))
    trained = [words[words.index("--variant") + 1] for words in words_of(stages, Kind.TRAIN)]
    assert trained == [*BASELINES, "alexnet"]
    views = [words[words.index("--views") + 1] for words in words_of(stages, Kind.EVALUATE)]
    assert views == ["1", "1", "1", "10", "1", "10"]  # on test; SIFT + FVs and the net on val too


def test_all_and_recipes_train_every_variant(tmp_path: Path) -> None:
    trained = {
        words[words.index("--variant") + 1]
        for name in ("all", "recipes")
        for words in words_of(list(experiment(name, smoke(tmp_path))), Kind.TRAIN)
    }
    assert trained == set(VARIANTS)


@pytest.mark.parametrize(
    ("recipe", "chain"),
    [
        ("authors", ["conv6-fall2009", "conv6-fall2011", "conv6-pretrained", "conv6-pretrained-fall2009"]),
        ("paper", ["conv6-fall2011", "conv6-pretrained"]),
    ],
)
def test_pretraining_comes_in_order(recipe: str, chain: list[str], tmp_path: Path) -> None:
    trained = words_of(list(experiment("table2", replace(smoke(tmp_path), recipe=recipe))), Kind.TRAIN)
    order = [words[words.index("--variant") + 1] for words in trained if words[words.index("--seed") + 1] == "0"]
    assert order == ["alexnet", *chain]
    assert {words[words.index("--recipe") + 1] for words in trained} == {recipe}


def paper_stores(tmp_path: Path) -> Path:
    """Folders that pass for complete stores of every dataset."""
    for dataset, size in DATASET_SIZES.items():
        (tmp_path / dataset).mkdir()
        manifest = {"dataset": dataset, "splits": {split: {} for split in size.images}}
        (tmp_path / dataset / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_a_training_has_the_recorded_length_of_its_dataset(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "runs", paper_stores(tmp_path), "paper")
    stages = [*experiment("table1", workspace), *experiment("table2", workspace), *experiment("fall2009", workspace)]
    lengths = {
        (stage.settings.variant, stage.store.name): stage.settings.configure(10, stage.store.name).length
        for stage in stages
        if stage.settings and stage.store
    }
    assert lengths == {
        ("alexnet", "ilsvrc2010"): 93, ("alexnet", "ilsvrc2012"): 91, ("conv6", "fall2009"): 28.3,
        ("conv6-fall2009", "fall2009"): 6.65, ("conv6-fall2011", "fall2011"): 8.11,
        ("conv6-pretrained", "ilsvrc2012"): 54, ("conv6-pretrained-fall2009", "ilsvrc2012"): 52,
    }  # fmt: skip


def test_two_gpus_hold_a_tower_each_at_the_scale_of_the_paper(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "runs", paper_stores(tmp_path), "paper")
    trained = [stage.settings.devices for stage in experiment("two-gpus", workspace) if stage.settings]
    assert trained == ["cuda:0,cuda:1", None]
    assert [stage.devices for stage in experiment("two-gpus", workspace) if stage.settings] == [2, 1]
    chosen = replace(workspace, devices="cpu")
    assert {stage.settings.devices for stage in experiment("two-gpus", chosen) if stage.settings} == {"cpu"}
    assert {stage.settings.devices for stage in experiment("all", workspace) if stage.settings} == {None}


def write_errors(workspace: Workspace, lr: float, errors: list[float]) -> None:
    log = workspace.out / "synthetic-32" / f"cifar-relu-authors-smoke-lr{lr:g}-seed0" / "log.jsonl"
    log.parent.mkdir(parents=True)
    lines = [{"epoch": epoch, "train_top1_error": error} for epoch, error in enumerate(errors, 1)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))


def grid_trainings(workspace: Workspace) -> list[dict[str, str]]:
    """The options of the trainings of Figure 1's ReLU net by the authors' recipe."""
    trained = words_of(list(experiment("figure1", workspace)), Kind.TRAIN)
    options = [dict(zip(words[1::2], words[2::2], strict=False)) for words in trained]
    return [each for each in options if each["--variant"] == "cifar-relu" and each["--recipe"] == "authors"]


def test_the_fastest_learning_rate_is_trained_from_all_seeds(tmp_path: Path) -> None:
    workspace = smoke(tmp_path)
    for lr, errors in ((0.001, [60, 40]), (0.002, [24, 26]), (0.004, [50, 24]), (0.008, [90, 90]), (0.016, [90, 90])):
        write_errors(workspace, lr, errors)
    assert [(each["--seed"], each["--lr"]) for each in grid_trainings(workspace)] == [
        ("0", "0.004"), ("0", "0.008"), ("0", "0.002"), ("0", "0.001"), ("0", "0.016"), ("1", "0.002"),
        ("2", "0.002"), ("3", "0.002"),
    ]  # fmt: skip


def test_a_net_at_its_fastest_learning_rate_needs_the_whole_grid(tmp_path: Path) -> None:
    """A command that runs in parallel with others must not be started at a learning rate that is not yet selected."""
    stages = list(experiment("figure1", smoke(tmp_path)))
    trained = [each for each in stages if each.settings and each.settings.variant == "cifar-relu"]
    trained = [each for each in trained if each.settings and each.settings.recipe == "authors"]
    grid, counted = trained[: len(GRIDS["authors"])], trained[len(GRIDS["authors"]) :]
    assert len(counted) == 3
    for index, stage in enumerate(trained):
        assert {each.result for each in grid[:index]} <= set(stage.needs)


def test_a_grid_ends_runs_that_can_no_longer_be_the_fastest(tmp_path: Path) -> None:
    workspace = smoke(tmp_path)
    write_errors(workspace, 0.004, [60, 50, 40, 30, 20])  # reaches 25% after 4.5 epochs
    write_errors(workspace, 0.002, [60, 40, 10])  # after 2.5
    trained = [(each["--lr"], each["--until-train-error"], each.get("--epochs")) for each in grid_trainings(workspace)]
    assert trained == [
        ("0.004", "25", None), ("0.008", "25", "5"), ("0.002", "25", "5"), ("0.001", "25", "3"),
        ("0.016", "25", "3"), ("0.002", "25", None), ("0.002", "25", None), ("0.002", "25", None),
    ]  # fmt: skip


def test_unknown_experiment_and_missing_store(tmp_path: Path) -> None:
    with pytest.raises(ReproError, match="unknown experiment 'tabel1': did you mean table1 or table2"):
        next(experiment("tabel1", smoke(tmp_path)))
    missing = r"no store at '.*ilsvrc2010': repro prepare ilsvrc2010 --out .* --size 128 .*; or name .* with --data$"
    with pytest.raises(ReproError, match=missing):
        next(experiment("table1", Workspace(tmp_path, tmp_path, "small")))
    with pytest.raises(ReproError, match=r"--size 256 --source …$"):  # at the paper's scale nothing replaces it
        next(experiment("table1", Workspace(tmp_path, tmp_path, "paper")))
    with pytest.raises(
        ReproError, match=r"no store at '.*catsdogs': repro prepare folder .*catsdogs --size 128 [^;]*$"
    ):
        next(experiment("catsdogs", Workspace(tmp_path, tmp_path, "small")))  # no official dataset


def test_table1_at_smoke_scale_from_start_to_end_and_again(tmp_path: Path) -> None:
    places = ("--out", tmp_path / "runs", "--stores", tmp_path / "stores")
    words = ("run", "table1", "--scale", "smoke", *places, "--epochs", 1)
    listed = run_here(*words, "--dry-run").stdout.splitlines()
    assert not list(tmp_path.iterdir())
    assert [line.split()[1] for line in listed] == ["prepare", "train", "evaluate", "evaluate"]
    first, second = run_here(*words), run_here(*words)
    assert first.returncode == second.returncode == 0, first.stderr
    assert [line for line in first.stdout.splitlines() if line.startswith("$ ")] == [f"$ {line}" for line in listed]
    assert second.stdout.count("(done)") == 4
    weights = tmp_path / "runs" / "synthetic-64" / "alexnet-authors-smoke-seed0" / "weights.safetensors"
    longer = run_here(*words[:-1], 2)
    assert longer.returncode == 3
    assert longer.stderr.startswith(f"repro: '{weights.parent}' is done, but of 1 epochs, not 2: ask for --epochs 1, ")
    record = json.loads((weights.parent / "run.json").read_text())
    (weights.parent / "run.json").write_text(json.dumps({**record, "until_train_error": 100.0}))
    settings = Settings("alexnet", "authors", "smoke", epochs=2, until_train_error=100.0)
    store = tmp_path / "stores" / "synthetic-64"
    Stage(Kind.TRAIN, ("train",), weights, settings, store).check()  # it reached the error that was to end it
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    third = run_here(*words)
    assert third.returncode == 3
    assert third.stderr.startswith(f"repro: '{weights.parent}' is done, but damaged: weights.safetensors: its SHA-256 ")
    assert len(third.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which table 1 is done, of two images per class and one epoch."""
    folder = tmp_path_factory.mktemp("done")
    prepare("synthetic", folder / "stores" / "synthetic-64", size=64, limit_per_class=2, workers=1)
    workspace = Workspace(folder / "runs", folder / "stores", "smoke", epochs=1)
    command = typer.main.get_command(cli.app)
    places = ["--out", str(workspace.out), "--stores", str(workspace.stores)]
    command(["run", "table1", "--scale", "smoke", "--epochs", "1", *places], standalone_mode=False)
    return workspace


def check_all(workspace: Workspace) -> None:
    for stage in experiment("table1", workspace):
        assert stage.done
        stage.check()


def test_finished_work_is_accepted(done: Workspace) -> None:
    check_all(done)
    check_all(replace(done, devices="cpu"))  # where it was computed does not matter


def test_finished_runs_with_other_settings_are_refused(done: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReproError, match=r"is done, but of 1 epochs, not 2: ask for --epochs 1"):
        check_all(replace(done, epochs=2))
    monkeypatch.setattr("repro.models.devices.has_fast_bf16", lambda device: True)
    with pytest.raises(ReproError, match=r"differs from what is asked for: its precision is fp32, not bf16; choose"):
        check_all(replace(done, precision="bf16"))


def test_a_run_on_one_gpu_does_not_serve_a_claim_about_the_time_on_two(done: Workspace) -> None:
    stage = next(stage for stage in experiment("table1", done) if stage.kind == Kind.TRAIN)
    with pytest.raises(ReproError, match=r"is done, but on 1 device, not on 2: choose another --out"):
        replace(stage, devices=2).check()


def test_finished_runs_of_a_replaced_store_are_refused(done: Workspace, tmp_path: Path) -> None:
    other = tmp_path / "stores" / "synthetic-64"
    prepare("synthetic", other, size=64, limit_per_class=2, workers=1, seed=7)
    with pytest.raises(
        ReproError, match=r"differs from what is asked for: its data fingerprint is \w+, not \w+; choose"
    ):
        check_all(replace(done, stores=tmp_path / "stores"))


def test_evaluations_of_other_data_or_weights_are_refused(done: Workspace, tmp_path: Path) -> None:
    runs = shutil.copytree(done.out, tmp_path / "runs")
    stage = list(experiment("table1", replace(done, out=runs)))[-1]
    stage.check()
    assert stage.result is not None
    record = json.loads(stage.result.read_text(encoding="utf-8"))
    stage.result.write_text(json.dumps({**record, "checksums": ["0" * 64]}), encoding="utf-8")
    with pytest.raises(ReproError, match="is of other weights than"):
        stage.check()
    data = {**record["data"], "fingerprint": "0" * 64}
    stage.result.write_text(json.dumps({**record, "data": data}), encoding="utf-8")
    with pytest.raises(ReproError, match="is of other data than"):
        stage.check()


def test_unsuitable_settings_are_errors_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = smoke(tmp_path)
    with pytest.raises(ReproError, match="unknown recipe 'nonsense': choose from authors, fan-in, paper"):
        next(experiment("table1", replace(workspace, recipe="nonsense")))
    with pytest.raises(ReproError, match="--data is not used at scale smoke"):
        next(experiment("table1", replace(workspace, data=tmp_path / "store")))
    monkeypatch.setattr("repro.models.devices.has_fast_bf16", lambda device: False)
    with pytest.raises(ReproError, match=r"--precision bf16: .* use --precision fp32"):
        next(experiment("table1", replace(workspace, precision="bf16")))
    assert not list(tmp_path.iterdir())


def test_everything_at_smoke_scale_from_start_to_end(tmp_path: Path) -> None:
    """`run all` and its report, through the command line in this process, on small stores prepared before."""
    for size in (32, 64):
        prepare("synthetic", tmp_path / "stores" / f"synthetic-{size}", size=size, limit_per_class=2, workers=1)
    command = typer.main.get_command(cli.app)
    places = ["--out", str(tmp_path / "runs"), "--stores", str(tmp_path / "stores")]
    command(["run", "all", "--scale", "smoke", "--epochs", "1", *places], standalone_mode=False)
    workspace = Workspace(tmp_path / "runs", tmp_path / "stores", "smoke")
    for part in PARTS:
        if part.name not in ("recipes", "contest"):  # not part of `all`
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

    # Errors on other images than the paper's have a table of their own.
    assert not any(measured(table, "Top-1: measured") for table in ("table1", "others"))
    assert not measured("table2", "Top-1 (val): measured")
    both = measured("smaller", "Ten views: Top-1", "Ten views: Top-5")
    assert {"5cnns", "conv6-pretrained", "7cnns", "conv6", "conv6-fall2009", "cifar-no-lrn", "cifar-lrn"} <= {*both}
    assert "alexnet" in measured("smaller", "One view: Top-1", "Ten views: Top-1")
    # Each ingredient; one view against ten on both splits that were evaluated with both.
    assert len({*measured("ablations", "Top-1: measured")}) == 10
    grids = [(net, rates) for rates in GRIDS.values() for net in ("cifar-relu", "cifar-tanh")]
    assert measured("figure1", "Epochs: run 1") == [net for net, rates in grids for _ in rates]
    # The rate that the report takes for the fastest is the one that was trained from four seeds.
    assert measured("figure1", "Epochs: run 4", "Result") == [net for net, _ in grids]
    assert measured("retrieval", "Same class, %: fc7", "Same class, %: codes") == ["alexnet"]
    figures = {path.name for path in (report / "figures").glob("*.svg")}
    assert {"figure1.svg", "figure1-2.svg", "figure2.svg"} <= figures
    for start in ("figure3-", "figure4-labels-", "figure4-neighbours-", "curves-"):
        assert any(name.startswith(start) for name in figures), start
    assert sum("-tuned-" in name for name in measured("runs", "Training loss")) == 3  # cats against dogs
    shutil.rmtree(workspace.out)  # half a gigabyte, which pytest would keep
