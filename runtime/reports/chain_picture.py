"""The chain: bytes at every boundary, the layers between them, and where a plan cuts it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from planner.chain import Chain
from planner.columns import FloatArray
from planner.plan import Hop, Plan
from runtime.reports.finding import Finding
from runtime.reports.theme import BAR, INK, ON_DARK, ON_LIGHT, PAPER, SOFT, colours_of, short

_WIDTH = 10.0
# Of a character, as a share of the picture's width, at 8 points.
_CHARACTER = 0.0072
# Layers up to which each has its name and each boundary its size.
_FEW, _NAMED = 24, 60


def chain_finding(name: str, chain: Chain, plan: Plan | None, command: str) -> Finding:
    batch = plan.batch if plan else 1
    inside = [chain.wire_bytes(k, batch) for k in range(1, len(chain))]
    if plan and plan.hops:
        moved = sum(hop.wire_bytes for hop in plan.hops) / 1e6
        hops = f"{len(plan.hops)} hop{'s' * (len(plan.hops) > 1)}"
        title = f"{hops} move {moved:.3g} MB per inference over the network"
    elif plan:
        title = f"Nothing crosses a link, all {len(chain)} layers run on {plan.stages[0].device}"
    elif inside:
        least = int(np.argmin(inside)) + 1
        share = inside[least - 1] / chain.wire_bytes(0)
        size = f"{inside[least - 1] / 1e6:.3g} MB, {share:.2g} of the input"
        title = f"The cheapest cut inside is boundary {least}: {size}"
    else:
        title = "One layer, nowhere to cut"
    notes = ["A bar is what one inference would send if the chain were cut there, uncompressed."]
    if batch > 1:
        notes.append(f"Bytes are of a batch of {batch}.")
    return Finding(name, title, lambda: _draw(chain, plan), _table(chain, plan), command, tuple(notes))


def _table(chain: Chain, plan: Plan | None) -> pd.DataFrame:
    table = chain.frame(plan.batch if plan else 1)
    if plan:
        on = [stage for stage in plan.stages for _ in range(len(stage.bundle))]
        table["device"] = [stage.device for stage in on]
        table["how"] = [str(stage.variant) for stage in on]
        hops = {hop.boundary: " > ".join(hop.route) for hop in plan.hops}
        table["hop_after"] = [hops.get(place + 1, "") for place in range(len(chain))]
    return table


def _draw(chain: Chain, plan: Plan | None) -> Figure:
    """Boundaries stand at whole numbers, layer k between k and k + 1."""
    layers, batch = len(chain), plan.batch if plan else 1
    sizes = np.array([chain.wire_bytes(k, batch) for k in range(layers + 1)]) / 1e6
    figure = Figure(figsize=(_WIDTH, 4.9 if layers <= _NAMED else 4.1), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    colours = colours_of([device.name for device in plan.fleet.devices]) if plan else {}
    cuts = {hop.boundary: hop for hop in plan.hops} if plan else {}
    above.bar(
        range(layers + 1), sizes, width=0.36 if layers <= _FEW else 0.62, zorder=3,
        color=[colours[cuts[k].route[0]] if k in cuts else BAR for k in range(layers + 1)],
    )  # fmt: skip
    if layers <= _FEW:
        for k in set(range(layers + 1)) - set(cuts):
            above.annotate(f"{sizes[k]:.2g}", (k, sizes[k]), (0, 2), textcoords="offset points", ha="center",
                           fontsize=7.5, color=SOFT)  # fmt: skip
    above.set_ylim(0, max(sizes) * 1.12)
    _name_cuts(above, cuts, sizes, layers)
    above.set_ylabel(f"boundary [MB{f', batch {batch}' if batch > 1 else ''}]")
    above.tick_params(axis="x", bottom=False, labelbottom=False)
    _blocks(below, chain, plan, colours)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    if plan:
        used = dict.fromkeys(stage.device for stage in plan.stages)
        handles = [Patch(color=colours[name], label=f"runs on {short(name)}") for name in used]
        handles += [Patch(color=BAR, label="not cut")]
        figure.legend(
            handles=handles, frameon=False, fontsize=9, ncols=min(len(handles), 5), loc="outside lower left"
        )
    return figure


def _name_cuts(axes: Axes, cuts: dict[int, Hop], sizes: FloatArray, layers: int) -> None:
    """Over each cut its route and bytes, in as many rows as it takes for no two to overlap."""
    ends: list[float] = []
    top = axes.get_ylim()[1]
    placed: list[tuple[int, int, str, float]] = []
    for k, hop in sorted(cuts.items()):
        codec = "" if hop.codec == "raw" else f" {hop.codec}"
        text = f"{' → '.join(short(name, 14) for name in hop.route)}\n{hop.wire_bytes / 1e6:.3g} MB{codec}"
        width = max(map(len, text.split("\n"))) * _CHARACTER * (layers + 1.4) + 0.01 * layers
        left = min(max(k - width / 2, -0.7), layers + 0.7 - width)
        row = next((place for place, end in enumerate(ends) if end <= left), len(ends))
        ends[row:] = [left + width, *ends[row + 1 :]]
        placed.append((k, row, text, left + width / 2))
    step = 0.19 * top
    for k, row, text, middle in placed:
        height = top + row * step
        axes.plot([k, k], [sizes[k], height], color=SOFT, linewidth=0.8, linestyle=":", zorder=2)
        axes.text(
            middle, height + 0.02 * top, text, ha="center", va="bottom", fontsize=8, color=INK, zorder=4
        )
    axes.set_ylim(0, top + len(ends) * step)
    ticks = axes.get_yticks()
    axes.set_yticks([tick for tick in ticks if 0 <= tick <= top])


def _blocks(axes: Axes, chain: Chain, plan: Plan | None, colours: dict[str, str]) -> None:
    """Stages as blocks coloured by device, the layers' borders as short marks in them."""
    layers = len(chain)
    blocks = [(stage.bundle.start, stage.bundle.stop) for stage in plan.stages] if plan else [(0, layers)]
    fills = [colours[stage.device] for stage in plan.stages] if plan else [BAR]
    axes.broken_barh(
        [(start, stop - start) for start, stop in blocks],
        (0, 1),
        facecolors=fills,
        edgecolor=PAPER,
        linewidth=2.5,
    )
    if layers <= _NAMED:
        axes.vlines(range(1, layers), 0, 0.22, color=PAPER, linewidth=1)
    for stage, fill in zip(plan.stages if plan else (), fills, strict=False):
        start, stop = stage.bundle.start, stage.bundle.stop
        red, green, blue = (int(fill[at : at + 2], 16) for at in (1, 3, 5))
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
        for text in (f"{short(stage.device, 18)} · {short(str(stage.variant))}", short(stage.device, 18)):
            if len(text) * _CHARACTER * (layers + 1.4) < stop - start:
                axes.text(
                    (start + stop) / 2, 0.56, text, ha="center", va="center", fontsize=8,
                    color=ON_LIGHT if light else ON_DARK,
                )  # fmt: skip
                break
    axes.set_xlim(-0.7, layers + 0.7)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if layers <= _NAMED:
        names = [short(layer.name, 22) for layer in chain.layers]
        tilted = layers <= 12
        axes.set_xticks(
            [k + 0.5 for k in range(layers)], names, rotation=35 if tilted else 90, fontsize=8,
            ha="right" if tilted else "center", rotation_mode="anchor" if tilted else "default",
        )  # fmt: skip
    else:
        axes.set_xlabel("boundary k, before layer k")
