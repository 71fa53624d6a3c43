"""What the figures share: colours, style and file formats.

Figures are matplotlib objects without global state. Lines and text have one colour, `INK`, on a transparent
background; an SVG changes it to a light one on a dark page.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

INK, INK_ON_DARK = "#26231f", "#e9e5dc"
WIDE, NARROW = 7.4, 3.5  # inches; a narrow figure fills a phone at its natural size, so 8 points are over 10 pixels
COLOURS = ("#2f6db5", "#d1552b", "#2a9d6f", "#b0398c", "#b08a00", "#5a9bd4", "#7a5bc4", "#8a8378")

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # names from records are drawn as they are
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "repro",  # byte-identical files from the same records
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw with `STYLE` over matplotlib's defaults inside the block, whatever a matplotlibrc or the caller has set.

    Characters that the font lacks are drawn as boxes, without a warning: names of files and classes may have any.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@dataclass(frozen=True)
class Picture:
    """A finished figure, as PNG and SVG.

    Attributes:
        name: name of its files, without ending.
        title: what distinguishes it within its section; the section's heading has the number of the paper's figure.
        caption: what it shows.
        alt: the same for those who cannot see it.
        png: the figure as PNG.
        svg: the figure as SVG, for a dark or a light page.
        section: id of the page's section that shows it: "tables", "figure-1" to "figure-4", "runs" or "net".
        narrow: the figure as SVG drawn for a narrow screen, if there is such a drawing.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: bytes
    section: str
    narrow: bytes | None = None

    @property
    def html(self) -> str:
        """The figure above its title and caption, for a notebook."""
        image = f'<img src="data:image/png;base64,{base64.b64encode(self.png).decode()}" alt="{escape(self.alt)}">'
        return f"<figure>{image}<figcaption><b>{escape(self.title)}.</b> {escape(self.caption)}</figcaption></figure>"

    def write(self, folder: Path) -> None:
        """Write `<name>.png` and `<name>.svg` into `folder`, and `<name>-narrow.svg` if there is such a drawing."""
        (folder / f"{self.name}.png").write_bytes(self.png)
        (folder / f"{self.name}.svg").write_bytes(self.svg)
        if self.narrow is not None:
            (folder / f"{self.name}-narrow.svg").write_bytes(self.narrow)


def finish(
    figure: Figure, name: str, title: str, caption: str, alt: str, section: str, narrow: Figure | None = None
) -> Picture:
    """Return a drawn figure as PNG and SVG, and its drawing for narrow screens as SVG."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=200, facecolor="#fffefb", metadata={"Software": None})
    for_phones = None if narrow is None else _to_svg(narrow)
    return Picture(name, title, caption, alt, png.getvalue(), _to_svg(figure), section, for_phones)


def _to_svg(figure: Figure) -> bytes:
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _adapt_to_dark(_with_jpegs(svg.getvalue()))


def _with_jpegs(svg: bytes) -> bytes:
    """Return the drawing with photographs as JPEG, a tenth of their size; images with transparent parts stay PNG."""

    def smaller(found: re.Match[bytes]) -> bytes:
        image = Image.open(io.BytesIO(base64.b64decode(found[1])))
        opaque = image.mode == "RGB" or (image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255))
        if not opaque:
            return found[0]
        jpeg = io.BytesIO()
        image.convert("RGB").save(jpeg, "JPEG", quality=85)
        encoded = base64.b64encode(jpeg.getvalue())
        return b"data:image/jpeg;base64," + encoded if len(encoded) < len(found[1]) else found[0]

    return re.sub(rb"data:image/png;base64,([A-Za-z0-9+/=\s]+)", smaller, svg)


def _adapt_to_dark(svg: bytes) -> bytes:
    """Return the drawing with light lines and text wherever the page around it is dark."""
    rules = "".join(f'[style*="{key}: {INK}"]{{{key}:{INK_ON_DARK}!important}}' for key in ("fill", "stroke"))
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style></svg>"
    return re.sub(rb"</svg>\s*$", style.encode(), svg)


def slug(name: str) -> str:
    """Return a name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", name)
