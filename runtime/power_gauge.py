"""What a device draws while it runs plans, for those who watch them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from planner.errors import EnergyError
from profiler.energy.meter import Meter

_LEAST_S = 0.5  # a mean over less than that jumps about


class PowerGauge:
    """Reads a meter, which is open only while somebody is ``watching``: profiles may need it.

    ``open_meter``: see ``profiler.energy.meter``. A meter that cannot be opened, or read, gives nothing.
    """

    def __init__(self, open_meter: Callable[[], Meter]) -> None:
        self._open_meter = open_meter
        self._lock = threading.Lock()
        self._meter: Meter | None = None
        self._watching = 0
        self._since_s, self._last_w = 0.0, None

    _last_w: float | None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Several may be, at once."""
        with self._lock:
            self._watching += 1
            if self._watching == 1:
                self._last_w = None
                with suppress(EnergyError):
                    self._meter = self._open_meter()
                    self._begin(self._meter)
        try:
            yield
        finally:
            with self._lock:
                self._watching -= 1
                meter = self._meter
                if meter and not self._watching:
                    self._meter = None
                    meter.stop()
                    meter.close()

    def mean_w(self) -> float | None:
        """Mean power since it was last asked, half a second ago at least; None if unknown."""
        with self._lock:
            if self._meter and time.monotonic() > self._since_s + _LEAST_S:
                reading = self._meter.stop()
                self._last_w = reading.power_w if reading.valid else None
                self._begin(self._meter)
            return self._last_w

    def _begin(self, meter: Meter) -> None:
        meter.start()
        self._since_s = time.monotonic()
