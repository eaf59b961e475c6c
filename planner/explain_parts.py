"""Which measurements a plan hangs on: how much slower its parts may be, how much quicker others would have to be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from planner.cost import FloatArray
from planner.explanation import Challenger, Endurance
from planner.graph import BoolArray
from planner.limits import Criterion
from planner.plan import Cost, Hop
from planner.question import EQUAL, Found, Question

# Factors to look at; the last counts as however slow.
_FAR = (1.03, 1.2, 2.0, 10.0, 1e3, 1e6)
_GROWING: tuple[Criterion, ...] = ("latency", "energy", "price")


@dataclass(frozen=True, eq=False)
class Part:
    """Something that can be slower. ``growth``: by criterion, what it adds to each arc when twice as slow."""

    kind: str
    what: str
    growth: dict[Criterion, FloatArray]
    alone: bool


def parts(question: Question) -> Iterable[Part]:
    """The stages and hops of the optimum, then its devices, and its links where none relays."""
    graph, best = question.problem.graph, question.best.arcs
    for arc in best[np.argsort(graph.tail[best])].tolist():
        if graph.way[arc] >= 0:
            device, variant = graph.model.ways[graph.way[arc]]
            only = np.arange(graph.arcs) == arc
            what = f"{device} [{graph.start[arc]}, {graph.stop[arc]}) {variant}"
            yield Part("stage", what, {c: graph.weight[c] * only for c in _GROWING}, alone=True)
        elif graph.hop[arc] >= 0:
            one = graph.hops[graph.hop[arc]]
            ends = one.boundary, one.route[0], one.route[-1]

            def same(hop: Hop, ends: tuple[int, str, str] = ends) -> Cost:
                alike = (hop.boundary, hop.route[0], hop.route[-1]) == ends
                return _unpriced(question, hop) if alike else Cost(0.0, 0.0)

            growth = _of_hops(question, same)
            what = f"{one.route[0]} → {one.route[-1]} at {one.boundary}"
            yield Part("hop", what, growth, alone=np.count_nonzero(growth["latency"]) == 1)
    for name in dict.fromkeys(stage.device for stage in question.optimum.stages):
        yield _device(question, name)
    if any(len(hop.route) > 2 for hop in graph.hops):
        return  # of the routes over relays only the best at today's bandwidths are in the graph
    used = [pair for hop in question.optimum.hops for pair in itertools.pairwise(hop.route)]
    for pair in dict.fromkeys(used):

        def over(hop: Hop, pair: tuple[str, str] = pair) -> Cost:
            link = question.model.fleet.link(*pair)
            if link is None or pair not in itertools.pairwise(hop.route):
                return Cost(0.0, 0.0)
            cost = question.model.link(link, hop.wire_bytes)
            return Cost(cost.latency_s, cost.energy_j)

        yield Part("link", "->".join(pair), _of_hops(question, over), alone=False)


def _unpriced(question: Question, hop: Hop) -> Cost:
    """What of a hop grows with its time: everything but the price of its bytes."""
    links = [question.model.fleet.link(*pair) for pair in itertools.pairwise(hop.route)]
    of_bytes = sum(link.price_per_byte * hop.wire_bytes for link in links if link)
    return Cost(hop.cost.latency_s, hop.cost.energy_j, 0.0, max(hop.cost.price - of_bytes, 0.0))


def _device(question: Question, name: str) -> Part:
    graph, model = question.problem.graph, question.model

    def coding(hop: Hop) -> Cost:
        time_s = hop.encode_s * (hop.route[0] == name) + hop.decode_s * (hop.route[-1] == name)
        return model.coding(name, time_s)

    growth, of_hops = {}, _of_hops(question, coding)
    place = [device.name for device in model.fleet.devices].index(name)
    for criterion in _GROWING:
        growth[criterion] = graph.weight[criterion] * (graph.device == place) + of_hops[criterion]
    return Part("device", name, growth, alone=False)


def _of_hops(question: Question, cost: Callable[[Hop], Cost]) -> dict[Criterion, FloatArray]:
    graph = question.problem.graph
    costs = [cost(hop) for hop in graph.hops]
    return {
        criterion: np.array([each.of(criterion) for each in costs] + [0.0])[graph.hop]
        for criterion in _GROWING
    }


def endurance(question: Question, part: Part) -> Endurance:
    """How much slower a part may be.

    Each path's cost is a line in the factor, so the optimum is a concave, piecewise linear function of it: from a
    path that is better at some factor, go back to where its line meets the plan's, until there is none (Newton's
    method, after Dinkelbach 1967). It ends after finitely many lines, at the first meeting.
    """
    graph, best = question.problem.graph, question.best
    grows = sum(
        (factor * part.growth[name] for name, factor in question.weights.items() if name in part.growth),
        start=np.zeros(graph.arcs),
    )
    mine = float(grows[best.arcs].sum())
    factor, until, proven = math.inf, "", best.proven
    breaks, name = _breaks(question, part)
    # From near to far until a path is better; then back from meeting to meeting.
    farther = iter([each for each in _FAR if each < breaks] + [min(breaks, _FAR[-1])])
    at = next(farther)
    while True:
        rival = question.slowed(grows, at)
        now, slope = math.inf, mine
        if rival is not None:
            proven = proven and rival.proven
            now, slope = float(question.weight[rival.arcs].sum()), float(grows[rival.arcs].sum())
        line = best.value + (at - 1) * mine
        better = slope < mine and now + (at - 1) * slope < line - EQUAL * abs(line)
        meets = 1 + max(now - best.value, 0.0) / (mine - slope) if better else math.inf
        if rival is not None and meets < at:
            factor, at, until = meets, meets, question.differs(graph, rival.arcs)
            if meets <= 1 + EQUAL:
                break
        elif math.isfinite(factor):
            break
        else:
            beyond = next(farther, None)
            if beyond is None:
                break
            at = beyond
    if breaks < factor:
        factor, until = breaks, f"it breaks {name}"
    shares = any(resource.limit == "max_share" for resource in question.problem.resources)
    # Of several arcs that are slower together, a rival's may break a limit that the plan keeps.
    alone = not question.limited or part.alone or until.startswith("it breaks")
    exact = proven and alone and not shares
    return Endurance(part.kind, part.what, factor if math.isfinite(factor) else None, until, exact)


def _breaks(question: Question, part: Part) -> tuple[float, str]:
    """The factor at which the plan itself breaks a limit, and which."""
    problem, arcs = question.problem, question.best.arcs
    of: dict[str, Criterion] = {
        "max_latency_s": "latency", "max_energy_j": "energy", "max_price": "price",
    }  # fmt: skip
    latency = problem.graph.weight["latency"][arcs]
    share = np.divide(part.growth["latency"][arcs], latency, out=np.zeros(arcs.size), where=latency > 0)
    first, name = math.inf, ""
    for place, (resource, used) in enumerate(
        zip(problem.resources, problem.used(arcs).tolist(), strict=True)
    ):
        growth = 0.0
        if resource.limit in of:
            growth = float(part.growth[of[resource.limit]][arcs].sum())
        elif resource.limit in ("max_period_s", "max_share"):
            growth = float((problem.loads[[place]].toarray().ravel()[arcs] * share).sum())
        if growth > 0:
            factor = 1 + max(resource.ceiling - used, 0.0) / growth
            first, name = min((first, name), (factor, str(resource)))
    return first, name


def challengers(question: Question, count: int) -> list[tuple[int, Challenger]]:
    """The bundles outside the plan that come closest to it, each with its arc.

    A path through an arc weighs at least what the passes from both ends give, less what limits are worth; without
    budgets exactly that. With budgets only those are searched whose bound comes up.
    """
    graph, best = question.problem.graph, question.best
    own = sum(
        (factor * graph.weight[name] for name, factor in question.weights.items() if name in _GROWING),
        start=np.zeros(graph.arcs),
    )
    outside = (graph.way >= 0) & np.isfinite(question.through) & (own > 0)
    outside[best.arcs] = False
    arcs = np.flatnonzero(outside)
    lacking = question.through[arcs] - best.value
    reach = np.minimum(1 - lacking / own[arcs], 1.0)
    # Quicker, a bundle saves what it uses of the limits, too.
    gains = np.maximum(question.priced, own)[arcs] if question.limited else own[arcs]
    bound = np.minimum(1 - lacking / gains, 1.0)
    found: list[tuple[int, Challenger]] = []
    for place in np.argsort(-reach, kind="stable"):
        arc, at_most = int(arcs[place]), float(bound[place])
        worst = min((each.factor for _, each in found), default=0.0) if len(found) >= count else 0.0
        if reach[place] <= worst or not count:
            break
        through = question.restricted(_through(question, arc), best.value + (1 - worst) * float(own[arc]))
        if through is None:
            continue
        factor = min(1 - (through.value - best.value) / float(own[arc]), 1.0)
        if factor > 0:
            found = sorted([*found, (arc, _challenger(question, arc, factor, at_most, through))],
                           key=lambda each: -each[1].factor)[:count]  # fmt: skip
    return found


def _through(question: Question, arc: int) -> BoolArray:
    """The arcs of the paths through one that computes."""
    graph = question.problem.graph
    start, stop = graph.start[arc], graph.stop[arc]
    keep: BoolArray = (graph.way < 0) | (graph.stop <= start) | (graph.start >= stop)
    keep[arc] = True
    return keep


def _challenger(question: Question, arc: int, factor: float, at_most: float, through: Found) -> Challenger:
    graph = question.problem.graph
    device, variant = graph.model.ways[graph.way[arc]]
    exact = through.proven and question.best.proven and not question.limited
    return Challenger(
        device, f"[{graph.start[arc]}, {graph.stop[arc]}) {variant}", factor, through.value - question.best.value,
        question.differs(graph, through.arcs), exact, factor if exact else max(at_most, factor),
    )  # fmt: skip
