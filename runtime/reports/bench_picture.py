"""The picture of a bench."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.reports.theme import COLOURS, new_figure, save_figure

if TYPE_CHECKING:
    from profiler.bench import BenchRow


def draw_bench(model: str, rows: Sequence[BenchRow], file: Path) -> None:
    """Latency over batch for each variant, both axes logarithmic; bars where there is one batch."""
    variants = list(dict.fromkeys(each.row.variant for each in rows))
    batches = sorted({each.row.batch for each in rows})
    fastest = min(rows, key=lambda each: each.row.latency_s / each.row.batch)
    figure, axes = new_figure(9.0, max(3.0, 1.6 + 0.42 * len(rows)) if len(batches) == 1 else 5.2)
    if len(batches) == 1:
        ordered = sorted(rows, key=lambda each: -each.row.latency_s)
        values = [each.row.latency_s * 1e3 for each in ordered]
        axes.barh([str(each.row.variant) for each in ordered], values, color=COLOURS[0], height=0.62)
        for place, each in enumerate(ordered):
            speed_up = "" if each.speed_up is None else f"  {each.speed_up:.2f} x"
            axes.text(values[place], place, f" {values[place]:.3g}{speed_up}", va="center", fontsize=9)
        axes.set_xlim(0, max(values) * 1.18)
        axes.set_xlabel(f"latency of a batch of {batches[0]}, ms")
    else:
        for place, variant in enumerate(variants):
            mine = [each.row for each in rows if each.row.variant == variant]
            axes.plot(
                [row.batch for row in mine],
                [row.samples_per_s for row in mine],
                marker="o",
                color=COLOURS[place % len(COLOURS)],
                linestyle=("-", "--", ":")[place // len(COLOURS) % 3],
                label=str(variant),
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize=7)
        axes.grid(axis="y", alpha=0.3)
        axes.set_xlabel("batch")
        axes.set_ylabel("samples per second")
        axes.legend(fontsize=8, frameon=False)
    gain = fastest.speed_up or 1.0
    finding = f"{fastest.row.variant} is fastest per sample, {gain:.2f} times PyTorch fp32"
    if gain <= 1:
        finding = "nothing is faster than PyTorch fp32"
    save_figure(figure, file, f"{model}: {finding}")
