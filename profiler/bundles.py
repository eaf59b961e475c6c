"""One bundle, one row: made ready, compared with the stored fp32 feature maps, and timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from planner.chain import Bundle
from planner.errors import BundleError
from planner.plan import Variant
from planner.table import ProfileRow
from profiler.memory import PeakMemory
from profiler.placement import Placement
from profiler.runner import Array, Backend, Runner, slowed
from profiler.samples import SampleStore
from profiler.timing import Measurement, Protocol, measure

# Of the largest value: what fp32 engines that sum in another order may differ by.
FP32_TOLERANCE = 1e-4
# Feature maps on which a bundle's error is measured; they serve as its first warm-up runs.
_COMPARED = 4


def measure_bundle(
    backend: Backend,
    bundle: Bundle,
    store: SampleStore,
    *,
    device: str,
    variant: Variant,
    place: Placement,
    protocol: Protocol,
    examine: Callable[[Runner], None] = lambda runner: None,
) -> tuple[ProfileRow, Measurement]:
    """Load ``bundle``, check it against the stored feature maps, and time it on them.

    ``examine`` is given the runner before it is timed. Raises ``BundleError`` where the backend cannot run
    it, or an fp32 bundle gives other outputs.
    """
    batch = backend.cut.batch
    inputs = store.inputs(bundle.start, batch, protocol.min_runs)
    expected = store.inputs(bundle.stop, batch, _COMPARED)
    memory = PeakMemory()
    memory.start()
    started = time.perf_counter()
    with slowed(backend.runner(bundle), place.slowdown) as runner:
        load_s = max(time.perf_counter() - started - runner.artifact.build_s, 0.0)
        begun = time.perf_counter()
        sqnr_db, max_error = _compare(runner, inputs, expected)
        if variant.precision == "fp32" and not max_error <= FP32_TOLERANCE:
            raise BundleError(
                f"bundle {bundle}: {variant} differs from the stored feature maps by {max_error:.1e} of the "
                f"largest value, tolerated are {FP32_TOLERANCE:.0e}",
                "use another backend",
            )
        # What was run to compare has warmed the bundle up as well.
        warm_s = time.perf_counter() - begun
        rest = replace(
            protocol,
            warmup_runs=max(protocol.warmup_runs - min(len(inputs), len(expected)), 0),
            warmup_s=max(protocol.warmup_s - warm_s, 0.0),
        )
        examine(runner)
        found = measure(runner, inputs, rest)
        peak = runner.device_memory_bytes
        if peak is None:
            grown = memory.peak_bytes()
            peak = None if grown is None else grown + runner.artifact.shared_bytes
        row = ProfileRow(
            device=device,
            bundle=bundle,
            variant=variant,
            batch=batch,
            latency_s=found.latency_s,
            latency_median_s=found.median_s,
            latency_p95_s=found.p95_s,
            latency_std_s=found.std_s,
            cpu_time_s=found.cpu_time_s,
            runs=len(found.samples_s),
            load_s=load_s,
            build_s=runner.artifact.build_s,
            peak_memory_bytes=peak,
            artifact_bytes=runner.artifact.nbytes,
            weight_bytes=runner.artifact.weight_bytes,
            sqnr_db=sqnr_db,
            max_error=max_error,
        )
    return row, found


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
