"""The Open Inference protocol as bytes: what the public client writes is read, and what is written it reads."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from planner.chain import TensorSpec
from planner.errors import InputError
from runtime.serving.content import TooLargeError, accepted_coding, compressed, decompressed, known_coding
from runtime.serving.protocol import NamedTensor, Signature, decode_request, encode_response

triton = pytest.importorskip("tritonclient.http")

DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
DTYPES = st.sampled_from(sorted(DATATYPES))
EXTENTS = st.lists(st.integers(1, 4), max_size=3).map(tuple)
PAIR = Signature(
    "pair",
    (NamedTensor("x", TensorSpec((1, 2))), NamedTensor("ids", TensorSpec((2, 3), "int64"))),
    (NamedTensor("y", TensorSpec((1, 2))), NamedTensor("z", TensorSpec((1, 1), "int8"))),
    max_samples=5,
)


@st.composite
def tensors(draw: st.DrawFn, samples: int) -> tuple[TensorSpec, np.ndarray[Any, Any]]:
    """A spec for one sample, and the values of several."""
    spec = TensorSpec((draw(st.integers(1, 2)), *draw(EXTENTS)), draw(DTYPES))
    return spec, draw(hnp.arrays(spec.dtype, spec.batched(samples).shape))


@given(st.data(), st.integers(1, 4), st.booleans())
def test_what_the_client_writes_is_read(data: st.DataObject, samples: int, binary: bool) -> None:
    drawn = data.draw(st.lists(tensors(samples), min_size=1, max_size=3))
    inputs, named, arrays = [], [], []
    for place, (spec, values) in enumerate(drawn):
        name, in_binary = f"in{place}", data.draw(st.booleans()) if binary else False
        one = triton.InferInput(name, list(values.shape), DATATYPES[spec.dtype])
        inputs.append(one.set_data_from_numpy(values, binary_data=in_binary))
        named.append(NamedTensor(name, spec))
        arrays.append(values)
    what = Signature("any", tuple(named), (NamedTensor("out", TensorSpec((1,))),), 4)
    body, header = triton.InferenceServerClient.generate_request_body(inputs, request_id="7", timeout=5000)
    asked = decode_request(memoryview(body), header, what)
    assert (asked.id, asked.samples, asked.timeout_s, asked.outputs) == ("7", samples, 0.005, ((0, True),))
    for found, wanted in zip(asked.arrays, arrays, strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@given(st.data(), st.integers(1, 4))
def test_what_is_written_the_client_reads(data: st.DataObject, samples: int) -> None:
    drawn = data.draw(st.lists(tensors(samples), min_size=1, max_size=3))
    named = tuple(NamedTensor(f"out{place}", spec) for place, (spec, _) in enumerate(drawn))
    what = Signature("any", (NamedTensor("x", TensorSpec((1, 1))),), named, 4)
    wanted = data.draw(st.lists(st.sampled_from(named), unique=True, max_size=3))
    one = triton.InferInput("x", [samples, 1], "FP32")
    one.set_data_from_numpy(np.zeros((samples, 1), np.float32))
    outputs = [
        triton.InferRequestedOutput(each.name, binary_data=data.draw(st.booleans())) for each in wanted
    ]
    body, header = triton.InferenceServerClient.generate_request_body([one], outputs)
    asked = decode_request(memoryview(body), header, what)
    text, binary = encode_response(asked, [values for _, values in drawn], what)
    content = b"".join((text, *binary))
    result = triton.InferResult.from_response_body(content, header_length=len(text) if binary else None)
    assert {each["name"] for each in result.get_response()["outputs"]} == {
        each.name for each in wanted or named
    }
    for each, (spec, values) in zip(named, drawn, strict=True):
        if each in (wanted or named):
            found = result.as_numpy(each.name)
            assert (found.shape, found.dtype) == (values.shape, np.dtype(spec.dtype))
            np.testing.assert_array_equal(found, values)


def asking(**changes: Any) -> dict[str, Any]:
    ids = {"name": "ids", "shape": [2, 3], "datatype": "INT64", "data": [1, 2, 3, 4, 5, 6]}
    return {
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2.5]]}, ids],
        **changes,
    }


def with_x(**changes: Any) -> dict[str, Any]:
    x, ids = asking()["inputs"]
    return {"inputs": [x | changes, ids]}


def with_ids(**changes: Any) -> dict[str, Any]:
    x, ids = asking()["inputs"]
    return {"inputs": [x, ids | changes]}


def test_nested_and_flat_values_are_the_same() -> None:
    asked = decode_request(memoryview(json.dumps(asking()).encode()), None, PAIR)
    assert (asked.samples, asked.id, asked.timeout_s) == (1, None, None)
    assert asked.outputs == ((0, False), (1, False))
    np.testing.assert_array_equal(asked.arrays[0], np.array([[1, 2.5]], np.float32))
    np.testing.assert_array_equal(asked.arrays[1], np.arange(1, 7).reshape(2, 3))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "expected a JSON object"),
        ({}, "inputs are a list"),
        ({"inputs": 5}, "inputs are a list"),
        ({"inputs": []}, "missing: x, ids"),
        (with_x(name="why"), "unknown input 'why'; the inputs are x, ids"),
        (with_x(name=["x"]), "unknown input"),
        (with_ids(name="x"), "x is there twice"),
        (with_x(datatype="FP16"), "x is FP32, found 'FP16'"),
        (with_x(datatype=None), "x is FP32, found nothing"),
        (with_x(shape=[1, 3]), r"x has the shape \[-1, 2\], found \[1, 3\]"),
        (with_x(shape=[2]), "x has the shape"),
        (with_x(shape=[True, 2]), "x has the shape"),
        (with_x(shape=[1.0, 2]), "x has the shape"),
        (with_x(shape="12"), "x has the shape"),
        (with_x(shape=[0, 2]), "axis 0 of input x"),
        (with_x(shape=[-1, 2]), "axis 0 of input x"),
        (with_x(shape=[10**30, 2]), "nested as the shape"),
        (with_ids(shape=[3, 3]), "a multiple of 2, found 3"),
        (with_ids(shape=[4, 3], data=[1] * 12), "as many samples of each"),
        ({"inputs": [with_x(shape=[6, 2], data=[1] * 12)["inputs"][0],
                     with_ids(shape=[12, 3], data=[1] * 36)["inputs"][1]]}, "at most 5 samples, found 6"),
        (with_x(data=None), "neither data in a list"),
        (with_x(data=[]), "are 2 values, found 0"),
        (with_x(data=[1, 2, 3]), "are 2 values, found 3"),
        (with_x(data=[[1], [2]]), "nested as the shape"),
        (with_x(data=[[1, 2], 3]), "nested as the shape"),
        (with_x(data=[["1", "2"]]), "not all numbers that FP32"),
        (with_x(data=[1, "2"]), "not all numbers that FP32"),
        (with_x(data=[1, True]), "not all numbers that FP32"),
        (with_x(data=[1, None]), "not all numbers that FP32"),
        (with_x(data=[1e39, 0]), "too large for FP32"),
        (with_x(data=[10**400, 0]), "too large for FP32"),
        (with_ids(data=[1, 2, 3, 4, 5, 6.0]), "not all numbers that INT64"),
        (with_ids(data=[2**63, 2, 3, 4, 5, 6]), "too large for INT64"),
        (with_x(parameters={"binary_data_size": 9}), "has 8 bytes, found binary_data_size 9"),
        (with_x(parameters={"binary_data_size": True}), "has 8 bytes, found binary_data_size True"),
        (with_x(parameters={"binary_data_size": 8}), "both data and binary_data_size"),
        (with_x(parameters={"shared_memory_region": "r"}), "asks for shared_memory_region"),
        (with_x(parameters=3), "parameters of input x are an object"),
        (asking(parameters=[]), "parameters of the request"),
        (asking(parameters={"timeout": -1}), "microseconds"),
        (asking(parameters={"timeout": "9"}), "microseconds"),
        (asking(parameters={"binary_data_output": 1}), "binary_data_output is true or false"),
        (asking(parameters={"sequence_id": 4}), "keeps no state"),
        (asking(id=4), "id is a string"),
        (asking(outputs=[{"name": "w"}]), "unknown output 'w'; the outputs are y, z"),
        (asking(outputs=["y"]), "outputs are a list of objects"),
        (asking(outputs=[{"name": "y"}, {"name": "y"}]), "y is there twice"),
        (asking(outputs=[{"name": "y", "parameters": {"classification": 3}}]), "asks for classification"),
        (asking(outputs=[{"name": "y", "parameters": {"binary_data": "yes"}}]), "binary_data is true or false"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_would(asked: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        decode_request(memoryview(json.dumps(asked).encode()), None, PAIR)


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "int32"])
def test_whole_numbers_do_not_wrap_around(name: str) -> None:
    what = Signature("any", (NamedTensor("x", TensorSpec((1, 1), name)),), PAIR.outputs, 4)
    for value, fits in ((np.iinfo(name).max, True), (int(np.iinfo(name).max) + 1, False)):
        one = {"name": "x", "shape": [1, 1], "datatype": DATATYPES[name], "data": [int(value)]}
        body = memoryview(json.dumps({"inputs": [one]}).encode())
        if fits:
            assert decode_request(body, None, what).arrays[0][0, 0] == value
        else:
            with pytest.raises(InputError, match="too large"):
                decode_request(body, None, what)


@pytest.mark.parametrize(
    ("body", "header", "said"),
    [
        (b"", None, "cannot be read"),
        (b"{", None, "cannot be read"),
        (b"\xff\xfe{}", None, "cannot be read"),
        (b"[" * 100_000, None, "cannot be read"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", None, "cannot be read"),
        (b"{}", 3, "is 3, and the body has 2"),
        (b"{}", 0, "cannot be read"),
    ],
)
def test_bytes_that_are_no_request_are_refused(body: bytes, header: int | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        decode_request(memoryview(body), header, PAIR)


@pytest.mark.parametrize(("cut", "said"), [(-1, "are left of the body"), (1, "1 bytes follow the tensors")])
def test_the_binary_part_is_as_long_as_the_tensors(cut: int, said: str) -> None:
    one = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    text = json.dumps({"inputs": [asking()["inputs"][1], one]}).encode()
    assert decode_request(memoryview(text + bytes(8)), len(text), PAIR).samples == 1
    with pytest.raises(InputError, match=said):
        decode_request(memoryview(text + bytes(8 + cut)), len(text), PAIR)


@given(st.binary(max_size=300), st.none() | st.integers(0, 300))
def test_any_bytes_are_refused_or_read(body: bytes, header: int | None) -> None:
    with pytest.raises(InputError):
        decode_request(memoryview(body), header, PAIR)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["name", "shape", "data", "datatype", "parameters", "inputs", "binary_data_size"]) , inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), _JSON)
def test_any_value_in_a_request_is_refused_or_read(key: str, value: Any) -> None:
    try:
        asked = decode_request(memoryview(json.dumps(with_x(**{key: value})).encode()), None, PAIR)
    except InputError:
        return
    assert asked.arrays[0].shape == (asked.samples, 2)


@given(st.binary(max_size=2000), st.sampled_from(["gzip", "deflate"]))
def test_what_is_packed_is_unpacked(content: bytes, name: str) -> None:
    coding = known_coding(name.upper())
    assert coding == name
    unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress}[name]
    assert unpack(compressed(content, coding)) == content
    packed = compressed(content, coding)
    assert decompressed(memoryview(packed), coding, len(content)) == content
    with pytest.raises(InputError, match="ends early"):
        decompressed(memoryview(packed)[:-1], coding, len(content))
    with pytest.raises(InputError, match="goes on"):
        decompressed(memoryview(packed + b"more"), coding, len(content))
    if content:
        with pytest.raises(TooLargeError):
            decompressed(memoryview(packed), coding, len(content) - 1)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(TooLargeError, match="at most 1000 bytes"):
        decompressed(memoryview(bomb), "gzip", 1000)


@pytest.mark.parametrize(
    ("accepts", "chosen"),
    [
        ("", None), ("gzip", "gzip"), ("deflate", "deflate"), ("br, gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0", None), ("*", None), ("gzip;q=x", None), ("gzip;q=nan", None), ("br", None), (";;,,", None),
    ],
)  # fmt: skip
def test_the_client_says_what_it_takes(accepts: str, chosen: str | None) -> None:
    assert accepted_coding(accepts) == chosen


def test_a_coding_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="found br"):
        known_coding("br")
    assert known_coding("identity") is None
