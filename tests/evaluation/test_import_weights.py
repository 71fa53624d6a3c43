"""Weights that others published become a run, which is opened, evaluated and averaged as any other."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_here

from repro.data.store import Store
from repro.errors import ReproError
from repro.evaluation.class_lists import read_classes
from repro.evaluation.import_weights import import_weights
from repro.evaluation.trained_model import open_run
from repro.preparation.prepare import prepare
from repro.records.reading import read_run


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's net for ten classes."""
    import torchvision

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(torchvision.models.alexnet(num_classes=10).state_dict(), path)
    return path


def test_an_imported_run_classifies_as_torchvision_does(
    weights_file: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    import torchvision
    from torchvision.transforms import v2

    classes = tmp_path / "classes.txt"
    classes.write_text("".join(f"{info.id} {info.name}\n" for info in synthetic_store.classes))
    done = run_here("import", weights_file, "--out", tmp_path / "run", "--classes", classes)
    assert done.returncode == 0, done.stderr
    assert "torchvision-alexnet, 10 classes" in done.stdout
    model = torchvision.models.alexnet(num_classes=10).eval()
    model.load_state_dict(torch.load(weights_file, weights_only=True))
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    normalize = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        centre = torch.from_numpy(pixels[16:240, 16:240]).permute(2, 0, 1)[None] / 255
        expected = model(normalize(centre)).softmax(1)[0]
    opened = open_run(tmp_path / "run")
    torch.testing.assert_close(opened.probabilities(pixels[None], 1)[0], expected, rtol=0, atol=1e-5)
    best = opened.predict(pixels, views=1)[0]
    assert best.id == synthetic_store.classes[int(expected.argmax())].id
    assert opened.run.init_from is not None
    assert opened.run.init_from.run == "alexnet.pth"
    again = run_here("import", weights_file, "--out", tmp_path / "run", "--classes", classes)
    assert (again.returncode, again.stderr.count("\n")) == (3, 1)
    assert "is not empty: choose another --out" in again.stderr
    over_file = run_here("import", weights_file, "--out", classes, "--classes", classes)
    assert (over_file.returncode, over_file.stderr.count("\n")) == (3, 1)
    assert over_file.stderr.startswith(f"repro: cannot create the folder '{classes}': ")


@pytest.mark.skipif(os.name != "posix", reason="the quotes of a POSIX shell")
def test_the_recorded_command_repeats_the_import(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("synthetic", tmp_path / "a store", size=256, limit_per_class=1)
    (tmp_path / "the classes.txt").write_text("".join(f"n{number:08}\n" for number in range(10)))
    monkeypatch.chdir(tmp_path)
    options = ("--as", "torchvision-alexnet", "--classes", "the classes.txt", "--data", "a store")
    done = run_here("import", weights_file, "--out", "a run", *options)
    assert done.returncode == 0, done.stderr
    first = read_run(Path("a run"))
    assert shlex.split(first.command) == ["repro", "import", str(weights_file), "--out", "a run", *options]
    shutil.rmtree("a run")
    done = run_here(*shlex.split(first.command)[1:])
    assert done.returncode == 0, done.stderr
    assert read_run(Path("a run")).data.classes == first.data.classes


def test_a_list_of_names_instead_of_ids_is_refused(tmp_path: Path) -> None:
    """A first word is no id where others begin with it; a byte-order mark is no part of one."""
    names = tmp_path / "names.txt"
    names.write_text("great white shark\ngoldfish\ngreat grey owl\n", encoding="utf-8")
    with pytest.raises(ReproError, match="has the id 'great' in 2 lines: write an id"):
        read_classes(names)
    names.write_text("\ufeffn01440764 tench, Tinca tinca\nn01443537\n", encoding="utf-8")
    assert [(each.id, each.name) for each in read_classes(names)] == [
        ("n01440764", "tench, Tinca tinca"), ("n01443537", "n01443537"),
    ]  # fmt: skip


def test_classes_that_are_not_known_are_an_error_and_nothing_is_written(weights_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ReproError, match=r"the order of the classes of .* is not known: add --classes"):
        import_weights(weights_file, tmp_path / "run")
    done = run_here("import", tmp_path / "gone.pth", "--out", tmp_path / "run")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert not (tmp_path / "run").exists()
