"""Limits as arguments of the command line and back, and every path of a small graph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
import numpy as np

from planner.cost import CostModel
from planner.graph import Graph, IntArray
from planner.limits import Limits
from planner.plan import Baseline
from planner.rules import Rule, rules
from runtime.commands.limit_options import limit_options, limits_from


def argument(rule: Rule) -> list[str]:
    """The arguments that ask for one limit."""
    if not rule.valued:
        return rule.shown.split(maxsplit=1)
    value = f"{rule.asked * float(rule.kind.per_si):.12g}"
    return [rule.kind.option, f"{rule.item}={value}" if rule.item else value]


def arguments(fleet: Any, limits: Limits) -> list[list[str]]:
    return [argument(rule) for rule in rules(fleet, limits)]


def parsed(given: list[list[str]]) -> Limits:
    """The limits of these arguments, through the options themselves."""

    @click.command()
    @limit_options
    def command(asked: dict[str, Any]) -> Limits:
        return limits_from(asked)

    found: Limits = command.main([word for one in given for word in one], standalone_mode=False)
    return found


def remedied(given: list[list[str]], remedy: str) -> list[list[str]]:
    """The arguments after doing what a remedy says."""
    for part in remedy.split(", and "):
        leave = re.fullmatch(r"leave out (--\S+)(?: (.+))?", part)
        change = re.fullmatch(r"(?:raise|lower) (--\S+) to (?:(\S+)=)?(\S+) or (?:more|less)", part)
        if leave:
            given = [one for one in given if one != [each for each in leave.groups() if each] and (
                leave[2] or one[0] != leave[1]
            )]  # fmt: skip
            continue
        assert change, part
        option, item, value = change.groups()
        text = f"{item}={value}" if item else value
        kept = [one for one in given if one[0] != option or (item and not one[1].startswith(f"{item}="))]
        given = [*kept, [option, text]]
    return given


def every_path(model: CostModel, *, joins: bool) -> Iterator[Baseline]:
    """Every plan there is, limits aside."""
    graph = Graph.of(model, joins=joins)
    for arcs in every_arcs(graph):
        stages, hops = graph.decode(arcs)
        yield Baseline("", stages, hops, model.price(stages, hops))


def every_arcs(graph: Graph) -> Iterator[IntArray]:
    """The arcs of every path from the first node to the last."""
    out: dict[int, list[int]] = {}
    useful = np.isfinite(graph.behind(graph.parts))
    for arc, (tail, head) in enumerate(zip(graph.tail.tolist(), graph.head.tolist(), strict=True)):
        if useful[head]:
            out.setdefault(tail, []).append(arc)

    def onward(node: int, taken: list[int]) -> Iterator[IntArray]:
        if node == graph.last:
            yield np.array(taken, dtype=np.int64)
        for arc in out.get(node, []):
            yield from onward(int(graph.head[arc]), [*taken, arc])

    yield from onward(graph.first, [])
