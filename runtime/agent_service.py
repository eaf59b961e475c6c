"""What an agent offers, and where it keeps its files."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import TYPE_CHECKING

import click

from runtime.agent import Agent
from runtime.agent_files import AgentFiles
from runtime.agent_messages import HELLO
from runtime.agent_status import AboutAgent
from runtime.link_measure import ECHO, PROBE, LinkService
from runtime.power_gauge import PowerGauge
from runtime.stage_service import StageService
from runtime.transport import Transport

if TYPE_CHECKING:
    from runtime.agent_profile import ProfileHandler


def make_agent(
    name: str,
    transport: Transport,
    files: AgentFiles,
    modules: Collection[str] = (),
    gauge: PowerGauge | None = None,
) -> Agent:
    """The agent of device ``name``, which keeps ``files``.

    ``modules``: the user's own modules that it may import to build a network. ``gauge``: of the device's power.
    """
    agent = Agent(name, transport, log=click.echo)
    files.serve(agent)

    @functools.cache
    def profiles() -> ProfileHandler:
        from runtime.agent_profile import ProfileHandler  # loads torch, which other orders do not need

        return ProfileHandler(name, files, modules)

    agent.handle("profile", lambda body, progress: profiles().profile(body, progress), measures=True)
    agent.handle("measure", lambda body, progress: profiles().measure(body, progress), measures=True)
    agent.handle("release", lambda body, progress: profiles().release(body, progress), measures=True)
    agent.when_gone(lambda client: profiles().part(client) if profiles.cache_info().currsize else None)
    stages = StageService(name, transport, files.store, gauge)
    stages.serve(agent)
    links = LinkService(transport)
    agent.handle(ECHO, links.echo)
    agent.handle(PROBE, links.probe, measures=True)
    about = AboutAgent(agent, stages.loaded)
    agent.handle(HELLO, about.hello)
    return agent
