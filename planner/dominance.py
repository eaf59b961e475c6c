"""Variants that are never needed: what others of the same bundle and device beat in everything that counts.

Two bundles in a row on one device differ in variant, so a variant may be what keeps its neighbours apart.
Three better ones make it superfluous: at least one of them differs from the bundle before and the bundle
after. Where bundles of one variant may follow each other, one is enough.
"""

from __future__ import annotations

import numpy as np

from planner.cost import FloatArray
from planner.graph import BoolArray, IntArray
from planner.problem import Problem

_NEEDED = 3


def undominated(problem: Problem, weight: FloatArray, second: FloatArray) -> BoolArray:
    """Marks the arcs that are worth keeping, where ``weight`` is minimised and, of equals, ``second``.

    The optimum stays. Every sum that a limit keeps down counts. A share of the latency does not only fall with what is
    saved, so where one is limited all arcs are kept.
    """
    graph = problem.graph
    keep = np.ones(graph.arcs, dtype=bool)
    kinds = dict.fromkeys(resource.limit for resource in problem.resources)
    if "max_share" in kinds:
        return keep
    bundles = np.flatnonzero(graph.way >= 0)
    # A bundle adds to the rows of its own device only, so that the rows of one limit make one column.
    columns, needed = [weight[bundles]], 1 if graph.joins else _NEEDED
    for kind in kinds:
        rows = [place for place, each in enumerate(problem.resources) if each.limit == kind]
        columns.append(np.asarray(problem.loads[rows].sum(axis=0), dtype=float).ravel()[bundles])
    distinct = [columns[0], *(column for column in columns[1:] if column.any()), second[bundles]]
    layers = len(graph.model.chain)
    cell = graph.start[bundles] * (layers + 1) + graph.stop[bundles]
    for device in np.unique(graph.device[bundles]):
        mine = np.flatnonzero(graph.device[bundles] == device)
        ways = np.unique(graph.way[bundles[mine]])
        if ways.size > needed:
            groups = problem.clock[bundles[mine]]
            keep[bundles[mine]] = _kept(
                [column[mine] for column in distinct], np.searchsorted(ways, graph.way[bundles[mine]]),
                cell[mine], groups, needed,
            )  # fmt: skip
    return keep


def _kept(
    columns: list[FloatArray], way: IntArray, cell: IntArray, clock: IntArray, needed: int
) -> BoolArray:
    """Of one device's bundles those that fewer than ``needed`` variants beat; of equals, the first beats.

    The first column decides over the last, which only tells apart what is equal there.
    """
    cells, place = np.unique(cell, return_inverse=True)
    ways = int(way.max()) + 1
    dense = np.full((len(columns), ways, cells.size), np.inf)
    for row, column in zip(dense, columns, strict=True):
        row[way, place] = column
    clocks = np.full((ways, cells.size), -1)
    clocks[way, place] = clock
    absent = np.ones((ways, cells.size), dtype=bool)
    absent[way, place] = False
    beaten = np.zeros((ways, cells.size), dtype=np.int8)
    one_clock = bool((clock >= 0).any())
    for one in range(ways):
        for other in range(one + 1, ways):
            less = _beats(dense[:, one], dense[:, other])
            more = _beats(dense[:, other], dense[:, one]) & ~less
            if one_clock:
                same = clocks[one] == clocks[other]
                less, more = less & same, more & same
            beaten[other] += less & ~absent[one]
            beaten[one] += more & ~absent[other]
    kept: BoolArray = beaten[way, place] < needed
    return kept


def _beats(one: FloatArray, other: FloatArray) -> BoolArray:
    no_worse: BoolArray = np.all(one[:-1] <= other[:-1], axis=0)
    beats: BoolArray = no_worse & ((one[0] < other[0]) | (one[-1] <= other[-1]))
    return beats
