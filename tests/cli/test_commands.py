"""The command line as a user types it: options, exit codes, errors, signals, full disks."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ForkedProgram, repro, run_here, small_disk
from made_records import write_run

from repro import interrupts
from repro.cli import commands as cli
from repro.data.store import Store
from repro.training import checkpoint

OPTIONS = {
    "prepare": {
        "--out", "--source", "--size", "--limit-per-class", "--workers", "--scheduler", "--encoding", "--allow-partial",
        "--seed", "--no-splits", "--orientation", "--resize",
    },
    "train": {
        "--variant", "--data", "--out", "--recipe", "--scale", "--seed", "--epochs", "--lr", "--devices", "--precision",
        "--init-from", "--until-train-error", "--resume", "--checkpoint", "--workers", "--scheduler",
        "--save-minutes", "--keep-checkpoints",
    },
    "evaluate": {
        "--data", "--split", "--views", "--devices", "--search-weights", "--confusion", "--batch-size", "--threads",
    },
    "retrieve": {"--data", "--split", "--devices", "--batch-size", "--threads"},
    "activations": {"--data", "--split", "--untrained", "--batch-size", "--threads"},
    "predict": {
        "--with", "--views", "--top", "--label", "--json", "--csv", "--figure", "--batch-size", "--threads",
        "--devices",
    },
    "export": {"--out", "--format", "--preprocessing", "--views"},
    "import": {"--out", "--as", "--classes", "--data"},
    "audit": {"--data", "--out", "--classes", "--devices"},
    "report": {"--runs", "--out", "--compare", "--strict", "--format", "--tensorboard"},
    "run": {
        "--scale", "--recipe", "--stores", "--data", "--out", "--epochs", "--devices", "--precision", "--parallel",
        "--dry-run",
    },
    "plan": {"--images-per-second", "--devices", "--precision"},
    "verify": set(),
    "list": {"--runs"},
    "demo": {"--out"},
}  # fmt: skip


def test_every_command_and_option_is_known_and_has_a_help_text() -> None:
    import typer

    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    found = {}
    for name, command in commands.items():
        assert command.help
        found[name] = {option for p in command.params for option in p.opts if option.startswith("--")} - {"--help"}
        assert all(getattr(p, "help", None) for p in command.params if p.param_type_name == "option")
    assert found == OPTIONS


def test_help_answers_without_heavy_imports() -> None:
    code = (
        "import sys; sys.argv = ['repro', '--help']\n"
        "from repro.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'numpy', 'pandas', 'matplotlib', 'scipy', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "prepare" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_version() -> None:
    done = repro("--version")
    assert (done.returncode, done.stdout) == (0, "repro 0.1.0\n")


@pytest.mark.parametrize("what", ["variants", "ensembles", "datasets", "experiments", "targets", "published"])
def test_list(what: str) -> None:
    done = run_here("list", what)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 4
    assert not re.search(r"\w…", done.stdout)  # nothing is cut short


def test_the_shell_completes_commands_and_options() -> None:
    for typed, expected in (("repro pre", {"prepare", "predict"}), ("repro export --f", {"--format"})):
        count = str(len(typed.split()) - 1)
        env = os.environ | {"_REPRO_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": count}
        done = subprocess.run([sys.executable, "-m", "repro"], env=env, capture_output=True, text=True)
        assert set(done.stdout.split()) == expected


def test_no_command_is_cut_short_in_the_list_of_commands() -> None:
    lines = run_here("--help").stdout.partition("Commands:")[2].splitlines()
    assert len(lines) > 10
    assert not [line for line in lines if line.endswith("...")]


def test_the_list_of_targets_has_signs_units_and_all_digits() -> None:
    cells = [[cell.strip() for cell in line.split("│")] for line in run_here("list", "targets").stdout.splitlines()]
    listed = {row[1]: tuple(row[5:7]) for row in cells if len(row) == 8}
    assert listed["parameters"] == ("60,000,000", "60,965,224")
    assert listed["weight-decay-training-error"][0] == "> 0 points"
    assert listed["table1-cnn-top5"][0] == "17.0%"


def test_the_list_of_runs_says_how_far_and_how_good(tmp_path: Path) -> None:
    reference = Path(__file__).parents[2] / "outputs" / "reference" / "runs" / "A-imagenette"
    done = repro("list", "runs", "--runs", reference)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " alexnet-authors-small-seed0 " in line]
    assert len(lines) == 1
    record = json.loads((reference / "alexnet-authors-small-seed0" / "evaluation-val-10.json").read_text())
    assert f"val 10: {record['top1_error']:.1f}/{record['top5_error']:.1f}" in lines[0]
    assert "30/30" in lines[0]
    two_classes = repro("list", "runs", "--runs", reference.parent / "catsdogs").stdout
    assert re.search(r"val 10: \d+\.\d\b", two_classes)
    assert not re.search(r"val 10: \d+\.\d/", two_classes)
    nothing = repro("list", "runs", "--runs", tmp_path)
    assert (nothing.returncode, nothing.stderr.count("\n")) == (3, 1)


def test_the_list_of_datasets_gives_origin_size_layout_and_use() -> None:
    from repro.preparation.sources.datasets import DATASETS

    listed = " ".join(repro("list", "datasets").stdout.split())
    for name, dataset in DATASETS.items():
        assert name in listed
        assert re.search(r"https://|download|generated|yours", dataset.get)
        assert re.search(r"\d GB|\d MB|\d TB|197 kB", dataset.download)
        assert dataset.layout
        assert re.search(r"Sec\.|Table|Figure|not in the paper", dataset.used_for)


def test_the_list_of_variants_gives_exactly_their_recipes() -> None:
    from repro.cli.tables import variants
    from repro.paper.baselines import BASELINES, RECIPE
    from repro.paper.variants import configure

    table = variants()
    recipes = dict(zip(table.column("variant"), table.column("recipes"), strict=True))
    for variant, listed in recipes.items():
        if variant in BASELINES:
            assert listed == RECIPE
            continue
        for recipe in listed.split(", "):
            assert configure(variant, recipe).variant.name == variant
    assert recipes["alexnet"] == "authors, paper"
    assert recipes["cifar-tanh"] == "authors, fan-in"
    assert recipes["conv6-pretrained"] == "authors, paper"
    assert recipes["conv6-fall2009"] == "authors"


def test_wrong_usage_exits_with_2() -> None:
    assert repro("train").returncode == 2
    assert repro("evaluate", "x", "--data", "y", "--views", "5").returncode == 2
    assert repro("fly").returncode == 2


def test_pipeline_from_images_to_the_report(tmp_path: Path) -> None:
    """All stages on generated images, each as a command; as processes they run in the tests of platforms and subset."""
    store, runs = tmp_path / "store", tmp_path / "runs"
    run = runs / "alexnet-authors-smoke-seed0"
    commands = [
        ("prepare", "synthetic", "--out", store, "--limit-per-class", 3, "--workers", 1),
        ("verify", store),
        ("train", "--variant", "alexnet", "--data", store, "--out", runs, "--scale", "smoke", "--epochs", 1),
        ("evaluate", run, "--data", store, "--split", "test"),
        ("report", "--runs", runs, "--out", tmp_path / "report", "--compare"),
    ]
    for words in commands:
        done = run_here(*words)
        assert (done.returncode, done.stderr) == (0, "")
    assert (run / "evaluation-test-10.json").exists()
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prepare", "folder", "--out", "{tmp}/s", "--source", "{tmp}/none"), "{tmp}/none"),
        (("prepare", "sinthetic", "--out", "{tmp}/s"), "did you mean synthetic"),
        (("prepare", "synthetic", "--out", "{tmp}/file/s"), "{tmp}/file"),
        (("train", "--variant", "alexnot", "--data", "{store}", "--out", "{tmp}/r", "--scale", "smoke"), "alexnet"),
        (("train", "--variant", "alexnet", "--data", "{tmp}", "--out", "{tmp}/r"), "{tmp}"),
        (("train", "--variant", "alexnet", "--data", "{store}", "--out", "{tmp}/r"), "--size 128"),
        (
            ("train", "--variant", "alexnet", "--data", "{store}", "--out", "{tmp}/file", "--scale", "smoke"),
            "cannot create the run's folder",
        ),
        (("evaluate", "{tmp}/none", "--data", "{store}"), "no run at"),
        (("verify", "{tmp}/none"), "{tmp}/none"),
        (
            ("report", "--runs", "{tmp}/none", "--out", "{tmp}/report"),
            "there is no folder '{tmp}/none': name the folder",
        ),
        (("report", "{tmp}/none", "--format", "notebook", "--out", "{tmp}/report"), "there is no folder"),
        (("prepare", "synthetic", "--out", "/", "--limit-per-class", "1"), "root of a file system"),
        (
            (
                "train",
                "--variant",
                "alexnet",
                "--data",
                "{store}",
                "--out",
                "{tmp}/r",
                "--scale",
                "smoke",
                "--lr",
                "inf",
            ),
            "--lr is inf",
        ),
        (
            (
                "train",
                "--variant",
                "alexnet",
                "--data",
                "{store}",
                "--out",
                "{tmp}/r",
                "--scale",
                "smoke",
                "--devices",
                "meta",
            ),
            "no device 'meta'",
        ),
    ],
)
def test_a_user_error_is_one_line_and_exit_code_3(
    words: tuple[str, ...], message: str, synthetic_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    paths = {"tmp": tmp_path, "store": synthetic_store.path}
    done = run_here(*(word.format(**paths) for word in words))
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("repro: ")
    assert message.format(**paths) in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_user_error_as_a_process(tmp_path: Path) -> None:
    done = repro("verify", tmp_path / "none")
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"repro: .*none.*\n", done.stderr)


def test_the_report_of_several_folders(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        write_run(tmp_path / folder, epochs=3)
    for number, words in enumerate((("--runs", "{a}", "{b}"), ("--runs", "{a}", "--runs", "{b}"), ("{a}", "{b}"))):
        out = tmp_path / f"report{number}"
        typed = [word.format(a=tmp_path / "first", b=tmp_path / "second") for word in words]
        assert run_here("report", *typed, "--out", out).returncode == 0
        lines = (out / "tables" / "curves.csv").read_text().splitlines()[1:]
        assert {line.split("/")[0] for line in lines} == {"first", "second"}
    none = ("report", "--runs", tmp_path / "none", tmp_path / "nor", "--out", tmp_path / "out", "--compare", "--strict")
    done = run_here(*none)
    assert done.returncode == 3
    assert f"no runs in '{tmp_path / 'none'}', '{tmp_path / 'nor'}': --strict" in done.stderr
    done = run_here("report", "--runs", tmp_path / "first", tmp_path / "none", "--out", tmp_path / "out")
    assert done.returncode == 0
    assert f"there is no folder {tmp_path / 'none'}" in done.stdout


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "repro", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_line(log: Path, process: ForkedProgram | subprocess.Popen[str]) -> None:
    """Return once the first epoch is logged."""
    while not log.exists() and process.poll() is None:
        time.sleep(0.02)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_saves_the_run(number: signal.Signals, synthetic_store: Store, tmp_path: Path) -> None:
    words = ("train", "--variant", "alexnet", "--data", synthetic_store.path, "--out", tmp_path, "--scale", "smoke")
    run = tmp_path / "alexnet-authors-smoke-seed0"
    process = ForkedProgram("from repro.cli.main import main; main()", [*map(str, words), "--epochs", "100000"])
    wait_for_line(run / "log.jsonl", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert_saved(run, errors)


@pytest.mark.skipif(os.name != "posix", reason="pipes that tell the writer that the reader has gone")
def test_a_reader_of_the_output_that_ends_saves_the_run(synthetic_store: Store, tmp_path: Path) -> None:
    """As in `repro train … | head -1`."""
    words = ("train", "--variant", "alexnet", "--data", synthetic_store.path, "--out", tmp_path, "--scale", "smoke")
    with start(*words, "--epochs", 100_000) as process:
        assert process.stdout
        assert "alexnet-authors-smoke-seed0" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr
        errors = process.stderr.read()
    assert process.returncode == 128 + 13
    assert_saved(tmp_path / "alexnet-authors-smoke-seed0", errors)


def assert_saved(run: Path, errors: str) -> None:
    """The newest checkpoint is the one that the only line of the errors names."""
    assert "--resume" in errors
    assert len(errors.splitlines()) == 1
    saved = checkpoint.load_newest(run / "checkpoints")
    assert saved is not None
    assert f"saved after update {saved.state['step']};" in errors


def test_a_killed_run_resumes_with_bit_identical_weights(synthetic_store: Store, tmp_path: Path) -> None:
    words = ("train", "--variant", "alexnet", "--data", synthetic_store.path, "--scale", "smoke", "--epochs", 12)
    run = tmp_path / "killed" / "alexnet-authors-smoke-seed0"
    with start(*words, "--out", tmp_path / "killed") as process:
        wait_for_line(run / "log.jsonl", process)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "weights.safetensors").exists()
    assert run_here(*words, "--out", tmp_path / "killed").returncode == 3  # without --resume it does not start again
    assert run_here(*words, "--out", tmp_path / "killed", "--resume").returncode == 0
    assert run_here(*words, "--out", tmp_path / "whole").returncode == 0
    whole = tmp_path / "whole" / run.name / "weights.safetensors"
    assert (run / "weights.safetensors").read_bytes() == whole.read_bytes()


def test_a_full_disk_leaves_the_checkpoints_whole(synthetic_store: Store, tmp_path: Path) -> None:
    words = ("train", "--variant", "alexnet", "--data", synthetic_store.path, "--scale", "smoke", "--epochs", 4)
    name = "alexnet-authors-smoke-seed0"
    with small_disk(tmp_path / "disk", 100_000) as disk:  # two checkpoints of 41 MB, and a part of the third
        full = repro(*words, "--out", disk)
        assert full.returncode == 3
        assert re.fullmatch(
            r"repro: cannot write '.*/checkpoints/0000000003\.safetensors': No space left on device; "
            r"no partial file was left\n",
            full.stderr,
        )
        kept = sorted((disk / name / "checkpoints").iterdir())
        assert [path.name for path in kept] == [
            f"000000000{step}.{kind}" for step in (1, 2) for kind in ("json", "safetensors")
        ]
        assert [checkpoint.load(path).state["step"] for path in kept if path.suffix == ".json"] == [1, 2]
        subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
        assert run_here(*words, "--out", disk, "--resume").returncode == 0
        assert run_here(*words, "--out", tmp_path / "whole").returncode == 0
        weights = [(out / name / "weights.safetensors").read_bytes() for out in (disk, tmp_path / "whole")]
    assert weights[0] == weights[1]
