"""How every picture looks: colours, lines, and how it is saved."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

# Okabe and Ito's palette, which colour-blind readers can tell apart; hops are grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
HOP_COLOUR = "#8A8A8A"

_DPI = 130

# These follow the scheme of the page that shows the picture: see SCHEME. Others stay as they are.
INK, SOFT, RULE, PAPER = "#222222", "#444444", "#B0B0B0", "#FFFFFF"
BAR, FORECAST, ALARM = "#C8CDD3", "#B9C6D3", "#B3261E"
# For text on a coloured ground, the same in every scheme.
ON_DARK, ON_LIGHT = "#FEFEFE", "#010101"

SCHEME = {
    INK: "--ink", "#000000": "--ink", SOFT: "--soft", RULE: "--rule", "#CCCCCC": "--rule", PAPER: "--paper",
    BAR: "--bar", FORECAST: "--forecast", ALARM: "--alarm", HOP_COLOUR: "--hop",
}  # fmt: skip

matplotlib.rcParams.update({
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": ["DejaVu Sans"],
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT, "axes.titlecolor": INK,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "grid.color": RULE, "hatch.linewidth": 0.8,
    "svg.fonttype": "none", "svg.hashsalt": "edgecut",
})  # fmt: skip


def colours_of(devices: Sequence[str]) -> dict[str, str]:
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(devices)}


def on(colour: str) -> str:
    """The colour of text on this one."""
    red, green, blue = (255 * part for part in to_rgb(colour))
    return ON_LIGHT if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else ON_DARK


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def logarithmic(axes: Axes, name: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with 1, 2 and 5 of each power of ten."""
    axis, scale = (axes.xaxis, axes.set_xscale) if name == "x" else (axes.yaxis, axes.set_yscale)
    scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:,g}")


def rounded(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, without a power of ten where it has no more than six."""
    return f"{float(f'{value:.{digits}g}'):,g}"


def short(name: str, most: int = 24) -> str:
    """A name on one line, the end of a long one, which tells it apart from its neighbours."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return line if len(line) <= most else "…" + line[1 - most :]


def sentence(said: str) -> str:
    return said[:1].upper() + said[1:]


def title_strip(title: str, width: float) -> Figure:
    """The title as a figure of its own, to stand above one of this width (inches), whatever its layout."""
    line = " ".join("".join(c if c.isprintable() else " " for c in title).split())
    lines = textwrap.wrap(line, max(int(width * 10.5), 20))
    figure = Figure(figsize=(width, 0.17 + 0.2 * len(lines)))
    figure.text(0.08 / width, 0.0, "\n".join(lines), fontsize=11.5, fontweight="bold", va="bottom")
    return figure


@contextmanager
def any_script() -> Iterator[None]:
    """Names may be in a script that the font lacks; they are then boxes in a PNG, and text in an SVG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        yield


def save_figure(figure: Figure, file: Path, title: str = "") -> None:
    """Save it as PNG, with the title above it. Raises ``OSError``."""
    pixels = _pixels(figure)
    if title:
        pixels = np.vstack([_pixels(title_strip(title, figure.get_figwidth()))[:, : pixels.shape[1]], pixels])
    image.imsave(file, pixels, dpi=_DPI, format="png")


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    """Not by savefig, which draws twice more."""
    figure.dpi = _DPI
    canvas = FigureCanvasAgg(figure)
    with any_script():
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
