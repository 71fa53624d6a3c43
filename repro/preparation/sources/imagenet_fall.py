"""The ImageNet releases of Fall 2009 and Fall 2011: thousands of synsets, one tar for each (Sec. 6 and 2).

`--source` is a tar of synset tars, or a folder with synset tars or with a tar of them. An optional `synsets.txt` beside
them lists the classes and their order, one WordNet id per line; without it, every synset is a class, in the order of
the ids. An optional `words.txt`, as image-net.org offers it, gives their names (id, tab, words).

- Fall 2009: half of each class is the test set, drawn by seed, and half the training set, as in Sec. 6.
- Fall 2011: all of it is for pre-training.
- In both, one training image in fifty is held out as val: the rule that lowers the learning rate (Sec. 5) needs a
  validation error, and must not see the test images.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from repro.data.store import ClassInfo
from repro.errors import ReproError
from repro.paper.datasets import DATASET_SIZES
from repro.preparation.formats import Skipped, is_system
from repro.preparation.sources.ilsvrc import WNID, class_archives, read_class_names, read_lines
from repro.preparation.sources.location import source_path
from repro.preparation.sources.source import OnFile, Source, choose, ignore_file
from repro.preparation.sources.tar import Archive, Block, Blocks

WANTED = "a tar of synset tars (n01440764.tar), or a folder of them"
HELD_OUT = 50  # one in fifty


def fall2009(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List Fall 2009: train, val and test. Raises ReproError for what cannot be read."""
    return _fall(path, "fall2009", seed, DATASET_SIZES["fall2009"].classes, on_file, test=True)


def fall2011(path: Path | None, seed: int, on_file: OnFile = ignore_file) -> Source:
    """List Fall 2011: train and val. Raises ReproError for what cannot be read."""
    return _fall(path, "fall2011", seed, DATASET_SIZES["fall2011"].classes, on_file, test=False)


def _fall(path: Path | None, dataset: str, seed: int, categories: int, on_file: OnFile, test: bool) -> Source:
    if path is None:
        raise ReproError(f"dataset '{dataset}' cannot be downloaded: give its archives with --source PATH")
    path = source_path(path, WANTED)
    folder = path if path.is_dir() else path.parent
    skipped = Skipped()
    tars = _class_tars(path, skipped, on_file)
    ids = _synsets(folder / "synsets.txt") or sorted(tars)
    names = read_class_names(folder / "words.txt", "\t")
    notes = [f"{len(tars):,} synsets in '{path}'"]
    if ignored := len(tars.keys() - set(ids)):
        notes.append(f"{ignored:,} of them are not in '{folder / 'synsets.txt'}' and are left out")
    problems = []
    if len(ids) != categories:
        problems.append(f"{len(ids):,} categories, the release has {categories:,}")
    blocks: dict[str, list[Block]] = {"train": [], "val": [], **({"test": []} if test else {})}
    empty = []
    for label, id in enumerate(ids):
        members = list(tars[id].images(skipped)) if id in tars else []
        if not members:
            empty.append(id)
            continue
        # In an order drawn by seed: the test half, then val, then train. Not by the folders in a tar, which depend on
        # how it was packed.
        drawn = choose(((f"{id}/{PurePosixPath(member.name).name}", member) for member in members), len(members), seed)
        test_end = len(drawn) // 2 if test else 0
        val_end = test_end + (len(drawn) - test_end) // HELD_OUT
        for split, part in (("test", drawn[:test_end]), ("val", drawn[test_end:val_end]), ("train", drawn[val_end:])):
            if part:
                blocks[split].append(Block.of(tars[id], label, f"{split}/{id}", part))
    if empty:
        problems.append(f"{len(empty):,} classes have no images, the first is {empty[0]}")
    splits = {split: Blocks(found) for split, found in blocks.items() if found}
    if "val" not in splits:
        problems.append(f"no class has {HELD_OUT} training images, so that none is held out as val")
    notes += [f"{split}: {len(images):,} images" for split, images in splits.items()]
    return Source(
        tuple(ClassInfo(id, names.get(id, id)) for id in ids), splits, tuple(problems), (*notes, *skipped.notes())
    )


def _class_tars(path: Path, skipped: Skipped, on_file: OnFile) -> dict[str, Archive]:
    files = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    found: dict[str, Archive] = {}
    for file in files:
        if is_system(file.name):
            skipped.system.setdefault(str(path), []).append(file.name)
            continue
        archive = Archive.file(file, on_file)
        for id, tar in (
            {file.stem: archive} if WNID.fullmatch(file.stem) else class_archives(archive, skipped)
        ).items():
            if id in found:
                raise ReproError(f"there are two tars of class {id}, in '{found[id].path}' and in '{file}': remove one")
            found[id] = tar
    if len(found) < 2:
        raise ReproError(f"'{path}' holds {len(found)} tars of synsets (n01440764.tar): at least two are needed")
    return found


def _synsets(path: Path) -> list[str]:
    ids: list[str] = []
    for number, line in enumerate(read_lines(path), 1):
        if words := line.split():
            if not WNID.fullmatch(words[0]):
                raise ReproError(f"'{path}', line {number}: '{words[0][:40]}' is not a WordNet id such as n01440764")
            ids.append(words[0])
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise ReproError(f"'{path}' lists class {twice} twice: remove one")
    return ids
