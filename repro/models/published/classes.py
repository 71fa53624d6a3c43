"""The classes of published nets, in the order of their outputs."""

from __future__ import annotations

from typing import Any

from repro.data.store import ClassInfo


def imagenet_classes() -> tuple[ClassInfo, ...]:
    """Return ILSVRC-2012's 1000 classes in the order of their WordNet ids, from timm's list."""
    from timm.data import imagenet_info

    info: Any = imagenet_info.ImageNetInfo("imagenet-1k")
    return tuple(
        ClassInfo(id, info.index_to_description(index).split(",")[0]) for index, id in enumerate(info.label_names())
    )
