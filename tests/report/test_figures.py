"""What several figures share, Figure 3's specialisation and the confused classes."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from made_records import TEN, data_record, write_course, write_evaluation, write_retrieval, write_run
from matplotlib.figure import Figure
from matplotlib.text import Text

from repro.records.reading import read_records
from repro.report.figures import confusion, curves, draw, effects, figure1, figure2, figure3, figure4
from repro.report.figures.confusion import confusion_pictures
from repro.report.figures.draw import draw_figures
from repro.report.figures.figure1 import grid_rows, grids
from repro.report.figures.figure3 import kernel_pictures
from repro.report.figures.figure4 import retrieval_pictures
from repro.report.figures.style import Picture
from repro.report.measurements.filters import colourfulness, towers

PHONE = 335  # pixels for a figure on a screen of 375


def words(svg: bytes) -> str:
    """The texts of a drawing; their glyphs are paths, their letters comments."""
    return " ".join(each.decode().strip() for each in re.findall(rb"<!--(.*?)-->", svg, re.DOTALL))


def test_texts_of_narrow_figures_are_large_enough_and_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a phone every text has at least 10 pixels, and none is cut at the sides."""
    narrow: dict[str, Figure] = {}

    def finish(figure: Figure, name: str, title: str, *others: object) -> Picture:
        assert isinstance(others[-1], Figure), f"{name} has no narrow drawing"
        narrow[name] = others[-1]
        return Picture(name, title, "", "", b"", b"", "")

    for module in (confusion, curves, effects, figure1, figure2, figure3, figure4):
        monkeypatch.setattr(module, "finish", finish)
    write_run(tmp_path, epochs=3)
    write_evaluation(tmp_path)
    write_run(tmp_path / "unchanged", weights=False)
    for views in (1, 10):
        write_evaluation(tmp_path / "unchanged", views=views)
    write_retrieval(tmp_path)
    write_evaluation(tmp_path / "many", data=data_record(name="many", classes=[f"class {k}" for k in range(40)]))
    write_course(tmp_path / "grid", "cifar-relu", 0.001, 0, [60, 24])
    draw.draw_figures(read_records(tmp_path))
    parts = ("effects", "figure1", "figure2", "figure3", "figure4-labels", "figure4-neighbours", "confusion", "curves")
    assert all(any(name.startswith(part) for name in narrow) for part in parts)
    for name, figure in narrow.items():
        width = figure.get_figwidth()
        figure.draw_without_rendering()
        for text in figure.findobj(Text):
            if not isinstance(text, Text) or not text.get_text() or not text.get_visible():
                continue
            assert text.get_fontsize() / 72 * PHONE / width >= 10, f"{name}: {text.get_text()}"
            box, right = text.get_window_extent(), width * figure.dpi
            if box.x1 > 0 and box.x0 < right:  # labels of ticks beyond the axes are not drawn
                assert box.x0 >= -1, f"{name}: {text.get_text()}"
                assert box.x1 <= right + 1, f"{name}: {text.get_text()}"


def test_effects_are_differences_of_test_errors_of_unchanged_runs(tmp_path: Path) -> None:
    errors = {"alexnet": 20.0, "one-gpu": 23.0, "no-lrn": 22.0}
    for seed in range(3):
        for variant, error in errors.items():
            write_run(tmp_path, variant, seed=seed)
            write_evaluation(tmp_path, variant, seeds=(seed,), error=error + seed)
            training = {"split": "train", "views": 1, "images": 9000}
            write_evaluation(tmp_path, variant, seeds=(seed,), error=error / 2, **training)  # type: ignore[arg-type]
            write_run(tmp_path / "shorter", variant, seed=seed, epochs=10)
            write_evaluation(tmp_path / "shorter", variant, seeds=(seed,), error=2 * error)
    found = {row.label: row.measured for row in effects.effects(read_records(tmp_path))}
    measured = {label: [(place, round(each.value, 6)) for place, each in rows] for label, rows in found.items() if rows}
    assert measured == {
        "One GPU, half the kernels": [("ten classes, small scale", 3.0)],
        "No response normalisation": [("ten classes, small scale", 2.0)],
    }
    (picture,) = effects.effect_pictures(read_records(tmp_path))
    assert "pre-trained on other images" not in words(picture.svg)
    assert "2 of them with intervals" in picture.alt
    assert all(text in words(picture.svg) for text in ("One GPU, half the kernels", "Without conv5", "the paper"))


