"""Deploying a plan to serve it, until it is told to stop."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from planner.plan import Plan
from profiler.allocator import tune_allocator
from runtime.adviser import Adviser
from runtime.bundles import load_planned, preparation
from runtime.pipeline import TransportName, opened
from runtime.security import Security
from runtime.serving.app import application
from runtime.serving.guard import Endpoint
from runtime.serving.server import listener, serve
from runtime.serving.signature import signature_of
from runtime.stopping import Stopping

_WARMUP_REQUESTS = 5


@dataclass(frozen=True)
class ServeRequest:
    """What to serve, as ``name``. ``window``: requests in the pipeline; see ``application`` for the bounds."""

    plan: Plan
    endpoint: Endpoint
    name: str
    window: int
    queue: int
    timeout_s: float
    max_body_bytes: int
    transport: TransportName
    adviser: Adviser
    security: Security


def serve_plan(request: ServeRequest, stopping: Stopping, say: Callable[[str], None]) -> None:
    """Deploy the plan and serve it until ``stopping``. Raises ``DeploymentError`` or another ``EdgecutError``."""
    plan, endpoint = request.plan, request.endpoint
    tune_allocator()
    with listener(endpoint) as listening, tempfile.TemporaryDirectory(prefix="edgecut-serve-") as name:
        folder = Path(name)
        model, cut = load_planned(plan)
        signature = signature_of(model, plan.chain, plan.batch, request.name, request.max_body_bytes)
        with opened(
            request.adviser,
            preparation(cut, folder / "bundles"),
            folder,
            window=request.window,
            transport=request.transport,
            security=request.security,
            log=say,
        ) as pipeline:
            warm = tuple(value.numpy() for value in model.example(plan.batch))
            for _ in pipeline.map([warm] * _WARMUP_REQUESTS):
                pass
            app = application(
                pipeline,
                signature,
                queue=request.queue,
                timeout_s=request.timeout_s,
                max_body_bytes=request.max_body_bytes,
            )
            for kind in ("inputs", "outputs"):
                for each in getattr(signature, kind):
                    said = each.metadata()
                    say(f"{kind[:-1]} {said['name']}: {said['datatype']} {said['shape']}")
            where = endpoint.url.rpartition(":")[0] + f":{listening.getsockname()[1]}"
            say(f"serving {request.name} at {where}")
            with stopping.draining():
                serve(app, endpoint, listening, stopping)
