"""What other systems would do with the same tables, priced by ours: their rule, our measurements.

Each takes the best variant for each of its parts. Limits do not bind them, but for DIME, which has its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.chain import Bundle
from planner.cost import CostModel
from planner.errors import PlanningError
from planner.graph import Graph
from planner.limits import Criterion, Limits
from planner.plan import Cost, Hop, Stage
from planner.problem import Problem
from planner.search import search


@dataclass(frozen=True)
class Peer:
    """A plan in the manner of another system. ``expected``: what its assumption forecasts, where that is not the
    price of the plan."""

    name: str
    source: str
    stages: tuple[Stage, ...]
    hops: tuple[Hop, ...]
    cost: Cost
    expected: float | None = None


class Peers:
    """Plans over one model by the ``weights`` of an objective (of the latency, where they are empty)."""

    def __init__(self, model: CostModel, weights: Mapping[Criterion, float]) -> None:
        self.model = model
        self.weights: dict[Criterion, float] = dict(weights) or {"latency": 1.0}
        self.layers = len(model.chain)

    def value(self, cost: Cost) -> float:
        return math.fsum(factor * cost.of(name) for name, factor in self.weights.items())

    def single_splits(self, codecs: bool) -> Iterable[Peer]:
        """One cut between the source and one server, none and all included.

        Neurosurgeon (Kang et al., ASPLOS 2017) sends the tensors raw; JALAD (Li et al., ICPADS 2018) sends them
        quantised and compressed, which is what the codecs measured here do.
        """
        name, paper = ("JALAD", "Li et al., ICPADS 2018") if codecs else _NEUROSURGEON
        source, found = self.model.fleet.source, []
        for server in self._devices():
            for cut in range(self.layers + 1):
                sides = ((source, Bundle(0, cut)) if cut else None, _tail(server, cut, self.layers))
                placed = [side for side in sides if side]
                if len({device for device, _ in placed}) == len(placed):
                    found.append(self.placed(name, paper, placed, codecs=codecs))
        yield from self._least(found)

    def joint_dnn(self) -> Iterable[Peer]:
        """A shortest path over the times of single layers, taken to add up (JointDNN: Eshratifar et al., IEEE TMC
        2021), here over all devices; then what runs on one device in a row is one measured bundle."""
        shape = np.indices((self.layers, self.layers + 1))
        single = np.broadcast_to(shape[1] - shape[0] == 1, self.model.latency_s.shape)
        graph = Graph.of(self._raw(), single, joins=True)
        weight = sum(
            (factor * graph.weight[name] for name, factor in self.weights.items()), np.zeros(graph.arcs)
        )
        path = graph.path(weight)
        if path is None:
            return
        stages, hops = graph.decode(path)
        joined = []
        for (device, variant), run in itertools.groupby(stages, lambda stage: (stage.device, stage.variant)):
            several = list(run)
            whole = Bundle(several[0].bundle.start, several[-1].bundle.stop)
            # Two runs of one variant on one device, apart on the path, have a hop between them.
            joined.append(self.model.stage(device, whole, variant))
        cost = self.model.price(joined, hops)
        if math.isfinite(cost.latency_s):
            yield Peer("JointDNN", _JOINT_DNN, tuple(joined), hops, cost, float(weight[path].sum()))

    def dime(
        self, limits: Limits, *, most_layers: int | None = None, time_limit_s: float = 60.0
    ) -> Iterable[Peer]:
        """DIME's formulation: bundles of at most ``most_layers`` (left out, all) layers, at most
        ceil(its layers / most_layers) of them on a device, the first ``private_layers`` on the source, an energy
        or latency budget, tensors sent raw. Solved exactly, over its rules."""
        most = most_layers or self.layers
        own = Limits(
            max_latency_s=limits.max_latency_s, max_energy_j=limits.max_energy_j,
            private_layers=limits.private_layers, max_bundle_layers=most, ceil_rule=most > 1,
        )  # fmt: skip
        fleet = self.model.fleet
        plain = replace(
            self._raw(),
            fleet=replace(fleet, devices=tuple(replace(d, memory_bytes=None) for d in fleet.devices)),
        )
        try:
            problem = Problem.of(plain, own)
            found = search(problem, self.weights, time_limit_s=time_limit_s)
        except PlanningError:
            return
        stages, hops = problem.graph.decode(found.arcs)
        yield Peer("DIME", _DIME, stages, hops, self.model.price(stages, hops))

    def equal_layers(self, devices: Sequence[str]) -> Iterable[Peer]:
        """As many layers on each of these devices, in this order, the first with one more where they do not divide."""
        if len(devices) > 1:
            counts = [len(part) for part in np.array_split(np.arange(self.layers), len(devices))]
            ends = [0, *itertools.accumulate(counts)]
            yield from self._shared("equal layers", "by hand", devices, ends)

    def equal_work(self, devices: Sequence[str]) -> Iterable[Peer]:
        """About as many multiply-accumulates on each: each cut where the sum is nearest to its share."""
        work = np.cumsum([layer.macs for layer in self.model.chain.layers], dtype=float)
        if len(devices) < 2 or not work[-1] or self.layers < len(devices):
            return
        ends = [0]
        for place in range(1, len(devices)):
            # Each device keeps at least one layer.
            low, high = ends[-1] + 1, self.layers - (len(devices) - place)
            goal = work[-1] * place / len(devices)
            ends.append(min(range(low, high + 1), key=lambda end: abs(work[end - 1] - goal)))
        yield from self._shared("equal work", "by hand, multiply-accumulates", devices, [*ends, self.layers])

    def _shared(self, name: str, source: str, devices: Sequence[str], ends: Sequence[int]) -> Iterable[Peer]:
        pairs = zip(devices, itertools.pairwise(ends), strict=True)
        placed = [(device, Bundle(start, stop)) for device, (start, stop) in pairs if start < stop]
        yield from self._least([self.placed(name, source, placed, codecs=True)])

    def placed(
        self, name: str, source: str, placed: Iterable[tuple[str, Bundle]], *, codecs: bool
    ) -> Peer | None:
        """These bundles with their best variants and hops; None where one cannot run or no route leads there."""
        at, stages, hops = self.model.fleet.source, [], []
        wanted = [*placed, (self.model.fleet.sink, None)]
        boundary = 0
        for device, bundle in wanted:
            if device != at:
                ways = [hop for hop in self._hops(boundary, at, codecs) if hop.route[-1] == device]
                if not ways:
                    return None
                hops.append(min(ways, key=lambda hop: self.value(hop.cost)))
                at = device
            if bundle:
                stage = self._stage(device, bundle)
                if stage is None:
                    return None
                stages.append(stage)
                boundary = bundle.stop
        return Peer(name, source, tuple(stages), tuple(hops), self.model.price(stages, hops))

    def _least(self, found: Iterable[Peer | None]) -> Iterable[Peer]:
        best = min((each for each in found if each), key=lambda each: self.value(each.cost), default=None)
        return [best] if best else []

    def _stage(self, device: str, bundle: Bundle) -> Stage | None:
        variants = [way.variant for way in self.model.ways if way.device == device]
        stages = [self.model.stage(device, bundle, variant) for variant in variants]
        can = [stage for stage in stages if math.isfinite(stage.cost.latency_s)]
        return min(can, key=lambda stage: self.value(stage.cost), default=None)

    def _hops(self, boundary: int, source: str, codecs: bool) -> list[Hop]:
        return (self.model if codecs else self._raw()).hops(boundary, source)

    def _raw(self) -> CostModel:
        return replace(self.model, codecs={})

    def _devices(self) -> list[str]:
        return list(dict.fromkeys(way.device for way in self.model.ways))


def _tail(device: str, cut: int, layers: int) -> tuple[str, Bundle] | None:
    return (device, Bundle(cut, layers)) if cut < layers else None


_NEUROSURGEON = "Neurosurgeon", "Kang et al., ASPLOS 2017"
_JOINT_DNN = "Eshratifar et al., IEEE TMC 2021"
_DIME = "DIME: bundles, energy and clocks by ILP"


def peers(
    model: CostModel,
    weights: Mapping[Criterion, float],
    limits: Limits,
    devices: Sequence[str],
    *,
    dime_layers: int | None = None,
    time_limit_s: float = 60.0,
) -> tuple[Peer, ...]:
    """Every peer that has a plan for this model; the even splits run over ``devices``."""
    by = Peers(model, weights)
    return (
        *by.single_splits(codecs=False),
        *(by.single_splits(codecs=True) if model.codecs else ()),
        *by.joint_dnn(),
        *by.dime(limits, most_layers=dime_layers, time_limit_s=time_limit_s),
        *by.equal_layers(devices),
        *by.equal_work(devices),
    )
