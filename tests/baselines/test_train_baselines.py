"""Runs of the methods that preceded the paper through the command line: results, resuming, use, and errors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import picture

from repro import atomic
from repro.baselines.settings import BaselineSettings
from repro.baselines.train import FEATURES, AlreadyFinished, Progress, train_baseline
from repro.cli import main
from repro.data.store import Store
from repro.errors import ReproError, Stopped
from repro.evaluation.classifiers import open_classifier
from repro.evaluation.evaluate import evaluate
from repro.paper.baselines import BASELINES
from repro.preparation.store_writing import write_array
from repro.records.reading import read_evaluation, read_log, read_run
from repro.records.schema import EpochRecord
from repro.training.settings import Settings
from repro.training.train import train
from repro.verification.verify import verify

pytest.importorskip("sklearn")
pytest.importorskip("skimage")

CHANCE = 90.0


@pytest.fixture(scope="module")
def runs(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folder of a finished run of each method, at smoke scale on 40 images."""
    out = tmp_path_factory.mktemp("runs")
    for name in BASELINES:
        assert main.run(["train", "--variant", name, "--scale", "smoke", "--data", str(synthetic_store.path),
                         "--out", str(out)]) == 0  # fmt: skip
    return {name: out / f"{name}-cited-smoke-seed0" for name in BASELINES}


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("name", BASELINES)
def test_a_run_is_recorded_evaluated_and_verified(
    name: str, runs: dict[str, Path], synthetic_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = runs[name], read_run(runs[name])
    assert (run.kind, run.variant, run.recipe, run.network) == ("baseline", name, "cited", ())
    assert run.ended
    assert (run.ended.reason, run.ended.epochs) == ("epochs", run.epochs)
    assert not (folder / FEATURES).exists()
    log = list(read_log(folder / "log.jsonl"))
    assert [epoch.epoch for epoch in log] == list(range(1, run.epochs + 1))
    assert main.run(["evaluate", str(folder), "--data", str(synthetic_store.path)]) == 0  # ten views are the default
    assert "views: 1" in capsys.readouterr().out
    record = read_evaluation(folder / "evaluation-val-1.json")
    assert record.views == 1
    # Features of the training are float16.
    np.testing.assert_allclose(record.top1_error, log[-1].val_top1_error, atol=2.6)
    assert verify(folder) == []
    labels, wrong = record.wrong("top1_error") or (None, None)
    assert labels is not None
    assert 100 * wrong.mean() == record.top1_error


def test_every_method_is_better_than_chance_and_the_descriptors_than_the_floor(
    runs: dict[str, Path], synthetic_store: Store
) -> None:
    errors = {name: evaluate([folder], synthetic_store.path)[1].top1_error for name, folder in runs.items()}
    fitted = {name: evaluate([folder], synthetic_store.path, "train")[1].top1_error for name, folder in runs.items()}
    assert max(fitted.values()) < CHANCE - 30
    assert errors["sift-fv"] < CHANCE - 40  # 40 images are generalised from
    assert errors["sift-fv"] < errors["pixels"] - 10


def test_a_finished_run_is_not_trained_again(runs: dict[str, Path], synthetic_store: Store) -> None:
    settings, out = BaselineSettings("pixels", "smoke"), runs["pixels"].parent
    with pytest.raises(ReproError, match="already holds a run"):
        list(train_baseline(settings, synthetic_store.path, out))
    assert list(train_baseline(settings, synthetic_store.path, out, resume=True)) == [AlreadyFinished(runs["pixels"])]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("name", ["pixels", "sift-fv"])
def test_a_run_that_is_killed_at_any_write_resumes_with_the_same_result(
    name: str, runs: dict[str, Path], synthetic_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its second, fourth … write, again and again, each time further."""
    settings = BaselineSettings(name, "smoke")
    write, left = atomic.write, 0

    def killed(path: Path, content: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        write(path, content)

    monkeypatch.setattr(atomic, "write", killed)
    kills = 0
    while True:
        left = 1 + 2 * (kills % 4)
        try:
            list(train_baseline(settings, synthetic_store.path, tmp_path, resume=True))
            break
        except Killed:
            kills += 1
        assert kills < 100
    assert kills > 3
    folder = tmp_path / settings.run_name
    assert weights(folder) == weights(runs[name])
    times = ("seconds", "images_per_second")
    logs = [
        [
            {key: value for key, value in vars(epoch).items() if key not in times}
            for epoch in read_log(each / "log.jsonl")
        ]
        for each in (folder, runs[name])
    ]
    assert logs[0] == logs[1]


def test_killed_before_the_weights_were_written_it_is_continued(
    synthetic_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Killed

    settings = BaselineSettings("pixels", "smoke")
    with monkeypatch.context() as patch:
        patch.setattr("repro.run_folder.write_weights", die)
        with pytest.raises(Killed):
            list(train_baseline(settings, synthetic_store.path, tmp_path))
    with pytest.raises(ReproError, match=r"a checkpoint is left: continue it with repro train .* --resume"):
        open_classifier(tmp_path / settings.run_name)
    list(train_baseline(settings, synthetic_store.path, tmp_path, resume=True))
    open_classifier(tmp_path / settings.run_name)


def test_the_recorded_command_is_quoted_for_the_systems_shell(
    synthetic_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Windows takes single quotes literally."""
    monkeypatch.setattr("repro.formatting.os", SimpleNamespace(name="nt"))
    settings, out = BaselineSettings("pixels", "smoke"), tmp_path / "my runs"
    next(train_baseline(settings, synthetic_store.path, out))
    assert read_run(out / settings.run_name).command.endswith(f' --out "{out}"')


def test_a_signal_saves_the_classifiers(runs: dict[str, Path], synthetic_store: Store, tmp_path: Path) -> None:
    settings = BaselineSettings("pixels", "smoke")

    def train_and_interrupt() -> None:
        for event in train_baseline(settings, synthetic_store.path, tmp_path):
            if isinstance(event, EpochRecord) and event.epoch == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="saved within epoch 4 of the classifiers; continue with --resume"):
        train_and_interrupt()
    events = list(train_baseline(settings, synthetic_store.path, tmp_path, resume=True))
    assert [event.epoch for event in events if isinstance(event, EpochRecord)] == list(range(4, 11))
    assert not any(isinstance(event, Progress) for event in events)
    assert weights(tmp_path / settings.run_name) == weights(runs["pixels"])


def test_worker_processes_do_not_change_the_result(
    runs: dict[str, Path], synthetic_store: Store, tmp_path: Path
) -> None:
    settings = BaselineSettings("sift-fv", "smoke")
    list(train_baseline(settings, synthetic_store.path, tmp_path, workers=2))
    assert weights(tmp_path / settings.run_name) == weights(runs["sift-fv"])


@pytest.fixture(scope="module")
def net(synthetic_store: Store, runs: dict[str, Path]) -> Path:
    settings = Settings("alexnet", "authors", "smoke", epochs=1)
    return next(iter(list(train(settings, synthetic_store.path, runs["pixels"].parent)))).path


def test_a_net_and_baselines_are_averaged(runs: dict[str, Path], net: Path, synthetic_store: Store) -> None:
    members = [net, runs["sift-fv"], runs["sparse-coding"]]
    split = synthetic_store.splits["val"]
    images = split.images(np.arange(len(split)))
    models = [open_classifier(each, "cpu") for each in members]
    average = np.mean([model.probabilities(images, 1).numpy().astype(np.float64) for model in models], axis=0)
    path, record = evaluate(members, synthetic_store.path, views=1, devices="cpu")
    assert path.parent.name == "alexnet+sift-fv+sparse-coding-authors-smoke-seeds0+0+0"
    assert (record.recipe, record.views) == ("authors", 1)
    with np.load(path.with_name(record.predictions)) as stored:
        found = stored["label_probabilities"]
    np.testing.assert_allclose(found, average[np.arange(len(split)), split.labels], atol=1e-5)


def test_images_are_classified_without_the_store(
    runs: dict[str, Path], net: Path, synthetic_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "image.jpg").write_bytes(picture(width=80, height=70))
    for words in ([], ["--with", str(net)]):
        assert main.run(["predict", str(runs["sift-fv"]), str(tmp_path / "image.jpg"), "--json", *words]) == 0
        guesses = json.loads(capsys.readouterr().out)[0]["guesses"]
        assert len(guesses) == 5
        assert {guess["id"] for guess in guesses} <= {info.id for info in synthetic_store.classes}


@pytest.mark.parametrize(
    "words",
    [
        ("retrieve", "{run}", "--data", "{store}"),
        ("activations", "{run}", "--data", "{store}"),
        ("export", "{run}", "--out", "{run}/net.onnx"),
        (
            "train",
            "--variant",
            "alexnet",
            "--scale",
            "smoke",
            "--data",
            "{store}",
            "--out",
            "{run}/x",
            "--init-from",
            "{run}",
        ),
    ],
)
def test_what_needs_a_net_says_so(
    words: tuple[str, ...],
    runs: dict[str, Path],
    synthetic_store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = str(runs["pixels"])
    monkeypatch.chdir(tmp_path)
    assert main.run([word.format(run=run, store=synthetic_store.path) for word in words]) == 3
    error = capsys.readouterr().err
    assert f"'{run}' is a run of pixels, which is no net: name the run of a net" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lr", "0.1"), "--lr does not apply, 'pixels' is no net: leave it out"),
        (("--recipe", "paper"), "'pixels' has no recipe 'paper': it is no net; leave --recipe out"),
        (("--scale", "tiny"), "unknown scale 'tiny': choose from paper, small, smoke"),
    ],
)
def test_options_that_do_not_apply(
    words: tuple[str, ...], message: str, synthetic_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["train", "--variant", "pixels", "--data", str(synthetic_store.path), "--out", str(tmp_path)]
    assert main.run([*base, *words]) == 3
    assert capsys.readouterr().err == f"repro: {message}\n"


def damaged(store: Store, folder: Path, kind: str) -> Path:
    """Return a copy of a store with a class without training images, or with pixels in float."""
    copy = Path(shutil.copytree(store.path, folder / "store"))
    manifest = json.loads((copy / "manifest.json").read_text())
    train = manifest["splits"]["train"]
    if kind == "class":
        labels = np.load(copy / train["labels"]["file"])
        record = write_array(copy, train["labels"]["file"], np.where(labels == 3, 2, labels))
        train["labels"] = vars(record)
    else:
        pixels = np.load(copy / train["shards"][0]["file"])
        record = write_array(copy, train["shards"][0]["file"], pixels.astype(np.float32) / 255)
        train["shards"][0] |= vars(record)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("class", "has no training images, so no descriptors to train a classifier with"),
        ("float", "holds float32 (40, 64, 64, 3), not uint8 (40, 64, 64, 3)"),
    ],
)
def test_unsuitable_stores(
    kind: str, message: str, synthetic_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = damaged(synthetic_store, tmp_path, kind)
    words = ["train", "--variant", "sift-fv", "--scale", "smoke", "--data", str(store), "--out", str(tmp_path / "runs")]
    assert main.run(words) == 3
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_fewer_images_than_gaussians(
    synthetic_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--variant", "sift-fv", "--data", str(synthetic_store.path), "--out", str(tmp_path)]
    assert main.run(words) == 3  # at scale small
    error = capsys.readouterr().err.splitlines()[-1]
    assert "40 training images are fewer than the 64 Gaussians of the mixture" in error


def test_a_missing_package_is_named(
    synthetic_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    words = ["train", "--variant", "sparse-coding", "--data", str(synthetic_store.path), "--out", str(tmp_path)]
    assert main.run(words) == 3
    assert 'needs skimage: pip install ".[contest]" in the clone of repro' in capsys.readouterr().err


def test_a_damaged_run_is_found(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs["pixels"], tmp_path / "run"))
    content = bytearray(weights(copy))
    content[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(content)
    assert any("SHA-256" in problem for problem in verify(copy))
    with pytest.raises(ReproError, match="are damaged"):
        open_classifier(copy)
