"""The Ray cluster that a plan runs on: one that is there, or one started here for a fleet that is emulated.

A node carries a device if it was started with the custom resource ``edgecut:NAME``.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import DeploymentError, InputError, MissingDependencyError
from planner.fleet import Fleet

ANSWER_TIMEOUT_S = 5.0
RELEASE_TIMEOUT_S = 10.0
# What a cluster that was started for one deployment carries beside its devices: no other one takes it for its own.
_PRIVATE = "edgecut-private"
_LEAST_STORE_BYTES = 128 << 20
# HTTP/2's greeting and empty settings; a server of it answers with its own settings, of type 4 (RFC 9113).
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@dataclass(frozen=True)
class Cluster:
    """``local``: started here, for this deployment alone. ``address``: for people."""

    ray: Any
    local: bool
    address: str


def import_ray() -> Any:
    """Raises ``MissingDependencyError``."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to Ray's makers
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("Ray", "--engine ray", "ray") from None
    return ray


def resource(device: str) -> str:
    """What a Ray node that carries the device has."""
    return f"edgecut:{device}"


@contextmanager
def connected(
    address: str,
    fleet: Fleet,
    actors: Mapping[str, int],
    store_bytes: int = 0,
    log: Callable[[str], None] = lambda line: None,
) -> Iterator[Cluster]:
    """A cluster that carries the devices, so many of each.

    ``address``: HOST:PORT; ``local`` for one that is started here and ends on the way out; ``auto`` for the one that
    this machine is part of, or a local one where there is none and the devices are all emulated. A connection
    that this process has is used, and left as it is. ``store_bytes``: of objects at most in a local node's memory.
    Raises ``DeploymentError`` where it cannot be reached, ``InputError`` where it lacks a device.
    """
    ray = import_ray()
    with ExitStack() as left:
        found = _found(ray, address, left)
        if found is None and address == "auto":
            real = [name for name in actors if not fleet.device(name).emulate]
            if real:
                raise DeploymentError(
                    f"no Ray cluster runs on this machine, to run {', '.join(real)}",
                    f"start one: ray start --head {_flag(fleet.source)}; or name one: --ray-address HOST:PORT",
                )
        if found is None:
            log(f"started a Ray cluster here: a node for each of {', '.join(actors)}")
            found = left.enter_context(_started(ray, actors, max(store_bytes, _LEAST_STORE_BYTES)))
        _check_carried(found, actors)
        yield found


def _found(ray: Any, address: str, left: ExitStack) -> Cluster | None:
    if ray.is_initialized():
        own = ray.get_runtime_context().gcs_address
        if address not in ("auto", own):
            raise InputError(
                f"{address} was asked for, and this process is connected to the Ray cluster at {own}",
                "call ray.shutdown() first, or leave the address out",
            )
        return Cluster(ray, _PRIVATE in ray.cluster_resources(), own)
    if address == "local":
        return None
    if address != "auto":
        _check_answers(address)
    try:
        _connect(ray, address)
    except ConnectionError as error:
        if address == "auto":
            return None
        raise _unreachable(address, error) from None
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise _unreachable(address, error) from None
    if address == "auto" and _PRIVATE in ray.cluster_resources():
        ray.shutdown()
        return None
    left.callback(ray.shutdown)
    return Cluster(ray, False, ray.get_runtime_context().gcs_address)


def _connect(ray: Any, address: str) -> None:
    """As ``ray.init``, which would take SIGTERM for itself."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _check_answers(address: str) -> None:
    """Ray itself waits for ever for what does not answer, or answers otherwise. Raises as ``connected``."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise InputError(
            f"{address!r} is no address of a Ray cluster",
            "write auto, local or HOST:PORT, such as 10.0.0.5:6379",
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.sendall(_GREETING)
            answer = connection.recv(9)
    except OSError as error:
        raise _unreachable(address, error) from None
    if len(answer) < 9 or answer[3] != 4:
        raise _unreachable(address, "what answers there is something else")


def _unreachable(address: str, reason: object) -> DeploymentError:
    first = str(reason).strip().partition("\n")[0][:300]
    return DeploymentError(
        f"no Ray cluster at {address} that this machine is part of: {first}",
        f"on this machine: ray start --address={address}, of the same Ray and Python as there; where the cluster has "
        "a token, set RAY_AUTH_MODE=token for both commands",
    )


