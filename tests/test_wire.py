"""Frames: what goes in comes out, and nothing malformed gets through or does harm."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from planner.chain import Boundary, TensorSpec
from planner.errors import TransportError
from runtime.wire import Frame, check_boundary, decode, encode

DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, max_side=5)
INT64 = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    content: dict[str, Any] = {}
    if draw(st.booleans()):
        arrays = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
        content["tensors"] = tuple(draw(st.lists(arrays, max_size=3)))
    else:
        content["body"] = draw(st.dictionaries(st.text(), JSON, max_size=3))
    return Frame(
        **content,
        request=draw(st.integers(0, 2**64 - 1)),
        attempt=draw(st.integers(0, 2**32 - 1)),
        marks=tuple(draw(st.lists(INT64, max_size=5))),
        sent_ns=draw(INT64),
        due_ns=draw(INT64),
    )


def sample() -> Frame:
    tensors = (np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.array([True, False]), np.array(7))
    return Frame(tensors, request=5, attempt=1, marks=(10, 20))


def fields(frame: Frame) -> dict[str, Any]:
    """Everything that travels; tensors by their bytes, so that NaN equals itself."""
    tensors = [(array.dtype.name, array.shape, array.tobytes()) for array in frame.tensors]
    return {**vars(frame), "tensors": tensors, "arrived_ns": 0}


@given(frames())
def test_round_trip(frame: Frame) -> None:
    data = encode(frame)
    again = decode(data)
    assert fields(again) == fields(frame)
    assert encode(again) == data


@given(frames())
def test_every_truncation_and_extension_is_refused(frame: Frame) -> None:
    data = encode(frame)
    for length in range(len(data)):
        with pytest.raises(TransportError):
            decode(data[:length])
    with pytest.raises(TransportError):
        decode(data + b"\0")


@given(frames(), st.data())
def test_a_damaged_frame_is_refused_or_well_formed(frame: Frame, data: st.DataObject) -> None:
    damaged = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(damaged)
    except TransportError:
        return
    assert found.nbytes <= len(damaged)
    encode(found)


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, b"ECUT\x01\x01" + noise, b"ECUT\x01\x02" + noise):
        try:
            assert decode(data).nbytes <= len(data)
        except TransportError:
            continue


@pytest.mark.parametrize(
    ("offset", "code", "value", "expected"),
    [
        (0, "4s", b"HTTP", "magic"),
        (4, "B", 9, "version 2"),
        (5, "B", 7, "kind"),
        (6, "H", 0xFFFF, "65535 marks"),
        (8, "H", 0xFFFF, "for tensor 3"),
        (40, "Q", 2**63, "no body"),
        (64, "B", 99, "dtype code"),
        (65, "B", 200, "at most 16 axes"),
        (66, "Q", 2**62, "bytes for tensor 0"),
        (74, "Q", 2**62, "bytes for tensor 0"),
        (74, "Q", 0, "bytes for tensor 0"),
    ],
)
def test_a_wrong_number_is_named_before_anything_is_allocated(
    offset: int, code: str, value: Any, expected: str
) -> None:
    data = bytearray(encode(sample()))
    struct.pack_into(f"<{code}", data, offset, value)
    tracemalloc.start()
    try:
        with pytest.raises(TransportError, match=expected):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_an_extent_product_beyond_64_bits_is_refused() -> None:
    data = bytearray(encode(Frame((np.zeros((1, 2, 2), np.uint8),))))
    # 2^32 x 2^32 x 4 wraps to 0 in 64 bits, and to 4 with one more factor.
    struct.pack_into("<3Q", data, 58, 2**32, 2**32, 4)
    with pytest.raises(TransportError, match="bytes for tensor 0"):
        decode(data)


def test_tensors_are_views_aligned_and_as_writable_as_the_buffer() -> None:
    data = bytes(encode(sample()))
    buffer = np.empty(len(data) + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    view = buffer[start : start + len(data)].data
    view[:] = data
    for array in decode(view).tensors:
        assert np.shares_memory(array, buffer)
        assert array.flags.writeable
        assert array.ctypes.data % 64 == 0
    assert not any(array.flags.writeable for array in decode(data).tensors)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.arange(24, dtype=np.int16)[::2],
        np.arange(6, dtype=">f8"),
        np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    ],
    ids=["transposed", "strided", "big-endian", "column-major"],
)
def test_any_layout_travels(array: np.ndarray[Any, Any]) -> None:
    (found,) = decode(encode(Frame((array,)))).tensors
    assert found.dtype.name == array.dtype.name
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (Frame((np.zeros(2, np.complex64),)), "found complex64"),
        (Frame((np.array(["a"]),)), "found str"),
        (Frame((np.array([object()]),)), "found object"),
        (Frame((np.zeros((2, 0), np.int8),)), "no empty one"),
        (Frame((np.zeros((1,) * 17, np.int8),)), "at most 16 axes"),
        (Frame((np.zeros(1),), body={}), "found more than one"),
        (Frame(body={"a": float("nan")}), "not JSON"),
        (Frame(body={"a": object()}), "not JSON"),
        (Frame(request=-1), "does not fit"),
        (Frame(request=2**64), "does not fit"),
        (Frame(marks=(2**63,)), "does not fit"),
    ],
)
def test_what_cannot_travel_is_refused(frame: Frame, problem: str) -> None:
    with pytest.raises(TransportError, match=problem):
        encode(frame)


@pytest.mark.parametrize(
    "body", [b"[1]", b"NaN", b'{"a":NaN}', b"{", b"\xff", b"", b"[" * 100_000, b'{"a":' + b"9" * 9000 + b"}"]
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    head = bytearray(encode(Frame(body={}))[:-2])
    struct.pack_into("<Q", head, 40, len(body))
    with pytest.raises(TransportError, match="JSON"):
        decode(bytes(head) + body)


def test_booleans_are_0_or_1() -> None:
    data = bytearray(encode(Frame((np.array([True]),))))
    data[-1] = 2
    with pytest.raises(TransportError, match="booleans"):
        decode(data)


def test_a_larger_frame_than_allowed_is_refused() -> None:
    data = encode(sample())
    assert decode(data, max_bytes=len(data)).request == 5
    with pytest.raises(TransportError, match=f"at most {len(data) - 1} bytes"):
        decode(data, max_bytes=len(data) - 1)


def test_a_frame_beyond_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.wire.MAX_FRAME_BYTES", 1000)
    with pytest.raises(TransportError, match="at most 1000 bytes"):
        encode(Frame((np.zeros(1000, np.uint8),)))


def test_a_frame_is_checked_against_its_boundary() -> None:
    boundary = Boundary((TensorSpec((1, 3, 4)), TensorSpec((1, 2), "int64"))).batched(2)
    right = (np.zeros((2, 3, 4), np.float32), np.zeros((2, 2), np.int64))
    check_boundary(Frame(right), boundary, 3)
    for wrong, found in (
        (right[:1], "2x3x4 float32"),
        (right[::-1], "2x2 int64 + 2x3x4 float32"),
        ((right[0], right[1].astype(np.int32)), "2x2 int32"),
        ((right[0][:1], right[1]), "1x3x4 float32"),
        ((), "no tensors"),
    ):
        with pytest.raises(TransportError) as caught:
            check_boundary(Frame(wrong, request=9), boundary, 3)
        assert "request 9 at boundary 3: expected 2x3x4 float32 + 2x2 int64" in str(caught.value)
        assert found in str(caught.value).partition("found ")[2]


def test_marks_grow_along_the_path() -> None:
    frame = sample().marked(30).marked(40, 50)
    assert decode(encode(frame)).marks == (10, 20, 30, 40, 50)


def test_the_network_seam_imports_neither_torch_nor_zenoh() -> None:
    script = (
        "import sys, runtime.wire, runtime.transport, runtime.zenoh_transport, runtime.shaping\n"
        "print(sorted({'torch', 'zenoh', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
