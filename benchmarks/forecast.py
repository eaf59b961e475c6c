"""How close forecasts come: python benchmarks/forecast.py [MODEL] [--profiles EDGE.csv SERVER.csv]

Profiles the demo's two emulated devices, bundles and codecs, or takes tables of them; then for links from 1 Gbit/s
down to 4G, and for each codec that hops may use, solves, and deploys the plan and its baselines: the median latency
measured beside the forecast. The goal is a mean over all plans of at most 5 % above the forecast, and a 95th
percentile of 10 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import by_hand
import numpy as np

from planner import Fleet, ModelSource, Plan, ProfileTable, Variant, load_fleet
from planner.codec_table import CODECS
from planner.solver import solve
from profiler import ProfileRequest, Protocol, cut_model, load_model, placement, profile, write_samples
from profiler.backends.ort import OnnxRuntimeBackend
from profiler.cut import CutModel
from profiler.inputs import model_samples
from profiler.runner import Array, Setting
from runtime.adviser import StaticAdviser
from runtime.fleet_agents import fleet_agents
from runtime.pipeline import Pipeline
from runtime.timing import measured_rows

FLEET = Path(__file__).parent.parent / "samples" / "fleets" / "edge-server-wifi.toml"
# Mbit/s there and back, and milliseconds.
LINKS = {
    "1 Gbit/s": (1000.0, 1000.0, 0.2),
    "100 Mbit/s": (100.0, 100.0, 1.0),
    "WiFi": (18.88, 54.97, 2.0),
    "4G": (5.85, 13.76, 20.0),
}
WARMUP, REQUESTS = 3, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default="alexnet")
    parser.add_argument("--profiles", nargs="+", type=Path, help="tables of the demo's devices, if there are")
    options = parser.parse_args()
    source = ModelSource(options.model)
    fleet = load_fleet(FLEET)
    model = load_model(source)
    cut = cut_model(model)
    samples = [sample.arrays for sample in model_samples(model, None, None, [])]
    print(f"{'link':12}{'codec':10}{'plan':22}{'forecast ms':>12}{'measured ms':>12}{'error':>8}", flush=True)
    errors = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = ProfileTable.load(options.profiles or profiled(source, cut, fleet, folder))
        prepare = by_hand.preparation(cut, OnnxRuntimeBackend(cut, Setting()), folder)
        with fleet_agents(fleet, [device.name for device in fleet.devices], folder) as agents:
            for label, codec, kind, plan in plans(cut, fleet, table):
                with Pipeline(StaticAdviser(plan), agents, prepare) as pipeline:
                    measured_s = latency_s(pipeline, samples)
                errors.append(measured_s / plan.cost.latency_s - 1)
                times = f"{plan.cost.latency_s * 1e3:12.2f}{measured_s * 1e3:12.2f}"
                print(f"{label:12}{codec:10}{kind:22}{times}{errors[-1]:+8.1%}", flush=True)
    mean, high = statistics.fmean(errors), np.quantile(errors, 0.95)
    print(f"{len(errors)} plans: mean {mean:+.1%}, 95th percentile {high:+.1%}")


def profiled(source: ModelSource, cut: CutModel, fleet: Fleet, folder: Path) -> list[Path]:
    """Profile tables of every device of ``fleet``, by onnxruntime."""
    write_samples(cut, list(model_samples(load_model(source), None, None, [])), folder / "samples")
    tables = []
    for device in fleet.devices:
        tables.append(folder / f"{device.name}.csv")
        profile(
            ProfileRequest(
                source, device.name, (Variant("onnxruntime"),), (1,), folder / "samples", tables[-1],
                placement(device.emulate), Protocol(max_runs=60), codecs=CODECS,
            )
        )  # fmt: skip
    return tables


def plans(cut: CutModel, fleet: Fleet, table: ProfileTable) -> Iterator[tuple[str, str, str, Plan]]:
    """Link, codec, kind and plan; each way to run the network once per link."""
    for label, (up, down, latency_ms) in LINKS.items():
        links = tuple(
            dataclasses.replace(
                link,
                bandwidth_bytes_per_s=(up if link.source == fleet.source else down) * 125e3,
                latency_s=latency_ms / 1e3,
            )
            for link in fleet.links
        )
        linked = dataclasses.replace(fleet, links=links)
        seen = set()
        for codec in CODECS:
            plan = solve(cut.chain, linked, table, objective="latency", codecs=[codec])
            found = {"optimum": plan}
            for each in plan.baselines:
                found[each.name] = dataclasses.replace(
                    plan, stages=each.stages, hops=each.hops, cost=each.cost
                )
            for kind, one in found.items():
                key = tuple((stage.device, stage.bundle) for stage in one.stages), one.hops
                if key not in seen:
                    seen.add(key)
                    yield label, codec, kind, one


def latency_s(pipeline: Pipeline, samples: list[tuple[Array, ...]]) -> float:
    """The median of requests sent one at a time."""
    found = []
    for answer in pipeline.map(itertools.islice(itertools.cycle(samples), WARMUP + REQUESTS)):
        found.append(
            list(measured_rows(answer.plan, answer.segments, answer.request, answer.marks))[-1].measured_s
        )
    return statistics.median(found[WARMUP:])


if __name__ == "__main__":
    main()
