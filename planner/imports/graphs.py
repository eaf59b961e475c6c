"""Layer graphs of other tools as chains: cut where exactly one tensor crosses, or a few.

In any topological order, a node lies on every path from input to output if no edge leaps over it: a path
that avoids it would hold such an edge, and such an edge extends to such a path. Behind each of these nodes
only its own output is live, so they are all the cuts there are, whatever the order. Where
several tensors may cross, the order decides which places there are.
"""

from __future__ import annotations

import bisect
import graphlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.chain import Chain
from planner.errors import InputError
from planner.imports.result import DeviceTable, foreign_chain, instant_notes, plain_layer, summed_rows
from planner.plan import Variant
from planner.sidecar import LeftOut


@dataclass(frozen=True)
class Node:
    """``times_s``: by device, infinite where it cannot run there. ``nbytes``: its output, 0 where unknown."""

    name: str
    times_s: Mapping[str, float]
    nbytes: int
    memory_bytes: float = 0.0


@dataclass(frozen=True)
class GraphChain:
    """``layers``: the nodes of each layer; ``nbytes``: of the n+1 boundaries, 0 where the graph does not say."""

    layers: tuple[tuple[Node, ...], ...]
    nbytes: tuple[int, ...]


def cut_graph(
    nodes: Mapping[str, Node],
    edges: Sequence[tuple[str, str]],
    inputs: Sequence[str] = (),
    max_tensors: int = 1,
) -> GraphChain:
    """The chain of a graph; an edge from a node without output bytes carries nothing and blocks no cut.

    ``max_tensors``: the most that may cross where the graph is cut. ``inputs`` are no work but what enters. So is
    a single source on which no device spends time. Raises ``InputError`` for a cycle, an edge to no node, or
    where nothing can be cut.
    """
    unknown = [name for edge in edges for name in edge if name not in nodes]
    if unknown:
        raise InputError(f"an edge names node {unknown[0]!r:.40}, which the graph lacks")
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        before[target].append(source)
    try:
        order = list(graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError as error:
        raise InputError(f"the graph has a cycle through {error.args[1][0]!r:.40}") from None
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        after[source].append(target)
    carrying = [(source, target) for source, target in edges if nodes[source].nbytes]
    on = {name for edge in carrying for name in edge}
    path = [name for name in order if name in on] or order
    starts = sorted(set(path) - {target for _, target in carrying})
    if not inputs and len(starts) == 1 and not any(nodes[starts[0]].times_s.values()):
        inputs = starts
    fed = bool(inputs) and set(starts) <= set(inputs)
    entering = sum(nodes[name].nbytes for name in inputs) if fed else 0
    place = {name: number for number, name in enumerate(path)}
    # The input crosses up to the last node that takes it in.
    fed_until = max((place[name] for name in starts), default=0)
    ends, sizes = [], []
    live: dict[str, int] = {}  # what crosses, and how far
    for number, name in enumerate(path):
        # What nothing takes up, or leaves no bytes, is an output: it has to reach the end.
        targets = (
            [place[target] for target in after[name]] if after[name] and nodes[name].nbytes else [len(path)]
        )
        live = {each: last for each, last in live.items() if last > number} | {name: max(targets)}
        if len(live) <= max_tensors and fed_until <= number < len(path) - 1 and name not in inputs:
            ends.append(number)
            sizes.append(sum(nodes[each].nbytes for each in live))
    if not ends:
        last = sum(not after[name] for name in nodes)
        most = "exactly one tensor crosses" if max_tensors == 1 else f"at most {max_tensors} tensors cross"
        raise InputError(
            f"the graph of {len(nodes)} nodes has no place where {most}: {len(starts)} nodes "
            f"that take nothing from others and {last} that none takes from are its inputs and outputs",
            "graphs of layers have such places; in graphs of operators the weights are inputs too",
        )
    layers = _layers(nodes, before, after, order, path, ends, inputs)
    leaving = sum(nodes[name].nbytes for name in path if not after[name])
    return GraphChain(layers, (entering, *sizes, leaving))


def _layers(
    nodes: Mapping[str, Node],
    before: Mapping[str, Sequence[str]],
    after: Mapping[str, Sequence[str]],
    order: Sequence[str],
    path: Sequence[str],
    ends: Sequence[int],
    inputs: Sequence[str],
) -> tuple[tuple[Node, ...], ...]:
    layer_of = {name: bisect.bisect_left(ends, number) for number, name in enumerate(path)}
    # A node off the path (no bytes in or out) goes where its first user is, else where its last source is.
    for name in reversed(order):
        users = [layer_of[user] for user in after[name] if user in layer_of]
        if name not in layer_of and users:
            layer_of[name] = min(users)
    for name in order:
        layer_of.setdefault(name, max((layer_of[source] for source in before[name]), default=len(ends)))
    layers: list[list[Node]] = [[] for _ in range(len(ends) + 1)]
    for name in order:
        if name not in inputs:
            layers[layer_of[name]].append(nodes[name])
    return tuple(map(tuple, layers))


def graph_tables(
    tool: str,
    model: str,
    found: GraphChain,
    variant: Variant,
    input_bytes: int | None,
    output_bytes: int | None,
) -> tuple[Chain, tuple[DeviceTable, ...], list[str]]:
    """The chain, every device's sums, and notes on boundaries of unknown size."""
    notes = [
        f"{len(found.layers)} layers of {sum(map(len, found.layers))} nodes; a bundle is the sum of its nodes"
    ]
    sizes = list(found.nbytes)
    for place, name, given in ((0, "input", input_bytes), (-1, "output", output_bytes)):
        sizes[place] = given or sizes[place]
        if not sizes[place]:
            notes.append(
                f"the file does not say how large the {name} is: taken as 1 byte; --{name}-bytes says it"
            )
    chain = foreign_chain(tool, model, [plain_layer(layer[-1].name) for layer in found.layers], sizes)
    tables = []
    memory = [math.fsum(node.memory_bytes for node in layer) for layer in found.layers]
    for device in found.layers[0][0].times_s:
        times = [math.fsum(node.times_s[device] for node in layer) for layer in found.layers]
        finite = [0.0 if math.isinf(time) else time for time in times]
        rows, left_out = [], []
        for row in summed_rows(device, variant, finite, layer_bytes=memory if any(memory) else ()):
            if any(map(math.isinf, times[row.bundle.start : row.bundle.stop])):
                left_out.append(LeftOut(row.bundle, variant, 1, f"a node of it cannot run on {device}"))
            else:
                rows.append(row)
        tables.append(DeviceTable(device, tuple(rows), tuple(left_out)))
    return chain, tuple(tables), [*notes, *instant_notes(tables)]
