"""The submission of predictions on test images without labels, against softmax outputs averaged view by view."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import picture, run_here, small_disk
from official_archives import tar, unlabelled_2012, write_ilsvrc2012

from repro.data.store import Store, fingerprint, open_store
from repro.data.views import Views
from repro.errors import ReproError
from repro.evaluation.audit import audit
from repro.evaluation.evaluate import evaluate
from repro.evaluation.retrieve import retrieve
from repro.evaluation.submission import submit
from repro.evaluation.trained_model import open_run
from repro.paper.recipes import AUTHORS
from repro.preparation.prepare import prepare
from repro.preparation.preprocess import to_square
from repro.preparation.store_writing import write_array
from repro.records.reading import read_records
from repro.training.settings import Settings
from repro.training.train import train
from repro.workflow.stages import Kind, Workspace, experiment

IMAGES = 12
CLASSES = {  # by the challenge's number, which is not the alphabetical rank
    1: ("n02119789", "kit fox"),
    2: ("n02100735", "English setter"),
    3: ("n01440764", "tench"),
    4: ("n03126707", "crane"),
    5: ("n02066245", "grey whale"),
    6: ("n02012849", "crane"),
    7: ("n01443537", "goldfish"),
}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_ilsvrc2012(tmp_path_factory.mktemp("archives") / "2012", CLASSES)
    (root / "ILSVRC2012_img_test_v10102019.tar").write_bytes(tar(unlabelled_2012(IMAGES)))
    return root


@pytest.fixture(scope="module")
def store(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("stores") / "2012"
    return prepare("ilsvrc2012", out, source=archives, size=64, allow_partial=True)


@pytest.fixture(scope="module")
def trained(store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two runs. Their last layers are made sharp, so that the order of the classes differs between images."""
    out = tmp_path_factory.mktemp("runs")
    paths = []
    for seed in (0, 1):
        settings = Settings("alexnet", "authors", "smoke", seed, epochs=1)
        path = next(iter(list(train(settings, store.path, out)))).path
        weights = safetensors.torch.load_file(path / "weights.safetensors")
        generator = torch.Generator().manual_seed(seed)
        for value in weights.values():
            if value.ndim > 1:
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
        safetensors.torch.save_file(weights, path / "weights.safetensors")
        (path / "weights.safetensors.sha256").unlink()
        paths.append(path)
    return paths


def lines_by_hand(paths: list[Path], store: Store, view_count: int) -> list[str]:
    """Return the expected lines, from the pictures themselves and the WordNet ids of the development kit."""
    numbers = {id: number for number, (id, _) in CLASSES.items()}
    ids = sorted(numbers)
    maker = Views(store.mean, store.covariance, 56, AUTHORS.augmentation, torch.device("cpu"))
    lines = []
    for n in range(IMAGES):
        image = to_square(picture(80_000 + n), 64)[None]
        outputs = []
        for path in paths:
            net = open_run(path, "cpu").net
            with torch.no_grad():
                outputs += [net(view).double().softmax(1).numpy()[0] for view in maker.test_views(image, view_count)]
        best = np.argsort(-np.mean(outputs, axis=0))[:5]
        lines.append(" ".join(str(numbers[ids[index]]) for index in best))
    return lines


@pytest.mark.parametrize(("members", "views"), [(1, 1), (1, 10), (2, 10)])
def test_a_line_holds_the_challenges_numbers_of_the_five_most_probable_classes(
    trained: list[Path], store: Store, members: int, views: int
) -> None:
    path = submit(trained[:members], store.path, "test", views, "cpu")
    folder = trained[0] if members == 1 else path.parent
    assert path == folder / f"submission-test-{views}.txt"
    lines = path.read_bytes().decode("ascii").split("\n")
    assert lines.pop() == ""
    assert lines == lines_by_hand(trained[:members], store, views)
    assert len(set(lines)) > IMAGES // 2  # the test would not notice another order of equal lines


def test_the_command_prints_the_path_and_records_no_evaluation(
    trained: list[Path], store: Store, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained[0], tmp_path / "runs" / "run"))
    for file in run.glob("submission-*"):
        file.unlink()
    done = run_here("evaluate", run, "--data", store.path, "--split", "test", "--views", "1")
    assert done.returncode == 0, done.stderr
    assert "submission-test-1.txt" in "".join(done.stdout.split())
    assert (run / "submission-test-1.txt").read_text().splitlines() == lines_by_hand([trained[0]], store, 1)
    assert not list(run.glob("evaluation-test*")) + list(run.glob("predictions-test*"))
    assert read_records(tmp_path / "runs").evaluations == ()


