"""A sum along a problem's paths, as shares of its ceiling: what each visit of a device takes of its memory, or what
a whole path takes of another resource.

A Lagrangian bound alone mixes plans that each use one device beyond its memory, as if hops were free. Here a path
keeps the ceiling from where it arrives at a device until it leaves, for all devices at once, since it is at one
at a time: one sum, which begins anew with each hop (as the resources of a vehicle's tour do at a depot; Irnich and
Desaulniers 2005). Paths that come back may still take too much; their prices see to that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.cost import ROUNDING, FloatArray
from planner.graph import BoolArray, Graph, IntArray
from planner.problem import Problem

MEMORY = "max_memory_bytes"
# Of a sum that only keeps equals equal.
TIE = "tie"
# Ceilings are widened by this factor, so that no rounding breaks one that is just kept.
WIDER = 1 + ROUNDING


@dataclass(frozen=True, eq=False)
class Tally:
    """``share`` of each arc; the sum begins anew behind arcs that are ``fresh``. Of each node: ``row``, the resource
    that is summed there, -1 for none, and ``potential``, what the layers before it take at least, as a share too."""

    problem: Problem
    share: FloatArray
    fresh: BoolArray
    row: IntArray
    potential: FloatArray

    @staticmethod
    def visits(problem: Problem) -> Tally:
        """Of the device's memory, by visits."""
        graph = problem.graph
        names = [device.name for device in graph.model.fleet.devices]
        row, share = np.full(len(names), -1), np.zeros(graph.arcs)
        for place, resource in enumerate(problem.resources):
            if resource.limit == MEMORY and resource.ceiling > 0:
                row[names.index(resource.item)] = place
                share += _shares(problem, place)
        return Tally(problem, share, graph.hop >= 0, row[graph.node_device], _potentials(graph, share))

    @staticmethod
    def total(problem: Problem, place: int) -> Tally | None:
        """Of one resource, over whole paths; None where it has no share."""
        if problem.resources[place].ceiling <= 0 or problem.loads[[place]].min() < 0:
            return None
        graph, share = problem.graph, _shares(problem, place)
        never, row = np.zeros(graph.arcs, dtype=bool), np.full(graph.node_device.size, place)
        return Tally(problem, share, never, row, _potentials(graph, share))

    def restricted(self, keep: BoolArray) -> Tally:
        problem = self.problem.restricted(keep)
        return replace(self, problem=problem, share=self.share[keep], fresh=self.fresh[keep])


def _shares(problem: Problem, place: int) -> FloatArray:
    shares: FloatArray = problem.loads[[place]].toarray().ravel() / (problem.resources[place].ceiling * WIDER)
    return shares


def _potentials(graph: Graph, share: FloatArray) -> FloatArray:
    """Of each node, rising along its device: no bundle's share is below the difference of its ends.

    Each layer counts as what it adds to a bundle at least; where bundles take less than their layers so, as those do
    that share buffers, these layers count less.
    """
    devices, layers = len(graph.model.fleet.devices), len(graph.model.chain)
    bundles = np.flatnonzero(graph.way >= 0)
    least = np.full((devices, layers, layers + 1), np.inf)
    np.minimum.at(least, (graph.device[bundles], graph.start[bundles], graph.stop[bundles]), share[bundles])
    empty = np.arange(layers)
    least[:, empty, empty] = 0.0
    known = np.isfinite(least[:, :, 1:]) & np.isfinite(least[:, :, :-1])
    added = np.full(known.shape, np.inf)
    np.subtract(least[:, :, 1:], least[:, :, :-1], out=added, where=known)
    each = added.min(axis=1)
    each = np.where(np.isfinite(each), each, 0.0).clip(0.0)
    potential = _summed(each)
    counted = potential[:, None, :] - potential[:, :-1, None]
    share_of = np.divide(least, counted, out=np.ones(least.shape), where=least < counted)
    over = np.minimum.accumulate(share_of, axis=1)
    over = np.minimum.accumulate(over[:, :, ::-1], axis=2)[:, :, ::-1]  # by bundles that hold both ends
    device = graph.node_device
    boundary = np.arange(device.size) // (device.size // (layers + 1))
    potentials: FloatArray = _summed(each * over[:, empty, empty + 1])[device, boundary]
    return potentials


def _summed(each: FloatArray) -> FloatArray:
    """By device and boundary, of the layers before."""
    return np.concatenate([np.zeros((each.shape[0], 1)), np.cumsum(each, axis=1)], axis=1)
