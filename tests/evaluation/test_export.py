"""An exported net computes what its run computes, in the programs that it was exported for."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import picture, repro, run_here
from PIL import Image

from repro.data.store import ClassInfo, Store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation.export_run import export_run
from repro.evaluation.predictions import mean_softmax
from repro.evaluation.trained_model import TrainedModel, open_run
from repro.models.export import ExportedNet, ImageClassifier, export_net
from repro.models.network import AlexNet
from repro.paper.recipes import Augmentation
from repro.paper.variants import configure
from repro.training.settings import Settings
from repro.training.train import train


@pytest.fixture(scope="module")
def run(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on the built-in data, by the authors' recipe: both normalizations."""
    settings = Settings("alexnet", "authors", "smoke", 0, epochs=1)
    return next(iter(list(train(settings, synthetic_store.path, tmp_path_factory.mktemp("runs"))))).path


@pytest.fixture(scope="module")
def model(run: Path) -> TrainedModel:
    return open_run(run, "cpu")


@pytest.fixture(scope="module")
def images(synthetic_store: Store) -> np.ndarray:
    return synthetic_store.splits["test"].images(np.arange(3))


IN_ANOTHER_PROGRAM = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
(probabilities,) = session.run(None, {"images": np.load(sys.argv[2])})
best = (-probabilities).argsort(1)[:, :5]
print(json.dumps([[[classes[i]["id"], float(row[i])] for i in top] for row, top in zip(probabilities, best)]))
assert "torch" not in sys.modules
"""


def test_onnx_with_preprocessing_gives_the_run_s_classes_in_a_process_without_torch(
    run: Path, model: TrainedModel, images: np.ndarray, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    done = repro("export", run, "--out", tmp_path / "net.onnx", "--preprocessing", "--views", "10")
    assert done.returncode == 0, done.stderr
    np.save(tmp_path / "images.npy", images)
    words = [sys.executable, "-c", IN_ANOTHER_PROGRAM, tmp_path / "net.onnx", tmp_path / "images.npy"]
    ran = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for found, image in zip(json.loads(ran.stdout), images, strict=True):
        expected = model.predict(image, views=10)
        assert [id for id, _ in found] == [guess.id for guess in expected]
        np.testing.assert_allclose([p for _, p in found], [guess.probability for guess in expected], rtol=0, atol=1e-5)


SNIPPET_WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None  # any import of torch fails
names = {}
exec(open("snippet.py", encoding="utf-8").read(), names)
best = names["probabilities"][0].argsort()[:-6:-1]
print(json.dumps([[names["classes"][i]["id"], float(names["probabilities"][0, i])] for i in best]))
"""


def test_the_documented_snippet_gives_the_run_s_classes_without_torch(run: Path, tmp_path: Path) -> None:
    """As typed from docs/using.md, on pictures that are not square."""
    pytest.importorskip("onnxruntime")
    text = (Path(__file__).parents[2] / "docs" / "using.md").read_text(encoding="utf-8")
    (snippet,) = (block for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) if "onnxruntime" in block)
    (tmp_path / "snippet.py").write_text(snippet, encoding="utf-8")
    sharp = shutil.copytree(run, tmp_path / "run")  # larger weights, so that the pixels decide the classes
    weights = safetensors.torch.load_file(run / "weights.safetensors")
    weights = {name: value * 3 if value.ndim > 1 else value for name, value in weights.items()}
    safetensors.torch.save_file(weights, sharp / "weights.safetensors")
    (sharp / "weights.safetensors.sha256").unlink()
    record = json.loads((sharp / "run.json").read_text())
    record["preprocessing"]["orientation"] = "exif"
    (sharp / "run.json").write_text(json.dumps(record))
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side
    done = run_here("export", sharp, "--out", tmp_path / "net.onnx", "--preprocessing")
    assert done.returncode == 0, done.stderr
    for width, height, format in ((401, 300, "PNG"), (97, 200, "PNG"), (401, 300, "JPEG")):
        photo = tmp_path / "photo.jpg"
        with Image.open(io.BytesIO(picture(3, width, height, format))) as image:
            image.save(photo, format, exif=exif)
        words = [sys.executable, "-c", SNIPPET_WITHOUT_TORCH]
        ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        *printed, best = ran.stdout.splitlines()
        found = json.loads(best)
        guesses = json.loads(run_here("predict", sharp, photo, "--views", "1", "--json").stdout)[0]["guesses"]
        assert guesses[0]["probability"] > 0.2
        assert [id for id, _ in found] == [guess["id"] for guess in guesses]
        # A JPEG is decoded and resampled by other libraries, which differ by a grey level.
        expected, tolerance = [guess["probability"] for guess in guesses], 1e-5 if format == "PNG" else 1e-3
        np.testing.assert_allclose([p for _, p in found], expected, rtol=0, atol=tolerance)
        assert [line.partition(" ")[2] for line in printed] == [guess["name"] for guess in guesses]


