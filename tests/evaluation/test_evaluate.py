"""Evaluation of one run and of the average of several, against softmax outputs averaged view by view."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import picture, run_here, small_disk
from scipy.stats import beta

from repro.cli import main
from repro.data.store import Store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation import predictions
from repro.evaluation.activations import measure_activations
from repro.evaluation.ensemble_weights import search_weights
from repro.evaluation.evaluate import evaluate
from repro.evaluation.predictions import Predictions, predict
from repro.evaluation.trained_model import open_run
from repro.paper.recipes import AUTHORS
from repro.records.writing import to_json
from repro.training.settings import Settings
from repro.training.train import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two runs, of seeds 0 and 1, two epochs each."""
    out = tmp_path_factory.mktemp("runs")
    settings = [Settings("alexnet", "authors", "smoke", seed, epochs=2) for seed in (0, 1)]
    return [next(iter(list(train(each, synthetic_store.path, out)))).path for each in settings]


def average_by_hand(paths: list[Path], store: Store, view_count: int, split: str = "test") -> np.ndarray:
    """Return the softmax outputs of every net on every view of every image, averaged in float64."""
    maker = Views(store.mean, store.covariance, 56, AUTHORS.augmentation, torch.device("cpu"))
    images = store.splits[split].images(np.arange(len(store.splits[split])))
    outputs = []
    for path in paths:
        model = open_run(path, "cpu").net
        with torch.no_grad():
            outputs += [model(view).double().softmax(1).numpy() for view in maker.test_views(images, view_count)]
    assert len(outputs) == len(paths) * view_count
    return np.mean(outputs, axis=0)


def test_batches_are_joined_in_order(trained: list[Path], synthetic_store: Store) -> None:
    split, calls = synthetic_store.splits["test"], []
    assert len(split) % 7
    views = Views(synthetic_store.mean, synthetic_store.covariance, 56, AUTHORS.augmentation, torch.device("cpu"))
    model = open_run(trained[0], "cpu").net
    made = predictions.predict([model], views, split, on_progress=lambda *counts: calls.append(counts), batch_size=7)
    expected = average_by_hand(trained[:1], synthetic_store, 1)
    np.testing.assert_array_equal(made.labels, split.labels)
    np.testing.assert_allclose(made.label_probabilities, expected[np.arange(len(split)), split.labels], atol=1e-6)
    np.testing.assert_allclose(made.top5_probabilities, -np.sort(-expected, axis=1)[:, :5], atol=1e-6)
    assert calls[0] == (7, len(split))
    assert calls[-1] == (len(split), len(split))


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "{run}", "--data", "{store}", "--split", "test", "--views", "1"),
        ("evaluate", "{run}", "{other}", "--search-weights", "--data", "{store}", "--split", "test", "--views", "1"),
        ("retrieve", "{run}", "--data", "{store}"),
        ("activations", "{run}", "--data", "{store}"),
        ("predict", "{run}", "{images}", "--views", "1"),
    ],
)
def test_the_command_computes_batches_of_the_size_and_with_the_threads_that_were_given(
    trained: list[Path], synthetic_store: Store, tmp_path: Path, words: tuple[str, ...]
) -> None:
    for seed in range(7):
        (tmp_path / f"{seed}.jpg").write_bytes(picture(seed))
    found: set[tuple[int, int]] = set()

    def record(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Conv2d):
            found.add((len(inputs[0]), torch.get_num_threads()))

    before = torch.get_num_threads()
    paths = {"run": trained[0], "other": trained[1], "store": synthetic_store.path, "images": tmp_path}
    hook = torch.nn.modules.module.register_module_forward_pre_hook(record)
    try:
        typed = [word.format(**paths) for word in words]
        assert main.run([*typed, "--batch-size", "3", "--threads", str(before + 1)]) == 0
    finally:
        hook.remove()
    assert found == {(3, before + 1), (1, before + 1)}  # 40 images of a split, and 7 files, are 3 and 3 … and 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("members", "views", "devices"), [(1, 1, "cpu"), (1, 10, "cpu"), (2, 1, "cpu"), (2, 10, "cpu"), (1, 10, "cpu,cpu")]
)
def test_errors_and_predictions(
    trained: list[Path], synthetic_store: Store, members: int, views: int, devices: str
) -> None:
    path, record = evaluate(trained[:members], synthetic_store.path, "test", views, devices)
    probabilities = average_by_hand(trained[:members], synthetic_store, views)
    labels = synthetic_store.splits["test"].labels
    order = np.argsort(-probabilities, axis=1)
    top1 = 100 * np.mean(order[:, 0] != labels)
    top5 = 100 * np.mean([label not in row[:5] for label, row in zip(labels, order, strict=True)])
    assert record.top1_error == pytest.approx(top1)
    assert record.top5_error == pytest.approx(top5)
    wrong, n = round(top1 * len(labels) / 100), len(labels)
    low, high = beta.ppf(0.025, wrong, n - wrong + 1), beta.ppf(0.975, wrong + 1, n - wrong)
    np.testing.assert_allclose(record.top1_interval, [100 * low, 100 * high], atol=1e-6)

    assert json.loads(path.read_text()) == json.loads(json.dumps(to_json(record)))
    with np.load(path.parent / record.predictions, allow_pickle=False) as kept:
        np.testing.assert_array_equal(kept["labels"], labels)
        # The order of nearly equal probabilities depends on rounding, so the probabilities are compared.
        np.testing.assert_allclose(kept["top5_probabilities"], -np.sort(-probabilities, axis=1)[:, :5], rtol=1e-4)
        np.testing.assert_allclose(
            np.take_along_axis(probabilities, kept["top5"], axis=1), kept["top5_probabilities"], rtol=1e-4
        )
        np.testing.assert_allclose(
            kept["label_probabilities"], probabilities[np.arange(len(labels)), labels], rtol=1e-4
        )


