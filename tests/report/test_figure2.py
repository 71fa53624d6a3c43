"""Figure 2: what is drawn of each net, against the specification and the paper's numbers."""

import re
from pathlib import Path

import pytest
from made_records import write_run

from repro.paper.variants import VARIANTS, configure
from repro.records.reading import read_records
from repro.report.figures.figure2 import net_picture, net_pictures, stages, text_below, towers_of


def test_the_papers_net_has_the_captions_numbers() -> None:
    words = {stage.row.layer.name: text_below(stage) for stage in stages(configure("alexnet", "paper").network)}
    assert words["conv1"] == ("96 kernels", "11×11×3, /4", "55×55×96", "LRN, pool 3/2", "290,400", "34,944")
    assert words["conv4"] == ("384 kernels", "3×3×192", "13×13×384", "", "64,896", "663,936")
    assert words["fc8"] == ("all of the", "layer before", "", "", "1,000", "4,097,000")


@pytest.mark.parametrize(
    ("variant", "towers", "joined"),
    [("alexnet", 2, "conv3, fc6, fc7"), ("no-cross", 2, "fc6, fc7"), ("conv6", 2, "conv3, conv6, fc6, fc7"),
     ("no-conv3", 2, "fc6, fc7"), ("one-gpu", 1, None), ("cifar-relu", 1, None)],
)  # fmt: skip
def test_towers_and_where_they_joined(variant: str, towers: int, joined: str | None) -> None:
    network = configure(variant).network
    assert towers_of(network) == towers
    picture = net_picture("net", "Net", network)
    assert (
        (f"dashed, below {joined}." in picture.caption) if joined else ("All kernels see all maps" in picture.caption)
    )
    # Each dashed pair of lines is two paths of the drawing.
    crossings = len(re.findall(rb'style="[^"]*stroke-dasharray: 4', picture.svg))
    assert crossings == (2 * len(joined.split(", ")) if joined else 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_can_be_drawn(variant: str) -> None:
    network = configure(variant).network
    picture = net_picture("net", "Net", network)
    drawn = [stage.row.layer.name for stage in stages(network)]
    assert picture.png[:8] == b"\x89PNG\r\n\x1a\n"
    assert all(f"{name}: " in picture.alt for name in drawn)


def test_nets_that_were_run_are_drawn_once_each(tmp_path: Path) -> None:
    for variant in ("alexnet", "no-dropout", "one-gpu", "cifar-relu", "cifar-tanh"):
        write_run(tmp_path, variant)
    write_run(tmp_path / "other", "of-tomorrow")
    pictures = list(net_pictures(read_records(tmp_path)))
    assert [(each.name, each.section) for each in pictures] == [
        ("figure2", "figure-2"), ("figure2-cifar-relu", "net"), ("figure2-one-gpu", "net"),
    ]  # fmt: skip
