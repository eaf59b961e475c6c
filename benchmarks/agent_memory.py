"""What an agent takes: python benchmarks/agent_memory.py [NETWORK ...]

Per network, backend and window: an agent of its own is started, sent the whole network as one bundle, loads it and
answers requests. Resident memory as the kernel counts it, in MB: with nothing loaded; the most while the bundle
arrives; the most while it is loaded; the most while requests pass; in the end. The bound is the weights, window times
the bundle's activations (input, output and the largest tensor between two layers, each once), and 300 MB.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from planner.chain import Bundle, Chain, ModelSource
from planner.cost import Cost
from planner.fleet import Device, Emulation, Fleet
from planner.limits import Limits
from planner.plan import Outcome, Plan, Proof, Stage, Variant
from profiler.cut import cut_model
from profiler.model import load_model
from runtime.adviser import StaticAdviser
from runtime.artifacts import send_files
from runtime.bundles import prepare_bundles
from runtime.fleet_agents import fleet_agents
from runtime.pipeline import Pipeline

NETWORKS = ("resnet152", "vit_b_16")
BACKENDS = ("onnxruntime", "torch")
WINDOWS = (1, 8)
REQUESTS = 24
ALLOWANCE_BYTES = 300_000_000
MB = 1e6


def main() -> None:
    columns = ("network", "backend", "window", "weights", "idle", "sent", "loaded", "running", "end", "bound")
    print("  ".join(f"{name:>11}" for name in columns))
    for name in sys.argv[1:] or NETWORKS:
        cut = cut_model(load_model(ModelSource(name, weights="none")))
        for backend in BACKENDS:
            plan = whole(cut.chain, Variant(backend))
            with tempfile.TemporaryDirectory(prefix="edgecut-memory-") as folder:
                bundles = prepare_bundles(plan, cut, Path(folder))
                for window in WINDOWS:
                    measure(plan, bundles, window, Path(folder) / f"window-{window}")


def whole(chain: Chain, variant: Variant) -> Plan:
    """The network on one device."""
    fleet = Fleet("edge", "edge", (Device("edge", emulate=Emulation(threads=1)),), ())
    cost = Cost(0.5, 0.0)
    proof = Proof("by hand", Outcome.FEASIBLE, "latency", 0.5, 0.0, 1.0, 1, 1, {}, "none", {"latency": 1.0})
    stage = Stage("edge", Bundle(0, len(chain)), variant, cost)
    return Plan(chain, fleet, 1, Limits(), (stage,), (), cost, proof)


def measure(plan: Plan, bundles, window: int, folder: Path) -> None:
    with fleet_agents(plan.fleet, ["edge"], folder) as agents:
        agent = agents["edge"]
        agent.request("hello")
        assert agent.process
        memory = Memory(agent.process.pid)
        idle = memory.now()
        send_files(agent, {bundles[0].order.sha256: bundles[0].file}, "")
        sent = memory.peak()
        with Pipeline(StaticAdviser(plan), agents, lambda plan: bundles, window=window) as pipeline:
            loaded = memory.peak()
            specs = plan.chain.boundaries[0].tensors
            inputs = tuple(np.zeros(spec.shape, spec.dtype) for spec in specs)
            for _ in pipeline.map([inputs] * REQUESTS):
                pass
            running, end = memory.peak(), memory.now()
    boundaries = plan.chain.boundaries
    activations = boundaries[0].nbytes + boundaries[-1].nbytes + max(each.nbytes for each in boundaries)
    weights = bundles[0].file.stat().st_size
    bound = weights + window * activations + ALLOWANCE_BYTES
    numbers = (weights, idle, sent, loaded, running, end, bound)
    name, backend = plan.chain.source.name, plan.stages[0].variant.backend
    shown = [f"{number / MB:.0f}" for number in numbers]
    print("  ".join(f"{text:>11}" for text in (name, backend, str(window), *shown)), flush=True)


class Memory:
    """Resident memory of another process."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self._reset()

    def now(self) -> int:
        return self._bytes("VmRSS")

    def peak(self) -> int:
        """The most since the last call."""
        found = self._bytes("VmHWM")
        self._reset()
        return found

    def _reset(self) -> None:
        (self._process / "clear_refs").write_bytes(b"5")

    def _bytes(self, field: str) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
