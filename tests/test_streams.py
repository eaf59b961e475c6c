"""Inputs in, results out: read lazily, grouped, in turn, in order, and kept through a kill."""

from __future__ import annotations

import io
import itertools
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources import BERT, TINY, Payload, cut, photographs

from planner.chain import TensorSpec
from planner.errors import DocumentError, InputError
from profiler.runner import Array
from runtime.batching import Group, Input, Refusal, grouped, split, stacked
from runtime.sources import FrameSource, Source, checked_inputs, open_source
from runtime.streaming import Feed, Settled, answers

SPEC = TensorSpec((1, 3))


def value(number: int) -> tuple[Array, ...]:
    return (np.full((1, 3), number, np.float32),)


def numbered(count: int, refused: frozenset[int] = frozenset(), begin: int = 0) -> Iterator[Input | Refusal]:
    for number in range(begin, count):
        yield Refusal(number, "bad") if number in refused else Input(number, value(number))


@given(
    st.integers(0, 40).flatmap(lambda count: st.tuples(st.just(count), st.frozensets(st.integers(0, count)))),
    st.integers(1, 7),
    st.data(),
)
def test_grouping_loses_nothing_and_goes_on_where_it_stopped(
    case: tuple[int, frozenset[int]], size: int, data: st.DataObject
) -> None:
    count, refused = case
    groups = list(grouped(numbered(count, refused), size))
    assert [number for group in groups for number in range(group.begin, group.end)] == list(range(count))
    assert [number for group in groups for number in group.numbers] == sorted(set(range(count)) - refused)
    assert all(len(group.numbers) == size for group in groups[:-1])
    for group in groups:
        outputs = [tensor * 2 for tensor in group.tensors]
        assert all(len(tensor) == size for tensor in group.tensors)
        found = [float(each[0][0, 0]) for each in split(outputs, size, len(group.numbers))]
        assert found == [2.0 * number for number in group.numbers]
    if groups:
        stop = data.draw(st.integers(0, len(groups) - 1))
        rest = list(grouped(numbered(count, refused, groups[stop].begin), size))
        assert [(each.begin, each.numbers) for each in rest] == [
            (each.begin, each.numbers) for each in groups[stop:]
        ]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.sampled_from(["float32", "int64"]))
def test_what_is_stacked_is_split_again(size: int, count: int, rows: int, dtype: str) -> None:
    count = min(count, size)
    samples = [
        (np.full((rows, 2), k, dtype), np.arange(rows * 3, dtype=dtype).reshape(rows, 3) + k)
        for k in range(count)
    ]
    tensors = stacked(samples, size)
    assert [tensor.shape[0] for tensor in tensors] == [rows * size] * 2
    for have, want in zip(split(tensors, size, count), samples, strict=True):
        for a, b in zip(have, want, strict=True):
            np.testing.assert_array_equal(a, b)
    assert {tensor.min() for tensor in tensors[:1]} | {tensor.max() for tensor in tensors[:1]} <= set(
        range(count)
    )


class Doubling:
    """Answers each request with twice its tensors, after as long as the test wants."""

    def __init__(self, workers: int, gate: threading.Event | None = None) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._gate = gate
        self._lock = threading.Lock()
        self.now = self.most = 0

    def submit(self, tensors: tuple[Array, ...]) -> Future[tuple[Array, ...]]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        return self._pool.submit(self._run, tensors)

    def _run(self, tensors: tuple[Array, ...]) -> tuple[Array, ...]:
        if self._gate:
            self._gate.wait(10)
        with self._lock:
            self.now -= 1
        if np.isnan(tensors[0]).any():
            raise ValueError("a stage failed")
        return tuple(tensor * 2 for tensor in tensors)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.frozensets(st.integers(0, 12))), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_every_input_is_answered_once_and_in_order(
    cases: list[tuple[int, frozenset[int]]], size: int, window: int
) -> None:
    plan = Doubling(3)
    streams = [grouped(numbered(count, refused), size) for count, refused in cases]
    told: list[int] = []
    found: list[list[float]] = [[] for _ in cases]
    ends = [0] * len(cases)
    with Feed(streams) as feed:
        on_refusal = lambda _, group: told.extend(each.number for each in group.refused)  # noqa: E731
        for settled in answers(feed, plan.submit, window, on_refusal=on_refusal):
            group = settled.group
            assert group.begin == ends[settled.stream]
            ends[settled.stream] = group.end
            outputs = settled.answer or ()
            found[settled.stream] += [
                float(each[0][0, 0]) for each in split(outputs, size, len(group.numbers))
            ]
    assert plan.most <= window
    assert ends == [count for count, _ in cases]
    for values, (count, refused) in zip(found, cases, strict=True):
        assert values == [2.0 * number for number in sorted(set(range(count)) - refused)]
    assert sorted(told) == sorted(k for count, refused in cases for k in refused if k < count)


