"""What an agent says of itself: which machine, what can run there, what it does and how much is free."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from planner.documents import document, to_data
from profiler.capability import offered
from profiler.machine import Machine, available_memory_bytes, describe_machine
from runtime.agent import Agent
from runtime.agent_messages import PROTOCOL, Body, version


@document()
class AgentStatus:
    """The answer to ``HELLO``. ``session``: its identity on the network.

    ``backends``: those installed, each with the precisions that nothing is known to stand against.
    ``processors``: those that it may use. ``memory_bytes``, ``free_bytes``: of the machine, or of the container or
    service that it runs in. ``libraries``: versions. ``measuring``: what measures there, for whom and since
    when. ``loaded``: the plans that it holds.
    """

    name: str
    session: str
    version: str
    protocol: int
    system: str
    processor: str
    processors: int
    memory_bytes: int | None
    free_bytes: int
    accelerator: str | None
    backends: dict[str, tuple[str, ...]]
    libraries: dict[str, str]
    measuring: str
    loaded: tuple[str, ...]
    uptime_s: float


class AboutAgent:
    """``hello`` answers ``HELLO``; ``loaded`` tells what is loaded just then."""

    def __init__(self, agent: Agent, loaded: Callable[[], tuple[str, ...]]) -> None:
        self._agent, self._loaded = agent, loaded
        self._started_s = time.monotonic()

    def hello(self, body: Body, progress: object) -> Body:
        machine, backends = _here()
        status = AgentStatus(
            name=self._agent.name,
            session=self._agent.transport.session,
            version=version(),
            protocol=PROTOCOL,
            system=machine.system,
            processor=machine.processor,
            processors=machine.processors,
            memory_bytes=machine.memory_bytes,
            free_bytes=available_memory_bytes(),
            accelerator=machine.gpu,
            backends=backends,
            libraries=machine.libraries,
            measuring=self._agent.measuring,
            loaded=self._loaded(),
            uptime_s=time.monotonic() - self._started_s,
        )
        return dict(to_data(status))


@functools.cache
def _here() -> tuple[Machine, dict[str, tuple[str, ...]]]:
    """What stays the same while this process runs."""
    return describe_machine(), offered()
