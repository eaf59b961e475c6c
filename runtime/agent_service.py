"""What an agent offers, and where it keeps its files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from runtime.agent import Agent, Progress
from runtime.agent_files import AgentFiles
from runtime.agent_messages import Body
from runtime.link_measure import ECHO, PROBE, LinkService
from runtime.transport import Transport


def make_agent(name: str, transport: Transport, folder: Path, modules: Collection[str] = ()) -> Agent:
    """The agent of device ``name``; what it keeps, tables and samples, is in ``folder``.

    ``modules``: the user's own modules that it may import to build a network.
    """
    agent = Agent(name, transport, log=click.echo)
    files = AgentFiles(folder)
    files.serve(agent)

    def profile(body: Body, progress: Progress) -> Body:
        from runtime.agent_profile import ProfileHandler  # loads torch, which other orders do not need

        return ProfileHandler(name, files, modules)(body, progress)

    agent.handle("profile", profile, measures=True)
    links = LinkService(transport)
    agent.handle(ECHO, links.echo)
    agent.handle(PROBE, links.probe, measures=True)
    return agent
