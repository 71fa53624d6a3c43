"""Evaluation against predictions made step by step, for one run and for the average of several."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import repro
from scipy.stats import beta

from repro.data.store import Store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation import predictions
from repro.evaluation.evaluate import evaluate
from repro.evaluation.predictions import Predictions
from repro.evaluation.trained_model import load_net
from repro.paper.recipes import AUTHORS
from repro.records import read_run, to_json
from repro.training.settings import Settings
from repro.training.train import train


@pytest.fixture(scope="module")
def trained(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds, two epochs each."""
    out = tmp_path_factory.mktemp("runs")
    settings = [Settings("alexnet", "authors", "smoke", seed, epochs=2) for seed in (0, 1)]
    return [next(iter(list(train(each, synthetic_store.path, out)))).path for each in settings]


def average_by_hand(paths: list[Path], store: Store, view_count: int, split: str = "test") -> np.ndarray:
    """Softmax outputs of every net on every view of every image, averaged in float64."""
    maker = Views(store.mean, store.covariance, 56, AUTHORS.augmentation, torch.device("cpu"))
    images = store.splits[split].images(np.arange(len(store.splits[split])))
    outputs = []
    for path in paths:
        model = load_net(read_run(path)).eval()
        with torch.no_grad():
            outputs += [model(view).double().softmax(1).numpy() for view in maker.test_views(images, view_count)]
    assert len(outputs) == len(paths) * view_count
    return np.mean(outputs, axis=0)


def test_batches_are_put_together_in_order(
    trained: list[Path], synthetic_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "BATCH", 7)  # the last batch is smaller
    split, told = synthetic_store.splits["test"], []
    assert len(split) % 7
    views = Views(synthetic_store.mean, synthetic_store.covariance, 56, AUTHORS.augmentation, torch.device("cpu"))
    model = load_net(read_run(trained[0]))
    made = predictions.predict([model], views, split, on_progress=lambda *counts: told.append(counts))
    expected = average_by_hand(trained[:1], synthetic_store, 1)
    np.testing.assert_array_equal(made.labels, split.labels)
    np.testing.assert_allclose(made.label_probabilities, expected[np.arange(len(split)), split.labels], atol=1e-6)
    np.testing.assert_allclose(made.top5_probabilities, -np.sort(-expected, axis=1)[:, :5], atol=1e-6)
    assert told[0] == (7, len(split))
    assert told[-1] == (len(split), len(split))


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
        # Neighbours in rank may be within rounding of each other, so it is their probabilities that are compared.
        np.testing.assert_allclose(kept["top5_probabilities"], -np.sort(-probabilities, axis=1)[:, :5], rtol=1e-4)
        np.testing.assert_allclose(
            np.take_along_axis(probabilities, kept["top5"], axis=1), kept["top5_probabilities"], rtol=1e-4
        )
        np.testing.assert_allclose(
            kept["label_probabilities"], probabilities[np.arange(len(labels)), labels], rtol=1e-4
        )


def test_an_average_of_seeds_has_a_folder_of_its_own(trained: list[Path], synthetic_store: Store) -> None:
    path, record = evaluate(trained, synthetic_store.path, "val", 1)
    assert path.parent.name == "alexnet-authors-smoke-seeds0+1"
    assert record.runs == ("alexnet-authors-smoke-seed0", "alexnet-authors-smoke-seed1")
    assert record.seeds == (0, 1)


def test_searched_weights_are_chosen_on_val_and_stand_beside_the_equal_ones(
    trained: list[Path], synthetic_store: Store
) -> None:
    """As typed; on val it is told that the images are those of the search."""
    plain, equal = evaluate(trained, synthetic_store.path, "test", 1)
    before = plain.read_bytes()
    words = ("evaluate", *trained, "--data", synthetic_store.path, "--views", 1, "--search-weights")
    for split in ("val", "test"):
        done = repro(*words, "--split", split)
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


def test_weights_are_searched_for_several_runs_only(trained: list[Path], synthetic_store: Store) -> None:
    done = repro("evaluate", trained[0], "--data", synthetic_store.path, "--search-weights")
    assert done.returncode == 3
    assert done.stderr == "repro: --search-weights is about the average of several runs: name at least two\n"


def test_wrong_counts_by_rank() -> None:
    top5 = np.array([[3, 1, 2, 0, 4], [0, 1, 2, 3, 4], [5, 1, 2, 3, 4]])
    answers = Predictions(np.array([3, 4, 0]), top5, np.zeros((3, 5)), np.zeros(3))
    assert (answers.wrong(1), answers.wrong(5)) == (2, 1)
    assert answers.error(1) == pytest.approx(200 / 3)


def test_what_does_not_fit_is_refused(trained: list[Path], synthetic_store: Store, tmp_path: Path) -> None:
    data = synthetic_store.path
    with pytest.raises(ReproError, match=r"no run at '.*nowhere'"):
        evaluate([tmp_path / "nowhere"], data)
    with pytest.raises(ReproError, match="has no split 'holdout', only train, val, test"):
        evaluate(trained[:1], data, "holdout")
    with pytest.raises(ReproError, match="the same run is named twice"):
        evaluate([trained[0], trained[0]], data)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "run.json").write_text((trained[0] / "run.json").read_text())
    with pytest.raises(ReproError, match=r"is not finished: continue it with repro train .* --resume"):
        evaluate([unfinished], data)
    (unfinished / "weights.safetensors").write_bytes((trained[0] / "weights.safetensors").read_bytes()[:5000])
    with pytest.raises(ReproError, match=r"the weights '.*' are damaged"):
        evaluate([unfinished], data)


def test_other_data_than_the_run_was_trained_on(trained: list[Path], tmp_path: Path) -> None:
    from repro.preparation.prepare import prepare

    other = prepare("synthetic", tmp_path / "other", limit_per_class=4, seed=5)
    with pytest.raises(ReproError, match="was trained on other data"):
        evaluate(trained[:1], other.path)
