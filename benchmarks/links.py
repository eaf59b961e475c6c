"""How true measured links are: python benchmarks/links.py

First table: links paced to known numbers, different in the two directions, and what `edgecut links` finds;
ratios are measured over nominal. Second table: what a measured link forecasts for a hop, beside the hop's
median in a deployment of AlexNet cut at that boundary, over a paced link and over plain loopback.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from planner import (
    Bundle,
    Chain,
    Cost,
    Device,
    Emulation,
    Fleet,
    Hop,
    Limits,
    Link,
    ModelSource,
    Outcome,
    Plan,
    Proof,
    Stage,
    Variant,
)
from planner.link_fit import LinkFit
from planner.link_report import MeasuredLink
from profiler import cut_model, load_model
from profiler.machine import available_cpus
from runtime.deployment import DeployRequest, record
from runtime.link_measure import measure_fleet
from runtime.link_probe import ProbeProtocol

LINKS = ((0.020, 1e6), (0.005, 10e6), (0.002, 18.88e6), (0.001, 100e6), (0.0002, 1000e6))
PROTOCOL = ProbeProtocol(longest_s=0.6, max_runs=40)
BOUNDARIES = (0, 1, 2, 5, 7)
VARIANT = Variant("onnxruntime")


def main() -> None:
    show("link", "ms asked", "ms found", "Mbit/s asked", "found", "ratio", "worst fit", "n")
    for latency_s, rate in LINKS:
        found = measure(
            make_fleet(Link("a", "b", rate / 8, latency_s), Link("b", "a", rate / 4, latency_s / 2))
        )
        for one in found:
            fit, nominal = one.fit, one.nominal
            show(
                f"{nominal.source} to {nominal.target}",
                f"{nominal.latency_s * 1e3:.3f}",
                f"{fit.latency_s * 1e3:.3f}",
                f"{nominal.bandwidth_bytes_per_s / 125e3:.4g}",
                f"{fit.bandwidth_bytes_per_s / 125e3:.4g}",
                f"{fit.bandwidth_bytes_per_s / nominal.bandwidth_bytes_per_s:.3f}",
                f"{fit.worst_error:+.1%}",
                str(fit.n),
            )
    show("\nlink", "boundary", "bytes", "forecast ms", "deployed ms", "error")
    chain = cut_model(load_model(ModelSource("alexnet"))).chain
    for name, paced in (("paced", True), ("loopback", False)):
        link = Link("a", "b", 50e6 / 8, 0.002)
        fleet = make_fleet(link, Link("b", "a", 50e6 / 8, 0.002), paced)
        fits = {one.nominal.pair: one.fit for one in measure(fleet)}
        for boundary in BOUNDARIES:
            for hop, measured_s in deployed(chain, fleet, boundary, fits):
                cells = f"{hop.boundary}", f"{hop.wire_bytes:,}", f"{hop.cost.latency_s * 1e3:.3f}"
                error = f"{measured_s / hop.cost.latency_s - 1:+.1%}"
                show(name, *cells, f"{measured_s * 1e3:.3f}", error)


def make_fleet(there: Link, back: Link, paced: bool = True) -> Fleet:
    cpus = available_cpus()
    devices = tuple(
        Device(name, emulate=Emulation(1, (cpu,)))
        for name, cpu in zip("ab", (cpus[0], cpus[-1]), strict=True)
    )
    links = tuple(
        Link(*link.pair, link.bandwidth_bytes_per_s, link.latency_s, emulate=paced) for link in (there, back)
    )
    return Fleet("a", "a", devices, links)


def measure(fleet: Fleet) -> tuple[MeasuredLink, ...]:
    report = measure_fleet(fleet, fleet.links, PROTOCOL, lambda link, note: None, lambda report: None)
    if report.failed:
        raise SystemExit(report.failed[0].reason)
    return report.links


def deployed(
    chain: Chain, fleet: Fleet, boundary: int, fits: dict[tuple[str, str], LinkFit]
) -> list[tuple[Hop, float]]:
    """Hops of a plan cut at ``boundary``, priced by the fits, and their median seconds."""
    ends = (boundary, ("a", "b")), (len(chain), ("b", "a"))
    hops = tuple(
        Hop(at, pair, "raw", size, Cost(fits[pair].time_s(size), 0.0))
        for at, pair in ends
        for size in [chain.wire_bytes(at)]
    )
    stages = tuple(
        Stage(who, Bundle(start, stop), VARIANT, Cost(0.01, 0.0))
        for who, start, stop in (("a", 0, boundary), ("b", boundary, len(chain)))
        if start < stop
    )
    total = sum(part.cost.latency_s for part in (*stages, *hops))
    proof = Proof("by hand", Outcome.FEASIBLE, "latency", total, 0.0, 1.0, 1, 1, {}, "none", {"latency": 1.0})
    plan = Plan(chain, fleet, 1, Limits(), stages, hops, Cost(total, 0.0), proof)
    with tempfile.TemporaryDirectory() as folder:
        run = record(DeployRequest(plan, Path(folder), requests=60), [])
    times = {part.index: part.measured_s for part in run.comparisons() if part.kind == "hop"}
    return [(hop, times[place]) for place, hop in enumerate(plan.hops)]


def show(*cells: str) -> None:
    print("".join(cell.rjust(14) for cell in cells).lstrip("\n"), flush=True)


if __name__ == "__main__":
    main()