@contextmanager
def _started(ray: Any, actors: Mapping[str, int], store_bytes: int) -> Iterator[Cluster]:
    """A cluster of this machine, reached from nowhere else: a node per actor."""
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster as Nodes

    logging.getLogger("ray").setLevel(logging.ERROR)
    # Its sockets' paths are bounded to some hundred characters.
    folder = tempfile.TemporaryDirectory(
        prefix="edgecut-ray-", dir="/tmp" if Path("/tmp").is_dir() else None, ignore_cleanup_errors=True
    )
    names = [name for name, count in actors.items() for _ in range(count)]
    with folder as place, _set(os.environ, "RAY_TMPDIR", place), ExitStack() as left:
        # Else Ray takes 127.0.0.1 for the address of this machine on its network, where anybody could reach it.
        before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
        left.callback(setattr, ray_constants, "ENABLE_RAY_CLUSTER", before)
        nodes = Nodes()
        left.callback(nodes.shutdown)
        try:
            for name in names:
                nodes.add_node(
                    wait=False, num_cpus=1, num_gpus=0, resources={resource(name): 1, _PRIVATE: 1},
                    object_store_memory=store_bytes, include_dashboard=False, include_log_monitor=False,
                    no_monitor=True, node_ip_address="127.0.0.1",
                )  # fmt: skip
            nodes.wait_for_nodes()
            _connect(ray, nodes.address)
        except Exception as error:  # Ray raises Exception itself where a node takes too long
            first = str(error).strip().partition("\n")[0][:300]
            raise DeploymentError(
                f"Ray did not start here: {first}", "see whether this machine is too busy, and try again"
            ) from None
        left.callback(ray.shutdown)
        yield Cluster(ray, True, nodes.address)


@contextmanager
def _set(where: Any, name: str, value: str) -> Iterator[None]:
    before = where.get(name)
    where[name] = value
    try:
        yield
    finally:
        if before is None:
            del where[name]
        else:
            where[name] = before


def _check_carried(cluster: Cluster, actors: Mapping[str, int]) -> None:
    nodes = [node for node in cluster.ray.nodes() if node["Alive"]]
    for name, count in actors.items():
        label = resource(name)
        carried = sum(node["Resources"].get(label, 0) for node in nodes)
        if carried < count:
            wanted = label if count == 1 else f"{count} of {label}"
            has = f"only {carried:g}" if carried else "nobody carries it"
            raise InputError(
                f"the plan needs {wanted}, and in the Ray cluster at {cluster.address} {has}; it has {_shown(nodes)}",
                f"on the machine that is {name}: ray start --address={cluster.address} {_flag(name)}",
            )
    _await_free(cluster, actors)


def _await_free(cluster: Cluster, actors: Mapping[str, int]) -> None:
    """What a deployment had that has just ended is free a moment later."""
    deadline_s = time.monotonic() + RELEASE_TIMEOUT_S
    while True:
        free = cluster.ray.available_resources()
        taken = [name for name, count in actors.items() if free.get(resource(name), 0) < count]
        if not taken:
            return
        if time.monotonic() > deadline_s:
            shown = ", ".join(map(resource, taken))
            raise DeploymentError(
                f"another deployment uses {shown} in the Ray cluster at {cluster.address}", "end it first"
            )
        time.sleep(0.2)


def check_gpus(cluster: Cluster, devices: Collection[str]) -> None:
    """Raises ``InputError`` for a device whose stages need a GPU and whose nodes show Ray none."""
    for name in devices:
        nodes = [node["Resources"] for node in cluster.ray.nodes() if node["Alive"]]
        if not any(each.get(resource(name)) and each.get("GPU") for each in nodes):
            raise InputError(
                f"stages of {name} need a GPU, and no node that carries {resource(name)} has one",
                f"there: ray start --address={cluster.address} {_flag(name)} --num-gpus=1",
            )


def _shown(nodes: Collection[dict[str, Any]]) -> str:
    """What the nodes carry, for people."""
    found = []
    for node in nodes:
        labels = [
            f"{name} ({count:g})" for name, count in sorted(node["Resources"].items()) if "edgecut:" in name
        ]
        found.append(f"{node['NodeManagerAddress']} with {', '.join(labels) or 'no edgecut:NAME'}")
    return "; ".join(found)


def _flag(device: str) -> str:
    return f"""--resources='{{"{resource(device)}": 1}}'"""
