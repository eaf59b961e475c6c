"""Active profiling of a fleet: the workstation plans, the agents measure what it asks for."""

from __future__ import annotations

from collections.abc import Sequence

from planner.active_note import ActiveObjective
from planner.active_result import ActiveResult, note_of
from planner.chain import Bundle
from planner.codec_table import LOSSLESS
from planner.cost import Way
from planner.documents import from_data, to_data
from planner.errors import InputError
from planner.fleet import Fleet
from planner.limits import Limits
from planner.plan import Variant
from planner.sidecar import LeftOut
from planner.table import ProfileRow, ProfileTable
from profiler.request import ProfileRequest
from profiler.samples import read_manifest
from runtime.active_profile import DeviceMeasure, annotate, run_active
from runtime.agent_messages import Body
from runtime.agents import AgentClient
from runtime.fleet_profile import SILENCE_S, FleetWork, agents_of, lanes
from runtime.profile_progress import Advance, Show
from runtime.security import Security


def profile_actively(
    template: ProfileRequest,
    fleet: Fleet,
    names: Sequence[str],
    *,
    objective: ActiveObjective,
    limits: Limits,
    gap: float,
    verify: int,
    show: Show = lambda device, advance: None,
    security: Security = Security(),
) -> ActiveResult:
    """Measure what an optimal plan of these devices could use, and gather the tables, each with its note.

    Hops may use the lossless codecs that ``template`` asks for, as `solve` does. Raises an
    ``EdgecutError``; what was measured is gathered all the same.
    """
    if len(template.batches) != 1:
        raise InputError("active profiling plans for one batch", "name one with --batch")
    (batch,) = template.batches
    work = FleetWork(template, fleet, read_manifest(template.samples, template.source), show)
    with agents_of(template, fleet, names, security) as clients:
        outputs = {name: work.output(client) for name, client in clients.items()}
        try:
            ways: list[Way] = []
            for name, client in clients.items():
                work.gather(client, outputs[name])  # refuses a table that the agent knows nothing of
                work.send_inputs(client)
                show(name, Advance(0.0, "opening"))
                answer = client.request("measure", _order(work, client, []), timeout_s=SILENCE_S)
                ways += [
                    Way(name, from_data(Variant, each, f"answer of {name}")) for each in answer["variants"]
                ]
                work.gather(client, outputs[name])
            table = ProfileTable.load(outputs.values())
            result = run_active(
                table.chain,
                fleet,
                ways,
                {name: _measuring(work, client, batch, show) for name, client in clients.items()},
                objective=objective,
                limits=limits,
                batch=batch,
                gap=gap,
                verify=verify,
                known=table.rows,
                codecs=[row for row in table.codecs if row.codec in LOSSLESS],
                side_by_side=all(len(lane) == 1 for lane in lanes([fleet.device(name) for name in names])),
            )
        finally:
            for name, client in clients.items():
                work.gather(client, outputs[name])
        for name, client in clients.items():
            client.request("release")
            annotate(outputs[name], note_of(result, fleet, objective, limits, batch))
    return result


def _order(work: FleetWork, client: AgentClient, keys: list[Body]) -> Body:
    return {"profile": to_data(work.order(client)), "keys": keys}


def _measuring(work: FleetWork, client: AgentClient, batch: int, show: Show) -> DeviceMeasure:
    """Asks one agent; its rows are on its disk before it answers."""

    def measure(wanted: Sequence[tuple[Variant, Bundle]]) -> list[ProfileRow | LeftOut]:
        keys = [
            {"bundle": to_data(bundle), "variant": to_data(variant), "batch": batch}
            for variant, bundle in wanted
        ]
        answer = client.request(
            "measure",
            _order(work, client, keys),
            timeout_s=SILENCE_S,
            progress=lambda body: show(client.name, from_data(Advance, body, f"progress of {client.name}")),
        )
        rows = [from_data(ProfileRow, each, f"answer of {client.name}") for each in answer["rows"]]
        out = [from_data(LeftOut, each, f"answer of {client.name}") for each in answer["left_out"]]
        return [*rows, *out]

    return measure
