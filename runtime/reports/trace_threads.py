"""The processes and threads of a trace: places, and in each as many threads of a name as overlap."""

from __future__ import annotations

import itertools
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planner.itinerary import Segment
from runtime.itinerary import MAX_WINDOW

# The order of a device's threads, as a request passes them.
_ORDER = ("receive", "decode", "compute", "encode", "send")


@dataclass(frozen=True)
class Place:
    """A process of the trace; ``host``: the device that it is, if it is one."""

    name: str
    host: str = ""

    @staticmethod
    def device(name: str) -> Place:
        return Place(f"device {name}", name)

    @staticmethod
    def link(segment: Segment) -> Place:
        """The link over which a segment sends."""
        assert segment.link
        return Place(f"link {segment.link.source} → {segment.link.target}")


@dataclass
class _Lane:
    """What a thread shows, in the order of time: (begin, end, request) that do not overlap."""

    tid: int
    taken: list[tuple[int, int, int]] = field(default_factory=list)

    def take(self, begin_ns: int, end_ns: int, request: int) -> bool:
        """Whether there was room."""
        at = bisect(self.taken, (begin_ns, end_ns, request))
        if (at and self.taken[at - 1][1] > begin_ns) or (at < len(self.taken) and self.taken[at][0] < end_ns):
            return False
        self.taken.insert(at, (begin_ns, end_ns, request))
        if (
            len(self.taken) > 4 * MAX_WINDOW
        ):  # only as many requests as may be in flight overlap with what comes
            self.taken = [each for each in self.taken if each[2] > request - MAX_WINDOW]
        return True


class Threads:
    """``places`` in the order in which they are shown. Numbers of threads are unique among all processes."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._pids = {place: number for number, place in enumerate(places, start=1)}
        self._tids = itertools.count(len(places) + 1)
        self._lanes: dict[tuple[Place, str], list[_Lane]] = {}

    def first(self, place: Place) -> tuple[int, int]:
        """Process and thread of what belongs to the place as a whole."""
        return self._pids[place], self._pids[place]

    def free(self, place: Place, name: str, begin_ns: int, end_ns: int, request: int) -> tuple[int, int]:
        """Process and thread that has nothing else from begin to end; what a request overlaps with itself nests."""
        lanes = self._lanes.setdefault((place, name), [])
        lane = next((lane for lane in lanes if lane.take(begin_ns, end_ns, request)), None)
        if lane is None:
            lane = _Lane(next(self._tids))
            lane.take(begin_ns, end_ns, request)
            lanes.append(lane)
        return self._pids[place], lane.tid

    def names(self, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Metadata: what processes and threads are called, and in which order they stand. ``labels``: of devices."""
        for place, pid in self._pids.items():
            yield _metadata("process_name", pid, pid, name=place.name)
            yield _metadata("process_sort_index", pid, pid, sort_index=pid)
            if place.host in labels:
                yield _metadata("process_labels", pid, pid, labels=labels[place.host])
        for (place, name), lanes in self._lanes.items():
            for number, lane in enumerate(lanes):
                shown = f"{name} {number + 1}" if number else name
                order = 1000 * _ORDER.index(name) if name in _ORDER else 0
                yield _metadata("thread_name", self._pids[place], lane.tid, name=shown)
                yield _metadata("thread_sort_index", self._pids[place], lane.tid, sort_index=order + number)


def _metadata(kind: str, pid: int, tid: int, **args: object) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "ts": 0, "args": args}
