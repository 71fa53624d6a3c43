"""Fine-tuning: which weights are copied from another run, and which are not."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import write_pictures
from published_files import CAFFE_SHAPES, caffemodel, random_weights

from repro.data.store import Store
from repro.errors import ReproError
from repro.models.network import AlexNet
from repro.paper.variants import VARIANTS, configure
from repro.preparation.prepare import prepare
from repro.records.schema import Origin
from repro.training.fine_tuning import load_matching_weights, origin, read_initial_weights
from repro.training.settings import Settings
from repro.training.state import prepare_training
from repro.training.train import describe, train

CHAIN = ("alexnet", "conv6-fall2009", "conv6-fall2011", "conv6-pretrained")


def trained(store: Store, out: Path, variant: str, before: Path | None = None) -> Path:
    settings = Settings(variant, scale="smoke", epochs=1, init_from=before)
    return next(iter(list(train(settings, store.path, out)))).path


@pytest.fixture(scope="module")
def chain(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The stages of the authors' pre-training chain, trained for an epoch each."""
    out, paths = tmp_path_factory.mktemp("runs"), {}
    for variant in CHAIN:
        before = VARIANTS[variant].starts_from.get("authors")
        paths[variant] = trained(synthetic_store, out, variant, paths[before] if before else None)
    return paths


def parameters(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path / "weights.safetensors")