def test_each_run_of_an_average_subtracts_its_own_mean(
    trained: list[Path], synthetic_store: Store, tmp_path: Path
) -> None:
    """A run that was trained on other images has another mean image."""
    other = Path(shutil.copytree(trained[1], tmp_path / "other"))
    mean = np.load(other / "mean.npy")
    np.save(other / "mean.npy", np.flip(mean, 2) + np.float32(40))
    split = synthetic_store.splits["test"]
    images = split.images(np.arange(len(split)))
    for runs in ([trained[0], other], [other, trained[0]]):
        path, record = evaluate(runs, synthetic_store.path, "test", 1)
        expected = np.mean([open_run(run).probabilities(images, 1).double().numpy() for run in runs], axis=0)
        with np.load(path.with_name(record.predictions)) as kept:
            found = kept["label_probabilities"]
        np.testing.assert_allclose(found, expected[np.arange(len(split)), split.labels], rtol=0, atol=1e-6)


def test_average_of_seeds_has_a_separate_folder(trained: list[Path], synthetic_store: Store) -> None:
    path, record = evaluate(trained, synthetic_store.path, "val", 1)
    assert path.parent.name == "alexnet-authors-smoke-seeds0+1"
    assert record.runs == ("alexnet-authors-smoke-seed0", "alexnet-authors-smoke-seed1")
    assert record.seeds == (0, 1)


