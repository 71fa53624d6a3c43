"""Sizes of the datasets that the paper and this toolkit train on: the only table of such numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetSize:
    """Number of images by split, and number of classes, of a dataset as published.

    Attributes:
        title: the dataset's usual name.
        train: training images.
        val: validation images; 0 if there is no such split.
        test: test images whose labels are public; 0 if there are none.
        classes: number of classes.
        exact: whether the counts are those of the release. False where the paper only rounds them.
    """

    title: str
    train: int
    val: int
    test: int
    classes: int
    exact: bool = True

    @property
    def images(self) -> dict[str, int]:
        """Number of images of each split that the dataset has."""
        counts = {"train": self.train, "val": self.val, "test": self.test}
        return {split: count for split, count in counts.items() if count}

    @property
    def total(self) -> int:
        """Number of images in all splits together."""
        return sum(self.images.values())


# Of each Fall release, `prepare` holds out one training image in 50 as val. Their images are counted as the paper
# rounds them: 8.9 million, of which half are for testing, and 15 million (Sec. 2 and 6).
DATASET_SIZES = {
    "ilsvrc2010": DatasetSize("ILSVRC-2010", 1_261_406, 50_000, 150_000, 1000),
    "ilsvrc2012": DatasetSize("ILSVRC-2012", 1_281_167, 50_000, 0, 1000),
    "fall2009": DatasetSize("ImageNet Fall 2009", 4_361_000, 89_000, 4_450_000, 10_184, exact=False),
    "fall2011": DatasetSize("ImageNet Fall 2011", 14_700_000, 300_000, 0, 21_841, exact=False),
    "cifar10": DatasetSize("CIFAR-10", 50_000, 0, 10_000, 10),
    "imagenette": DatasetSize("Imagenette", 9_469, 3_925, 0, 10),
    "synthetic": DatasetSize("synthetic textures", 3_000, 600, 600, 10),
    "catsdogs": DatasetSize("cats and dogs", 20_000, 5_000, 0, 2, exact=False),
}
PRIVATE_TEST_IMAGES = {"ilsvrc2012": 100_000}  # of test sets whose labels are not public
IMAGENET = ("ilsvrc2010", "ilsvrc2012", "fall2009", "fall2011")

# Datasets that replace ImageNet at the smaller scales. At scale "smoke", `run` prepares 30 generated images per class.
STAND_INS = {
    "small": DATASET_SIZES["imagenette"],
    "smoke": DatasetSize("synthetic textures, 30 per class", 300, 300, 300, 10),
}


def dataset_size(dataset: str, scale: str) -> DatasetSize:
    """Return the size of `dataset` at `scale`, or that of the dataset that replaces it there."""
    if scale == "smoke" or (dataset in IMAGENET and scale in STAND_INS):
        return STAND_INS[scale]
    return DATASET_SIZES[dataset]
