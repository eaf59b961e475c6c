"""Lines of raw samples: what is written reads back, what is broken is refused by name of file and line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import bundles, positive, variants

from planner.errors import DocumentError
from planner.sample_lines import SampleLine, parse_samples

TIMES = st.lists(positive, min_size=1, max_size=4).map(tuple)
NS = st.integers(0, 2**62)
measured = st.builds(
    lambda start, length, *rest: SampleLine(*rest, start, start + length),
    NS, st.integers(1, 2**40), bundles, variants, st.integers(1, 64), TIMES, positive, positive,
)  # fmt: skip
imported = st.builds(SampleLine, bundles, variants, st.integers(1, 64), TIMES)


@given(st.lists(measured | imported, max_size=4), st.booleans())
def test_lines_round_trip_and_a_half_written_one_is_left_out(lines: list[SampleLine], cut: bool) -> None:
    text = "".join(line.format() for line in lines)
    assert list(parse_samples(text[:-1] if cut else text, "t")) == (lines[:-1] if cut else lines)


GOOD = {
    "bundle": {"start": 0, "stop": 1}, "variant": {"backend": "torch"}, "batch": 1, "latency_s": [0.5],
    "start_ns": 1, "stop_ns": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"latency_s": []}, "latency_s hold a time"),
        ({"latency_s": [0.0]}, "not above 0"),
        ({"latency_s": [float("inf")]}, "latency_s"),
        ({"latency_ms": [1]}, "unknown key"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"batch": "1"}, "batch"),
        ({"stop_ns": 1}, "does not follow its start"),
        ({"stop_ns": None}, "go together"),
        ({"stop_ns": 1 << 63}, "does not follow"),
        ({"bundle": {"start": 1, "stop": 1}}, "is empty"),
    ],
)
def test_a_broken_line_is_named(change: dict[str, object], says: str) -> None:
    text = json.dumps(GOOD) + "\n" + json.dumps({**GOOD, **change}) + "\n"
    with pytest.raises(DocumentError, match=says) as caught:
        list(parse_samples(text, "edge.samples.jsonl"))
    assert "edge.samples.jsonl: line 2" in caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 5000, "nothing"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="line 1"):
        list(parse_samples(text + "\n", "edge.samples.jsonl"))
