"""The paper's sections."""

from __future__ import annotations

SECTIONS = {
    "1": "Introduction",
    "2": "The dataset",
    "3": "The architecture",
    "3.1": "ReLU nonlinearity",
    "3.2": "Training on multiple GPUs",
    "3.3": "Local response normalization",
    "3.4": "Overlapping pooling",
    "3.5": "Overall architecture",
    "4": "Reducing overfitting",
    "4.1": "Data augmentation",
    "4.2": "Dropout",
    "5": "Details of learning",
    "6": "Results",
    "6.1": "Qualitative evaluations",
    "7": "Discussion",
}


def section_order(section: str) -> tuple[int, ...]:
    """Return a sort key for the number of a section: "3.5" after "3.1", before "4"."""
    return tuple(int(part) for part in section.split("."))
