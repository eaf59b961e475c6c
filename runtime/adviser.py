"""Who says which plan to run on what is there. An adviser never acts: ``runtime.keeper`` asks it, and installs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from planner.conditions import Conditions
from planner.plan import Plan
from planner.run_rows import RunRow

Devices = frozenset[str]
Links = frozenset[tuple[str, str]]


class Adviser(Protocol):
    """Asked by ``runtime.keeper``. ``devices``: those that any of its plans may use."""

    @property
    def devices(self) -> tuple[str, ...]: ...

    def start(self) -> Plan:
        """The plan to begin with."""

    def prepare(self) -> tuple[Plan, ...]:
        """Work out the plans for when one device is gone; called before the first request."""

    def without(self, devices: Devices, links: Links) -> Plan | None:
        """The best plan while these are gone; None where there is none, and ``obstacle`` says why."""

    def obstacle(self, devices: Devices, links: Links) -> str:
        """Why there is no plan while these are gone; empty where there is one."""

    def observe(self, plan: Plan, rows: Sequence[RunRow]) -> None:
        """Hear what an answered request took; returns at once."""

    def better(self, plan: Plan, devices: Devices, links: Links) -> tuple[Plan, str] | None:
        """A plan worth leaving ``plan`` for while these are gone, and why; returns at once."""


class StaticAdviser:
    """Knows one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def devices(self) -> tuple[str, ...]:
        return self._plan.devices

    def start(self) -> Plan:
        return self._plan

    def prepare(self) -> tuple[Plan, ...]:
        return ()

    def without(self, devices: Devices, links: Links) -> Plan | None:
        return None if Conditions(devices, links).used_by(self._plan) else self._plan

    def obstacle(self, devices: Devices, links: Links) -> str:
        if self.without(devices, links):
            return ""
        return f"the only plan needs what is gone: {Conditions(devices, links).gone}"

    def observe(self, plan: Plan, rows: Sequence[RunRow]) -> None:
        """Nothing that it hears changes its plan."""

    def better(self, plan: Plan, devices: Devices, links: Links) -> tuple[Plan, str] | None:
        return None
