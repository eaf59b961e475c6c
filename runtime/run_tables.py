"""A run on the terminal."""

from __future__ import annotations

from rich.console import Console

from planner.run import Run
from runtime.console import milliseconds, percent, table

_PARTS = ("encode", "wire", "decode")


def show_run(run: Run, out: Console) -> None:
    """Print forecast beside measurement, and what the outputs are worth."""
    info = run.info
    rows = [
        (
            f"hop {part.label}"
            if part.kind == "hop"
            else f"  {part.label}"
            if part.kind in _PARTS
            else part.label,
            milliseconds(part.forecast_s),
            milliseconds(part.measured_s),
            percent(part.error),
            f"{milliseconds(part.low_s)} to {milliseconds(part.high_s)}",
            milliseconds(part.queue_s),
        )
        for part in run.comparisons()
    ]
    columns = ("part", "forecast ms", "measured ms", "error", "5 to 95 %", "waited ms")
    title = f"{info.plan.chain.source.name}: {info.requests} requests, {info.concurrency} in flight"
    out.print(table(title, columns, rows))
    out.print(run.verdict(), style="bold")
    if not run.checked:
        out.print("no output was compared with the whole model's")
        return
    difference = f"they differ by {run.deviation:.1e}, tolerated {info.tolerance:.0e}"
    if run.checked < info.requests:
        difference += f" ({run.checked} of {info.requests} requests compared)"
    if info.plan.exact:
        out.print(f"outputs equal the whole model's: {difference}")
    else:
        out.print(f"outputs equal those of the same stages in one process: {difference}")
        sqnr_db = run.output_sqnr_db
        said = f": {sqnr_db:.1f} dB, forecast {info.plan.cost.sqnr_db:.1f} dB" if sqnr_db else ""
        out.print(
            f"against the whole model in fp32 they differ by {run.largest_output_error:.1e}{said}",
            soft_wrap=True,
        )
    if run.top1_agreement is not None:
        out.print(f"top-1 agreement with the fp32 model: {run.top1_agreement:.1%}")
    if run.accuracy is not None:
        whole = "" if run.whole_accuracy is None else f" (fp32 model: {run.whole_accuracy:.1%})"
        out.print(f"top-1 accuracy: {run.accuracy:.1%}{whole}")
