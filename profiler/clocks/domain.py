"""What has one clock of its own (a cluster of processors, a GPU), and the clock that is made of such domains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.documents import document
from planner.errors import BundleError
from profiler.capability import Obstacle


class ClockError(BundleError):
    """A clock that a bundle was to run at and that cannot be set."""


@document()
class Setting:
    """The limits of one domain as found: ``where`` is its folder below the root, or a GPU's UUID.

    The limits are None for a GPU whose clock was free.
    """

    where: str
    minimum_hz: int | None = None
    maximum_hz: int | None = None

    def __post_init__(self) -> None:
        if (self.minimum_hz is None) != (self.maximum_hz is None):
            raise ValueError(f"{self.where}: one limit without the other")
        if self.minimum_hz is not None and not 0 <= self.minimum_hz <= (self.maximum_hz or 0):
            raise ValueError(f"{self.where}: limits {self.minimum_hz} and {self.maximum_hz} Hz")


class GoneError(ClockError):
    """The domain is not there (any more): its processors are offline, its GPU left."""


class Domain(ABC):
    """``where`` names it; ``continuous``: it takes any frequency between its first and last."""

    where: str
    continuous: bool

    @abstractmethod
    def frequencies_hz(self) -> tuple[int, ...]:
        """What it offers, ascending; empty where it says nothing."""

    @abstractmethod
    def current_hz(self) -> int:
        """The clock now, as far as it can be read. Raises ``GoneError``."""

    @abstractmethod
    def pin(self, hz: int) -> int:
        """Hold the clock at ``hz``; the frequency that came of it. Raises ``GoneError`` or ``ClockError``."""

    @abstractmethod
    def found(self) -> Setting:
        """What to restore later. Raises ``GoneError`` or ``ClockError``."""

    @abstractmethod
    def restore(self, setting: Setting) -> None:
        """Raises ``GoneError`` or ``ClockError``."""

    @abstractmethod
    def obstacle(self) -> Obstacle | None:
        """What is known to keep this process from setting it."""

    @abstractmethod
    def lock_file(self, folder: Path) -> Path:
        """What to lock so that only one session changes it; ``folder`` is where journals are."""

    def nearest_hz(self, hz: float) -> int:
        """The highest frequency offered that is not above ``hz``, else the lowest. Raises ``GoneError``."""
        offered = self.frequencies_hz()
        if not offered:
            raise GoneError(f"{self.where} offers no frequency any more")
        if self.continuous:
            return round(min(max(hz, offered[0]), offered[-1]))
        return max((each for each in offered if each <= hz), default=offered[0])


@dataclass(frozen=True)
class Clock:
    """A device's clock: ``name`` is "cpu" or "gpu".

    Several clusters (big.LITTLE) are set together: a cluster that does not offer a frequency takes its
    highest below it.
    """

    name: str
    domains: tuple[Domain, ...]

    def frequencies_hz(self) -> tuple[float, ...]:
        """What can be asked for, ascending; where ``continuous``, anything between the ends as well."""
        return tuple(sorted({float(each) for domain in self.domains for each in domain.frequencies_hz()}))

    def offers(self, hz: float) -> bool:
        """Whether ``hz`` is one of its frequencies, or between them where it is continuous."""
        offered = self.frequencies_hz()
        return hz in offered or (self.continuous and bool(offered) and offered[0] <= hz <= offered[-1])

    @property
    def continuous(self) -> bool:
        """Whether a domain takes frequencies that it does not list."""
        return any(domain.continuous for domain in self.domains)

    def current_hz(self) -> float | None:
        """The clock of the fastest domain now; None where none can be read."""
        return max((float(each) for each in self._each_current()), default=None)

    def obstacle(self) -> Obstacle | None:
        """The first thing known to keep this process from setting it; None if nothing is."""
        return next(filter(None, (domain.obstacle() for domain in self.domains)), None)

    def pin(self, hz: float) -> float:
        """Hold the clock at ``hz``; the frequency that the fastest domain really has then.

        Domains that are offline are passed over. Raises ``ClockError`` if none is left or one refuses.
        """
        real: list[float] = []
        for domain in self.domains:
            try:
                real.append(float(domain.pin(domain.nearest_hz(hz))))
            except GoneError:
                continue
        if not real:
            raise ClockError(
                f"the {self.name} clock is gone: {listed(self.domains)} cannot be found any more",
                "see whether its processors are online: cat /sys/devices/system/cpu/online",
            )
        return max(real)

    def found(self) -> tuple[Setting, ...]:
        """The limits of every domain that is there. Raises ``ClockError``."""
        settings = []
        for domain in self.domains:
            try:
                settings.append(domain.found())
            except GoneError:
                continue
        return tuple(settings)

    def _each_current(self) -> list[int]:
        found = []
        for domain in self.domains:
            try:
                found.append(domain.current_hz())
            except ClockError:
                continue
        return found


def listed(domains: Sequence[Domain]) -> str:
    """The domains by the last part of their names; of many, the first few."""
    names = [domain.where.rpartition("/")[2] for domain in domains]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def hertz(hz: float) -> str:
    """A frequency as people write it, exact enough to be given back: 114.75 MHz."""
    return f"{hz / 1e6:.7g} MHz"