@pytest.mark.parametrize(
    ("variant", "copied"),
    [
        ("conv6-fall2009", {"conv1", "conv2", "conv3", "conv4", "conv5"}),
        ("conv6-fall2011", {"conv1", "conv2", "conv3", "conv4", "conv5", "conv6"}),
        ("conv6-pretrained", {"conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "fc6", "fc7"}),
    ],
)
def test_each_stage_copies_the_layers_that_the_program_did(
    chain: dict[str, Path], synthetic_store: Store, variant: str, copied: set[str]
) -> None:
    before = chain[VARIANTS[variant].starts_from.get("authors", "")]
    fresh = prepare_training(Settings(variant, scale="smoke", init_from=before), synthetic_store).model
    old = parameters(before)
    same = {name for name, value in fresh.named_parameters() if name in old and torch.equal(old[name], value)}
    assert {name.split(".")[0] for name in same} == copied
    assert {f"{layer}.{kind}" for layer in copied for kind in ("weight", "bias")} == same
    record = json.loads((chain[variant] / "run.json").read_text())
    assert record["init_from"]["run"] == before.name


def test_a_stage_without_an_initial_run_is_refused(synthetic_store: Store, tmp_path: Path) -> None:
    with pytest.raises(ReproError, match="starts from the weights of a 'conv6-fall2011' run: name it with --init-from"):
        trained(synthetic_store, tmp_path, "conv6-pretrained")


def test_the_last_layer_is_copied_for_the_same_classes_only(chain: dict[str, Path], tmp_path: Path) -> None:
    initial = read_initial_weights(chain["alexnet"])
    classes = list(initial.classes)
    model = AlexNet(configure("alexnet", scale="smoke", classes=10).network)
    assert "fc8.weight" in load_matching_weights(initial, model, classes, ["*"])
    assert "fc8.weight" not in load_matching_weights(initial, model, classes[::-1], ["*"])
    two = AlexNet(configure("alexnet", scale="smoke", classes=2).network)
    assert "fc7.weight" in load_matching_weights(initial, two, ["cat", "dog"], ["*"])


def test_fine_tuning_on_another_number_of_classes(chain: dict[str, Path], tmp_path: Path) -> None:
    pictures = {"train/cat": 3, "train/dog": 3, "val/cat": 2, "val/dog": 2}
    images = write_pictures(tmp_path / "images", pictures)
    other = prepare("folder", tmp_path / "store", source=images, size=64, workers=1)
    settings = Settings("alexnet", scale="smoke", epochs=1, lr=0.001, init_from=chain["alexnet"])
    run = next(iter(list(train(settings, other.path, tmp_path / "runs")))).path
    assert run.name == "alexnet-authors-smoke-lr0.001-tuned-seed0"
    assert parameters(run)["fc8.bias"].shape == (2,)


def test_a_run_s_record_and_its_weights_in_a_file_are_sources(
    chain: dict[str, Path], synthetic_store: Store, tmp_path: Path
) -> None:
    before = chain["alexnet"]
    checksum = hashlib.sha256((before / "weights.safetensors").read_bytes()).hexdigest()
    file = shutil.copy(before / "weights.safetensors", tmp_path / "mine.safetensors")
    for source, name in ((before / "run.json", before.name), (Path(file), "mine.safetensors")):
        settings = Settings("no-dropout", scale="smoke", epochs=1, init_from=source)
        found = prepare_training(settings, synthetic_store).model.state_dict()
        same = {key for key, value in parameters(before).items() if torch.equal(found[key], value)}
        expected = set(found) if source.name == "run.json" else set(found) - {"fc8.weight", "fc8.bias"}
        assert same == expected
        record = describe(settings, synthetic_store)
        assert record.init_from == Origin(name, checksum)


def test_published_weights_are_a_source(tmp_path: Path) -> None:
    pytest.importorskip("onnx")  # with protobuf
    weights = random_weights(CAFFE_SHAPES)
    file = tmp_path / "bvlc_alexnet.caffemodel"
    file.write_bytes(caffemodel(weights))
    initial = read_initial_weights(file)
    model = AlexNet(configure("alexnet", classes=2).network)
    copied = load_matching_weights(initial, model, ["cat", "dog"], ["*"])
    assert copied == [name for name, _ in model.named_parameters() if not name.startswith("fc8")]
    bgr, bias = weights["conv1"]
    found = dict(model.named_parameters())
    np.testing.assert_allclose(found["conv1.weight"].detach().numpy(), bgr[:, ::-1], rtol=1e-6)
    np.testing.assert_array_equal(found["conv1.bias"].detach().numpy(), bias)
    assert origin(file) == Origin(file.name, hashlib.sha256(file.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone", None, "no run at '.*gone': --init-from takes"),
        ("folder", "folder", r"no run at '.*folder': it has no run\.json; --init-from takes"),
        ("notes.txt", b"notes", r"'.*notes\.txt' has none of the formats of .*; --init-from takes"),
        ("90.417", b"notes", r"'.*90\.417' is no complete checkpoint of .*; --init-from takes"),
        ("bad.pth", b"no state dict", r"'.*bad\.pth' .*; --init-from takes"),
        ("bad.safetensors", b"cut", r"bad\.safetensors' cannot be read as safetensors .*; --init-from takes"),
    ],
)
def test_a_wrong_source_says_what_is_wanted(
    synthetic_store: Store, tmp_path: Path, name: str, content: bytes | str | None, message: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    wanted = r" the folder of a finished run, its run\.json, or a file of weights: \.safetensors, \.pth"
    with pytest.raises(ReproError, match=message + wanted):
        trained(synthetic_store, tmp_path / "runs", "alexnet", path)
    assert not (tmp_path / "runs").exists()


def test_weights_that_do_not_fit(chain: dict[str, Path], synthetic_store: Store, tmp_path: Path) -> None:
    with pytest.raises(ReproError, match=r"conv1.weight of '.*' has the shape \[48, 3, 11, 11\], in the new net it is"):
        trained(synthetic_store, tmp_path, "one-gpu", chain["alexnet"])
    with pytest.raises(ReproError, match="no run at"):
        trained(synthetic_store, tmp_path, "alexnet", tmp_path)
    assert not list(tmp_path.iterdir())


def test_resuming_with_another_initial_run_is_refused(chain: dict[str, Path], synthetic_store: Store) -> None:
    settings = Settings("conv6-fall2011", scale="smoke", epochs=1, init_from=chain["conv6-pretrained"])
    with pytest.raises(ReproError, match="holds a different run: its init_from is"):
        next(train(settings, synthetic_store.path, chain["alexnet"].parent, resume=True))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "not finite",
            r"are not finite \(conv3.weight\): the training diverged; train the run again with a lower --lr",
        ),
        ("other weights", r"are damaged \(checksum mismatch: SHA-256 "),
        ("cut", r"the weights '.*' are damaged \("),
        ("missing", r"is finished, but its weights.safetensors is missing"),
        ("unfinished", r"is not finished: continue it with repro train .* --resume"),
    ],
)
def test_damaged_or_diverged_weights_are_not_started_from(
    chain: dict[str, Path], synthetic_store: Store, tmp_path: Path, damage: str, message: str
) -> None:
    before = shutil.copytree(chain["alexnet"], tmp_path / "before")
    file, values = before / "weights.safetensors", parameters(chain["alexnet"])
    if damage == "not finite":
        values["conv3.weight"][0] = torch.nan
        file.write_bytes(safetensors.torch.save(values))
        (before / "weights.safetensors.sha256").unlink()
    elif damage == "other weights":
        file.write_bytes(safetensors.torch.save({**values, "conv3.weight": values["conv3.weight"] + 1}))
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
        if damage == "unfinished":
            record = json.loads((before / "run.json").read_bytes()) | {"ended": None}
            (before / "run.json").write_bytes(json.dumps(record).encode())
    with pytest.raises(ReproError, match=message):
        trained(synthetic_store, tmp_path / "runs", "alexnet", before)
    assert not (tmp_path / "runs").exists()