def test_a_net_that_was_pre_trained_on_other_images_is_shown_as_such(tmp_path: Path) -> None:
    other = data_record(name="others")
    for seed in range(3):
        write_run(tmp_path, seed=seed)
        write_evaluation(tmp_path, seeds=(seed,), error=20.0 + seed)
        checksum = f"weights of seed {seed}"
        ended = {"reason": "epochs", "epochs": 30, "weights": checksum}
        write_run(tmp_path, "conv6-fall2011", seed=seed, data=other, ended=ended)
        origin = {"run": "before", "weights": checksum}
        write_run(tmp_path, "conv6-pretrained", seed=seed, init_from=origin)
        write_evaluation(tmp_path, "conv6-pretrained", seeds=(seed,), error=18.0 + seed)
    (row,) = (row for row in effects.effects(read_records(tmp_path)) if row.measured)
    assert [(place, round(each.value, 6)) for place, each in row.measured] == [("ten classes, small scale", 2.0)]
    (picture,) = effects.effect_pictures(read_records(tmp_path))
    assert "pre-trained on other images" in words(picture.svg)


def test_places_that_are_not_shown_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alpha", "beta"):
        for seed, variant in itertools.product(range(3), ("alexnet", "no-lrn")):
            data = data_record(name=name)
            write_run(tmp_path / name, variant, seed=seed, data=data)
            write_evaluation(tmp_path / name, variant, seeds=(seed,), error=20.0 + seed, data=data)
    (picture,) = effects.effect_pictures(read_records(tmp_path))
    assert "Not shown" not in picture.caption
    monkeypatch.setattr(effects, "MOST_PLACES", 1)
    (picture,) = effects.effect_pictures(read_records(tmp_path))
    assert "Not shown, for want of colours: beta, small scale." in picture.caption


def test_no_effect_was_measured(tmp_path: Path) -> None:
    write_evaluation(tmp_path)
    assert not list(effects.effect_pictures(read_records(tmp_path)))


def test_narrow_drawings_are_files_and_sources(tmp_path: Path) -> None:
    write_run(tmp_path, epochs=2)
    pictures = draw_figures(read_records(tmp_path))
    for picture in pictures:
        picture.write(tmp_path)
        assert (tmp_path / f"{picture.name}-narrow.svg").read_bytes() == picture.narrow
    assert {picture.section for picture in pictures} == {"figure-2", "figure-3", "runs"}


def test_figure_3_shows_the_measured_specialisation(tmp_path: Path) -> None:
    write_run(tmp_path)
    records = read_records(tmp_path)
    kernels = records.runs[0].conv1()
    assert kernels is not None
    first, second = (colourfulness(tower).mean() for tower in towers(kernels))
    (picture,) = kernel_pictures(records)
    assert f"Mean colourfulness is {first:.2f} in tower 1 and {second:.2f} in tower 2" in picture.caption
    assert f"a difference of {second - first:.2f} [" in picture.caption
    assert "tower 1 is the more colour-agnostic, tower 2 the more colour-specific one" in picture.caption
    shown = re.findall(r"colourfulness [\d.]+, (\d+) of 24 oriented", words(picture.svg))
    count = sum(map(int, shown))
    assert f"{count} of 48 kernels, {100 * count / 48:.0f}% [" in picture.caption


def test_figure_4_of_any_net_and_of_two_classes(tmp_path: Path) -> None:
    data = data_record(name="pets", classes=["cat", "dog"], train=30, val=20)
    path = write_retrieval(tmp_path, "one-gpu", data=data, split="val")
    arrays = dict(np.load(path / "retrieval-val.npz"))
    arrays = {name: array % 2 if name.endswith("_labels") else array for name, array in arrays.items()}
    arrays["labelled_top5"] = np.array([[0, 1]] * 8)
    arrays["labelled_probabilities"] = arrays["labelled_probabilities"][:, :2]
    np.savez(path / "retrieval-val.npz", **arrays)
    left, right = retrieval_pictures(read_records(tmp_path))
    assert "with the two most probable labels" in left.caption
    assert "Images of pets, val (one-gpu, small scale" in left.caption
    assert "cat" in words(left.svg)
    assert "dog" in words(left.svg)
    assert right.section == "figure-4"


