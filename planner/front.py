"""The exact latency-energy front of a fleet and its tables, also by precision budget, as plans."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from planner.baselines import baselines
from planner.chain import Chain
from planner.codec_table import CODECS, CodecName
from planner.cost import ROUNDING, CostModel, ceilings
from planner.errors import InputError, PlanningError, SolverError
from planner.fleet import Fleet
from planner.front_points import Point, hull, normalised, spread, unbeaten, values, within
from planner.front_search import non_dominated
from planner.limits import Criterion, Limits
from planner.notebook import Displayed, path_text, table_of
from planner.origin import Origin
from planner.period import period_s
from planner.plan import Baseline, Outcome, Plan, Proof
from planner.pricing import priced
from planner.problem import Problem
from planner.recipe import Recipe
from planner.search import search
from planner.solver import AGREEMENT, NO_LIMITS
from planner.table import ProfileTable

if TYPE_CHECKING:
    import pandas as pd

# Nothing but exact arithmetic leaves so little noise.
EXACT_DB = 1000.0


@dataclass(frozen=True, repr=False)
class Front(Displayed):
    """Points by budget, the loosest first, and by latency. ``all_points``: before they were thinned out.
    ``every_level``: of noise that a plan may have was asked for. ``arcs`` of the layered graph."""

    chain: Chain
    fleet: Fleet
    batch: int
    limits: Limits
    points: tuple[Point, ...]
    all_points: int
    every_level: bool
    arcs: int
    solve_s: float
    statistic: str
    baselines: tuple[Baseline, ...]
    notes: tuple[str, ...] = ()
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)

    def at(self, min_sqnr_db: float | None) -> list[Point]:
        """The points of this or a stricter budget that no other of these beats, by latency."""
        return within(self.points, min_sqnr_db)

    @property
    def budgets(self) -> list[float | None]:
        """The budgets of precision that points were found under (dB), the loosest first; None for none."""
        return list(dict.fromkeys(point.min_sqnr_db for point in self.points))

    @property
    def knee(self) -> Point:
        """Of the loosest budget the point farthest below the line from end to end, both axes from 0 to 1."""
        points = self.at(self.budgets[0])
        return points[int(np.argmin(normalised(points).sum(axis=1)))]

    def headline(self) -> str:
        ends = (min, max)
        latency, energy = (
            " to ".join(f"{end(column) * 1e3:,.2f}" for end in ends) for column in values(self.points).T
        )
        return f"{self.chain.source.name}: {len(self.points)} points, {latency} ms, {energy} mJ"

    def frame(self) -> pd.DataFrame:
        """A row per point, the columns those that docs/front.md gives for ``front.csv``, without ``file``."""
        knee = self.knee
        rows = [
            {
                "point": number,
                "latency_s": point.cost.latency_s,
                "energy_j": point.cost.energy_j,
                "sqnr_db": None if math.isinf(point.cost.sqnr_db) else point.cost.sqnr_db,
                "min_sqnr_db": point.min_sqnr_db,
                "period_s": period_s(self.fleet, point.stages, point.hops),
                "price": point.cost.price,
                "upload_bytes": point.cost.upload_bytes,
                "supported": point.supported,
                "knee": point is knee,
                "plan": path_text(point.stages, point.hops),
            }
            for number, point in enumerate(self.points, start=1)
        ]
        return table_of(rows)

    def plan(self, point: Point) -> Plan:
        """The point as a plan to deploy: the least latency for its energy. No limit says 0: of a point that takes none,
        the least energy, and of equals the least latency."""
        energy = point.cost.energy_j or None
        limits = replace(self.limits, max_energy_j=energy, min_sqnr_db=point.min_sqnr_db)
        objective: Criterion = "latency" if energy else "energy"
        value = point.cost.latency_s if energy else 0.0
        proof = Proof(
            solver="label setting",
            outcome=Outcome.OPTIMAL,
            objective=objective,
            objective_value=value,
            bound=value,
            gap=0.0,
            arcs=self.arcs,
            arcs_after=self.arcs,
            phases_s={"front": self.solve_s},
            check=f"one of {self.all_points} points of the exact latency-energy front",
            weights={objective: 1.0},
            statistic=self.statistic,
        )
        recipes = {
            stage.device: self.recipes[stage.device] for stage in point.stages if stage.device in self.recipes
        }
        return Plan(
            *(self.chain, self.fleet, self.batch, limits, point.stages, point.hops, point.cost, proof),
            *(self.baselines, self.notes, recipes, self.origin),
        )


def front(
    chain: Chain,
    fleet: Fleet,
    table: ProfileTable,
    *,
    limits: Limits = NO_LIMITS,
    min_sqnr_db: Sequence[float] = (),
    noise_levels: int | None = None,
    points: int | None = None,
    batch: int | None = None,
    codecs: Sequence[CodecName] | None = None,
    statistic: str = "mean",
    time_limit_s: float = 60.0,
    solver: str = "cbc",
) -> Front:
    """Every plan within the limits that no other beats in both latency and energy.

    ``min_sqnr_db``: budgets of precision (dB), a front for each; what a stricter budget's point beats is left out, so
    that no point is beaten in latency, energy and budget. ``noise_levels`` instead: every level of noise that
    matters if there are so many at most, else so many budgets evenly spaced in dB. ``points``: so many of each
    front, spread evenly over its length, both axes scaled from 0 to 1. Raises as ``solve``.
    """
    begun = time.perf_counter()
    if min_sqnr_db and noise_levels is not None:
        raise InputError("budgets of precision and a number of them", "give one of the two")
    if (points is not None and points < 2) or (noise_levels is not None and noise_levels < 1):
        raise InputError(
            f"a front of {points} points, {noise_levels} levels", "ask for at least 2 points, 1 level"
        )
    asked: list[float | None] = list(min_sqnr_db) or [limits.min_sqnr_db]
    if limits.min_sqnr_db is not None and (min_sqnr_db or noise_levels):
        raise InputError("min_sqnr_db is a limit and an axis", "give it once")
    loosest = replace(limits, min_sqnr_db=min(min_sqnr_db)) if min_sqnr_db else limits
    if noise_levels is not None and codecs is None:
        loosest = replace(limits, min_sqnr_db=EXACT_DB)  # lets in the codecs that lose something
    both: dict[Criterion, float] = {"latency": 1.0, "energy": 1.0}
    model, notes = priced(chain, fleet, table, both, loosest, batch, codecs, statistic)
    used = CODECS if codecs is None and loosest.min_sqnr_db is not None else codecs
    fronts = _Fronts(model, limits, time_limit_s, solver)
    every = False
    if noise_levels is None:
        found = fronts.by_budget(asked)
    else:
        found, every = fronts.by_level(noise_levels)
    count = len(found)
    if points is not None:
        budgets = dict.fromkeys(point.min_sqnr_db for point in found)
        shown = [point for budget in budgets for point in spread(within(found, budget), points)]
        found = [point for point in found if any(point is each for each in shown)]
    return Front(
        *(chain, fleet, model.batch, limits, tuple(found), count, every, fronts.arcs),
        *(time.perf_counter() - begun, statistic, baselines(model, {"latency": 1.0}), notes, table.recipes),
        origin=Origin.of(table.files, used),
    )


def front_of(
    model: CostModel, limits: Limits = NO_LIMITS, *, time_limit_s: float = 60.0, solver: str = "cbc"
) -> list[Point]:
    """The latency-energy front at these prices. Raises as ``search``."""
    return _Fronts(model, limits, time_limit_s, solver).by_budget([limits.min_sqnr_db])


@dataclass
class _Fronts:
    """Fronts at one set of prices."""

    model: CostModel
    limits: Limits
    time_limit_s: float
    solver: str
    arcs: int = 0

    def at(self, min_sqnr_db: float | None) -> list[Point]:
        """One front. Raises ``InfeasibleError`` as ``search`` where it has no point."""
        limits = replace(self.limits, min_sqnr_db=min_sqnr_db)
        # A point within these two is beaten only by others within them, so they cut the whole front.
        problem = Problem.of(self.model, replace(limits, max_latency_s=None, max_energy_j=None))
        self.arcs = problem.graph.arcs
        paths = non_dominated(problem, time_limit_s=self.time_limit_s, solver=self.solver)
        most = ceilings(limits)
        inside = [
            path for path in paths if path.value[0] <= most["latency"] and path.value[1] <= most["energy"]
        ]
        if not inside:
            search(Problem.of(self.model, limits), {"latency": 1.0}, time_limit_s=self.time_limit_s)
            raise SolverError("the front has no point, but a plan keeps the limits")
        points = []
        for path in inside:
            stages, hops = problem.graph.decode(path.arcs)
            cost = self.model.price(stages, hops)
            same = all(
                math.isclose(one, other, rel_tol=AGREEMENT, abs_tol=1e-12)
                for one, other in zip(cost.values, path.value, strict=False)
            )
            if not same or not problem.kept(path.arcs):
                raise SolverError(f"the front's plan costs {cost} when priced anew, {path.value} by its sum")
            points.append(Point(cost, stages, hops, min_sqnr_db))
        on_hull = hull(values(points))
        return [replace(point, supported=place in on_hull) for place, point in enumerate(points)]

    def by_budget(self, budgets: Sequence[float | None]) -> list[Point]:
        return unbeaten([self.at(budget) for budget in set(budgets)])

    def by_level(self, most: int) -> tuple[list[Point], bool]:
        """Fronts under falling ceilings of noise, each just below the noisiest point of the one before: whatever lies
        between two such ceilings is beaten. And whether ``most`` sufficed for all."""
        fronts = [self.at(None)]
        least = float(self.model.noise[self.model.noise > 0].min(initial=1.0))
        while (noisiest := max(point.cost.noise for point in fronts[-1])) > 0:
            if len(fronts) == most:
                first = max(point.cost.noise for point in fronts[0])
                spaced = np.linspace(_budget(first), _budget(least), most)[1:]
                fronts[1:] = [
                    each for budget in (*spaced.tolist(), EXACT_DB) if (each := self._maybe(budget))
                ]
                return unbeaten(fronts), False
            following = self._maybe(_budget(noisiest * (1 - 3 * ROUNDING)))
            if not following:
                break
            fronts.append(following)
        return unbeaten(fronts), True

    def _maybe(self, min_sqnr_db: float) -> list[Point]:
        """One front; no points where no plan keeps the limits."""
        try:
            return self.at(min_sqnr_db)
        except SolverError:
            raise
        except PlanningError:
            return []


def _budget(noise: float) -> float:
    """In dB; more noise than signal is no budget one can ask for, and counts as just as much."""
    return max(-10 * math.log10(noise), 1e-9)
