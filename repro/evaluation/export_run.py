"""`repro export`: a finished run in a format of other programs."""

from __future__ import annotations

from pathlib import Path

from repro.data.store import ClassInfo
from repro.errors import ReproError
from repro.evaluation.trained_model import open_run
from repro.formatting import valid_text
from repro.models.export import ExportedNet, export_net
from repro.models.network import AlexNet


def export_run(run: Path, out: Path, format: str, preprocessing: bool = False, views: int = 1) -> Path:
    """Write the net of a finished run to `out`; see `repro.models.export.export_net`."""
    model = open_run(run, "cpu")
    if not isinstance(model.net, AlexNet):
        raise ReproError(f"the net of '{run}' is on two devices, which no format describes")
    record = model.run
    return export_net(
        ExportedNet(
            net=model.net,
            views=model.views(),
            classes=[ClassInfo(each.id, each.readable_name) for each in model.classes],
            name=valid_text(record.folder.resolve().name),
            image_size=model.preprocessing.image_size,
            resize=model.preprocessing.resize,
            orientation=model.preprocessing.orientation,
            description={
                "variant": record.variant,
                "recipe": record.recipe,
                "scale": record.scale,
                "seed": record.seed,
                "dataset": record.data.dataset,
            },
        ),
        out,
        format,
        preprocessing,
        views,
    )