def test_a_full_disk_is_an_error_before_the_work(trained: list[Path], store: Store, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    kilobytes = sum(file.stat().st_size for file in trained[0].rglob("*")) // 1024 + 100
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        copy = shutil.copytree(trained[0], disk / "run")
        with pytest.raises(ReproError, match=f"cannot write the submission to '{copy}': No space"):
            submit([copy], store.path, on_progress=lambda *counts: done.append(counts))
    assert not done


def changed(store: Store, out: Path, numbers: list[int] | None, names: list[str] | None = None) -> Path:
    """Copy the store with other class numbers, or without, and with other names of the test images."""
    shutil.copytree(store.path, out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest.pop("class_numbers") == [3, 7, 6, 5, 2, 1, 4]
    if numbers is not None:
        manifest["class_numbers"] = numbers
    if names is not None:
        content = "".join(f"{json.dumps(name)}\n" for name in names).encode()
        (out / "test/names.jsonl").write_bytes(content)
        manifest["splits"]["test"]["names"]["bytes"] = len(content)
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def test_the_class_numbers_are_needed_but_not_part_of_the_fingerprint(
    trained: list[Path], store: Store, tmp_path: Path
) -> None:
    without = changed(store, tmp_path / "without", None)
    assert open_store(without).fingerprint == store.fingerprint
    with pytest.raises(
        ReproError, match=r"lacks the challenge's class numbers: prepare a new store .*devkit_t12"
    ) as error:
        submit(trained[:1], without, "test", 1)
    assert "\n" not in str(error.value)
    damaged = changed(store, tmp_path / "damaged", [3, 7, 6, 5, 2, 1, 1])
    with pytest.raises(ReproError, match="class numbers other than 1 to 7"):
        submit(trained[:1], damaged, "test", 1)


def test_lines_are_by_number_whatever_the_order_of_the_store(trained: list[Path], store: Store, tmp_path: Path) -> None:
    names = [f"test/ILSVRC2012_test_{IMAGES - n:08}.JPEG" for n in range(IMAGES)]
    path = submit(trained[:1], changed(store, tmp_path / "store", [3, 7, 6, 5, 2, 1, 4], names), "test", 1)
    assert path.read_text().splitlines() == lines_by_hand(trained[:1], store, 1)[::-1]


def test_an_image_that_could_not_be_decoded_is_an_error(trained: list[Path], archives: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(archives, tmp_path / "2012"))
    members = {**unlabelled_2012(IMAGES), "ILSVRC2012_test_00000004.JPEG": b"not a picture"}
    (source / "ILSVRC2012_img_test_v10102019.tar").write_bytes(tar(members))
    store = prepare("ilsvrc2012", tmp_path / "store", source=source, size=64, allow_partial=True)
    assert len(store.splits["test"]) == IMAGES - 1
    assert store.manifest["rejected"][0]["name"] == "test/ILSVRC2012_test_00000004.JPEG"
    with pytest.raises(ReproError, match=r"lacks test image 4, and line n of a submission is for image n"):
        submit(trained[:1], store.path, "test", 1)


def test_what_needs_labels_says_so(trained: list[Path], store: Store, tmp_path: Path) -> None:
    for command in (evaluate, retrieve):
        target = trained[0] if command is retrieve else trained[:1]
        with pytest.raises(ReproError, match=r"the split 'test' of the store '.*' has no labels, which .* needs"):
            command(target, store.path, "test")  # type: ignore[operator]
    words = ("--data", store.path, "--split", "test", "--confusion", tmp_path / "matrix.csv")
    done = run_here("evaluate", trained[0], *words)
    assert done.returncode == 3
    assert "--confusion needs labels" in " ".join(done.stderr.split())
    unlabelled = without_val_labels(store, tmp_path / "store")
    with pytest.raises(ReproError, match=r"the split 'val' .* has no labels, which --search-weights needs"):
        submit(trained, unlabelled, "test", 1, searched=True)
    with pytest.raises(ReproError, match=r"the split 'val' .* has no labels, which training needs"):
        list(train(Settings("alexnet", "authors", "smoke", epochs=1), unlabelled, tmp_path / "runs"))
    with pytest.raises(ReproError, match=r"the split 'val' .* has no labels, which an audit needs"):
        audit([], unlabelled, tmp_path / "audit")


def test_experiments_measure_errors_on_val_where_the_test_images_have_no_labels(store: Store, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "runs", tmp_path / "stores", "paper", data=store.path)
    splits = [
        stage.words[stage.words.index("--split") + 1]
        for stage in experiment("table1", workspace)
        if stage.kind is Kind.EVALUATE
    ]
    assert splits == ["val", "val"]


def without_val_labels(store: Store, out: Path) -> Path:
    shutil.copytree(store.path, out)
    manifest = json.loads((out / "manifest.json").read_text())
    record = write_array(out, "val/labels.npy", np.full(len(store.splits["val"]), -1))
    manifest["splits"]["val"]["labels"] = vars(record)
    (out / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": fingerprint(manifest)}))
    return out