def test_a_run_can_be_named_from_within_its_folder(
    trained: list[Path], synthetic_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (shutil.copytree(path, tmp_path / path.name) for path in trained)
    (first / "notes").mkdir()
    store = synthetic_store.path.resolve()

    def record(name: str, folder: Path, *words: object) -> dict[str, Any]:
        """Run a command in `folder`; return the record that it writes to `name`, below the folder of runs."""
        (tmp_path / name).unlink(missing_ok=True)
        monkeypatch.chdir(folder)
        done = run_here(*words, "--data", store)
        assert done.returncode == 0, done.stderr
        content: dict[str, Any] = json.loads((tmp_path / name).read_text())
        return content

    evaluation = f"{first.name}/evaluation-val-1.json"
    for folder, named in ((first, "."), (first, "run.json"), (first / "notes", ".."), (second, f"../{first.name}")):
        assert record(evaluation, folder, "evaluate", named, "--views", 1)["runs"] == [first.name]
    assert record(f"{first.name}/retrieval-test.json", first, "retrieve", ".")["run"] == first.name
    assert record(f"{first.name}/activations-val.json", first, "activations", ".")["run"] == first.name
    average = "alexnet-authors-smoke-seeds0+1/evaluation-val-1.json"
    found = record(average, first, "evaluate", ".", f"../{second.name}", "--views", 1)
    assert found["runs"] == [first.name, second.name]


def test_searched_weights_are_selected_on_val_and_recorded_beside_the_equal_ones(
    trained: list[Path], synthetic_store: Store
) -> None:
    """Through the command line; on val a note says that the weights were selected on these images."""
    plain, equal = evaluate(trained, synthetic_store.path, "test", 1)
    before = plain.read_bytes()
    words = ("evaluate", *trained, "--data", synthetic_store.path, "--views", 1, "--search-weights")
    for split in ("val", "test"):
        done = run_here(*words, "--split", split)
        assert done.returncode == 0, done.stderr
        path = plain.with_name(f"evaluation-{split}-1-searched.json")
        record = json.loads(path.read_text())
        assert record["weights_selected_on"] == "val"
        assert ("selected on these very images" in record["note"]) == (split == "val")
        assert ("selected on these very images" in done.stdout) == (split == "val")
        assert f"weights {', '.join(f'{weight:.3f}' for weight in record['weights'])}, selected on val" in done.stdout
        assert record["command"].endswith(f"--split {split} --views 1 --search-weights")
        softmaxes = [average_by_hand([each], synthetic_store, 1, split) for each in trained]
        average = np.tensordot(record["weights"], softmaxes, 1)
        labels = synthetic_store.splits[split].labels
        assert record["top1_error"] == pytest.approx(100 * np.mean(average.argmax(1) != labels))
        with np.load(path.with_name(record["predictions"])) as kept:
            np.testing.assert_allclose(kept["top5_probabilities"], -np.sort(-average, axis=1)[:, :5], rtol=1e-4)
    assert plain.read_bytes() == before
    assert equal.weights == ()
    on_val = plain.with_name("evaluation-val-1-searched.json")
    _, equal_on_val = evaluate(trained, synthetic_store.path, "val", 1)
    assert json.loads(on_val.read_text())["top5_error"] <= equal_on_val.top5_error


def test_weights_can_only_be_searched_for_several_runs(trained: list[Path], synthetic_store: Store) -> None:
    done = run_here("evaluate", trained[0], "--data", synthetic_store.path, "--search-weights")
    assert done.returncode == 3
    assert done.stderr == "repro: --search-weights is about the average of several runs: name at least two\n"


def test_wrong_counts_by_rank() -> None:
    top5 = np.array([[3, 1, 2, 0, 4], [0, 1, 2, 3, 4], [5, 1, 2, 3, 4]])
    answers = Predictions(np.array([3, 4, 0]), top5, np.zeros((3, 5)), np.zeros(3))
    assert (answers.wrong(1), answers.wrong(5)) == (2, 1)
    assert answers.error(1) == pytest.approx(200 / 3)


def test_unsuitable_runs_and_splits_are_errors(trained: list[Path], synthetic_store: Store, tmp_path: Path) -> None:
    data = synthetic_store.path
    with pytest.raises(ReproError, match=r"no run at '.*nowhere'"):
        evaluate([tmp_path / "nowhere"], data)
    with pytest.raises(ReproError, match="has no split 'holdout', only train, val, test"):
        evaluate(trained[:1], data, "holdout")
    with pytest.raises(ReproError, match="the same run is named twice"):
        evaluate([trained[0], trained[0]], data)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    record = json.loads((trained[0] / "run.json").read_text(encoding="utf-8"))
    (unfinished / "run.json").write_text(json.dumps({**record, "ended": None}), encoding="utf-8")
    with pytest.raises(ReproError, match=r"is not finished: continue it with repro train .* --resume"):
        evaluate([unfinished], data)
    (unfinished / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ReproError, match=r"is finished, but its weights.safetensors is missing"):
        evaluate([unfinished], data)
    (unfinished / "weights.safetensors").write_bytes((trained[0] / "weights.safetensors").read_bytes()[:5000])
    with pytest.raises(ReproError, match=r"the weights '.*' are damaged"):
        evaluate([unfinished], data)


@pytest.mark.parametrize(("members", "what"), [(1, "evaluation"), (2, "evaluation"), (1, "activations")])
def test_a_full_or_read_only_disk_is_an_error_before_the_work(
    trained: list[Path], synthetic_store: Store, tmp_path: Path, members: int, what: str
) -> None:
    """That of the run; of an average, whose folder does not exist yet, that of the folder above."""
    done: list[tuple[int, int]] = []

    def work(runs: list[Path]) -> None:
        if what == "activations":
            measure_activations(runs[0], synthetic_store.path, on_progress=lambda *counts: done.append(counts))
        else:
            evaluate(runs, synthetic_store.path, views=1, on_progress=lambda *counts: done.append(counts))

    records = shutil.ignore_patterns("evaluation-*", "predictions-*", "retrieval-*", "activations-*")
    runs = [shutil.copytree(run, tmp_path / "runs" / run.name, ignore=records) for run in trained[:members]]
    kilobytes = sum(file.stat().st_size for file in (tmp_path / "runs").rglob("*")) // 1024 + 100
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        copies = [shutil.copytree(run, disk / run.name) for run in runs]
        before = sorted(disk.rglob("*"))
        where = disk if members > 1 else copies[0]
        with pytest.raises(ReproError, match=f"cannot write the {what} to '{where}': No space"):
            work(copies)
        assert sorted(disk.rglob("*")) == before
    assert not done


def test_a_confusion_matrix_that_cannot_be_written_is_an_error_before_the_work(
    trained: list[Path], synthetic_store: Store, tmp_path: Path
) -> None:
    for path, message in (
        (tmp_path / "none" / "x.csv", f"cannot write 'x.csv' to '{tmp_path / 'none'}': "),
        (tmp_path, f"'{tmp_path}' is a folder: name a file"),
    ):
        done = run_here("evaluate", trained[0], "--data", synthetic_store.path, "--views", "1", "--confusion", path)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith(f"repro: {message}")


def copy_run(source: Path, target: Path, weights: dict[str, torch.Tensor] | None = None) -> Path:
    """Copy a run; with `weights` it has these instead, and their checksum."""
    shutil.copytree(source, target)
    if weights:
        content = safetensors.torch.save(weights)
        (target / "weights.safetensors").write_bytes(content)
        checksum = hashlib.sha256(content).hexdigest()
        (target / "weights.safetensors.sha256").write_text(f"{checksum}  weights.safetensors\n", encoding="utf-8")
    return target


def test_copies_of_a_run_are_no_ensemble(trained: list[Path], synthetic_store: Store, tmp_path: Path) -> None:
    clone = copy_run(trained[0], tmp_path / "another-name")
    with pytest.raises(ReproError, match=r"two runs are copies: '.*seed0' and '.*another-name' have the same weights"):
        evaluate([trained[0], clone], synthetic_store.path, "test", 1)
    assert not list(tmp_path.glob("*seeds*"))


def test_ensembles_of_different_runs_with_equal_seeds_have_separate_folders(
    trained: list[Path], synthetic_store: Store, tmp_path: Path
) -> None:
    weights = safetensors.torch.load_file(trained[0] / "weights.safetensors")
    other = copy_run(trained[0], trained[0].parent / "other", {**weights, "fc8.bias": weights["fc8.bias"] + 1})
    names = set()
    for members in (trained, [other, trained[1]], [trained[0], other]):
        path, record = evaluate(members, synthetic_store.path, "test", 1)
        assert path.parent.parent == trained[0].parent
        assert record.checksums == tuple(
            hashlib.sha256((each / "weights.safetensors").read_bytes()).hexdigest() for each in members
        )
        names.add(path.parent.name)
    assert len(names) == 3
    again, _ = evaluate([trained[1], other], synthetic_store.path, "test", 1)
    assert again.parent.name.rpartition("-")[2] in {name.rpartition("-")[2] for name in names}  # the same two runs
    shutil.rmtree(other)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(trained: list[Path], synthetic_store: Store, tmp_path: Path, value: float) -> None:
    weights = safetensors.torch.load_file(trained[0] / "weights.safetensors")
    weights["conv2.bias"][3] = value
    run = copy_run(trained[0], tmp_path / "diverged", weights)
    with pytest.raises(ReproError, match=r"are not finite \(conv2.bias\): .* with a lower --lr"):
        evaluate([run], synthetic_store.path, "test", 1)


def test_outputs_that_are_not_finite(trained: list[Path], synthetic_store: Store, tmp_path: Path) -> None:
    """Finite weights whose products overflow."""
    weights = safetensors.torch.load_file(trained[0] / "weights.safetensors")
    run = copy_run(trained[0], tmp_path / "huge", {name: value * 1e30 for name, value in weights.items()})
    with pytest.raises(ReproError, match=r"outputs of the net are not finite: .* with a lower --lr"):
        evaluate([run], synthetic_store.path, "test", 1)


def test_weights_other_than_those_that_the_run_wrote(
    trained: list[Path], synthetic_store: Store, tmp_path: Path
) -> None:
    run = copy_run(trained[0], tmp_path / "replaced")
    shutil.copy(trained[1] / "weights.safetensors", run)
    with pytest.raises(ReproError, match=r"are damaged \(checksum mismatch"):
        evaluate([run], synthetic_store.path, "test", 1)


@pytest.mark.parametrize("views", [1, 10])
def test_several_devices_predict_as_one(trained: list[Path], synthetic_store: Store, views: int) -> None:
    """Six batches over three devices, the last one ragged."""
    models = [open_run(path, "cpu") for path in trained[:2]]
    nets, preprocessing = [model.net for model in models], models[0].views(synthetic_store)
    one, three = (
        predict(nets, preprocessing, synthetic_store.splits["test"], views, batch_size=7, devices=[CPU] * count)
        for count in (1, 3)
    )
    for name, values in vars(one).items():
        np.testing.assert_array_equal(getattr(three, name), values)
    weights = [
        search_weights(nets, preprocessing, synthetic_store.splits["val"], views, None, 7, [CPU] * count)
        for count in (1, 3)
    ]
    np.testing.assert_array_equal(*weights)
