"""A deployed plan in Python: samples in, answers out, in order."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from planner.errors import InputError, MismatchError
from planner.fleet import Fleet
from planner.fleet_file import load_fleet
from planner.plan import Plan
from planner.watch import THRESHOLD
from runtime.adviser import StaticAdviser
from runtime.answering import Answer, Answering
from runtime.batching import Arrays, Group, grouped, split
from runtime.bundles import load_planned, preparation
from runtime.pipeline import TransportName, opened
from runtime.profiled_adviser import adviser_for
from runtime.security import Security
from runtime.sources import checked_inputs


class Deployed:
    """Takes single samples, whatever the plan's batch. ``pipeline``: what they go through."""

    def __init__(self, pipeline: Answering) -> None:
        self.plan, self.pipeline = pipeline.plan, pipeline

    def map(self, samples: Iterable[Any], on_error: Literal["stop", "skip"] = "stop") -> Iterator[Answer]:
        """The answer to each sample, in order: ``request`` is its number, ``outputs`` have a batch of 1.

        A sample is an array, or a tuple of one for each input of the network, with or without the axis of the
        batch; it must not change before its answer is there. Samples are read as there is room for them. A plan
        with a batch waits for that many samples, or the last one. Several threads may map at once.

        ``InputError`` is raised for a sample that the network cannot take, once those before it are answered; with
        ``skip`` it is left out.
        """
        size = self.plan.batch
        sent: deque[Group] = deque()

        def tensors() -> Iterator[Arrays]:
            for group in grouped(checked_inputs(samples, self.plan.chain.boundaries[0].tensors), size):
                if group.refused and on_error == "stop":
                    first = group.refused[0]
                    yield from self._before(group, first.number, sent)
                    raise InputError(
                        f"input {first.number}: {first.reason}", "give arrays of this shape and type"
                    )
                if group.tensors:
                    sent.append(group)
                    yield group.tensors

        for answer in self.pipeline.map(tensors()):
            numbers = sent.popleft().numbers
            for number, outputs in zip(numbers, split(answer.outputs, size, len(numbers)), strict=True):
                yield replace(answer, request=number, outputs=outputs)

    def _before(self, group: Group, number: int, sent: deque[Group]) -> Iterator[Arrays]:
        """What is left of a group that ends at a refused sample."""
        numbers = tuple(each for each in group.numbers if each < number)
        if numbers:
            sent.append(replace(group, numbers=numbers))
            yield group.tensors


@contextmanager
def deploy(
    plan: Plan | Path | str,
    fleet: Fleet | Path | str | None = None,
    *,
    window: int = 4,
    transport: TransportName = "zenoh",
    keys: Path | str | None = None,
    insecure: bool = False,
    profiles: Sequence[Path] = (),
    drift: float = THRESHOLD,
    static: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> Iterator[Deployed]:
    """Deploy a plan (or the file of one) for as long as the ``with`` block lasts.

    ``fleet``: where its devices are now; those that are emulated get an agent here. ``window``: requests on their way
    at most. ``keys``: the folder of this machine's, for encrypted addresses; ``insecure`` allows unencrypted ones
    beyond this machine. ``profiles``: tables to plan with when a device fails or slows down by more than the share
    ``drift``, those that the plan was solved from where none are given; ``static`` keeps to the plan. ``log`` gets a
    line for each change of plan. Raises ``DeploymentError`` or another ``EdgecutError``.
    """
    loaded = plan if isinstance(plan, Plan) else Plan.load(Path(plan))
    if fleet is not None:
        loaded = on_fleet(loaded, fleet if isinstance(fleet, Fleet) else load_fleet(Path(fleet)))
    security = Security.of(Path(keys) if keys else None, insecure)
    with tempfile.TemporaryDirectory(prefix="edgecut-deploy-") as name:
        folder = Path(name)
        prepare = preparation(load_planned(loaded)[1], folder / "bundles")
        beside = Path("plan.json") if isinstance(plan, Plan) else Path(plan)
        adviser = (
            StaticAdviser(loaded) if static else adviser_for(loaded, beside, profiles, drift=drift, say=log)
        )
        with opened(
            adviser, prepare, folder, window=window, transport=transport, security=security, log=log
        ) as pipeline:
            yield Deployed(pipeline)


def on_fleet(plan: Plan, fleet: Fleet) -> Plan:
    """The plan on the devices of another fleet file. Raises ``MismatchError`` where they lack some of its path."""
    try:
        return replace(plan, fleet=fleet)
    except (ValueError, InputError) as error:
        raise MismatchError(
            f"the plan does not fit the fleet: {error}", "solve again with this fleet"
        ) from None
