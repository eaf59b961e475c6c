"""Keeps a plan installed: notices what fails and what changed, and installs what is best then.

::

    an agent is gone, a stage failed, a request is overdue
        ──► nothing is posted ──► best plan over what is there is installed ──► unanswered requests go there
    a better plan is advised (a device returned, the forecast drifted)
        ──► it is installed beside the running one ──► new requests go there ──► the old one drains, is unloaded
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from planner.errors import DeploymentError, EdgecutError
from planner.plan import Plan
from runtime.adviser import Adviser, Devices, Links
from runtime.artifacts import RESUME_TIMEOUT_S
from runtime.bundles import Preparation
from runtime.fleet_agents import FleetAgents
from runtime.installation import Installation

if TYPE_CHECKING:
    from runtime.pipeline import Pipeline

RETURN_TIMEOUT_S = 60.0  # without any plan that could run, so long
SUSPECT_S = 10.0  # so long what an installation failed at is left out
RESTART_PAUSE_S = 0.5  # before an agent of an emulated device is started again
ADVICE_S = 0.5
ALIGN_S = 5.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Switch:
    """A change of plan: when, to which, and why."""

    at: str
    plan: Plan
    reason: str


@dataclass(frozen=True)
class _Candidate:
    """A better plan that is being installed; ``opened`` once that has ended."""

    made: Installation
    reason: str
    opened: Future[None]


class Keeper:
    """Works on a thread of its own between ``start`` and ``stop``. ``switches``: the changes so far."""

    def __init__(
        self,
        pipeline: Pipeline,
        adviser: Adviser,
        agents: FleetAgents,
        prepare: Preparation,
        log: Callable[[str], None],
    ) -> None:
        self.switches: list[Switch] = []
        self._pipeline, self._adviser, self._agents = pipeline, adviser, agents
        self._prepare, self._log = prepare, log
        self._current: Installation | None = None
        self._candidate: _Candidate | None = None
        self._stopping, self._woken = threading.Event(), threading.Event()
        self._suspects: dict[str | tuple[str, str], float] = {}
        self._parted: set[tuple[str, str]] = set()  # whose agents did not find each other
        self._ended_s: dict[str, float] = {}
        self._advised_s = self._aligned_s = 0.0
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        """Install the first plan. Raises what keeps it from being loaded."""
        others = self._adviser.prepare()
        for plan in others:
            self._prepare(plan)
        self._current = self._install(self._adviser.start(), RESUME_TIMEOUT_S)
        for plan in others:
            self._rehearse(plan)
        self._pipeline.direct(self._current)
        self._thread.start()

    def stop(self) -> None:
        """Unload what is installed."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()
        self._abandon()
        if self._current:
            self._current.close()
            self._current = None

    def _install(self, plan: Plan, patience_s: float = 0.0) -> Installation:
        made = Installation(plan, self._agents, self._pipeline.window)
        try:
            self._open(made, patience_s)
        except EdgecutError:
            self._suspect(made)
            raise
        return made

    def _open(self, made: Installation, patience_s: float = 0.0) -> None:
        bundles = self._prepare(made.plan)
        with self._agents.introduced() if self._parted else nullcontext():
            made.open(bundles, self._pipeline.answered, lambda failed: self._woken.set(), patience_s)
        self._parted -= made.plan.links

    def _rehearse(self, plan: Plan) -> None:
        """Install a plan that may be needed in a hurry, and let go of it: its devices then have its bundles, and
        have loaded what runs them. Agents elsewhere that are not there yet are not waited for."""
        alive = self._agents.alive()
        if all(name in alive or self._agents[name].process for name in plan.devices):
            made = Installation(plan, self._agents, self._pipeline.window)
            try:
                self._open(made)
            except EdgecutError as error:
                self._log(f"a plan for when a device is gone could not be tried: {error.message}")
            else:
                made.close()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self._woken.wait(_POLL_S)
            self._woken.clear()
            try:
                self._restart()
                if reason := self._trouble():
                    self._recover(reason)
                else:
                    self._improve()
            except Exception as error:
                self._pipeline.fail(error)
                return

    def _restart(self) -> None:
        """Agents that were started here and have ended are started again, after a pause."""
        for name in self._agents:
            process = self._agents[name].process
            if process and process.ended() is not None:
                ended_s = self._ended_s.setdefault(name, time.monotonic())
                if time.monotonic() > ended_s + RESTART_PAUSE_S:
                    self._agents.restart(self._pipeline.plan.fleet.device(name))
                    self._ended_s.pop(name)

    def _trouble(self) -> str:
        """What is wrong with the installation in use; empty if nothing is."""
        current = self._current
        assert current
        lost = [name for name in current.devices if name not in self._agents.alive()]
        if lost:
            return f"the agent of {', '.join(lost)} is gone"
        if current.failure:
            return current.failure.message
        if self._pipeline.overdue():
            return f"a request got no answer within {self._pipeline.request_timeout_s:.0f} s"
        return ""

    def _recover(self, reason: str) -> None:
        assert self._current
        failed, failure = self._current, self._current.failure
        self._pipeline.direct(None)
        self._abandon()
        self._suspect(failed)
        failed.close()
        if self._pipeline.exhausted():
            raise DeploymentError(
                f"a request was tried too often, the last time: {reason}", "see the agents' logs"
            )
        deadline_s = time.monotonic() + RETURN_TIMEOUT_S
        while not self._stopping.is_set():
            plan = self._adviser.without(*self._absent())
            if plan is not None:
                try:
                    self._current = self._install(plan)
                    break
                except EdgecutError as error:
                    failure = error
                    self._log(f"could not install a plan: {error.message}")
            if time.monotonic() > deadline_s:
                why = self._adviser.obstacle(*self._absent()) or (failure.message if failure else "")
                problem = f"{reason}, and no plan could be run for {RETURN_TIMEOUT_S:g} s: {why}"
                raise DeploymentError(problem, "start the agent again, and deploy again")
            self._restart()
            self._woken.wait(_POLL_S)
            self._woken.clear()
        else:
            return
        self._pipeline.direct(self._current, again=True)
        self._note(self._current.plan, reason)

    def _improve(self) -> None:
        now_s, current = time.monotonic(), self._current
        assert current
        if now_s > self._aligned_s + ALIGN_S and not current.one_clock:
            self._aligned_s = now_s
            with suppress(EdgecutError):  # of an agent that is going, the next look at it tells more
                current.align()
        if self._candidate:
            if self._candidate.opened.done():
                candidate, self._candidate = self._candidate, None
                self._switch(candidate)
            return
        if now_s < self._advised_s + ADVICE_S:
            return
        self._advised_s = now_s
        advice = self._advice(current)
        if advice is None:
            return
        plan, reason = advice
        made = Installation(plan, self._agents, self._pipeline.window)
        self._candidate = _Candidate(made, reason, Future())
        threading.Thread(target=self._try, args=(self._candidate,), name="candidate", daemon=True).start()

    def _try(self, candidate: _Candidate) -> None:
        """Install it, beside the running plan, which is watched meanwhile."""
        try:
            self._open(candidate.made)
        except Exception as error:
            candidate.opened.set_exception(error)
        else:
            candidate.opened.set_result(None)
        self._woken.set()

    def _switch(self, candidate: _Candidate) -> None:
        try:
            candidate.opened.result()
        except EdgecutError as error:
            self._suspect(candidate.made)
            self._log(f"stayed with the plan, since a better one could not be installed: {error.message}")
            return
        old, self._current = self._current, candidate.made
        assert old
        self._pipeline.direct(candidate.made)
        self._note(candidate.made.plan, candidate.reason)
        self._drain(old)

    def _abandon(self) -> None:
        """Let go of what is being installed as soon as it is."""
        candidate, self._candidate = self._candidate, None

        def close(opened: Future[None]) -> None:
            if candidate and not opened.exception():
                candidate.made.close()

        if candidate:
            candidate.opened.add_done_callback(close)

    def _advice(self, current: Installation) -> tuple[Plan, str] | None:
        """A plan to change to while this one runs, and why."""
        leaving = sorted(self._agents.leaving() & set(current.devices))
        if not leaving:
            return self._adviser.better(current.plan, *self._absent())
        plan = self._adviser.without(*self._absent())
        return (plan, f"the agent of {', '.join(leaving)} is stopping") if plan else None

    def _drain(self, old: Installation) -> None:
        while self._pipeline.waiting_for(old) and not self._stopping.is_set():
            lost = old.failure or not set(old.devices) <= self._agents.alive()
            if lost or self._pipeline.overdue():
                self._pipeline.direct(self._current, again=True)
                break
            time.sleep(_POLL_S / 10)
        old.close()

    def _absent(self) -> tuple[Devices, Links]:
        """What cannot be used: who is gone, and what failed a short while ago."""
        now_s = time.monotonic()
        self._suspects = {one: until_s for one, until_s in self._suspects.items() if until_s > now_s}
        gone = {name for name in self._agents if name not in self._agents.alive()} | self._agents.leaving()
        gone |= {one for one in self._suspects if isinstance(one, str)}
        return frozenset(gone), frozenset(one for one in self._suspects if not isinstance(one, str))

    def _suspect(self, failed: Installation) -> None:
        """Leave out what it failed at for a while, where a plan remains that does without."""
        devices, links = failed.suspects
        alive = self._agents.alive()
        found = [name for name in devices if name in alive]  # one that is gone is left out anyway
        pairs = [pair for pair in links if set(pair) <= alive]
        self._parted |= set(pairs)
        without = frozenset(set(self._agents) - alive | set(found)), frozenset(pairs)
        if (found or pairs) and self._adviser.without(*without) is not None:
            until_s = time.monotonic() + SUSPECT_S
            self._suspects |= dict.fromkeys([*found, *pairs], until_s)

    def _note(self, plan: Plan, reason: str) -> None:
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self.switches.append(Switch(at, plan, reason))
        self._log(f"{reason}: now {', '.join(f'{stage.device} {stage.bundle}' for stage in plan.stages)}")
