"""One bundle on one device: opened, compared with the stored fp32 feature maps, visited, made a row."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from planner.chain import Bundle
from planner.errors import BundleError
from planner.plan import Variant
from planner.table import ProfileRow
from profiler.memory import PeakMemory
from profiler.placement import Placement
from profiler.runner import Array, Backend, Runner, slowed
from profiler.samples import SampleStore
from profiler.timing import Measurement, Protocol, Visit, visit, warm_up

# Of the largest value: what fp32 engines that sum in another order may differ by.
FP32_TOLERANCE = 1e-4
# Feature maps on which a bundle's error is measured, and on which it is timed.
_COMPARED, _TIMED = 4, 20


class OpenBundle:
    """A bundle that is loaded, checked and warm. Use as a context manager.

    ``visits`` are those made so far; ``visit`` adds one. ``memory_bytes``: what it holds while it is open.
    """

    def __init__(
        self,
        backend: Backend,
        bundle: Bundle,
        store: SampleStore,
        *,
        device: str,
        variant: Variant,
        place: Placement,
        protocol: Protocol,
        visits: Sequence[Visit] = (),
    ) -> None:
        """Raises ``BundleError`` where the backend cannot run it, or an fp32 bundle gives other outputs."""
        self.bundle, self.variant, self.batch = bundle, variant, backend.cut.batch
        self.visits = [*visits]
        self._device, self._protocol = device, protocol
        self._inputs = store.inputs(bundle.start, self.batch, _TIMED)
        expected = store.inputs(bundle.stop, self.batch, _COMPARED)
        memory = PeakMemory()
        memory.start()
        started = time.perf_counter()
        self.runner = slowed(backend.runner(bundle), place.slowdown)
        try:
            took_s = time.perf_counter() - started
            self._load_s = max(took_s - self.runner.artifact.build_s, 0.0)
            self._sqnr_db, self._max_error = _compare(self.runner, self._inputs, expected)
            if variant.precision == "fp32" and not self._max_error <= FP32_TOLERANCE:
                raise BundleError(
                    f"bundle {bundle}: {variant} differs from the stored feature maps by "
                    f"{self._max_error:.1e} of the largest value, tolerated are {FP32_TOLERANCE:.0e}",
                    "use another backend",
                )
            warm_up(self.runner, self._inputs, protocol)
        except BaseException:
            self.runner.close()
            raise
        self.memory_bytes = memory.peak_bytes() or 0
        self._peak_memory_bytes = self.runner.device_memory_bytes
        if self._peak_memory_bytes is None and memory.peak_bytes() is not None:
            self._peak_memory_bytes = self.memory_bytes + self.runner.artifact.shared_bytes

    @property
    def measurement(self) -> Measurement:
        return Measurement(tuple(self.visits))

    @property
    def settled(self) -> bool:
        return self.measurement.settled(self._protocol)

    def visit(self) -> Visit:
        """Time it once more, as ``profiler.timing`` says. Raises ``BundleError``."""
        done = sum(len(each.samples_s) for each in self.visits)
        found = visit(self.runner, self._inputs, done, self._protocol)
        self.visits.append(found)
        return found

    def run(self) -> None:
        """Once, untimed, on the first feature map."""
        self.runner(self._inputs[0])

    def row(self) -> ProfileRow:
        """What is known of it; at least one visit has been made."""
        found, artifact = self.measurement, self.runner.artifact
        return ProfileRow(
            device=self._device,
            bundle=self.bundle,
            variant=self.variant,
            batch=self.batch,
            latency_s=found.latency_s,
            latency_median_s=found.median_s,
            latency_p95_s=found.p95_s,
            latency_std_s=found.std_s,
            latency_ci_s=found.ci_s,
            stable=found.stable(self._protocol),
            cpu_time_s=found.cpu_time_s,
            runs=len(found.samples_s),
            load_s=self._load_s,
            build_s=artifact.build_s,
            peak_memory_bytes=self._peak_memory_bytes,
            artifact_bytes=artifact.nbytes,
            weight_bytes=artifact.weight_bytes,
            sqnr_db=self._sqnr_db,
            max_error=self._max_error,
        )

    def close(self) -> None:
        self.runner.close()

    def __enter__(self) -> OpenBundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _compare(
    runner: Runner, inputs: Sequence[tuple[Array, ...]], expected: Sequence[tuple[Array, ...]]
) -> tuple[float | None, float]:
    """Signal-to-quantisation-noise ratio in dB (None where nothing differs), and the largest error."""
    pairs = [
        (have, want)
        for arrays, wanted in zip(inputs, expected, strict=False)
        for have, want in zip(runner(arrays), wanted, strict=True)
    ]
    return signal_to_noise_db(pairs), max(largest_error(have, want) for have, want in pairs)


def signal_to_noise_db(pairs: Sequence[tuple[Array, Array]]) -> float | None:
    """10 log10 of the power of what was expected over that of the difference, over all (found, expected).

    None where nothing differs. Raises ``BundleError`` where a difference is not finite.
    """
    signal = sum(float(np.square(want, dtype=np.float64).sum()) for _, want in pairs)
    noise = sum(
        float(np.square(have.astype(np.float64) - want.astype(np.float64)).sum()) for have, want in pairs
    )
    if not math.isfinite(noise):
        raise BundleError(
            "the outputs hold NaN or infinity", "this precision's range is too small: use another"
        )
    if noise == 0:
        return None
    return 10 * math.log10(signal / noise) if signal else -math.inf


def largest_error(found: Array, expected: Array) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max() / (np.abs(expected.astype(np.float64)).max() or 1.0))
