"""Activations of each layer against those of hooks, image by image in float64; dead units that were made so."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from repro.cli import main
from repro.data.store import Store
from repro.data.views import Views
from repro.evaluation.activations import measure_activations
from repro.evaluation.trained_model import open_run
from repro.paper.recipes import AUTHORS
from repro.records.reading import read_records
from repro.report.activation_table import activation_table
from repro.training.settings import Settings
from repro.training.state import prepare_training
from repro.training.train import train

CONVOLUTIONS = {"conv1": "relu1", "conv2": "relu2", "conv3": "relu3", "conv4": "relu4", "conv5": "relu5"}
WATCHED = {**CONVOLUTIONS, "fc6": "relu6", "fc7": "relu7", "fc8": "fc8"}  # and the module with a layer's outputs
DEAD = {"conv3": 2, "fc6": 5}


@pytest.fixture(scope="module")
def run(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained net, some units of which then got a bias so low that they are zero for every image."""
    settings = Settings("alexnet", "authors", "smoke", epochs=1)
    folder = next(iter(list(train(settings, synthetic_store.path, tmp_path_factory.mktemp("runs"))))).path
    weights = load_file(folder / "weights.safetensors")
    for layer, count in DEAD.items():
        weights[f"{layer}.bias"][:count] = -1e6
    save_file(weights, folder / "weights.safetensors")
    (folder / "weights.safetensors.sha256").unlink()
    return folder


def test_every_layer_is_that_of_hooks(run: Path, synthetic_store: Store) -> None:
    net = open_run(run, "cpu").net
    caught: dict[str, list[np.ndarray]] = {layer: [] for layer in WATCHED}

    def watch(layer: str) -> None:
        def catch(_: nn.Module, __: object, output: torch.Tensor) -> None:
            caught[layer].append(output[0].double().numpy())

        net.get_submodule(WATCHED[layer]).register_forward_hook(catch)

    for layer in WATCHED:
        watch(layer)
    views = Views(synthetic_store.mean, synthetic_store.covariance, 56, AUTHORS.augmentation, torch.device("cpu"))
    val = synthetic_store.splits["val"]
    with torch.no_grad():
        for image in val.images(np.arange(len(val))):
            net(next(views.test_views(image[None], 1)))
    _, record = measure_activations(run, synthetic_store.path, "val", batch_size=7)
    assert [each.layer for each in record.layers] == list(WATCHED)
    for each in record.layers:
        outputs = np.stack(caught[each.layer])
        dead = sum(not outputs[:, unit].any() for unit in range(outputs.shape[1]))
        assert (each.units, each.dead) == (outputs.shape[1], dead)
        assert each.dead >= DEAD.get(each.layer, 0)
        assert each.size == pytest.approx(np.abs(outputs).mean(), rel=1e-4)
        assert each.spread == pytest.approx(outputs.std(axis=0).mean(), rel=1e-3)


def test_the_command_shows_and_records_them(
    run: Path, synthetic_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["activations", str(run), "--data", str(synthetic_store.path), "--split", "test"]
    assert main.run(words) == 0
    shown = capsys.readouterr().out
    record = json.loads((run / "activations-test.json").read_text())
    assert record["command"] == f"repro {' '.join(words)}"
    assert record["images"] == len(synthetic_store.splits["test"])
    assert all(each["layer"] in shown for each in record["layers"])
    records = read_records(run.parent)
    assert not records.problems
    table = activation_table(records).markdown()
    assert "of conv3’s" in table
    assert "of fc6’s" in table


def test_a_store_of_other_images_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["prepare", "synthetic", "--out", str(tmp_path / "other"), "--limit-per-class", "1"]) == 0
    assert main.run(["activations", str(run), "--data", str(tmp_path / "other")]) == 3
    assert "was trained on other data" in capsys.readouterr().err


def test_before_training(run: Path, synthetic_store: Store) -> None:
    """The weights are those with which a training with the run's settings begins."""
    begun = prepare_training(Settings("alexnet", "authors", "smoke"), synthetic_store).model
    val = synthetic_store.splits["val"]
    views = open_run(run, "cpu").views(synthetic_store)
    with torch.no_grad():
        logits = begun.eval()(next(views.test_views(val.images(np.arange(len(val))), 1))).double()
    path, record = measure_activations(run, synthetic_store.path, "val", untrained=True)
    assert path.name == "activations-val-untrained.json"
    assert record.layers[-1].spread == pytest.approx(float(logits.std(0, correction=0).mean()), rel=1e-4)
    (trained,) = (each for each in read_records(run.parent).activations if each.split == "test")
    assert record.layers[-1].spread < trained.layers[-1].spread


def test_a_run_that_did_not_start_from_random_weights(
    run: Path, synthetic_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "tuned")
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | {"init_from": {"run": "other", "weights": "0" * 64}}))
    assert main.run(["activations", str(copy), "--data", str(synthetic_store.path), "--untrained"]) == 3
    assert "did not start from random weights" in capsys.readouterr().err
