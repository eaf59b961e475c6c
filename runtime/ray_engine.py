"""A plan on a Ray cluster: its bundles given to an actor for each device, or to several."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.documents import to_data
from planner.errors import DeploymentError, UnknownNameError, WorkerError
from planner.fleet_plan import Share
from planner.itinerary import itinerary
from planner.plan import Plan
from profiler import backends
from runtime.agent_messages import version
from runtime.bundles import Preparation, segment_order, work_order
from runtime.itinerary import SegmentOrder
from runtime.ray_actor import ActorOrder, DeviceActor
from runtime.ray_cluster import Cluster, check_gpus, connected, resource
from runtime.ray_pipeline import MAX_RESTARTS, Course, RayPipeline, Replica, explained

LOAD_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class OnRay:
    """``address``: see ``runtime.ray_cluster``. ``replicas``: actors of a device, where more than one. ``shares``:
    plans that requests are dealt out over; none for the plan alone."""

    address: str = "auto"
    replicas: Mapping[str, int] = field(default_factory=dict)
    shares: tuple[Share, ...] = ()


@contextmanager
def opened_on_ray(
    plan: Plan,
    prepare: Preparation,
    where: OnRay,
    *,
    window: int = 1,
    log: Callable[[str], None] = lambda line: None,
) -> Iterator[RayPipeline]:
    """A pipeline over actors of its own, which end on the way out. Raises ``EdgecutError``."""
    courses, orders, files = _laid_out(where.shares or (Share(plan, 1.0),), prepare)
    for name in where.replicas:
        if name not in orders:
            raise UnknownNameError("device of the plan", name, orders)
    counts = {name: where.replicas.get(name, 1) for name in orders}
    largest = max(edge.batched(plan.batch).nbytes for edge in plan.chain.boundaries)
    with connected(where.address, plan.fleet, counts, 8 * window * largest, log) as cluster:
        if not cluster.local and any(link.emulate for link in plan.fleet.links):
            log("links are as fast as the cluster's network: those of the fleet are not emulated on it")
        bundles = {digest: cluster.ray.put(np.fromfile(file, np.uint8)) for digest, file in files.items()}
        replicas: dict[str, list[Replica]] = {}
        try:
            for name, count in counts.items():
                device = plan.fleet.device(name)
                work = work_order(device, secrets.token_hex(8), window, orders[name])
                cpus = device.emulate.cpus if device.emulate else None
                order = ActorOrder(name, work, cpus, cluster.local)
                replicas[name] = _actors(cluster, order, count, bundles)
            _await_loaded(cluster, [replica for group in replicas.values() for replica in group])
            with RayPipeline(cluster, courses, replicas, window, log) as pipeline:
                yield pipeline
        finally:
            for group in replicas.values():
                for replica in group:
                    cluster.ray.kill(replica.actor)


def _laid_out(
    shares: Sequence[Share], prepare: Preparation
) -> tuple[list[Course], dict[str, list[SegmentOrder]], dict[str, Path]]:
    """The plans' courses, the segments of each device, each once, and the files of their bundles."""
    courses = []
    orders: dict[str, list[SegmentOrder]] = {}
    files: dict[str, Path] = {}
    for share in shares:
        bundles, segments, places = prepare(share.plan), itinerary(share.plan), []
        files |= {made.order.sha256: made.file for made in bundles}
        for segment in segments:
            own = orders.setdefault(segment.device, [])
            order = segment_order(share.plan, 0, segment, bundles)
            place = next((known.place for known in own if replace(known, place=0) == order), len(own))
            if place == len(own):
                own.append(replace(order, place=place))
            places.append(place)
        courses.append(Course(share.plan, share.share, segments, tuple(places)))
    return courses, orders, files


def _actors(cluster: Cluster, order: ActorOrder, count: int, bundles: Mapping[str, Any]) -> list[Replica]:
    """So many actors of a device, which begin to load. Raises ``InputError`` where there is no GPU for them."""
    stages = [stage for segment in order.work.segments for stage in segment.stages]
    gpu = any(backends.entry(stage.backend).gpu for stage in stages)
    check_gpus(cluster, [order.device] if gpu else [])
    own = [bundles[digest] for digest in sorted({stage.sha256 for stage in stages})]
    actor = cluster.ray.remote(DeviceActor).options(
        resources={resource(order.device): 1},
        num_cpus=0,
        num_gpus=int(gpu),
        max_concurrency=order.work.window + 2,
        max_restarts=MAX_RESTARTS,
        max_task_retries=-1,
    )
    with _silent():
        return [Replica(order.device, actor.remote(to_data(order), own)) for _ in range(count)]


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing is written to standard error: Ray's library warns there of arguments that are gone when an actor is
    started again, but the coordinator holds the bundles for as long as there are actors."""
    before = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _await_loaded(cluster: Cluster, replicas: Sequence[Replica]) -> None:
    """Raises what keeps a device from loading, ``WorkerError`` for another version of edgecut there."""
    asked = [replica.actor.about.remote() for replica in replicas]
    for replica, answer in zip(replicas, asked, strict=True):
        try:
            process, theirs = cluster.ray.get(answer, timeout=LOAD_TIMEOUT_S)
        except cluster.ray.exceptions.GetTimeoutError:
            raise DeploymentError(
                f"{replica.device} was not loaded within {LOAD_TIMEOUT_S:g} s", "see `ray status`"
            ) from None
        except Exception as error:
            raise explained(error, replicas) from None
        if theirs != version():
            raise WorkerError(
                f"{replica.device} has edgecut {theirs}, here is {version()}",
                f"on every node: pip install 'edgecut[ray]=={version()}'",
            )
        replica.process = process
