"""Who says which plan to run on what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from planner.plan import Plan
from planner.run import RunRow

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
        """The best plan while these are gone; None where there is none."""

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
        route = {pair for hop in self._plan.hops for pair in zip(hop.route, hop.route[1:], strict=False)}
        return None if devices & set(self._plan.devices) or links & route else self._plan

    def observe(self, plan: Plan, rows: Sequence[RunRow]) -> None:
        """Nothing that it hears changes its plan."""

    def better(self, plan: Plan, devices: Devices, links: Links) -> tuple[Plan, str] | None:
        return None
