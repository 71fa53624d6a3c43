"""Own images are classified by a run or by the average of several, and shown as a table, JSON, CSV or figure."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import repro, run_here
from PIL import Image

from repro.data.store import Store
from repro.errors import ReproError, unknown
from repro.evaluation.evaluate import evaluate
from repro.evaluation.predict import predict_images, read_images
from repro.evaluation.trained_model import preprocess
from repro.preparation.formats import decodable
from repro.records.schema import PreprocessingRecord
from repro.report.figures.classified import Bars, draw_bars, write_bars
from repro.report.figures.figure4 import CORRECT
from repro.training.settings import Settings
from repro.training.train import train


@pytest.fixture(scope="module")
def runs(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds, an epoch each, on the built-in data."""
    out = tmp_path_factory.mktemp("runs")
    settings = [Settings("alexnet", "authors", "smoke", seed, epochs=1) for seed in (0, 1)]
    return [next(iter(list(train(each, synthetic_store.path, out)))).path for each in settings]


@pytest.fixture(scope="module")
def folder(synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five test images in a folder per class, a text file, and a damaged image."""
    out = tmp_path_factory.mktemp("images")
    split = synthetic_store.splits["test"]
    for index in range(5):
        info = synthetic_store.classes[split.labels[index]]
        (out / info.id).mkdir(exist_ok=True)
        Image.fromarray(split.images(np.array([index]))[0]).save(out / info.id / f"{index}.png")
    (out / "notes.txt").write_text("not an image, and not taken for one")
    (out / "damaged.jpg").write_bytes(b"\xff\xd8 cut")
    return out


def test_the_average_of_runs_is_that_of_evaluate(runs: list[Path], folder: Path, synthetic_store: Store) -> None:
    path, record = evaluate(runs, synthetic_store.path, "test", 10)
    expected = np.load(path.with_name(record.predictions))
    notes: list[str] = []
    found = list(predict_images(runs, [str(folder)], on_note=notes.append, batch_size=2))
    assert len(found) == 5
    for each in found:
        index = int(Path(each.name).stem)
        assert each.label is not None
        assert each.label.id == synthetic_store.classes[expected["labels"][index]].id
        assert [guess.id for guess in each.guesses] == [
            synthetic_store.classes[top].id for top in expected["top5"][index]
        ]
        probabilities = [guess.probability for guess in each.guesses]
        np.testing.assert_allclose(probabilities, expected["top5_probabilities"][index], rtol=0, atol=1e-6)
    damaged, skipped = notes
    assert "damaged.jpg' cannot be used" in damaged
    assert skipped == "skipped 1 file that is not an image: 1 .txt"


def test_classes_in_another_order_are_averaged_by_id(runs: list[Path], folder: Path, tmp_path: Path) -> None:
    import safetensors.torch

    turned = tmp_path / "turned"
    shutil.copytree(runs[0], turned)
    record = json.loads((turned / "run.json").read_text())
    record["data"]["classes"].reverse()
    (turned / "run.json").write_text(json.dumps(record))
    weights = safetensors.torch.load_file(turned / "weights.safetensors")
    weights |= {name: weights[name].flip(0).contiguous() for name in ("fc8.weight", "fc8.bias")}
    safetensors.torch.save_file(weights, turned / "weights.safetensors")
    (turned / "weights.safetensors.sha256").unlink()
    alone, averaged = (
        list(predict_images(members, [str(folder)], views=1, on_note=lambda _: None))
        for members in (runs[:1], [runs[0], turned])
    )
    for one, other in zip(alone, averaged, strict=True):
        assert [guess.id for guess in one.guesses] == [guess.id for guess in other.guesses]
    record["data"]["classes"][0]["id"] = "another"
    (turned / "run.json").write_text(json.dumps(record))
    with pytest.raises(ReproError, match="have other classes"):
        list(predict_images([runs[0], turned], [str(folder)]))


def test_a_folder_is_searched_as_prepare_searches_it(folder: Path, tmp_path: Path) -> None:
    """By content and through links, without the thumbnails and shadow files of operating systems."""
    picture = min(folder.rglob("*.png")).read_bytes()
    system = ("@eaDir/1.jpg/THUMB_M.jpg", "__MACOSX/cat/1.jpg", "cat/._1.jpg", ".x/2.png")
    for name in ("cat/1.jfif", "cat/photo", *system):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(picture)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.png").write_bytes(picture)
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "elsewhere")
    notes: list[str] = []
    found = list(read_images([str(tmp_path / "photos")], on_note=notes.append))
    places = [(str(Path(each.name).relative_to(tmp_path / "photos")), each.label) for each in found]
    assert places == [("cat/1.jfif", "cat"), ("cat/photo", "cat"), ("dog/3.png", "dog")]
    assert len(notes) == 1
    assert notes[0].startswith("skipped 4 system files and folders")


def test_what_cannot_be_classified_is_one_error(runs: list[Path], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ReproError, match=r"damaged\.jpg' cannot be used"):
        list(predict_images(runs[:1], [str(folder / "damaged.jpg")]))
    with pytest.raises(ReproError, match=r"cannot read '.*gone\.png'"):
        list(predict_images(runs[:1], [str(tmp_path / "gone.png")]))
    with pytest.raises(ReproError, match="no images in"):
        list(predict_images(runs[:1], [str(tmp_path)]))
    with pytest.raises(ReproError, match="unknown class 'zebrra'"):
        list(predict_images(runs[:1], [str(folder)], label="zebrra"))


def test_an_error_does_not_name_a_thousand_choices() -> None:
    message = str(unknown("class", "?", [f"class {number}" for number in range(1000)]))
    assert message.endswith("class 18, class 19, … (1,000 in all)")
    assert str(unknown("class", "?", ["cat", "dog"])) == "unknown class '?': choose from cat, dog"


def test_wrong_paths_are_errors_before_any_image_is_classified(runs: list[Path], folder: Path, tmp_path: Path) -> None:
    image = min(folder.rglob("*.png"))
    done = run_here("predict", runs[0], image, "--figure", tmp_path / "figure.gif")
    assert (done.returncode, done.stdout) == (3, "")
    assert "must end in .png, .svg or .pdf" in done.stderr
    done = run_here("predict", runs[0], image, "--figure", tmp_path / "none" / "figure.png")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"repro: cannot write 'figure.png' to '{tmp_path / 'none'}': ")
    for wrong in (image, runs[0] / "weights.safetensors"):  # the arguments in another order, the weights alone
        done = run_here("predict", wrong, runs[0])
        assert done.returncode == 3
        assert done.stderr.startswith(f"repro: no run at '{wrong}': it is a file, and not a run.json; ")


def test_the_command_prints_json_csv_and_a_table_and_draws(runs: list[Path], folder: Path, tmp_path: Path) -> None:
    image = min(folder.rglob("*.png"))
    done = repro("predict", runs[0], image, "--with", runs[1], "--json", "--figure", tmp_path / "figure.png")
    assert done.returncode == 0, done.stderr
    (document,) = json.loads(done.stdout)
    (expected,) = predict_images(runs, [str(image)])
    assert document["image"] == str(image)
    assert document["label"] == image.parent.name
    assert [guess["id"] for guess in document["guesses"]] == [guess.id for guess in expected.guesses]
    probabilities = [guess["probability"] for guess in document["guesses"]]
    np.testing.assert_allclose(probabilities, [guess.probability for guess in expected.guesses], rtol=0, atol=1e-6)
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 300
    words = [sys.executable, "-m", "repro", "predict", runs[0], "-", "--csv", "--top", "2", "--views", "1"]
    piped = subprocess.run(list(map(str, words)), input=image.read_bytes(), capture_output=True)
    rows = list(csv.DictReader(io.StringIO(piped.stdout.decode())))
    assert [(row["image"], row["rank"]) for row in rows] == [("-", "1"), ("-", "2")]
    assert float(rows[0]["probability"]) >= float(rows[1]["probability"])
    table = run_here("predict", runs[0], folder, "--label", image.parent.name)
    assert table.returncode == 0
    assert table.stdout.count("%") == 25
    assert "damaged.jpg" in table.stderr


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
@pytest.mark.parametrize(
    ("redirection", "message"),
    [("<&-", "standard input is closed: pipe an image"), ("0>/dev/null", "cannot read standard input: ")],
)
def test_a_standard_input_that_cannot_be_read_is_one_error(runs: list[Path], redirection: str, message: str) -> None:
    command = ["sh", "-c", f'exec "$0" -m repro predict "$1" - {redirection}', sys.executable, str(runs[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert done.stderr.startswith(f"repro: {message}")


def test_the_bar_of_the_correct_class_is_red(tmp_path: Path) -> None:
    from matplotlib.colors import to_hex

    bars = Bars(np.zeros((8, 8, 3), np.uint8), "cat", ["dog", "cat"], [0.7, 0.3], correct=1)
    figure = draw_bars([bars, replace(bars, correct=None)])
    colours = [[to_hex(bar.get_facecolor()) for bar in axes.patches] for axes in figure.axes if axes.patches]
    assert [[colour == CORRECT for colour in each] for each in colours] == [[False, True], [False, False]]
    write_bars([replace(bars, title="漢字.jpg")], tmp_path / "figure.png")  # not in the font; warnings are errors
    with pytest.raises(ReproError, match=r"must end in \.png, \.svg or \.pdf"):
        write_bars([bars], tmp_path / "figure.gif")
    with pytest.raises(ReproError, match="a figure holds 48 images, not 49"):
        write_bars([bars] * 49, tmp_path / "figure.png")


def test_a_photograph_is_turned_as_its_store_would_turn_it(tmp_path: Path) -> None:
    """A picture lying on its side with EXIF orientation 6 is what `prepare folder` makes of it, and not otherwise."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "phone.png", exif=exif)
    turned = PreprocessingRecord(image_size=40, crop_size=32, orientation="exif")
    upright = np.rot90(pixels, -1)[10:50]
    np.testing.assert_array_equal(preprocess(tmp_path / "phone.png", turned), upright)
    stored = replace(turned, orientation="stored")
    np.testing.assert_array_equal(preprocess(tmp_path / "phone.png", stored), pixels[:, 10:50])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", ["exif", "stored"])
def test_an_opened_image_is_preprocessed_as_its_file(format: str, orientation: str) -> None:
    if format not in decodable():
        pytest.skip(f"this Pillow reads no {format}")
    small = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC)
    encoded, exif = io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    picture.save(encoded, format, exif=exif)
    settings = PreprocessingRecord(image_size=40, crop_size=32, orientation=orientation)
    of_file = preprocess(encoded.getvalue(), settings)
    with Image.open(encoded) as opened:
        np.testing.assert_allclose(preprocess(opened, settings).astype(int), of_file, rtol=0, atol=1)
    turned = orientation == "exif" or format in ("TIFF", "AVIF")  # these formats have an orientation themselves
    upright = preprocess(picture.transpose(Image.Transpose.ROTATE_270) if turned else picture, settings)
    assert np.abs(of_file.astype(int) - upright).mean() < 5


def test_images_of_any_mode_and_pixels_of_any_strides_are_taken() -> None:
    settings = PreprocessingRecord(image_size=40, crop_size=32)
    pixels = np.full((50, 60, 3), 128, np.uint8)
    for mode in ("1", "L", "LA", "P", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"):
        assert preprocess(Image.fromarray(pixels).convert(mode), settings).shape == (40, 40, 3)
    reversed_channels = pixels[:, :, ::-1]  # as OpenCV's images are turned into RGB
    assert preprocess(reversed_channels, settings).shape == (40, 40, 3)
    empty, grey = pixels[:0], pixels[..., 0]
    for image, message in ((empty, r"not uint8 \[0, 60, 3\]"), (grey, "must be uint8"), ([1], "not list")):
        with pytest.raises(ReproError, match=message):
            preprocess(image, settings)  # type: ignore[arg-type]
