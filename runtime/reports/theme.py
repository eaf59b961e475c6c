"""How every picture looks: colours, lines, and how it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.rcParams["text.parse_math"] = False  # a name may hold a dollar sign

# Okabe and Ito's palette, which colour-blind readers can tell apart; hops are grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
HOP_COLOUR = "#8A8A8A"


def colours_of(devices: Sequence[str]) -> dict[str, str]:
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(devices)}


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=130)
    plt.close(figure)
