"""Micro-batching: single samples in groups of a plan's batch, and the outputs of each sample again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from profiler.runner import Array

Arrays = tuple[Array, ...]


@dataclass(frozen=True)
class Input:
    """One sample of a stream (batch 1), its number there from 0, and its class where known."""

    number: int
    arrays: Arrays
    label: int | None = None


@dataclass(frozen=True)
class Refusal:
    """An input that the model cannot take, and why."""

    number: int
    reason: str


@dataclass(frozen=True, eq=False)
class Group:
    """The inputs ``begin``..``end``-1 of a stream: those of one request, and those refused among them.

    ``tensors``: the request's, stacked and padded; empty where all were refused.
    """

    begin: int
    end: int
    tensors: Arrays
    numbers: tuple[int, ...]
    labels: tuple[int | None, ...]
    refused: tuple[Refusal, ...] = ()


def grouped(items: Iterable[Input | Refusal], size: int) -> Iterator[Group]:
    """``size`` inputs in each request, fewer in the last; the input numbers grow by one.

    Which inputs share a request depends on the inputs alone.
    """
    taken: list[Input] = []
    refused: list[Refusal] = []
    begin: int | None = None
    end = 0
    for item in items:
        begin, end = item.number if begin is None else begin, item.number + 1
        if isinstance(item, Refusal):
            refused.append(item)
        else:
            taken.append(item)
        if len(taken) == size:
            yield _group(begin, end, taken, refused, size)
            taken, refused, begin = [], [], None
    if begin is not None:
        yield _group(begin, end, taken, refused, size)


def _group(begin: int, end: int, taken: Sequence[Input], refused: Sequence[Refusal], size: int) -> Group:
    tensors = stacked([each.arrays for each in taken], size) if taken else ()
    numbers, labels = tuple(each.number for each in taken), tuple(each.label for each in taken)
    return Group(begin, end, tensors, numbers, labels, tuple(refused))


def stacked(samples: Sequence[Arrays], size: int) -> Arrays:
    """One array for each place in the samples' tuples, batch first.

    Fewer samples than ``size`` are padded with the last one: a codec that scales to the range of a whole tensor
    then sees no values but the samples' own.
    """
    if size == 1:
        return samples[0]
    padded = [*samples, *[samples[-1]] * (size - len(samples))]
    return tuple(np.concatenate(column) for column in zip(*padded, strict=True))


def trimmed(outputs: Sequence[Array], size: int, count: int) -> Arrays:
    """The outputs of a batch of ``size`` without those of its padding."""
    return tuple(array[: len(array) // size * count] for array in outputs)


def split(outputs: Sequence[Array], size: int, count: int) -> Iterator[Arrays]:
    """The outputs of each of the first ``count`` samples of a batch of ``size``, as views; padding is left out."""
    for place in range(count):
        yield tuple(_part(array, size, place) for array in outputs)


def _part(array: Array, size: int, place: int) -> Array:
    rows = len(array) // size
    return array[place * rows : (place + 1) * rows]
