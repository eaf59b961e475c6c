"""The pipeline of least period in which each device has one stay: found by looking at every set of devices.

What limits the sums of a whole plan (energy, memory of several bundles, ...), what a source both encodes and
computes, and a link that two routes share do not count here. So the period found is a bound on every plan, and
the plan is the best wherever its own period is no more and it keeps the limits.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from planner.alike import kinds_of, reduced
from planner.codec_table import CODECS
from planner.cost import ROUNDING, CostModel, FloatArray
from planner.device_order import Steps, Visit, best_order
from planner.fleet import Fleet
from planner.graph import BoolArray, IntArray
from planner.limits import Limits
from planner.plan import Hop, Stage
from planner.stays import Stays

Parts = tuple[tuple[Stage, ...], tuple[Hop, ...]]


@dataclass(frozen=True, eq=False)
class Pipelines:
    """``kinds``: devices that may stand in for each other; ``busy`` and ``wire_s`` of each of the ``hops``, on
    its busiest link and on all of them; ``at``: its kinds, boundary and codec, shape (4, hops).
    """

    model: CostModel
    stays: Stays
    kinds: tuple[tuple[str, ...], ...]
    codecs: tuple[str, ...]
    coding_s: FloatArray
    hops: tuple[Hop, ...]
    at: IntArray
    busy_s: FloatArray
    wire_s: FloatArray

    @staticmethod
    def of(model: CostModel, usable: BoolArray, limits: Limits) -> Pipelines:
        kinds = kinds_of(model, usable, limits)
        small = reduced(model, kinds)
        stays = Stays.of(small, usable, limits, tuple(kind[0] for kind in kinds))
        used = {codec for _, _, codec in model.codecs}
        codecs = tuple(codec for codec in CODECS if codec == "raw" or codec in used)
        number = {name: place for place, kind in enumerate(kinds) for name in kind[:2]}
        ends = number[model.fleet.source], number[model.fleet.sink]
        layers, hops, at = len(model.chain), [], []
        computing = [bool(np.isfinite(own).any()) for own in stays.time_s]
        for boundary in range(layers + 1):
            for place, kind in enumerate(kinds):
                if not computing[place] if boundary else place != ends[0]:
                    continue
                for hop in small.hops(boundary, kind[0]):
                    target = number[hop.route[-1]]
                    if computing[target] if boundary < layers else target == ends[1]:
                        hops.append(hop)
                        at.append((place, target, boundary, codecs.index(hop.codec)))
        busy = [_busiest_s(small.fleet, hop) for hop in hops]
        return Pipelines(
            model, stays, kinds, codecs, _coding_s(small, kinds, codecs), tuple(hops),
            np.array(at, dtype=np.int64).reshape(-1, 4).T, np.array(busy), np.array([hop.wire_s for hop in hops]),
        )  # fmt: skip

    def least_period(self) -> tuple[float, Parts | None]:
        """A bound on the period of every plan in which each device has one stay, in seconds, and of the plans
        that would do if only what is counted here counted, the one of least latency, then of fewest parts.

        None where there is no plan at all. Raises ``PlanningError`` where there are too many sets of devices.
        """
        period_s, visits = best_order(self._steps(), np.maximum)
        if not visits:
            return period_s, None
        most = period_s * (1 + ROUNDING)
        return period_s, self._parts(best_order(self._steps(most), np.add)[1], most)

    def _steps(self, most_s: float | None = None) -> Steps:
        """How long parts keep the busiest device or link; with ``most_s``, how long those take, latency of links
        included, that keep nothing busy for longer."""
        layers, count = len(self.model.chain), len(self.codecs)
        source, sink = (self._kind[name] for name in (self.model.fleet.source, self.model.fleet.sink))
        time = np.full((len(self.kinds), layers + 1, layers + 1), np.inf)
        time[:, :-1] = self.stays.time_s
        capacity = tuple(
            len(kind) if np.isfinite(own).any() else 0 for kind, own in zip(self.kinds, time, strict=True)
        )
        encode, decode = self.coding_s
        stay = decode[:, :, :, None, None] + time[:, :, None, :, None] + encode[:, None, None, :, :]
        wire = self._wires(most_s)
        combine: np.ufunc = np.maximum if most_s is None else np.add
        first, last = encode[source, 0], decode[sink, layers]
        if most_s is not None:
            stay[stay > most_s] = np.inf
            first, last = (np.where(times > most_s, np.inf, times) for times in (first, last))
        start = np.full((len(self.kinds), layers + 1, count), np.inf)
        start[:, 0] = combine(first, wire[source, :, 0])
        start[source, 0, 0] = 0.0  # where the source computes, nothing arrives
        end = np.full_like(start, np.inf)
        end[:, layers] = combine(last, wire[:, sink, layers])
        end[sink, layers, 0] = 0.0
        wire[:, :, [0, layers]] = np.inf
        points = (layers + 1) * count
        kinds = len(self.kinds)
        return Steps(
            capacity, count, start.reshape(kinds, points), stay.reshape(kinds, points, points),
            wire.reshape(kinds, kinds, points), end.reshape(kinds, points),
        )  # fmt: skip

    def _wires(self, most_s: float | None) -> FloatArray:
        """By kinds, boundary and codec, the least of the routes."""
        layers = len(self.model.chain)
        wires = np.full((len(self.kinds), len(self.kinds), layers + 1, len(self.codecs)), np.inf)
        values = self.busy_s
        if most_s is not None:
            values = np.where(self.busy_s <= most_s, self.wire_s + self.stays.part_s, np.inf)
        np.minimum.at(wires, tuple(self.at), values)
        return wires

    def _parts(self, visits: list[Visit], most_s: float) -> Parts:
        """Stages and hops; devices of a kind are taken in their order."""
        left = [list(kind) for kind in self.kinds]
        source, sink, count = self.model.fleet.source, self.model.fleet.sink, len(self.codecs)
        at, hops = source, list[Hop]()
        stages = list[Stage]()

        def send(kind: int, point: int, target: str) -> None:
            boundary, codec = divmod(point, count)
            key = np.array([[self._kind[at]], [kind], [boundary], [codec]])
            mine = np.flatnonzero((self.at == key).all(axis=0) & (self.busy_s <= most_s))
            hop = self.hops[mine[self.wire_s[mine].argmin()]]
            names = dict(zip((hop.route[0], hop.route[-1]), (at, target), strict=True))
            route = tuple(names.get(name, name) for name in hop.route)
            hops.append(self.model.hop(boundary, route, hop.codec))

        for visit in visits:
            device = left[visit.kind].pop(0)
            if device != at:
                send(visit.kind, visit.arrives, device)
            at = device
            start, stop = visit.arrives // count, visit.leaves // count
            stages += self.stages(device, start, stop)
        if at != sink:
            send(self._kind[sink], visits[-1].leaves, sink)
        return tuple(stages), tuple(hops)

    def stages(self, device: str, start: int, stop: int) -> tuple[Stage, ...]:
        """The bundles of a device's least stay."""
        bundles = self.stays.stages(self.kinds[self._kind[device]][0], start, stop)
        return tuple(self.model.stage(device, each.bundle, each.variant) for each in bundles)

    def expanded(self, stages: Iterable[Stage]) -> tuple[Stage, ...]:
        """Stages that are stays, as bundles."""
        parts = (self.stages(stage.device, stage.bundle.start, stage.bundle.stop) for stage in stages)
        return tuple(part for bundles in parts for part in bundles)

    @property
    def arcs(self) -> int:
        """How many stays and hops there are, those of devices that may stand in for each other counted once."""
        return int(np.isfinite(self.stays.time_s).sum()) + len(self.hops)

    @functools.cached_property
    def _kind(self) -> dict[str, int]:
        """The place of each device's kind."""
        return {name: place for place, kind in enumerate(self.kinds) for name in kind}


def _coding_s(model: CostModel, kinds: tuple[tuple[str, ...], ...], codecs: tuple[str, ...]) -> FloatArray:
    """Seconds to encode and to decode by kind, boundary and codec, inf where that was not measured."""
    coding = np.full((2, len(kinds), len(model.chain) + 1, len(codecs)), np.inf)
    coding[..., 0] = 0.0
    places = {kind[0]: place for place, kind in enumerate(kinds)}
    for (device, boundary, codec), row in model.codecs.items():
        if device in places and boundary <= len(model.chain):
            coding[:, places[device], boundary, codecs.index(codec)] = row.encode_s, row.decode_s
    return coding


def _busiest_s(fleet: Fleet, hop: Hop) -> float:
    links = (fleet.link(*pair) for pair in itertools.pairwise(hop.route))
    return max(link.transfer_s(hop.wire_bytes) for link in links if link is not None)