def test_alexnet_is_preferred_in_figure_4(tmp_path: Path) -> None:
    write_retrieval(tmp_path, "a-net")
    write_retrieval(tmp_path, seed=3)
    left, _ = retrieval_pictures(read_records(tmp_path))
    assert left.name == "figure4-labels-alexnet-authors-small-seed3-test"


def test_the_confusion_matrix_holds_the_shares_of_the_predictions(tmp_path: Path) -> None:
    path = write_evaluation(tmp_path, error=10, images=400, data=data_record(classes=TEN))
    write_evaluation(tmp_path, error=50, images=400, views=1, data=data_record(classes=TEN))
    labels = np.repeat(np.arange(10), 40)
    guesses = np.stack([labels, *[(labels + k) % 10 for k in range(1, 5)]], axis=1)
    guesses[:12, 0] = 3  # twelve of forty tench
    guesses[40:42, 0] = 0  # two springers
    np.savez(path / "predictions-val-10.npz", labels=labels, top5=guesses)
    (picture,) = confusion_pictures(read_records(tmp_path))
    assert picture.name == "confusion-1-ten-classes-val"
    assert (
        "Confused most: tench taken for chain saw (12 images); springer taken for tench (2 images)." in picture.caption
    )
    assert "400 val images of ten classes (10 classes) (alexnet, small scale, recipe authors, seed 0, 10 views)" in (
        picture.caption
    )
    numbers = re.findall(r"\b\d+\b", words(picture.svg))
    assert sorted(map(int, numbers)) == [5, 30, 70, 95, *[100] * 8]
    assert picture.section == "figure-4"


def test_of_many_classes_the_pairs_that_are_confused_most_are_drawn(tmp_path: Path) -> None:
    classes = [f"kind {k}" for k in range(40)]
    path = write_evaluation(tmp_path, images=400, data=data_record(name="many", classes=classes))
    labels = np.repeat(np.arange(40), 10)
    guesses = np.stack([labels] * 5, axis=1)
    guesses[:7, 0] = 39
    np.savez(path / "predictions-val-10.npz", labels=labels, top5=guesses)
    (picture,) = confusion_pictures(read_records(tmp_path))
    assert "kind 0 → kind 39" in words(picture.svg)
    assert words(picture.svg).count("→") == 1
    assert "the pairs of classes that are confused most" in picture.caption


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half of an archive"])
def test_damaged_predictions_are_not_drawn(tmp_path: Path, damage: bytes) -> None:
    (write_evaluation(tmp_path) / "predictions-val-10.npz").write_bytes(damage)
    assert list(confusion_pictures(read_records(tmp_path))) == []


def test_a_rate_that_never_reaches_the_error_is_not_the_fastest(tmp_path: Path) -> None:
    write_course(tmp_path, "cifar-relu", 0.001, 0, [60, 50])
    write_course(tmp_path, "cifar-relu", 0.002, 0, [60, 45])
    write_course(tmp_path, "cifar-tanh", 0.001, 0, [60, 24])
    (nets,) = grids(read_records(tmp_path)).values()
    notes = {(row.net, row.lr): row.note for row in grid_rows(nets)}
    assert notes["cifar-relu", 0.002] == "lowest error so far"
    assert notes["cifar-tanh", 0.001] == "fastest"
    assert notes["cifar-relu", 0.001] == ""


def test_of_many_contexts_the_first_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, classes in (("a", TEN), ("b", TEN[:4])):
        write_evaluation(tmp_path / name, data=data_record(name=name, classes=classes))
    assert sum(picture.section == "figure-4" for picture in draw_figures(read_records(tmp_path))) == 2
    monkeypatch.setattr(draw, "MOST_PICTURES", 1)
    assert sum(picture.section == "figure-4" for picture in draw_figures(read_records(tmp_path))) == 1
