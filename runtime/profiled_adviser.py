"""Advice from profile tables: alternatives worked out beforehand, and better plans when speeds change."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from planner.conditions import Conditions, gone_of
from planner.errors import EdgecutError, PlanningError
from planner.plan import Plan, same_path
from planner.replan import Replanner
from planner.run_rows import RunRow
from planner.simulate_scenario import Place
from planner.table import plan_table
from planner.watch import THRESHOLD, Watch
from runtime.adviser import Adviser, Devices, Links, StaticAdviser

# A better plan is installed only if it is forecast to be better by this share of the objective.
MARGIN = 0.1
# The least seconds between a change of plan and one that only a gain asks for.
DWELL_S = 10.0
_EQUAL = 1e-9


def adviser_for(
    plan: Plan,
    plan_file: Path,
    tables: Sequence[Path] = (),
    *,
    drift: float = THRESHOLD,
    say: Callable[[str], None] = lambda line: None,
) -> Adviser:
    """An adviser with the tables given, else those the plan was solved from (see ``planner.table.plan_table``).

    ``drift``: relative, from which on a device or link counts as changed. Where no tables were given and those of the
    plan cannot be used, ``say`` is told, and it keeps to the one plan. Raises for tables that were given.
    """
    try:
        replanner = Replanner(plan, plan_table(plan, plan_file, tables))
    except EdgecutError as error:
        if tables:
            raise
        say(f"keeps to this one plan, whatever happens: {error.message}; --profiles gives it others")
        return StaticAdviser(plan)
    return ProfiledAdviser(replanner, watch=Watch(drift))


def in_background(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="replan", daemon=True).start()


class ProfiledAdviser:
    """Plans again from profile tables.

    It advises to switch where the exact optimum under the present conditions (what is gone, and the factors that
    ``watch`` assumes) beats the running plan, priced under the same conditions, by ``margin``, or the running plan
    breaks a limit; and where something is back that the running plan had to do without, for any gain. In any case
    the plan has run for ``dwell_s``. Solving happens in ``background``, one question at a time.
    """

    def __init__(
        self,
        replanner: Replanner,
        *,
        watch: Watch | None = None,
        margin: float = MARGIN,
        dwell_s: float = DWELL_S,
        clock: Callable[[], float] = time.monotonic,
        background: Callable[[Callable[[], None]], None] = in_background,
    ) -> None:
        self._replanner, self._watch = replanner, watch or Watch()
        self._margin, self._dwell_s = margin, dwell_s
        self._clock, self._background = clock, background
        start = replanner.plan
        reached = [each.name for each in start.fleet.devices if each.address or each.emulate]
        self.devices = tuple(dict.fromkeys([*start.devices, *reached]))
        self._unreached = frozenset(each.name for each in start.fleet.devices) - {*self.devices}
        self._lock = threading.Lock()  # of what follows
        self._known: dict[tuple[Devices, Links], tuple[Conditions, Plan | str]] = {}
        self._answer: tuple[Conditions, Plan | str] = Conditions(self._unreached), start
        self._judged: tuple[Conditions, Plan] | None = None
        self._reason = ""
        self._prepared: Conditions | None = None
        self._prepared_for: Plan | None = None
        self._busy = False
        self._changed_s = -math.inf
        self._running = start
        self._run(start)

    def start(self) -> Plan:
        return self._replanner.plan

    # What is gone ----------------------------------------------------------------------------------

    def prepare(self) -> tuple[Plan, ...]:
        plan = self.start()
        gone = Conditions(self._unreached)
        found = [self._at_hand(each) for each in self._one_less(plan, gone) if not each.links]
        return tuple(each for each in found if isinstance(each, Plan))

    def without(self, devices: Devices, links: Links) -> Plan | None:
        found = self._alternative(devices, links)
        return found if isinstance(found, Plan) else None

    def obstacle(self, devices: Devices, links: Links) -> str:
        found = self._alternative(devices, links)
        return found if isinstance(found, str) else ""

    def _alternative(self, devices: Devices, links: Links) -> Plan | str:
        """What is at hand, even for other speeds; else what is best now."""
        conditions = self._now(devices, links)
        with self._lock:
            known = self._known.get((conditions.devices, links))
        return known[1] if known and isinstance(known[1], Plan) else self._at_hand(conditions)

    def _at_hand(self, conditions: Conditions) -> Plan | str:
        """The best plan, or why there is none; solved only if it is not known."""
        gone = conditions.devices, conditions.links
        with self._lock:
            known = self._known.get(gone)
        if known is None or known[0] != conditions:
            known = conditions, self._best(conditions)
            with self._lock:
                self._known[gone] = known
        return known[1]

    def _best(self, conditions: Conditions) -> Plan | str:
        start = self.start()
        if not conditions.factors and not conditions.used_by(start):
            return start  # the best without less is the best here too
        try:
            return self._replanner.best(conditions)
        except PlanningError as error:
            return error.message
        except EdgecutError as error:
            return str(error)

    def _one_less(self, plan: Plan, gone: Conditions) -> list[Conditions]:
        """The conditions under which one more device or link of a plan is gone."""
        ends = {plan.fleet.source, plan.fleet.sink}
        found = [
            Conditions(gone.devices | {name}, gone.links, gone.factors)
            for name in plan.devices
            if name not in ends
        ]
        return found + [
            Conditions(gone.devices, gone.links | {pair}, gone.factors) for pair in sorted(plan.links)
        ]

    # What has changed ------------------------------------------------------------------------------

    def observe(self, plan: Plan, rows: Sequence[RunRow]) -> None:
        with self._lock:
            if not same_path(plan, self._running):
                return  # a plan before, or one that `better` has not been told of yet
            times: dict[Place, tuple[float, float]] = {}
            for row in rows:
                places, forecast_s = self._parts.get((row.kind, row.index), ((), 0.0))
                for place in places:
                    measured, forecast = times.get(place, (0.0, 0.0))
                    times[place] = measured + row.measured_s, forecast + forecast_s
            self._watch.add(times, self._clock())

    def better(self, plan: Plan, devices: Devices, links: Links) -> tuple[Plan, str] | None:
        with self._lock:
            if not same_path(plan, self._running):
                self._run(plan)
                self._changed_s = self._clock()
        conditions = self._now(devices, links)
        self._think(conditions)
        if self._clock() - self._changed_s < self._dwell_s:
            return None
        with self._lock:
            asked, best = self._answer
            if asked != conditions or isinstance(best, str):
                return None
            if same_path(best, self._running):
                self._running = best  # the same without less
                return None
            running = self._running
        if self._judged != (conditions, running):
            self._judged, self._reason = (conditions, running), self._worth(best, running, conditions)
        if not self._reason:
            return None
        self._changed_s = self._clock()
        return best, self._reason

    def _run(self, plan: Plan) -> None:
        """Take ``plan`` for the running one."""
        self._running = plan
        self._parts = _parts(self._replanner.medians(plan))
        busy_s: defaultdict[Place, float] = defaultdict(float)
        for places, forecast_s in self._parts.values():
            for place in places:
                busy_s[place] += forecast_s
        self._watch.begin(busy_s, self._clock())

    def _now(self, devices: Devices, links: Links) -> Conditions:
        with self._lock:
            factors = self._watch.factors(self._clock())
        return Conditions(devices | self._unreached, links, factors)

    def _think(self, conditions: Conditions) -> None:
        """Find in the background what is best now, and then what would be if one thing more were gone."""
        with self._lock:
            running, answered = self._running, self._answer[0] == conditions
            prepared = self._prepared == conditions and self._prepared_for is running
            if self._busy or (answered and prepared):
                return
            self._busy = True

        def work() -> None:
            try:
                if not answered:
                    answer = conditions, self._best(conditions)
                    with self._lock:
                        self._answer = answer
                    return
                for each in self._one_less(running, conditions):
                    self._at_hand(each)
                with self._lock:
                    self._prepared, self._prepared_for = conditions, running
            finally:
                with self._lock:
                    self._busy = False

        self._background(work)

    def _worth(self, plan: Plan, running: Plan, conditions: Conditions) -> str:
        """Why to switch to ``plan``; empty where it is not worth it."""
        now, then = (self._replanner.value(each, conditions) for each in (running, plan))
        had = gone_of(running, self.start())
        back = Conditions(had.devices - conditions.devices, had.links - conditions.links).gone
        if not then < now * (1 - (_EQUAL if back else self._margin)):
            return ""
        shown = self._replanner.shown
        causes = [f"{back} is back" if back else "", conditions.speeds]
        cause = ", ".join(filter(None, causes)) or "all is as profiled again"
        instead = ", the running plan breaks a limit" if math.isinf(now) else f" instead of {shown(now)}"
        return f"{cause}: forecast {shown(then)}{instead}"


def _parts(plan: Plan) -> dict[tuple[str, int], tuple[tuple[Place, ...], float]]:
    """By kind and index of a run's row, the places whose time it is, and the forecast; a relayed hop's links share
    its time."""
    parts: dict[tuple[str, int], tuple[tuple[Place, ...], float]] = {}
    for index, stage in enumerate(plan.stages):
        parts["stage", index] = ((stage.device,),), stage.cost.latency_s
    for index, hop in enumerate(plan.hops):
        parts["hop" if hop.codec == "raw" else "wire", index] = (
            tuple(zip(hop.route, hop.route[1:], strict=False)),
            hop.wire_s,
        )
        if hop.codec != "raw":
            parts["encode", index] = ((hop.route[0],),), hop.encode_s
            parts["decode", index] = ((hop.route[-1],),), hop.decode_s
    return parts