def random_net(variant: str, recipe: str) -> ExportedNet:
    """A net at the smallest scale with large random weights, so that a normalization left out changes the logits."""
    configuration = configure(variant, recipe, "smoke", 10)
    generator = torch.Generator().manual_seed(0)
    net = AlexNet(configuration.network).initialise(configuration.recipe.initialisation, generator)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    size = configuration.scale.image_size
    mean = np.random.default_rng(0).uniform(90, 130, (size, size, 3)).astype(np.float32)
    augmentation = Augmentation(inputs_divided_by=configuration.recipe.augmentation.inputs_divided_by)
    views = Views(mean, np.eye(3), configuration.scale.crop_size, augmentation, torch.device("cpu"))
    return ExportedNet(net.eval(), views, [ClassInfo(f"id{i}", f"name {i}") for i in range(10)], "run", size)


@pytest.mark.parametrize("views", [1, 10])
def test_views_as_one_batch_have_the_probabilities_of_the_evaluation(views: int) -> None:
    """With large weights, a mean that is different at each position, and more images than one."""
    source = random_net("alexnet", "authors")
    pixels = np.random.default_rng(1).integers(0, 256, (3, *[source.image_size] * 2, 3), dtype=np.uint8)
    with torch.no_grad():
        found = ImageClassifier(source.net, source.views, views)(torch.from_numpy(pixels))
        expected = mean_softmax(source.net, source.views, pixels, views, "fp32")
    assert expected.amax(1).min() > 0.2  # not equal probabilities, whatever the pixels
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("variant", "recipe"), [("alexnet", "authors"), ("tanh", "paper"), ("cifar-lrn", "authors")])
def test_every_layer_is_in_the_onnx_graph(variant: str, recipe: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    source = random_net(variant, recipe)
    path = export_net(source, tmp_path / "net.onnx", "onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(1).integers(0, 256, (3, *[source.image_size] * 2, 3), dtype=np.uint8)
    inputs = next(source.views.test_views(pixels, 1)).contiguous()
    with torch.no_grad():
        expected = source.net(inputs).numpy()
    for count in (1, 3):
        (found,) = session.run(None, {"inputs": inputs[:count].numpy()})
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=1e-5 * np.abs(expected).max())
    described = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert (described["crop_size"], described["image_size"]) == (source.views.crop, source.image_size)


def test_torch_export_takes_any_number_of_images(
    run: Path, model: TrainedModel, images: np.ndarray, tmp_path: Path
) -> None:
    path = export_run(run, tmp_path / "net.pt2", "torch-export", preprocessing=True)
    extra = {"classes": ""}
    program = torch.export.load(path, extra_files=extra).module()
    for count in (1, 2, 3):
        found = program(torch.from_numpy(images[:count]))
        torch.testing.assert_close(found, model.probabilities(images[:count], 1), rtol=0, atol=1e-5)
    assert [each["id"] for each in json.loads(extra["classes"])] == [each.id for each in model.classes]


def test_timm_loads_the_folder_and_its_own_transform_gives_our_numbers(
    run: Path, model: TrainedModel, images: np.ndarray, tmp_path: Path
) -> None:
    import timm

    folder = export_run(run, tmp_path / "net", "timm")
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(loaded)
    transform = timm.data.create_transform(**config, is_training=False)
    batch = torch.stack([transform(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        found = loaded(batch).softmax(1)
    torch.testing.assert_close(found, model.probabilities(images, 1), rtol=0, atol=1e-5)
    assert loaded.pretrained_cfg["label_names"] == [each.id for each in model.classes]
    assert timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=3)(batch).shape == (3, 3)


def test_a_state_dict_is_loaded_without_code(run: Path, model: TrainedModel, tmp_path: Path) -> None:
    path = export_run(run, tmp_path / "net.pth", "state-dict")
    weights = torch.load(path, weights_only=True)
    for name, value in model.net.state_dict().items():
        assert torch.equal(weights[name], value)
    described = json.loads(path.with_suffix(".json").read_text())
    assert json.loads(described["classes"])[0]["id"] == model.classes[0].id


def test_the_description_of_a_state_dict_never_replaces_the_weights_or_another(run: Path, tmp_path: Path) -> None:
    names = ("net.json", "net-lr0.01", "net-lr0.02")
    paths = [export_run(run, tmp_path / name, "state-dict") for name in names]
    for path in paths:
        assert len(torch.load(path, weights_only=True)) == 16
        assert json.loads(path.with_name(f"{path.name}.json").read_text())["classes"]
    assert len(list(tmp_path.iterdir())) == 6  # and no partial files


def test_the_graph_s_views_are_those_of_evaluate(images: np.ndarray) -> None:
    source = random_net("alexnet", "paper")
    with torch.inference_mode():
        found = ImageClassifier(source.net, source.views, 10)(torch.from_numpy(images))
        views = source.views.test_views(images, 10)
        expected = torch.stack([source.net(view).softmax(1) for view in views]).mean(0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_what_cannot_be_exported_is_one_error(run: Path, tmp_path: Path) -> None:
    for words, message in (
        (("--format", "timm", "--preprocessing"), "has no graph to put the preprocessing into"),
        (("--views", "10"), "add --preprocessing"),
    ):
        done = run_here("export", run, "--out", tmp_path / "net", *words)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert message in done.stderr
    with pytest.raises(ReproError, match="unknown format 'onx': did you mean onnx"):
        export_run(run, tmp_path / "net", "onx")
    for folder in (tmp_path, Path(".")):
        with pytest.raises(ReproError, match="is a folder: name a file"):
            export_run(run, folder, "onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(ReproError, match="cannot make the folder"):
        export_run(run, tmp_path / "file" / "net.pth", "state-dict")
