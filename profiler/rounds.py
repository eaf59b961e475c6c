"""Rounds: open bundles visited in turn until each has settled."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from planner.errors import BundleError
from profiler.bundles import OpenBundle
from profiler.clocks import Switch
from profiler.machine import available_memory_bytes
from profiler.request import Key
from profiler.timing import Visit

# What the bundles of one group may hold together, beside the last one opened.
_GROUP_BYTES, _GROUP_SHARE = 1_250_000_000, 4


def open_group(
    waiting: list[Key],
    open_bundle: Callable[[Key], OpenBundle],
    switch: Switch,
    failed: Callable[[Key, BundleError], None],
    stack: ExitStack,
) -> dict[Key, OpenBundle]:
    """Opens the first of ``waiting`` that fit into memory together, and takes them from the list.

    ``stack`` closes them; ``failed`` is told of those that cannot be opened.
    """
    group: dict[Key, OpenBundle] = {}
    budget = min(_GROUP_BYTES, available_memory_bytes() // _GROUP_SHARE)
    held = 0
    while waiting and held < budget:
        key = waiting.pop(0)
        try:
            with switch.at(key.variant):
                group[key] = stack.enter_context(open_bundle(key))
        except BundleError as error:
            failed(key, error)
            continue
        held += group[key].memory_bytes
    return group


def rounds(
    group: dict[Key, OpenBundle], switch: Switch, before_round: Callable[[], None]
) -> Iterator[tuple[Key, OpenBundle, Visit | BundleError | None]]:
    """Each visit as it is made, of all that have not settled; None where what was known did suffice.

    A bundle is dropped once it has settled, or failed. In a round those of one clock follow each other,
    and what a caller does with a bundle is done at its clock.
    """
    going = dict(sorted(group.items(), key=lambda item: item[0].variant.frequency_hz or 0.0))
    gc.collect()  # so that none of it falls into a visit
    while going:
        before_round()
        for key, opened in list(going.items()):
            made: Visit | BundleError | None = None
            try:
                if not opened.settled:
                    with switch.at(key.variant):
                        made = opened.visit()
            except BundleError as error:
                made = error
            if opened.settled or isinstance(made, BundleError):
                del going[key]
            yield key, opened, made
