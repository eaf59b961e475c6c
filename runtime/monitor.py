"""What a deployment is doing, counted from its answers: rates, shares and quantiles at any moment.

::

    answer with its marks ──► Monitor ──► state(): what a person looks at (runtime.live_deploy)
    refusals, changes of plan ─┘  │
                                  └──► counters and distributions (runtime.metrics)

An answer costs some additions under a lock; nothing runs in between. Memory does not grow with the requests.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from planner.plan import Plan
from planner.run_rows import RunRow
from runtime.counting import Durations, Windowed
from runtime.monitor_state import DeviceState, LinkState, Part, PartState, State, parts_of
from runtime.timing import passed

if TYPE_CHECKING:
    from runtime.answering import Answer, Answering

_PARTS = 500  # how many stages and hops are told apart: plans change, memory must not grow
_LAID_OUT = 16


OTHER = Part("stage", "other", "", ""), Part("hop", "other", "", "")


@dataclass
class Place:
    """A device or a link at work: seconds of work, of requests' waiting for it, requests, and bytes."""

    busy: Windowed = field(default_factory=Windowed)
    waiting: Windowed = field(default_factory=Windowed)
    requests: Windowed = field(default_factory=Windowed)
    sent: Windowed = field(default_factory=Windowed)


class Monitor:
    """Any thread may tell it anything, and look. ``clock`` is that of the answers' marks, in seconds.

    ``window``: requests in flight at most; with several, what waits is no part of what was forecast. ``total``:
    requests that will come, None where nobody knows. ``pipeline``: asked for what is in flight, and for power.
    """

    def __init__(
        self,
        plan: Plan,
        window: int = 1,
        total: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.window, self.total = plan, window, total
        self.doing = ""
        self.answered = self.failed = self.refused = self.switches = 0
        self.latency, self.unqueued = Durations(), Durations()
        self.parts: dict[Part, Durations] = {}
        self.devices: dict[str, Place] = {}
        self.links: dict[tuple[str, str], Place] = {}
        self.lock = threading.RLock()
        self.pipeline: Answering | None = None
        self._clock, self._began_s = clock, clock()
        self._since_s, self._worked_since_s = self._began_s, self._began_s  # of answers, and of work for them
        self._rate = Windowed()
        self._lag_s = 0.0
        self._before = 0
        self._parts_of: dict[int, tuple[Plan, dict[tuple[str, int], Part]]] = {}

    def begin(self, answered: int = 0) -> None:
        """What comes now counts; so many requests were answered before, by a run that this one goes on with."""
        self._before, self.doing = answered, ""

    def switched(self, plan: Plan) -> None:
        """Another plan took over."""
        with self.lock:
            self.plan = plan
            self.switches += 1

    def missed(self, failed: int = 0, refused: int = 0) -> None:
        """Requests that got no answer, and inputs that the network cannot take."""
        with self.lock:
            self.failed += failed
            self.refused += refused

    def took(self, answer: Answer, rows: Iterable[RunRow]) -> None:
        """An answer, and what it says of its parts (``runtime.timing.measured_rows``)."""
        now_s = self._clock()
        with self.lock:
            if not self.answered:
                self._since_s, self._worked_since_s = now_s, answer.marks[0] / 1e9
            self.answered += 1
            self._rate.add(now_s)
            named = self._named(answer.plan)
            for row in rows:
                if row.kind == "total":
                    self.latency.add(row.measured_s)
                    self.unqueued.add(row.measured_s - (self.window > 1) * row.queue_s)
                    self._lag_s = row.measured_s
                elif (row.kind, row.index) in named:
                    self._of(named[row.kind, row.index]).add(row.measured_s)
            worked: dict[str, float] = {}
            for part in passed(answer.plan, answer.segments, answer.marks):
                waits_s, begin_s, end_s = part.waits_ns / 1e9, part.begin_ns / 1e9, part.end_ns / 1e9
                segment = part.segment
                place = self._device(segment.device)
                if part.kind == "wire":
                    assert segment.link
                    place = self.links.setdefault(segment.link.pair, Place())
                    place.sent.spread(begin_s, end_s, answer.plan.hops[part.index].wire_bytes)
                else:
                    worked[segment.device] = end_s
                place.busy.spread(begin_s, end_s)
                place.waiting.spread(waits_s, begin_s)
            for device, end_s in worked.items():
                self._device(device).requests.add(end_s)

    def _along(self) -> list[tuple[Part, float]]:
        """The present plan's parts in running order."""
        plan = self.plan
        order = [2 * stage.bundle.start + 1 for stage in plan.stages] + [
            2 * hop.boundary for hop in plan.hops
        ]
        return [part for _, part in sorted(zip(order, parts_of(plan), strict=True))]

    def state(self) -> State:
        with self.lock:
            now_s = self._clock()
            parts = [
                PartState(
                    part.label, forecast_s, self.parts[part].quantile(0.5) if part in self.parts else None
                )
                for part, forecast_s in self._along()
            ]
            parts.append(PartState("total", self.plan.cost.latency_s, self.unqueued.quantile(0.5)))
            power_w = self.pipeline.power_w if self.pipeline else {}
            names = dict.fromkeys([*self.plan.devices, *self.devices])
            hops = [pair for hop in self.plan.hops for pair in itertools.pairwise(hop.route)]
            pairs = dict.fromkeys([*hops, *self.links])
            return State(
                doing=self.doing,
                elapsed_s=now_s - self._began_s,
                answered=self._before + self.answered,
                total=self.total,
                refused=self.refused,
                failed=self.failed,
                in_flight=self.pipeline.in_flight if self.pipeline else 0,
                requests_per_s=self._rate.rate(now_s, self._since_s),
                median_s=self.latency.quantile(0.5),
                p95_s=self.latency.quantile(0.95),
                devices=tuple(self._device_state(name, now_s, power_w.get(name)) for name in names),
                links=tuple(self._link_state(pair, now_s) for pair in pairs),
                parts=tuple(parts),
                switches=self.switches,
            )

    def _device(self, name: str) -> Place:
        return self.devices.setdefault(name, Place())

    def _device_state(self, name: str, now_s: float, power_w: float | None) -> DeviceState:
        place, since_s, lag_s = self.devices.get(name, Place()), self._worked_since_s, self._lag_s
        return DeviceState(
            name,
            # Packing may overlap with computing on another processor; clocks of two hosts agree to a fraction.
            min(place.busy.rate(now_s, since_s, lag_s), 1.0),
            place.waiting.rate(now_s, since_s, lag_s),
            place.requests.rate(now_s, since_s, lag_s),
            power_w,
        )

    def _link_state(self, pair: tuple[str, str], now_s: float) -> LinkState:
        place, link = self.links.get(pair, Place()), self.plan.fleet.link(*pair)
        sent = place.sent.rate(now_s, self._worked_since_s, self._lag_s)
        queue = place.waiting.rate(now_s, self._worked_since_s, self._lag_s)
        return LinkState(*pair, sent, sent / link.bandwidth_bytes_per_s if link else 0.0, queue)

    def _of(self, part: Part) -> Durations:
        if part not in self.parts and len(self.parts) >= _PARTS:
            part = OTHER[part.kind == "hop"]
        return self.parts.setdefault(part, Durations())

    def _named(self, plan: Plan) -> dict[tuple[str, int], Part]:
        """Its stages and hops, worked out once for each plan."""
        found = self._parts_of.get(id(plan))
        if found is None:
            if len(self._parts_of) >= _LAID_OUT:
                self._parts_of.clear()
            parts = [part for part, _ in parts_of(plan)]
            cut = len(plan.stages)
            named = {("stage", place): part for place, part in enumerate(parts[:cut])}
            named |= {("hop", place): part for place, part in enumerate(parts[cut:])}
            found = self._parts_of[id(plan)] = plan, named
        return found[1]
