"""Names of the files in a run's folder, and of the folder."""

from __future__ import annotations

from collections.abc import Sequence

RUN = "run.json"
MEAN = "mean.npy"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
STEP = "[0-9]" * 10  # shell pattern of the number of updates that a checkpoint is named after
CHECKPOINT, CHECKPOINT_TENSORS = f"{STEP}.json", f"{STEP}.safetensors"
FEATURES, CLASSIFIERS = "features", "classifiers.safetensors"  # a baseline's folder, and its classifiers in training
WEIGHTS = "weights.safetensors"
WEIGHTS_CHECKSUM = "weights.safetensors.sha256"
CONV1, WEIGHTS_OF_CONV1 = "conv1.safetensors", "conv1.weight"  # a file, and the name of its array
LOCK = ".lock"
EVALUATIONS, PREDICTIONS, SUBMISSIONS = "evaluation-*.json", "predictions-*.npz", "submission-*.txt"
RETRIEVALS, RETRIEVAL_ARRAYS = "retrieval-*.json", "retrieval-*.npz"
ACTIVATIONS, UNTRAINED_ACTIVATIONS = "activations-*.json", "activations-*-untrained.json"
MEASUREMENTS = (EVALUATIONS, PREDICTIONS, SUBMISSIONS, RETRIEVALS, RETRIEVAL_ARRAYS, ACTIVATIONS)


def run_name(
    variant: str, recipe: str, scale: str, seeds: Sequence[int], lr: float | None = None, tuned: bool = False
) -> str:
    """Return the folder name of a run, or of an ensemble if there are several `seeds`.

    `lr`: the initial learning rate where it differs from the recipe's. `tuned`: the run is fine-tuned from another
    run although its variant does not require that.
    """
    label = "seed" if len(seeds) == 1 else "seeds"
    extras = (f"-lr{lr:g}" if lr else "") + ("-tuned" if tuned else "")
    return f"{variant}-{recipe}-{scale}{extras}-{label}{'+'.join(map(str, seeds))}"


def evaluation_name(split: str, views: int, searched: bool = False, store: str = "") -> str:
    """Return the file name of an evaluation; `store` names another one than the run was trained on."""
    return f"evaluation-{_evaluation_stem(split, views, searched, store)}.json"


def predictions_name(split: str, views: int, searched: bool = False, store: str = "") -> str:
    """Return the file name of an evaluation's predictions per image."""
    return f"predictions-{_evaluation_stem(split, views, searched, store)}.npz"


def submission_name(split: str, views: int, searched: bool = False, store: str = "") -> str:
    """Return the file name of the predictions that the challenge's server scores."""
    return f"submission-{_evaluation_stem(split, views, searched, store)}.txt"


def _evaluation_stem(split: str, views: int, searched: bool, store: str) -> str:
    return f"{split}-{views}{'-searched' if searched else ''}{f'-on-{store}' if store else ''}"


def retrieval_name(split: str) -> str:
    """Return the file name of a retrieval."""
    return f"retrieval-{split}.json"


def retrieval_arrays_name(split: str) -> str:
    """Return the file name of a retrieval's neighbours and example images."""
    return f"retrieval-{split}.npz"


def activations_name(split: str, untrained: bool = False) -> str:
    """Return the file name of the activations on a split, of the trained net or before training."""
    return f"activations-{split}{'-untrained' if untrained else ''}.json"
