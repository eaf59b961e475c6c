"""Which labels at a node no other beats or equals in every sum.

With two sums a running minimum tells; with three, halving (Kung, Luccio and Preparata 1975), all nodes at once; with
more, all pairs.
"""

from __future__ import annotations

import itertools

import numpy as np

from planner.cost import FloatArray
from planner.errors import SolverError
from planner.graph import BoolArray, IntArray

_BLOCK = 256


class TooManyLabelsError(SolverError):
    """There are more labels than was allowed, or comparing them takes too long."""


def undominated(nodes: IntArray, sums: FloatArray, most_labels: int) -> IntArray:
    """The places of labels that no other at the same node beats or equals, by node; ``sums``: shape (sums, labels)."""
    order = np.lexsort((*sums[::-1], nodes))
    nodes, sums = nodes[order], sums[:, order]
    starts = np.flatnonzero(np.diff(nodes, prepend=-1))
    if len(sums) == 2:
        return order[_falling(starts, sums[1])]
    if len(sums) == 3:
        return order[_unbeaten_in_two(starts, sums[1], sums[2])]
    ends = np.append(starts, nodes.size)
    if (np.diff(ends).astype(float) ** 2).sum() > 20 * most_labels:
        raise TooManyLabelsError("too many labels")
    kept = [begin + _unbeaten(sums[:, begin:end]) for begin, end in itertools.pairwise(ends)]
    return order[np.concatenate(kept)] if kept else order


def roughly_undominated(nodes: IntArray, grains: FloatArray) -> IntArray:
    """Of labels at one node that are equal in the other sums, those that none beats in the first two."""
    order = np.lexsort((grains[1], grains[0], *grains[2:], nodes))
    classes = np.concatenate([[nodes], grains[2:]])[:, order]
    changes = (np.diff(classes, axis=1) != 0).any(axis=0)
    starts = np.flatnonzero(np.append(True, changes)[: nodes.size])
    return order[_falling(starts, grains[1, order])]


def _falling(starts: IntArray, values: FloatArray) -> BoolArray:
    """Where a value is lower than all before it in its group; groups begin at ``starts``."""
    _, rank = np.unique(values, return_inverse=True)
    rank, least = _running_minimum(starts, rank)
    falls: BoolArray = np.append(True, rank[1:] < least[:-1])[: values.size]
    return falls


def _running_minimum(starts: IntArray, rank: IntArray) -> tuple[IntArray, IntArray]:
    """Ranks and their minimum up to each in its group, both moved so that each group lies below the one before it.

    Ranks are whole numbers, so moving them loses nothing."""
    group = np.zeros(rank.size, dtype=np.int64)
    group[starts] = 1
    moved: IntArray = rank - np.cumsum(group) * (2 * rank.size + 2)
    return moved, np.minimum.accumulate(moved)


def _unbeaten_in_two(starts: IntArray, one: FloatArray, other: FloatArray) -> BoolArray:
    """Where no label before it in its group is at most as great in both."""
    size = one.size
    lengths = np.diff(np.append(starts, size))
    place = np.arange(size) - np.repeat(starts, lengths)
    group = np.repeat(np.arange(starts.size), lengths)
    _, rank = np.unique(other, return_inverse=True)
    unbeaten = np.ones(size, dtype=bool)
    # Neighbouring blocks of 1, 2, 4, ... labels: what in the right one does something in the left one beat?
    for level in range(int(lengths.max(initial=1) - 1).bit_length()):
        pair, right = place >> (level + 1), (place >> level) & 1
        order = np.lexsort((right, one, pair, group))
        begins = np.flatnonzero(
            (np.diff(pair[order], prepend=-1) != 0) | (np.diff(group[order], prepend=-1) != 0)
        )
        mine = np.where(right[order] == 1, size, rank[order])  # only the left ones beat
        moved, least = _running_minimum(begins, mine)
        beaten = (right[order] == 1) & (least <= moved - size + rank[order])
        unbeaten[order[beaten]] = False
    return unbeaten


def _unbeaten(sums: FloatArray) -> IntArray:
    """The same for the labels of one node in lexicographic order: only an earlier one can beat a later."""
    kept = np.zeros((len(sums), 0))
    places = []
    for begin in range(0, sums.shape[1], _BLOCK):
        block = sums[:, begin : begin + _BLOCK]
        beaten = _beats(kept, block).any(axis=0)
        beaten |= np.triu(_beats(block, block), k=1).any(axis=0)
        places.append(begin + np.flatnonzero(~beaten))
        kept = np.concatenate([kept, block[:, ~beaten]], axis=1)
    return np.concatenate(places)


def _beats(one: FloatArray, other: FloatArray) -> BoolArray:
    """Shape (ones, others): no sum is greater."""
    beats = np.ones((one.shape[1], other.shape[1]), dtype=bool)
    for mine, theirs in zip(one, other, strict=True):
        beats &= mine[:, None] <= theirs
    return beats
