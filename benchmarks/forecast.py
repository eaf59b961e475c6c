"""How close forecasts come: python benchmarks/forecast.py [MODEL]

Profiles the demo's two emulated devices, solves, and deploys the plan and every baseline; for each the median
latency measured beside the forecast, all in one run. The goal for the plan is 3 %, the limit 10 %.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

from planner import Fleet, ModelSource, ProfileTable, Variant, load_fleet
from planner.solver import solve
from profiler import ProfileRequest, Protocol, cut_model, load_model, placement, profile, write_samples
from profiler.inputs import model_samples
from runtime.deployment import DeployRequest, deploy

FLEET = Path(__file__).parent.parent / "samples" / "fleets" / "edge-server-wifi.toml"


def profiled(source: ModelSource, fleet: Fleet, folder: Path) -> list[Path]:
    """Profile tables of every device of ``fleet``, by onnxruntime."""
    model = load_model(source)
    write_samples(cut_model(model), list(model_samples(model, None, None, [])), folder / "samples")
    tables = []
    for device in fleet.devices:
        tables.append(folder / f"{device.name}.csv")
        profile(
            ProfileRequest(
                source, device.name, (Variant("onnxruntime"),), (1,), folder / "samples", tables[-1],
                placement(device.emulate), Protocol(),
            )
        )  # fmt: skip
    return tables


def main() -> None:
    source = ModelSource(sys.argv[1] if len(sys.argv) > 1 else "alexnet")
    fleet = load_fleet(FLEET)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = ProfileTable.load(profiled(source, fleet, folder))
        plan = solve(table.chain, fleet, table, objective="latency")
        print(f"{'plan':20} {'forecast ms':>12} {'measured ms':>12} {'error':>8}")
        candidates = {"this plan": plan}
        for each in plan.baselines:
            candidates[each.name] = dataclasses.replace(
                plan, stages=each.stages, hops=each.hops, cost=each.cost
            )
        for label, candidate in candidates.items():
            run = deploy(DeployRequest(candidate, folder / label.replace(" ", "-"), requests=40), [])
            total = run.comparisons()[-1]
            print(
                f"{label:20} {total.forecast_s * 1e3:12.2f} {total.measured_s * 1e3:12.2f} {total.error:+8.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
