import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import picture

from repro.errors import ReproError
from repro.preparation.prepare import prepare
from repro.preparation.preprocess import to_square
from repro.preparation.sources.ilsvrc import ilsvrc2012

IDS = ["n01440764", "n02012849", "n03126707"]


def write_hub(root: Path, train_name: str = "{id}_{k}_{id}.JPEG", labels: Sequence[int] = (0, 1, 2)) -> Path:
    """Shards as the hub serves imagenet-1k: groups of rows, names of the classes in the schema."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    label = {"names": ["tench, Tinca tinca", "crane", "crane"], "_type": "ClassLabel"}
    described = json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": label}}})
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())], metadata={"huggingface": described})
    random = np.random.default_rng(0)
    (root / "data").mkdir(parents=True)
    for split, shards, name in [
        ("train", 2, train_name),
        ("validation", 1, "ILSVRC2012_val_{k:08}_{id}.JPEG"),
    ]:
        for shard in range(shards):
            drawn = random.choice(labels, 10).tolist()
            images = [
                {"bytes": picture(100 * shard + k), "path": name.format(id=IDS[label], k=100 * shard + k)}
                for k, label in enumerate(drawn)
            ]
            table = pa.Table.from_pydict({"image": images, "label": drawn}, schema)
            pq.write_table(table, root / f"data/{split}-{shard:05}-of-{shards:05}.parquet", row_group_size=4)
    test = pa.Table.from_pydict({"image": [{"bytes": b"", "path": ""}], "label": [-1]}, schema)
    pq.write_table(test, root / "data/test-00000-of-00001.parquet")
    return root


def test_rows_become_images(tmp_path: Path) -> None:
    root = write_hub(tmp_path / "hub")
    source = ilsvrc2012(root, 0)
    assert [(info.id, info.name) for info in source.classes] == [
        (IDS[0], "tench"),
        (IDS[1], "crane"),
        (IDS[2], "crane"),
    ]
    assert {split: len(images) for split, images in source.splits.items()} == {"train": 20, "val": 10}
    for number, reference in enumerate(source.splits["train"]):
        assert reference.read() == picture(100 * (number // 10) + number % 10)
        assert reference.name.endswith(f"{IDS[reference.label]}.JPEG")
    store = prepare("ilsvrc2012", tmp_path / "store", source=root, size=16, allow_partial=True)
    np.testing.assert_array_equal(store.splits["train"].images(np.array([0]))[0], to_square(picture(0), 16))


def test_a_missing_or_damaged_shard_is_named(tmp_path: Path) -> None:
    root = write_hub(tmp_path / "hub")
    shard = root / "data/train-00001-of-00002.parquet"
    whole = shard.read_bytes()
    shard.unlink()
    assert any("1 of the 2 files" in problem for problem in ilsvrc2012(root, 0).problems)
    for content in (b"", whole[:-100], b"<html>" + whole[6:-4] + b"????"):
        shard.write_bytes(content)
        with pytest.raises(ReproError, match=r"train-00001-of-00002\.parquet' is not a parquet file"):
            ilsvrc2012(root, 0)


def test_labels_and_splits_that_do_not_fit_together(tmp_path: Path) -> None:
    root = write_hub(tmp_path / "hub", "{k}_n01440764.JPEG")  # every label has the same id
    with pytest.raises(ReproError, match=r"gives '.*n0\d+\.JPEG' the label \d, which is that of"):
        ilsvrc2012(root, 0)
    root = write_hub(tmp_path / "other")
    for path in (root / "data").glob("validation-*"):
        path.unlink()
    assert any("has no validation-*.parquet" in problem for problem in ilsvrc2012(root, 0).problems)
    one_class = write_hub(tmp_path / "one", labels=[2])
    with pytest.raises(ReproError, match="are not 0 to 0, one for each class"):
        ilsvrc2012(one_class, 0)


def test_a_name_that_repeats_is_refused_as_in_an_archive(tmp_path: Path) -> None:
    root = write_hub(tmp_path / "hub", "{id}.JPEG")
    with pytest.raises(ReproError, match=r"train-0000\d-of-00002\.parquet' has a second image 'train/n\d+/n\d+\.JPEG'"):
        ilsvrc2012(root, 0)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(io.BytesIO().getvalue())
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ReproError, match=r'pip install "\.\[parquet\]"'):
        ilsvrc2012(tmp_path, 0)
