"""What a server has counted since it started: Triton's statistics extension."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from runtime.serving.protocol import VERSION


@dataclass
class Total:
    """How often something was done, and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.ns += round(seconds * 1e9)


@dataclass
class Statistics:
    """``queue``: waiting for room in the pipeline. ``infer``: in the pipeline, hops included."""

    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    decode: Total = field(default_factory=Total)
    infer: Total = field(default_factory=Total)
    encode: Total = field(default_factory=Total)
    samples: int = 0
    runs: int = 0
    last_ms: int = 0

    def succeeded(self, samples: int, seconds: float) -> None:
        self.success.add(seconds)
        self.samples += samples
        self.last_ms = time.time_ns() // 1_000_000

    def document(self, name: str, batch: int) -> dict[str, Any]:
        """As the extension words it. ``batch``: the plan's, with which every run is made."""
        compute = {
            "compute_input": asdict(self.decode),
            "compute_infer": asdict(self.infer),
            "compute_output": asdict(self.encode),
        }
        totals = {"success": self.success, "fail": self.fail, "queue": self.queue, "cache_hit": Total()}
        stats = {
            "name": name,
            "version": VERSION,
            "last_inference": self.last_ms,
            "inference_count": self.samples,
            "execution_count": self.runs,
            "inference_stats": {key: asdict(total) for key, total in totals.items()} | compute,
            "batch_stats": [{"batch_size": batch, **compute}] if self.runs else [],
        }
        return {"model_stats": [stats]}
