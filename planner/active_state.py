"""What an active profile knows so far, and the prices that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planner.active_note import Alpha
from planner.active_paths import Request
from planner.bounds import Bounds, fit
from planner.chain import Bundle, Chain
from planner.codec_table import CodecRow
from planner.cost import CostModel, FloatArray, Way
from planner.errors import EdgecutError, PlanningError
from planner.fleet import Fleet
from planner.sidecar import LeftOut
from planner.table import ProfileRow

# What a device answers: its name, and a row, or why there is none; an error says that the device is gone.
Found = tuple[str, ProfileRow | LeftOut | EdgecutError]
Measure = Callable[[Sequence[Request]], Iterable[Found]]

# Standard deviations between what is expected and the bound; more where a prediction missed by more.
SAFETY = 3.0
_VIOLATED = 1.0


@dataclass(frozen=True, eq=False)
class Prices:
    """Times (s) and metered energies (J) as a cost model takes them; what cannot be used is infinite."""

    latency_s: FloatArray
    metered_j: FloatArray


@dataclass(eq=False)
class State:
    """Measured bundles by way, start and stop, and the bounds of all others."""

    chain: Chain
    fleet: Fleet
    ways: tuple[Way, ...]
    batch: int
    measure: Measure
    alpha: dict[Way, float] | None = None
    codecs: tuple[CodecRow, ...] = ()
    rows: list[ProfileRow] = field(default_factory=list)
    left_out: dict[str, list[LeftOut]] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    asked: set[Request] = field(default_factory=set)
    unused: dict[Way, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers = len(self.chain)
        shape = len(self.ways), layers, layers + 1
        self.latency_s, self.metered_j = np.full(shape, np.nan), np.full(shape, np.nan)
        self.cannot: NDArray[np.bool_] = np.zeros(shape, dtype=bool)
        self.inside: NDArray[np.bool_] = np.broadcast_to(np.triu(np.ones(shape[1:], bool), k=1), shape)
        self.place = {way: place for place, way in enumerate(self.ways)}
        self._bounds_of: dict[tuple[int, bool], tuple[tuple[int, int], Bounds]] = {}
        self.safety = np.full(len(self.ways), SAFETY)
        bare = CostModel.of(self.chain, self.fleet, (), self.batch, codecs=self.codecs)
        # Neither noise nor memory is asked for: nothing foretells them.
        self.model = replace(
            bare,
            ways=self.ways,
            latency_s=self.latency_s,
            energy_j=self.metered_j,
            noise=np.zeros(shape),
            memory_bytes=np.zeros(shape),
        )

    def ask(self, requests: Iterable[Request]) -> int:
        """Measure these, each only once ever; how many were asked for."""
        new = [
            request
            for request in dict.fromkeys(requests)
            if request not in self.asked and request[0].device not in self.gone
        ]
        if not new:
            return 0
        self.asked.update(new)
        for device, found in self.measure(new):
            if isinstance(found, EdgecutError):
                self.gone[device] = found.message
            else:
                self.record(device, found)
        for way, bundle in new:
            if not self.settled((way, bundle)) and way.device not in self.gone:
                raise PlanningError(f"{way.device} answered nothing for {bundle} in {way.variant}")
        return len(new)

    def record(self, device: str, found: ProfileRow | LeftOut) -> None:
        """Take note of a row, or of a bundle that cannot run; those of other batches and ways do not count."""
        place = self.place.get(Way(device, found.variant))
        if place is None or found.batch != self.batch:
            return
        self.asked.add((self.ways[place], found.bundle))
        cell = place, found.bundle.start, found.bundle.stop
        if isinstance(found, LeftOut):
            self.left_out.setdefault(device, []).append(found)
            self.cannot[cell] = True
            return
        self.rows.append(found)
        self.latency_s[cell] = found.latency_s
        self.metered_j[cell] = np.nan if found.energy_j is None else found.energy_j

    def settled(self, request: Request) -> bool:
        """Whether nothing more can be learnt of this bundle."""
        cell = self.cell(request)
        return bool(np.isfinite(self.latency_s[cell]) or self.cannot[cell])

    def cell(self, request: Request) -> tuple[int, int, int]:
        return self.place[request[0]], request[1].start, request[1].stop

    @property
    def skipped(self) -> NDArray[np.bool_]:
        return np.asarray(self.inside & np.isnan(self.latency_s) & ~self.cannot)

    def measured(self) -> Prices:
        """Only what is measured can be used."""
        lacking = self.inside & np.isnan(self.latency_s)
        return Prices(*(np.where(lacking, np.inf, each) for each in (self.latency_s, self.metered_j)))

    def lower(self, place: int, ratio: float) -> None:
        """Lower the bounds of a way after one of its bundles took only ``ratio`` of its bound."""
        if self.alpha:
            self.alpha[self.ways[place]] *= ratio
        else:
            self.safety[place] += _VIOLATED

    def foretold(self) -> tuple[Prices, Prices]:
        """The optimistic prices and the expected ones: measured where it is, else foretold.

        What nothing is known of yet costs nothing; the bundles of a device that is gone cannot be used.
        """
        times = self._foretell()
        energies = self._foretell(metered=True)
        out = []
        for latency_s, metered_j in zip(times, energies, strict=True):
            barred = self.cannot.copy()
            for place, way in enumerate(self.ways):
                if way.device in self.gone or way in self.unused:
                    barred[place] |= self.skipped[place]
                if np.isnan(self.metered_j[place][np.isfinite(self.latency_s[place])]).any():
                    metered_j[place] = self.metered_j[place]  # nothing meters it: power x time
            latency_s[barred] = np.inf
            out.append(Prices(latency_s, metered_j))
        return out[0], out[1]

    def _foretell(self, metered: bool = False) -> tuple[FloatArray, FloatArray]:
        """Bounds and expectations of the times, or the metered energies, that are not measured."""
        values = self.metered_j if metered else self.latency_s
        low = np.where(self.inside & np.isnan(values), 0.0, values)
        middle = low.copy()
        ways = range(len(self.ways))
        bounds = {place: found for place in ways if (found := self._bounds(place, metered))}
        spreads = [] if self.alpha else fit(list(bounds.values()))
        for turn, (place, each) in enumerate(bounds.items()):
            cells = place, each.starts[each.unknown], each.stops[each.unknown]
            if self.alpha:
                low[cells] = middle[cells] = self.alpha[self.ways[place]] * each.sums[each.unknown]
                continue
            spread = spreads[turn]
            mean, deviation = each.foretell(spread)
            middle[cells] = np.maximum(mean, 0.0)
            away = max(float(self.safety[place]), each.worst_miss(spread))
            low[cells] = np.maximum(mean - away * deviation, 0.0)
        return low, middle

    def _bounds(self, place: int, metered: bool = False) -> Bounds | None:
        """What is known of a way; None before its single layers are measured."""
        values = self.metered_j if metered else self.latency_s
        layers = np.arange(len(self.chain))
        single = values[place, layers, layers + 1]
        cannot = self.cannot[place, layers, layers + 1]
        if (np.isnan(single) & ~cannot).any() or cannot.all():
            return None
        seen = int(np.isfinite(values[place]).sum()), int(self.cannot[place].sum())
        before = self._bounds_of.get((place, metered))
        if before and before[0] == seen:
            return before[1]
        known = values[place].copy()
        # A layer that cannot run alone counts as the mean of the others.
        known[layers[cannot], layers[cannot] + 1] = single[~cannot].mean()
        bounds = Bounds(known, [boundary.nbytes for boundary in self.chain.boundaries])
        self._bounds_of[place, metered] = seen, bounds
        return bounds

    def alphas(self) -> tuple[Alpha, ...]:
        """For each way and length the least bound of a skipped bundle over the sum of its layers."""
        low, found = self._foretell()[0], []
        for place, way in enumerate(self.ways):
            bounds = self._bounds(place)
            if bounds is None:
                continue
            unknown = bounds.unknown[~self.cannot[place, bounds.starts, bounds.stops][bounds.unknown]]
            start, stop = bounds.starts[unknown], bounds.stops[unknown]
            ratio = low[place, start, stop] / bounds.sums[unknown]
            least = {
                int(length): float(ratio[stop - start == length].min())
                for length in np.unique(stop - start)
                if length > 1
            }
            found.append(Alpha(way.device, way.variant, tuple(least), tuple(least.values())))
        return tuple(found)


def singles(way: Way, chain: Chain) -> list[Request]:
    return [(way, Bundle(k, k + 1)) for k in range(len(chain))]


def pilots(way: Way, chain: Chain, turn: int) -> list[Request]:
    """A half, a quarter and a pair; ``turn`` sets where in the chain, so that ways cover it together."""
    layers, found = len(chain), []
    for length in sorted({layers // 2, layers // 4, 2} - {0, 1, layers}, reverse=True):
        places = layers // length
        start = (turn % places) * length
        found.append((way, Bundle(start, start + length)))
    return found