def test_a_source_is_read_no_further_than_the_window() -> None:
    read, gate = itertools.count(), threading.Event()
    taken: list[int] = []

    def endless() -> Iterator[Input]:
        for number in read:
            taken.append(number)
            yield Input(number, value(number))

    plan = Doubling(2, gate)
    with Feed([grouped(endless(), 1)]) as feed:
        stream = answers(feed, plan.submit, 2, stopping=lambda: plan.most >= 2 and gate.is_set())
        threading.Timer(0.5, gate.set).start()
        first = next(stream)
        assert first.group.numbers == (0,)
        assert len(taken) <= 2 + 2  # on their way, one waiting, one being read
        assert [settled.group.numbers for settled in stream] == [(1,)]


def test_a_slow_stream_holds_back_no_other() -> None:
    gate = threading.Event()

    def slow() -> Iterator[Input]:
        gate.wait(10)
        yield Input(0, value(7))

    def quick() -> Iterator[Input]:
        yield from numbered(5)
        gate.set()

    with Feed([grouped(slow(), 1), grouped(quick(), 1)]) as feed:
        order = [settled.stream for settled in answers(feed, Doubling(1).submit, 2)]
    assert sorted(order) == [0] + [1] * 5
    assert order.index(0) >= 4


def test_streams_take_turns() -> None:
    with Feed([grouped(numbered(9), 1) for _ in range(3)]) as feed:
        plan = Doubling(1)
        with feed.changed:
            feed.changed.wait_for(lambda: all(group is not None for group in feed._waiting), 10)
        order = []
        for settled in answers(feed, plan.submit, 1):
            order.append(settled.stream)
            with feed.changed:  # give every reader time for its next one
                feed.changed.wait_for(lambda: feed._reading < 3 or None not in feed._waiting, 1)
    assert order[:24] == [0, 1, 2] * 8


def test_a_broken_stream_ends_and_the_others_go_on() -> None:
    def broken() -> Iterator[Input]:
        yield Input(0, value(0))
        raise DocumentError("camera", "input 1", "is cut off")

    found: list[Settled[Any]] = []
    with Feed([grouped(broken(), 1), grouped(numbered(4), 1)]) as feed:
        stream = answers(feed, Doubling(1).submit, 2)
        with pytest.raises(DocumentError, match="cut off"):
            found.extend(stream)
    found_at = sorted((each.stream, each.group.begin) for each in found)
    assert found_at == [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3)]


def test_a_refusal_that_ends_the_run_waits_for_what_is_on_its_way() -> None:
    def refuse(stream: int, group: Group) -> None:
        raise InputError(group.refused[0].reason)

    found: list[Settled[Any]] = []
    with Feed([grouped(numbered(9, frozenset({4})), 1)]) as feed:
        stream = answers(feed, Doubling(2).submit, 3, on_refusal=refuse)
        with pytest.raises(InputError, match="bad"):
            found.extend(stream)
    assert [each.group.begin for each in found] == [0, 1, 2, 3]


def test_a_failed_request_is_raised() -> None:
    streams = [grouped([Input(0, value(1)), Input(1, (np.full((1, 3), np.nan, np.float32),))], 1)]
    with Feed(streams) as feed, pytest.raises(ValueError, match="a stage failed"):
        list(answers(feed, Doubling(1).submit, 2))


def test_stopping_finishes_what_is_on_its_way() -> None:
    stop: list[int] = []
    with Feed([grouped(numbered(1000), 1)]) as feed:
        found = []
        for settled in answers(feed, Doubling(2).submit, 4, stopping=lambda: bool(stop)):
            found.append(settled.group.begin)
            if len(found) == 10:
                stop.append(1)
    assert found == list(range(len(found)))
    assert 10 <= len(found) <= 14


def read(source: Source, begin: int = 0, limit: int | None = None) -> list[tuple[int, Any]]:
    return [
        (item.number, item.reason if isinstance(item, Refusal) else item.arrays)
        for item in source.stream(begin, limit)
    ]


def test_a_folder_numbers_every_file(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in")
    (folder / "b-broken.png").write_bytes(b"\x89PNG\r\n")
    source = open_source(folder, cut(TINY)[0])
    found = read(source)
    assert source.length == 6
    assert [number for number, _ in found] == list(range(6))
    assert [number for number, each in found if isinstance(each, str)] == [0]
    assert "b-broken.png" in found[0][1]
    again = read(source, 4, 14)
    assert [number for number, _ in again] == list(range(4, 14))
    np.testing.assert_array_equal(again[0][1][0], found[4][1][0])
    np.testing.assert_array_equal(again[9][1][0], found[1][1][0])
    before = source.fingerprint
    (folder / "church.png").write_bytes(b"")
    assert open_source(folder, cut(TINY)[0]).fingerprint != before


@pytest.mark.parametrize("form", ["npz", "compressed", "fortran", "npy"])
def test_array_files_are_read_by_row(tmp_path: Path, form: str) -> None:
    values = np.random.default_rng(0).normal(size=(5, 3, 32, 32))
    file = tmp_path / ("in.npy" if form == "npy" else "in.npz")
    if form == "npy":
        np.save(file, values)
    else:
        write = np.savez_compressed if form == "compressed" else np.savez
        write(file, arg_0=np.asfortranarray(values) if form == "fortran" else values)
    source = open_source(file, cut(TINY)[0])
    found = read(source, 3, 12)
    assert [number for number, _ in found] == list(range(3, 12))
    for number, (array,) in found:
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, values[number % 5 : number % 5 + 1].astype(np.float32))


