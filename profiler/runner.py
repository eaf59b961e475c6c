"""Running one bundle: host arrays in, host arrays out, checked at both ends."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from planner.chain import Bundle, TensorSpec
from planner.errors import BundleError
from planner.recipe import Recipe

if TYPE_CHECKING:
    from profiler.cut import CutModel

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Setting:
    """How a backend makes its bundles.

    ``recipe`` is needed for int8 and mixed. ``fused``: batch normalisation folded into convolutions
    before the backend sees them. ``cache``: where engines are kept; None is the user's cache folder.
    """

    precision: str = "fp32"
    fused: bool = False
    threads: int = 1
    recipe: Recipe | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Artifact:
    """What was made of a bundle.

    ``nbytes``: the file that ``Backend.save`` writes, or the engine built of it. ``build_s``: compiling or
    building, None of it in ``load_s``. ``shared_bytes``: weights in memory before the bundle was loaded.
    ``layers``: how the engine names the operations it fused, where it says so.
    """

    nbytes: int
    weight_bytes: int
    build_s: float = 0.0
    shared_bytes: int = 0
    layers: tuple[str, ...] = ()


class Runner(ABC):
    """A bundle loaded on this device. Use as a context manager: leaving it frees the bundle.

    ``inputs`` and ``outputs`` are the specs at its first and last boundary, batch included; they are
    those of fp32 whatever the bundle computes in.
    """

    def __init__(
        self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], artifact: Artifact
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.artifact = artifact

    @property
    def device_memory_bytes(self) -> int | None:
        """Peak memory on an accelerator since loading, weights included; None where it runs on the host."""
        return None

    def __call__(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Run once and return when the outputs are in host memory.

        Raises ``BundleError`` where shapes or dtypes differ from ``inputs`` or ``outputs``.
        """
        self._check("input", self.inputs, arrays)
        results = self._run(arrays)
        self._check("output", self.outputs, results)
        return results

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - a runner may have nothing to free
        """Free what the bundle holds."""

    @abstractmethod
    def _run(self, arrays: Sequence[Array]) -> tuple[Array, ...]: ...

    def _check(self, side: str, specs: tuple[TensorSpec, ...], arrays: Sequence[Array]) -> None:
        if len(arrays) != len(specs):
            raise BundleError(f"expected {len(specs)} {side} tensors, found {len(arrays)}")
        for place, (spec, array) in enumerate(zip(specs, arrays, strict=True)):
            if array.shape != spec.shape or array.dtype.name != spec.dtype:
                found = "x".join(map(str, array.shape)) + f" {array.dtype.name}"
                raise BundleError(f"{side} {place}: expected {spec}, found {found}")


class Backend(ABC):
    """One way to run the bundles of a cut network.

    ``runner`` serves the profiler, which shares one copy of the weights between bundles; ``save`` and
    ``load`` serve the runtime, which ships a bundle to the device that runs it. Making one raises
    ``BundleError`` where the whole network cannot be prepared.
    """

    def __init__(self, cut: CutModel, setting: Setting) -> None:
        self.cut = cut
        self.setting = setting

    @abstractmethod
    def runner(self, bundle: Bundle) -> Runner:
        """The bundle, ready to run here. Raises ``BundleError``."""

    @abstractmethod
    def save(self, bundle: Bundle, file: Path) -> None:
        """Write the bundle with its weights to one file."""

    @classmethod
    @abstractmethod
    def load(cls, file: Path, threads: int) -> Runner:
        """A runner for a bundle that ``save`` wrote; runs no code from the file."""

    def close(self) -> None:  # noqa: B027 - a backend may keep nothing
        """Remove what the backend keeps on disk."""

    def specs(self, bundle: Bundle) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """The tensors at a bundle's first and last boundary, for this batch."""
        return self.cut.specs(bundle.start), self.cut.specs(bundle.stop)


class SlowedRunner(Runner):
    """Another runner made slower: after a run of t seconds it waits (slowdown - 1) x t."""

    def __init__(self, runner: Runner, slowdown: float) -> None:
        super().__init__(runner.inputs, runner.outputs, runner.artifact)
        self._inner = runner
        self._slowdown = slowdown

    @property
    def device_memory_bytes(self) -> int | None:
        return self._inner.device_memory_bytes

    def _run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        started = time.monotonic_ns()
        results = self._inner._run(arrays)
        sleep_until(started + round((time.monotonic_ns() - started) * self._slowdown))
        return results

    def close(self) -> None:
        self._inner.close()


def slowed(runner: Runner, slowdown: float) -> Runner:
    return runner if slowdown == 1 else SlowedRunner(runner, slowdown)


# Waking from sleep takes up to this long on an ordinary kernel; the rest is spent spinning.
_WAKE_NS = 200_000


def sleep_until(deadline_ns: int) -> None:
    """Wait until ``time.monotonic_ns()`` reaches ``deadline_ns``, to within microseconds."""
    remaining = deadline_ns - time.monotonic_ns()
    if remaining > _WAKE_NS:
        time.sleep((remaining - _WAKE_NS) / 1e9)
    while time.monotonic_ns() < deadline_ns:
        pass
