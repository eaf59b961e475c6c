"""Active profiling: measure only the bundles that could be in an optimal plan.

::

    whole chain, single layers, pilots ──► bounds of all others ──► best plan at these bounds ─┐
                                             ▲                                                 │
                                             └── measure what it uses ◄── something unmeasured ┤
                                                                                               ▼
                            a plan of measured bundles, which nothing at its bound beats: the optimum

An unmeasured bundle enters at a lower bound of its time, so a plan at these prices costs at most what it
would cost measured. Once the best of them consists of measured bundles, no other plan can be better,
as long as the bounds hold. The idea is that of optimistic search (A*, Hart et al. 1968) with bounds that
are learnt (`bounds`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from planner.active_goal import Front, Goal, Step, goal_of
from planner.active_note import ActiveObjective, ActiveOutcome
from planner.active_paths import Request, Router
from planner.active_result import ActiveResult, Progress
from planner.active_state import SAFETY, Measure, State, pilots, singles
from planner.chain import Chain
from planner.codec_table import CodecRow
from planner.cost import Way
from planner.errors import InfeasibleError, InputError, PlanningError
from planner.fleet import Fleet
from planner.limits import Limits
from planner.table import ProfileRow

# One round asks for up to this share of all bundles: fewer rounds, a few bundles more than needed.
_BATCH_SHARE = 1e-3


def active_profile(
    chain: Chain,
    fleet: Fleet,
    ways: Sequence[Way],
    measure: Measure,
    *,
    objective: ActiveObjective = "latency",
    limits: Limits | None = None,
    batch: int = 1,
    gap: float = 0.0,
    verify: int = 0,
    seed: int = 0,
    alpha: Mapping[Way, float] | None = None,
    known: Iterable[ProfileRow] = (),
    codecs: Iterable[CodecRow] = (),
    progress: Callable[[Progress], None] = lambda progress: None,
) -> ActiveResult:
    """Measure until the best plan (or, for ``front``, each that is best for some weighing) is measured.

    ``measure`` is given bundles that were never asked for before and yields a device's name with a row, with
    a reason why a bundle cannot run, or with an error: then that device is gone, and what it has measured
    counts. ``gap``: how much better, relatively, another plan may still be. ``verify``: so many skipped
    bundles, drawn with ``seed``, are measured at the end; one below its bound lowers the bounds of its way, and
    the search goes on. ``alpha``: known lower bounds of a bundle over the sum of its layers; else bounds are
    learnt. ``known``: rows of an earlier call. ``codecs``: those that hops may use.

    Raises ``InputError`` for arguments that make no sense and ``PlanningError`` where no plan is possible.
    """
    limits = limits or Limits()
    _check(fleet, ways, objective, limits, gap, verify, alpha)
    state = State(chain, fleet, tuple(ways), batch, measure, dict(alpha) if alpha else None, tuple(codecs))
    for row in known:
        state.record(row.device, row)
    return _Profile(state, goal_of(objective, limits, Router(state.model)), gap, progress).run(verify, seed)


def _check(
    fleet: Fleet,
    ways: Sequence[Way],
    objective: ActiveObjective,
    limits: Limits,
    gap: float,
    verify: int,
    alpha: Mapping[Way, float] | None,
) -> None:
    if not ways or len(set(ways)) != len(ways):
        raise InputError("active profiling needs ways to compute, each once", "name devices and backends")
    for way in ways:
        fleet.device(way.device)
    if not 0 <= gap < 1:
        raise InputError(f"gap {gap} is not between 0 and 1", "0.01 stops at one per cent")
    if verify < 0:
        raise InputError(f"verify {verify} is below 0", "give the number of skipped bundles to measure")
    if objective == "front" and limits != Limits():
        raise InputError("a front has no limits", "choose one objective, or drop the limits")
    if limits.min_sqnr_db is not None:
        raise InputError(
            "the error of an unmeasured bundle has no bound", "profile all bundles for --min-sqnr-db"
        )
    if alpha is not None and (set(alpha) != set(ways) or not all(0 <= v < math.inf for v in alpha.values())):
        raise InputError("alpha needs a number of at least 0 for every way", "or leave it out: it is learnt")


class _Profile:
    def __init__(self, state: State, goal: Goal, gap: float, progress: Callable[[Progress], None]) -> None:
        self.state, self.goal, self.gap, self.progress = state, goal, gap, progress
        self.total = int(state.inside.sum())
        self.width = max(2, int(self.total * _BATCH_SHARE))
        self.rounds = self.verified = self.violated = 0
        self.worst = 0.0
        self.step = Step(math.inf, 0.0, 0.0, ())
        self.problem = ""

    def run(self, verify: int, seed: int) -> ActiveResult:
        numbers = np.random.default_rng(seed)
        try:
            self._begin()
            self._search()
            while verify and not self._verify(verify, numbers):
                self._search()
        except InfeasibleError as error:
            self.problem = error.message
        return self._result()

    def _ask(self, requests: Iterable[Request], doing: str) -> int:
        asked = self.state.ask(requests)
        if asked:
            self.rounds += 1
            done = self.total - int(self.state.skipped.sum())
            self.progress(Progress(self.rounds, done, self.total, self.step.value, self.step.bound, doing))
        return asked

    def _begin(self) -> None:
        """The first bundles of all ways that could be of use."""
        state, layers = self.state, len(self.state.chain)
        for way in _unreachable(state):
            state.unused[way] = "no route leads over their device"
        self._ask(
            [(way, b) for way in self._used() for b in state.chain.bundles() if len(b) == layers], "whole"
        )
        hopeless = set(self.goal.hopeless(state)) & set(self._used())
        for way in (way for way in state.ways if way in hopeless and way.device not in state.gone):
            state.unused[way] = "another plan costs less than the hops to their device alone"
        self._ask([each for way in self._used() for each in singles(way, state.chain)], "layers")
        if layers > 2:
            turns = enumerate(self._used())
            self._ask([each for turn, way in turns for each in pilots(way, state.chain, turn)], "pilots")
        if not self._used():
            raise PlanningError("no device can compute in any plan", "add the missing [[link]] to the fleet")

    def _used(self) -> list[Way]:
        return [way for way in self.state.ways if way not in self.state.unused]

    def _search(self) -> None:
        """Measure what the best plans at the bounds use until the gap is closed."""
        while True:
            self.step = self.goal.step(self.state, self.width)
            if self.step.gap <= self.gap or not self._ask(self.step.wanted, "search"):
                return

    def _verify(self, count: int, numbers: np.random.Generator) -> bool:
        """Measure ``count`` skipped bundles; False where bounds had to be lowered."""
        state = self.state
        low = state.foretold()[0].latency_s
        usable = np.argwhere(state.skipped & np.isfinite(low) & (low > 0))
        drawn = [tuple(cell) for cell in numbers.permutation(usable)[:count].tolist()]
        bundles = {(b.start, b.stop): b for b in state.chain.bundles()}
        self._ask([(state.ways[way], bundles[start, stop]) for way, start, stop in drawn], "verify")
        holds = True
        for cell in drawn:
            time, bound = float(state.latency_s[cell]), float(low[cell])
            if math.isnan(time):
                continue
            self.verified += 1
            if time < bound * (1 - 1e-9):
                holds = False
                self.violated += 1
                self.worst = max(self.worst, 1 - time / bound)
                state.lower(cell[0], time / bound)
        return holds

    def _result(self) -> ActiveResult:
        state, step = self.state, self.step
        skipped = self._reasons()
        closed = step.gap <= self.gap and not state.gone and math.isfinite(step.value)
        learnt = state.alpha is None and sum(skipped.values()) > 0
        outcome: ActiveOutcome = "calibrated" if learnt else "proven"
        if self.problem:
            outcome = "infeasible"
        elif not closed:
            outcome = "open"
        return ActiveResult(
            rows=tuple(state.rows),
            left_out=state.left_out,
            total=self.total,
            skipped=skipped,
            rounds=self.rounds,
            outcome=outcome,
            assumption=self._assumption(),
            alphas=state.alphas(),
            value=step.value,
            bound=step.bound,
            gap=step.gap if math.isfinite(step.value) else 1.0,
            front=step.points if isinstance(self.goal, Front) else (),
            verified=self.verified,
            violated=self.violated,
            worst_violation=self.worst,
            gone=state.gone,
        )

    def _reasons(self) -> dict[str, int]:
        state, found = self.state, dict[str, int]()
        for place, way in enumerate(state.ways):
            reason = state.unused.get(way) or (
                "their device is gone"
                if way.device in state.gone
                else "no plan with them can beat the one found"
            )
            if count := int(state.skipped[place].sum()):
                found[reason] = found.get(reason, 0) + count
        return found

    def _assumption(self) -> str:
        state = self.state
        if state.alpha is not None:
            text = "no skipped bundle takes less than the given share (alpha) of the sum of its layers"
        else:
            most = float(state.safety.max()) if state.safety.size else SAFETY
            text = (
                f"no skipped bundle takes less than its bound, {most:.3g} or more standard deviations below what "
                "the measured bundles let expect"
            )
        if self.verified:
            text += f"; {self.verified} skipped bundles were measured and {self.violated} were below"
        if self.problem:
            text += f"; {self.problem}"
        for device, reason in state.gone.items():
            text += f"; {device} stopped answering ({reason})"
        return text


def _unreachable(state: State) -> list[Way]:
    """The ways whose device no tensor can reach from the source, or leave for the sink."""
    model, fleet = state.model, state.fleet
    reached = {fleet.source, *(hop.route[-1] for hop in model.hops(0, fleet.source))}
    found = []
    for way in state.ways:
        onward = {way.device, *(hop.route[-1] for hop in model.hops(0, way.device))}
        if way.device not in reached or fleet.sink not in onward:
            found.append(way)
    return found