@pytest.mark.parametrize("form", ["npz", "compressed", "npy"])
def test_a_file_is_never_in_memory_whole(tmp_path: Path, form: str) -> None:
    values = np.ones((1000, 3, 32, 32), np.float32)
    file = tmp_path / ("in.npy" if form == "npy" else "in.npz")
    if form == "npy":
        np.save(file, values)
    else:
        (np.savez_compressed if form == "compressed" else np.savez)(file, arg_0=values)
    model, size, row = cut(TINY)[0], values.nbytes, values[0].nbytes
    del values
    tracemalloc.start()
    for _ in open_source(file, model).stream(0, 1100):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert row < peak < size / 4


def test_two_arrays_of_a_file_are_read_together(tmp_path: Path) -> None:
    ids = np.arange(36).reshape(3, 12) % 50
    np.savez(tmp_path / "in.npz", input_ids=ids, attention_mask=np.ones((3, 12), np.int32))
    found = read(open_source(tmp_path / "in.npz", cut(BERT)[0]), 1)
    assert [number for number, _ in found] == [1, 2]
    np.testing.assert_array_equal(found[0][1][0], ids[1:2])
    assert {array.dtype.name for array in found[0][1]} == {"int64"}


class Dribble(io.RawIOBase):
    """A stream that gives a few bytes at a time, as a pipe does."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self._random = Random(0)

    def read(self, size: int = -1, /) -> bytes:
        assert size >= 0
        return self._content.read(min(size, self._random.randint(1, 50)))


def framed(*arrays: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    for array in arrays:
        np.save(stream, array, **options)
    return stream.getvalue()


def test_frames_of_a_stream() -> None:
    spec = TensorSpec((1, 2, 3))
    good = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = framed(good, good[np.newaxis] + 1, good.astype(np.float64) + 2, good[:1], good.astype("U4"))
    content += framed(np.asfortranarray(good + 5), good.astype(">f4") + 6)
    found = read(FrameSource(Dribble(content), [spec]))
    assert [number for number, _ in found] == list(range(7))
    assert found[3][1] == "expected 1x2x3 float32, found 1x3 float32"
    assert found[4][1] == "expected 1x2x3 float32, found 2x3 <U4"
    for number in (0, 1, 2, 5, 6):
        assert found[number][1][0].dtype == np.float32
        np.testing.assert_array_equal(found[number][1][0], good[np.newaxis] + number)
    assert [number for number, _ in read(FrameSource(Dribble(content), [spec]), 5)] == [5, 6]
    stream = Dribble(content)
    assert [number for number, _ in read(FrameSource(stream, [spec]), 0, 2)] == [0, 1]
    assert len(stream.read(1)) == 1  # nothing is waited for beyond the last one that is wanted


def test_frames_of_two_arrays() -> None:
    specs = [TensorSpec((1, 2)), TensorSpec((1,), "int64")]
    content = framed(np.ones(2, np.float32), np.array([4]), np.ones(3, np.float32), np.array([5]))
    content += framed(np.zeros(2, np.float32), np.array([6]))
    found = read(FrameSource(Dribble(content), specs))
    assert [number for number, each in found if isinstance(each, str)] == [1]
    assert found[2][1][1].tolist() == [6]
    with pytest.raises(DocumentError, match="input 3: it ends after 1 of 2 arrays"):
        read(FrameSource(Dribble(content + framed(np.ones(2, np.float32))), specs))


@pytest.mark.parametrize("case", ["text", "pickle", "cut", "header", "huge", "negative"])
def test_a_stream_that_is_no_frames_is_refused_there(tmp_path: Path, case: str) -> None:
    good = framed(np.ones(3, np.float32))
    bad = {
        "text": b"hello, hello, hello",
        "pickle": framed(np.array([Payload(tmp_path / "ran")], object), allow_pickle=True),
        "cut": good[:-4],
        "header": good[:40],
        "huge": good.replace(b"(3,), }          ", b"(99999999999,), }"),
        "negative": good.replace(b"(3,), } ", b"(-3,), }"),
    }[case]
    assert bad != good
    found: list[Any] = []
    with pytest.raises(DocumentError, match=r"input 1: .*nothing after it can be read"):
        found.extend(FrameSource(Dribble(good + bad), [SPEC]).read(0))
    assert [item.number for item in found] == [0]
    assert not (tmp_path / "ran").exists()


def test_samples_of_an_iterable() -> None:
    specs = [TensorSpec((1, 2))]
    given = [np.zeros(2), [1, 2], (np.ones((1, 2), np.float32),), np.zeros(3), (1, 2), "text", None]
    found = list(checked_inputs(given, specs))
    assert [isinstance(item, Input) for item in found] == [True, True, True, False, False, False, False]
    assert "expected 1x2 float32, found 3 float64" in found[3].reason
    assert "expected 1 arrays, found 2" in found[4].reason
