"""The command line. Only light modules are imported here; each command imports what it needs."""

from __future__ import annotations

import io
import sys

import click

from planner.errors import EdgecutError
from runtime.commands.agent import agent
from runtime.commands.agents import agents
from runtime.commands.bench import bench
from runtime.commands.break_even import break_even
from runtime.commands.build import build
from runtime.commands.clocks import clocks
from runtime.commands.deploy import deploy
from runtime.commands.doctor import doctor
from runtime.commands.energy import energy
from runtime.commands.explain import explain
from runtime.commands.front import front
from runtime.commands.import_ import import_
from runtime.commands.inspect import inspect
from runtime.commands.keys import keys
from runtime.commands.links import links
from runtime.commands.profile import profile
from runtime.commands.report import report
from runtime.commands.router import router
from runtime.commands.samples import samples
from runtime.commands.serve import serve
from runtime.commands.simulate import simulate
from runtime.commands.solve import solve
from runtime.commands.solve_many import replicate, solve_many
from runtime.commands.trace import trace
from runtime.commands.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="edgecut")
def cli() -> None:
    """Measure every bundle of a network's layers on every machine, find the provably best split, run it,
    and see how close the forecast came.

    \b
    edgecut doctor                                        see what works on this machine
    edgecut inspect alexnet                               see the layers
    edgecut samples alexnet                               store feature maps of real images
    edgecut profile alexnet --device edge --fleet F       measure every bundle, on each device
    edgecut profile alexnet --fleet F                     the same on all devices, by their agents
    edgecut links --fleet F                               measure the links between them
    edgecut solve --fleet F --profiles profiles/*.csv     find the best split, with its proof
    edgecut explain plan.json --profiles profiles/*.csv   see why: what comes next, what limits cost
    edgecut simulate plan.json                            see what would happen to it
    edgecut deploy plan.json                              run it
    edgecut serve plan.json                               answer Triton's and KServe's clients with it
    edgecut report runs/MODEL-TIME -o report              see forecast beside measurement
    """


for command in (
    doctor, clocks, inspect, verify, samples, bench, build, keys, agent, agents, router, profile, links, energy,
    import_, solve, explain, front, break_even, solve_many, replicate, simulate, deploy, serve, trace, report,
):  # fmt: skip
    cli.add_command(command)


def main() -> None:
    """Entry point: every deliberate error becomes two lines and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows ? instead
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except EdgecutError as error:
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(str(error), err=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; what was finished is kept", err=True)
        code = 130
    except BrokenPipeError:  # `edgecut inspect alexnet | head`
        sys.stderr.close()
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
