"""Every command ends with the command to type next, quoted for the shell, and says when nothing is left to do."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from repro.cli import commands as cli
from repro.cli.options import Listed
from repro.data.store import Store
from repro.errors import ReproError, Stopped
from repro.formatting import command_line
from repro.workflow.stages import Kind, Stage

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
PUBLISHED = Path(__file__).parents[2] / "outputs" / "reference" / "runs" / "catsdogs"
RUN = "alexnet-authors-smoke-seed0"


def call(*words: object) -> list[str]:
    """Call a command; return the words of the next one, which must be valid."""
    name, *arguments = map(str, words)
    result: Any = COMMANDS[name].main(arguments, prog_name=f"repro {name}", standalone_mode=False)
    assert isinstance(result, Sequence), f"{name} names no next command"
    following = [str(word) for word in result]
    COMMANDS[following[0]].make_context(following[0], following[1:])  # raises for wrong usage
    return following


def test_each_command_names_the_next_one(
    synthetic_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, runs = synthetic_store.path, tmp_path / "my runs"
    smoke = ("--variant", "alexnet", "--scale", "smoke", "--epochs", 1, "--data", store, "--out", runs)
    training = ["train", "--variant", "alexnet", "--scale", "smoke", "--data", str(store)]
    evaluation = ["evaluate", str(runs / RUN), "--data", str(store)]
    comparison = ["report", "--runs", str(runs), "--compare"]
    assert call("verify", store) == training
    assert call("train", *smoke) == evaluation
    capsys.readouterr()
    assert call("train", *smoke, "--resume") == evaluation
    assert f"{runs / RUN} is finished" in capsys.readouterr().out
    assert call("verify", runs / RUN) == comparison
    assert call("evaluate", runs / RUN, "--data", store, "--views", 1) == comparison
    assert call("retrieve", runs / RUN, "--data", store) == comparison
    assert call("activations", runs / RUN, "--data", store) == comparison


def test_prepare_names_a_training_at_a_scale_that_fits(tmp_path: Path) -> None:
    for size, scale in ((32, "small"), (64, "smoke"), (128, "small"), (256, "small")):
        store = tmp_path / str(size)
        words = ("synthetic", "--out", store, "--size", size, "--limit-per-class", 1, "--workers", 1)
        following = call("prepare", *words)
        assert following[-4:] == ["--scale", scale, "--data", str(store)]
        assert following[2] == ("cifar-relu" if size == 32 else "alexnet")


def test_lists_and_plans_name_a_command_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.console, "_force_terminal", True)
    following = {what: call("list", what, "--runs", PUBLISHED) for what in get_args(Listed)}
    assert following["runs"] == ["report", "--runs", str(PUBLISHED), "--compare"]
    assert call("plan", "table1", "--images-per-second", 100) == ["run", "table1", "--dry-run"]


def test_a_report_names_the_comparison(tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert call("report", "--runs", PUBLISHED, "--out", out)[-1] == "--compare"


def test_the_next_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("my runs") / "[x]"
    cli._show_next(("verify", path))
    assert capsys.readouterr().out == f"next: {command_line(['repro', 'verify', path])}\n"
    assert f'"{path}"' in command_line([path]) or f"'{path}'" in command_line([path])


def test_a_strict_report_without_runs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for runs in (tmp_path / "typo", tmp_path / "empty"):
        with pytest.raises(ReproError, match="has nothing to check; name the folder of the runs with --runs"):
            call("report", "--runs", runs, "--out", tmp_path / "report", "--compare", "--strict")
    assert not (tmp_path / "report").exists()


def test_a_stopped_experiment_does_not_advise_an_option_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise Stopped(signal.SIGINT, "saved after update 7; continue with --resume")

    monkeypatch.setattr(type(COMMANDS["train"]), "main", stop)
    with pytest.raises(Stopped, match=r"^saved after update 7; run the same command again to continue$"):
        cli._run_stages([Stage(Kind.TRAIN, ("train", "--variant", "alexnet", "--data", "x"))])
