"""The search over the layered graph: the optimum within the limits, and what to say where there is none."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import numpy as np

from planner.cost import ROUNDING, Criterion, Objective, ceilings
from planner.errors import InfeasibleError, PlanningError, SolverError
from planner.graph import Graph, IntArray
from planner.ilp import Answer, minimise
from planner.plan import Cost, Limits, Outcome

# Among plans of equal cost the one of fewer stages and hops: each counts as 1 ns or 1 nJ.
_TIE_BREAK = 1e-9

_OTHER: dict[Objective, Objective] = {"latency": "energy", "energy": "latency"}
_UNIT: dict[Criterion, str] = {"latency": "ms", "energy": "mJ", "noise": "dB"}
_LIMIT: dict[Criterion, str] = {"latency": "max_latency", "energy": "max_energy", "noise": "min_sqnr"}
_OPTION: dict[Criterion, str] = {
    "latency": "raise --max-latency-ms",
    "energy": "raise --max-energy-mj",
    "noise": "lower --min-sqnr-db",
}
_ASKED: dict[Criterion, str] = {
    "latency": "takes at most",
    "energy": "uses at most",
    "noise": "reaches at least",
}
_END: dict[Criterion, str] = {"latency": "the least", "energy": "the least", "noise": "the most"}
_BEST: dict[Criterion, str] = {"latency": "least latency", "energy": "least energy", "noise": "best sqnr"}


def search(graph: Graph, objective: Objective, limits: Limits, time_limit_s: float) -> Answer:
    """The best path within the limits; of equals, the least in the other criterion, then in parts.

    ``InfeasibleError``: no plan keeps the limits; it names the nearest values that would do.
    ``SolverError``: CBC failed or found nothing in time.
    """
    return _Search(graph, limits, time_limit_s).run(objective)


class _Search:
    def __init__(self, graph: Graph, limits: Limits, time_limit_s: float) -> None:
        self.graph, self.time_limit_s = graph, time_limit_s
        self.deadline = time.perf_counter() + time_limit_s
        self.given: dict[Criterion, float | None] = {
            "latency": limits.max_latency_s,
            "energy": limits.max_energy_j,
            "noise": limits.min_sqnr_db,
        }
        most = ceilings(limits)
        # Noise is never what is minimised, so without a limit it does not matter.
        self.most = {name: most[name] for name in most if name != "noise" or most[name] < math.inf}
        self.through = {name: graph.least_through(name) for name in self.most}

    def run(self, objective: Objective) -> Answer:
        least = {name: float(through.min()) for name, through in self.through.items()}
        if math.isinf(least[objective]):
            raise PlanningError(
                "the bundles that the devices can run do not join into a whole network",
                "profile another backend or precision too",
            )
        too_tight = [name for name in least if least[name] > self.most[name]]
        if too_tight:
            raise self._infeasible({name: least[name] for name in too_tight})
        # Limits are taken on one after the other, that on the objective itself last. So there is always a
        # path to find, and CBC's word on infeasibility, which it also gives when time runs out, is never
        # needed.
        others = [name for name in self.most if name != objective and self.most[name] < math.inf]
        for place, name in enumerate(others[1:], start=1):
            self._keep(name, others[:place])
        best = self._keep(objective, others)
        value = self._value(objective, best)
        return self._prefer(objective, best, value) if best.outcome is Outcome.OPTIMAL else best

    def _keep(self, name: Criterion, kept: Sequence[Criterion]) -> Answer:
        """The least of ``name`` within the limits ``kept``. ``InfeasibleError`` where it exceeds its own."""
        best = self._least(name, kept)
        if self._value(name, best) > self.most[name]:
            if best.bound <= self.most[name]:
                raise self._out_of_time()
            raise self._conflict([*kept, name])
        return best

    def _least(self, name: Criterion, kept: Sequence[Criterion]) -> Answer:
        """The least of ``name`` within the limits ``kept``, which some path keeps together."""
        answer = minimise(
            self.graph,
            self._within({other: self.most[other] for other in kept}),
            self.graph.weight[name],
            [(self.graph.weight[other], self.most[other]) for other in kept],
            time_limit_s=self._seconds_left(),
        )
        if answer is None:
            raise self._out_of_time()
        return answer

    def _value(self, name: Criterion, answer: Answer) -> float:
        return float(self.graph.weight[name][answer.arcs].sum())

    def _prefer(self, objective: Objective, best: Answer, value: float) -> Answer:
        """Among the paths that cost no more than ``best``, the least in the other criterion and parts."""
        other = _OTHER[objective]
        most = {**self.most, objective: value * (1 + ROUNDING)}
        arcs = self._within(most)
        if arcs.size == best.arcs.size or time.perf_counter() > self.deadline:
            return best
        weight = self.graph.weight
        preference = weight[other] + _TIE_BREAK * (np.arange(self.graph.tail.size) < self.graph.parts)
        budgets = [(weight[name], most[name]) for name in most]
        equal = minimise(self.graph, arcs, preference, budgets, time_limit_s=self._seconds_left())
        proven = equal is not None and equal.outcome is Outcome.OPTIMAL
        return Answer(best.outcome, equal.arcs, best.bound) if equal and proven else best

    def _within(self, most: dict[Criterion, float]) -> IntArray:
        """The arcs that a path within these ceilings can contain."""
        keep = np.isfinite(self.through["latency"])
        for name, ceiling in most.items():
            keep &= self.through[name] <= ceiling
        return np.flatnonzero(keep)

    def _seconds_left(self) -> float:
        return max(self.deadline - time.perf_counter(), 1.0)

    def _out_of_time(self) -> SolverError:
        return SolverError(
            f"CBC found no plan within the limits in {self.time_limit_s:g} s", "raise --time-limit"
        )

    def _infeasible(self, least: dict[Criterion, float]) -> InfeasibleError:
        """Limits that not even the plan made for them alone can keep."""
        problems = [f"no plan {_ASKED[name]} {self._limit(name)}; {_END[name]} possible is {_shown(name, value)}"
                    for name, value in least.items()]  # fmt: skip
        return InfeasibleError("; ".join(problems), " and ".join(map(_eased, least, least.values())))

    def _conflict(self, names: Sequence[Criterion]) -> InfeasibleError:
        """Limits that no plan keeps all at once: how far each would have to give way alone."""
        nearest: dict[Criterion, float] = {}
        for name in reversed(names):
            others = [other for other in names if other != name]
            if (
                len(others) < 2
                or self._value(others[1], self._least(others[1], others[:1])) <= self.most[others[1]]
            ):
                # Short of a proof this is still the value of a plan, so easing the limit to it does help.
                nearest[name] = self._value(name, self._least(name, others))
        problems = [
            f"within {' and '.join(self._limit(o) for o in self.most if o in names and o != name)} the "
            f"{_BEST[name]} is {_shown(name, value)}"
            for name, value in nearest.items()
        ]
        which = "both limits" if len(names) == 2 else "all three limits"
        return InfeasibleError(
            f"no plan keeps {which}: {'; '.join(problems)}",
            " or ".join(map(_eased, nearest, nearest.values())),
        )

    def _limit(self, name: Criterion) -> str:
        given = (self.given[name] or 0.0) * (1 if name == "noise" else 1e3)
        return f"{given:.6g} {_UNIT[name]} ({_LIMIT[name]})"


def _eased(name: Criterion, value: float) -> str:
    if name == "noise" and value >= 1:
        return "leave out --min-sqnr-db"
    return f"{_OPTION[name]} to {_number(name, value)} or {'less' if name == 'noise' else 'more'}"


def _shown(name: Criterion, value: float) -> str:
    return f"{_number(name, value)} {_UNIT[name]}"


def _number(name: Criterion, value: float) -> str:
    """Thousandths of ``value`` (s or J), or noise in dB, to four digits: as a limit it can be kept."""
    if name == "noise":
        db = Cost(0.0, 0.0, value).sqnr_db
        return f"{Context(prec=4, rounding=ROUND_FLOOR).create_decimal(f'{db:.10g}'):f}"
    return f"{Context(prec=4, rounding=ROUND_CEILING).create_decimal(f'{value * 1e3:.10g}'):f}"
