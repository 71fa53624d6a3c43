"""The table of datasets that can be prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from repro.errors import ReproError, unknown
from repro.preparation.sources.cifar import cifar10, cifar100
from repro.preparation.sources.folder import folder
from repro.preparation.sources.ilsvrc import ilsvrc2010, ilsvrc2012
from repro.preparation.sources.imagenet_fall import fall2009, fall2011
from repro.preparation.sources.imagenette import imagenette
from repro.preparation.sources.source import OnFile, Source, ignore_file
from repro.preparation.sources.synthetic import synthetic
from repro.preparation.sources.webdataset import webdataset
from repro.remote import remote_url


@dataclass(frozen=True)
class Dataset:
    """A dataset that can be prepared."""

    description: str
    get: str  # where to get it
    download: str  # size of the download and of the store
    layout: str  # what --source expects
    used_for: str  # its use in the paper
    size: int  # default side of the prepared images, pixels
    open: Callable[[Path | None, int, OnFile], Source]  # lists the images, given --source and --seed
    orientation: str = "stored"  # default of --orientation


# Names under which people look for a dataset, where the nearest spelling would mislead.
ALIASES = {
    "imagenet": "ilsvrc2012",
    "imagenet1k": "ilsvrc2012",
    "ilsvrc": "ilsvrc2012",
    "ilsvrc12": "ilsvrc2012",
    "ilsvrc10": "ilsvrc2010",
    "imagenet2012": "ilsvrc2012",
    "imagenet2010": "ilsvrc2010",
    "imagenet22k": "fall2011",
    "imagenet21k": "fall2011",
    "cifar": "cifar10",
    "imagefolder": "folder",
    "catsvsdogs": "folder",
    "dogsvscats": "folder",
    "tinyimagenet": "folder",
    "wds": "webdataset",
}


def find_dataset(name: str) -> Dataset:
    """Return a dataset by its name. Raises ReproError that suggests the one meant."""
    if name in DATASETS:
        return DATASETS[name]
    meant = ALIASES.get("".join(character for character in name.casefold() if character.isalnum()))
    if meant:
        raise ReproError(f"unknown dataset '{name}': did you mean {meant}? See repro list datasets")
    raise unknown("dataset", name, DATASETS)


def open_source(
    dataset: str, path: Path | None, seed: int, on_file: OnFile = ignore_file, split_folders: bool = True
) -> Source:
    """List the images of a dataset at `--source`. Without `split_folders`, every folder is a class.

    Raises ReproError for what cannot be read.
    """
    opening = find_dataset(dataset).open
    if not split_folders and opening is not folder:
        raise ReproError(f"--no-splits is for the dataset 'folder', not for '{dataset}'")
    try:
        return opening(path, seed, on_file) if split_folders else folder(path, seed, on_file, splits=False)
    except OSError as error:
        url = remote_url(path) if path else None
        if not url:
            raise
        raise ReproError(f"cannot read '{url}': {error.strerror or error}") from error


DATASETS: dict[str, Dataset] = {
    "ilsvrc2010": Dataset(
        description="ILSVRC-2010: 1,261,406 training, 50,000 val and 150,000 test images in 1000 classes",
        get="https://image-net.org/challenges/LSVRC/2010/, after registration",
        # Estimated from 115 kB per image as in 2012: no published size was found.
        download="about 170 GB (estimated from 2012); prepared raw, 287 GB",
        layout="ILSVRC2010_images_{train,val,test}.tar, ILSVRC2010_devkit-1.0.tar.gz, "
        "ILSVRC2010_test_ground_truth.txt, and patch_images.tar if you have it; or train/WNID, val/WNID, test/WNID "
        "and the kit",
        used_for="Table 1; Sec. 3.2 to 3.5, 4 and 7 (every ablation); Figure 4",
        size=256,
        open=ilsvrc2010,
    ),
    "ilsvrc2012": Dataset(
        description="ILSVRC-2012: 1,281,167 training and 50,000 val images in 1000 classes",
        get="https://image-net.org/challenges/LSVRC/2012/, after registration; Kaggle; or the Hugging Face hub",
        download="148 GB and 6.7 GB; prepared raw, 262 GB",
        layout="ILSVRC2012_img_{train,val}.tar and ILSVRC2012_devkit_t12.tar.gz; or Kaggle's ILSVRC/Data/CLS-LOC and "
        "LOC_val_solution.csv; or train/WNID and val/WNID; or train-*.parquet and validation-*.parquet",
        used_for="Table 2",
        size=256,
        open=ilsvrc2012,
    ),
    "fall2009": Dataset(
        description="ImageNet, Fall 2009: 8.9 million images in 10,184 categories, half of each class for testing",
        get="https://image-net.org/download.php, if the release is still offered",
        download="about a terabyte; prepared raw, 1.75 TB",
        layout="a tar of synset tars (n01440764.tar), or a folder of them; synsets.txt with the 10,184 ids beside it",
        used_for="Sec. 6: 67.4% and 40.9% error with the conv6 network",
        size=256,
        open=fall2009,
    ),
    "fall2011": Dataset(
        description="ImageNet, Fall 2011: about 15 million images in 22 thousand categories",
        get="https://image-net.org/download.php (fall11_whole.tar)",
        download="1.3 TB; prepared raw, 2.95 TB, or 0.55 TB with --encoding jpeg",
        layout="fall11_whole.tar, or a folder of synset tars; synsets.txt and words.txt beside it if you have them",
        used_for="Table 2's pre-trained networks (1 CNN*, 7 CNNs*)",
        size=256,
        open=fall2011,
    ),
    "imagenette": Dataset(
        description="Imagenette: 9,469 training and 3,925 val images in ten classes of ILSVRC-2012",
        get="downloaded when --source is left out",
        download="1.5 GB; prepared raw, 2.6 GB",
        layout="imagenette2/ (or -320, -160) with train/WNID and val/WNID; or the archive, gunzipped",
        used_for="not in the paper; its experiments at small scale, in hours",
        size=256,
        open=imagenette,
    ),
    "cifar10": Dataset(
        description="CIFAR-10: 50,000 training and 10,000 test images of 32×32 in ten classes; no val",
        get="downloaded when --source is left out, or https://www.cs.toronto.edu/~kriz/cifar.html",
        download="170 MB; prepared raw, 184 MB",
        layout="cifar-10-python.tar.gz or cifar-10-binary.tar.gz, or the folder that holds it or its batches; or "
        "Kaggle's train/*.png and trainLabels.csv; or train/CLASS/*.png and test/CLASS/*.png",
        used_for="Figure 1 (training error, ReLU against tanh); Sec. 3.3 (LRN: 11% test error, 13% without)",
        size=32,
        open=cifar10,
    ),
    "cifar100": Dataset(
        description="CIFAR-100: 50,000 training and 10,000 test images of 32×32 in a hundred classes; no val",
        get="downloaded when --source is left out, or https://www.cs.toronto.edu/~kriz/cifar.html",
        download="169 MB; prepared raw, 184 MB",
        layout="cifar-100-python.tar.gz or cifar-100-binary.tar.gz, or the folder that holds it or its batches",
        used_for="not in the paper",
        size=32,
        open=cifar100,
    ),
    "folder": Dataset(
        description="your own images, one folder per class, or with a table of labels",
        get="yours",
        download="yours; prepared raw, 197 kB per image",
        layout="a folder, zip or tar with train/CLASS/*.jpg, and val/ and test/ beside train/; or CLASS/*.jpg, and one "
        "in ten becomes val; or images with a table of labels (CSV) or with labels in their names (cat.0.jpg)",
        used_for="the paper's pipeline on any images; Sec. 2 for the preprocessing",
        size=256,
        open=folder,
        orientation="exif",
    ),
    "webdataset": Dataset(
        description="your own images in WebDataset shards",
        get="yours, or converted from ImageNet",
        download="yours; prepared raw, 197 kB per image",
        layout="a folder of *.tar with k.jpg and k.cls or k.json; train, val or test in their names",
        used_for="the paper's pipeline on any images, Table 2 included where they are ILSVRC-2012",
        size=256,
        open=webdataset,
    ),
    "synthetic": Dataset(
        description="built in: textures in ten classes that differ in orientation, frequency and colour",
        get="generated from --seed: 3,000 training, 600 validation and 600 test images",
        download="nothing; prepared raw, 52 MB",
        layout="none: leave out --source",
        used_for="not in the paper; the whole pipeline in minutes, with filters like those of Figure 3",
        size=64,
        open=synthetic,
    ),
}
