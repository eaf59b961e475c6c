"""The Open Inference protocol (KServe V2) with Triton's binary tensor data, as bytes and arrays; no network here.

::

    request     {"id", "parameters", "inputs": [...], "outputs": [...]}  tensor bytes, in the order of the inputs
                └─────────── Inference-Header-Content-Length ──────────┘
    response    the same, with the outputs' bytes

A tensor is binary where its ``binary_data_size`` says so, else its values stand in the JSON.
Source: the protocol's ``inference_rest.md`` and Triton's ``extension_binary_data.md``.
"""

from __future__ import annotations

import itertools
import json
import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from planner.chain import TensorSpec
from planner.errors import InputError
from profiler.runner import Array

VERSION = "1"
_DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
# By kind of dtype: in what its values are held first, and as which types JSON gives them.
_JSON: dict[str, tuple[type[np.generic], set[type]]] = {
    "b": (np.bool_, {bool}),
    "i": (np.int64, {int}),
    "u": (np.int64, {int}),
    "f": (np.float64, {int, float}),
}
_SHOWN = 120  # characters of what was found, in an error


@dataclass(frozen=True)
class NamedTensor:
    """An input or output of the served network, for one sample; axis 0 is the batch."""

    name: str
    spec: TensorSpec

    @property
    def datatype(self) -> str:
        return _DATATYPES[self.spec.dtype]

    def metadata(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.spec.shape[1:]]}


@dataclass(frozen=True)
class Signature:
    """What is served: ``max_samples`` in one request at most."""

    name: str
    inputs: tuple[NamedTensor, ...]
    outputs: tuple[NamedTensor, ...]
    max_samples: int


@dataclass(frozen=True, eq=False)
class InferRequest:
    """A request that fits the network.

    ``arrays``: the inputs, ``samples`` of each, views of the request's bytes where they came so. ``outputs``: which
    are wanted, by place, and whether in binary. ``timeout_s``: None where the client set none.
    """

    id: str | None
    arrays: tuple[Array, ...]
    samples: int
    outputs: tuple[tuple[int, bool], ...]
    timeout_s: float | None


def decode_request(body: memoryview, header_bytes: int | None, signature: Signature) -> InferRequest:
    """The request in an HTTP body whose first ``header_bytes`` are JSON, all of it where None.

    Raises ``InputError`` for what is malformed or does not fit the network, with what was expected and found.
    """
    if header_bytes is None:
        header_bytes = len(body)
    elif header_bytes > len(body):
        _refuse(f"Inference-Header-Content-Length is {header_bytes}, and the body has {len(body)} bytes")
    asked = read_json(body[:header_bytes])
    parameters = _parameters(asked, "the request")
    given = _by_name(asked.get("inputs"), [each.name for each in signature.inputs], "input")
    if len(given) < len(signature.inputs):
        missing = ", ".join(each.name for each in signature.inputs if each.name not in given)
        _refuse(f"expected the inputs {_names(signature.inputs)}; missing: {missing}")
    wanted = {each.name: each for each in signature.inputs}
    arrays, end = {}, header_bytes
    for name, tensor in given.items():
        arrays[name], end = _array(tensor, wanted[name], body, end)
    if end < len(body):
        _refuse(f"{len(body) - end} bytes follow the tensors")
    counts = {name: len(arrays[name]) // each.spec.shape[0] for name, each in wanted.items()}
    if len(set(counts.values())) > 1:
        _refuse(f"expected as many samples of each input, found {_shown(counts)}")
    samples = counts[signature.inputs[0].name]
    if samples > signature.max_samples:
        _refuse(f"expected at most {signature.max_samples} samples, found {samples}")
    if parameters.get("sequence_id", 0) not in (0, ""):
        _refuse("the network keeps no state between requests: leave out sequence_id")
    identity = asked.get("id")
    if not isinstance(identity, str | None):
        _refuse(f"id is a string, found {_shown(identity)}")
    outputs = _outputs(asked.get("outputs"), parameters, signature)
    return InferRequest(
        identity,
        tuple(arrays[each.name] for each in signature.inputs),
        samples,
        outputs,
        _timeout_s(parameters),
    )


def read_json(text: memoryview) -> dict[str, Any]:
    """A JSON object. Raises ``InputError``."""
    try:
        found = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        _refuse(f"the JSON cannot be read: {error!s:.{_SHOWN}}")
    if not isinstance(found, dict):
        _refuse(f"expected a JSON object, found {_shown(found)}")
    return found


def encode_response(
    request: InferRequest, outputs: Sequence[Array], signature: Signature
) -> tuple[bytes, list[memoryview]]:
    """The JSON of the response and the bytes after it, none where no output is wanted in binary.

    ``outputs``: all that the network gives, for the samples of the request.
    """
    described: list[dict[str, Any]] = []
    binary: list[memoryview] = []
    for place, in_binary in request.outputs:
        tensor, array = signature.outputs[place], outputs[place]
        one: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(array.shape)}
        if in_binary:
            binary.append(np.ascontiguousarray(array).data.cast("B"))
            one["parameters"] = {"binary_data_size": array.nbytes}
        else:
            one["data"] = array.ravel().tolist()
        described.append(one)
    answer: dict[str, Any] = {"model_name": signature.name, "model_version": VERSION, "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    return json.dumps(answer, separators=(",", ":")).encode(), binary


def _parameters(owner: dict[str, Any], whose: str) -> dict[str, Any]:
    found = owner.get("parameters", {})
    if not isinstance(found, dict):
        _refuse(f"parameters of {whose} are an object, found {_shown(found)}")
    for name in ("shared_memory_region", "classification"):
        if name in found:
            _refuse(f"{whose} asks for {name}, which this server does not have")
    return found


def _by_name(found: Any, known: list[str], kind: str) -> dict[str, dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        _refuse(f"{kind}s are a list of objects, found {_shown(found)}")
    named: dict[str, dict[str, Any]] = {}
    for each in found:
        name = each.get("name")
        if not isinstance(name, str) or name not in known:
            _refuse(f"unknown {kind} {_shown(name)}; the {kind}s are {', '.join(known)}")
        if name in named:
            _refuse(f"{kind} {name} is there twice")
        named[name] = each
    return named


def _array(given: dict[str, Any], wanted: NamedTensor, body: memoryview, start: int) -> tuple[Array, int]:
    """The values of an input, and where the bytes of the next one begin."""
    name, spec = f"input {wanted.name}", wanted.spec
    if given.get("datatype") != wanted.datatype:
        _refuse(f"{name} is {wanted.datatype}, found {_shown(given.get('datatype'))}")
    shape = given.get("shape")
    if not isinstance(shape, list) or not all(type(extent) is int for extent in shape):
        shape = []
    if len(shape) != len(spec.shape) or tuple(shape[1:]) != spec.shape[1:]:
        _refuse(f"{name} has the shape {wanted.metadata()['shape']}, found {_shown(given.get('shape'))}")
    if shape[0] < 1 or shape[0] % spec.shape[0]:
        _refuse(f"axis 0 of {name} is a multiple of {spec.shape[0]}, found {shape[0]}")
    size = _parameters(given, name).get("binary_data_size")
    if size is None:
        return _from_json(given.get("data"), tuple(shape), spec.dtype, name), start
    expected = math.prod(shape) * np.dtype(spec.dtype).itemsize
    if type(size) is not int or size != expected:
        _refuse(f"{name} of shape {shape} has {expected} bytes, found binary_data_size {_shown(size)}")
    if "data" in given:
        _refuse(f"{name} has both data and binary_data_size")
    if start + size > len(body):
        _refuse(f"{name} has {size} bytes, and {len(body) - start} are left of the body")
    values = body[start : start + size]
    if spec.dtype == "bool":
        return (np.frombuffer(values, np.uint8) != 0).reshape(shape), start + size
    return np.frombuffer(values, np.dtype(spec.dtype).newbyteorder("<")).reshape(shape), start + size


def _from_json(data: Any, shape: tuple[int, ...], dtype: str, name: str) -> Array:
    """Values in a list, nested as the shape says or flat."""
    if not isinstance(data, list):
        _refuse(f"{name} has neither data in a list nor binary_data_size")
    values = _flat(data, shape, name)
    target = np.dtype(dtype)
    wide, kinds = _JSON[target.kind]
    # Before numpy sees them: of one long text among numbers it would make an array of such texts.
    if not set(map(type, values)) <= kinds:
        _refuse(f"data of {name} are not all numbers that {_DATATYPES[dtype]} holds")
    try:
        found: Array = np.array(values, wide)
        with np.errstate(over="ignore"):
            array = found.astype(target)
    except OverflowError:
        _refuse(f"data of {name} are too large for {_DATATYPES[dtype]}")
    # A whole number that wrapped around differs from what it was; so does one that became infinite.
    fits = array == found if target.kind in "iu" else np.isinf(array) == np.isinf(found)
    if not np.all(fits):
        _refuse(f"data of {name} are too large for {_DATATYPES[dtype]}")
    return array.reshape(shape)


def _flat(data: list[Any], shape: tuple[int, ...], name: str) -> list[Any]:
    if not isinstance(data[0] if data else None, list):
        if len(data) != math.prod(shape):
            _refuse(f"data of {name} are {math.prod(shape)} values, found {len(data)}")
        return data
    values: list[Any] = [data]
    for extent in shape:
        if not all(type(each) is list and len(each) == extent for each in values):
            _refuse(f"data of {name} are nested as the shape {list(shape)} says, or flat")
        values = list(itertools.chain.from_iterable(values))
    return values


def _outputs(found: Any, parameters: dict[str, Any], signature: Signature) -> tuple[tuple[int, bool], ...]:
    everywhere = read_flag(parameters, "binary_data_output")
    if found is None or found == []:
        return tuple((place, everywhere) for place in range(len(signature.outputs)))
    known = [each.name for each in signature.outputs]
    asked = _by_name(found, known, "output")
    return tuple(
        (known.index(name), read_flag(_parameters(each, f"output {name}"), "binary_data", default=everywhere))
        for name, each in asked.items()
    )


def read_flag(parameters: dict[str, Any], name: str, *, default: bool = False) -> bool:
    """Raises ``InputError`` for what is neither true nor false."""
    found = parameters.get(name, default)
    if not isinstance(found, bool):
        _refuse(f"{name} is true or false, found {_shown(found)}")
    return found


def _timeout_s(parameters: dict[str, Any]) -> float | None:
    """Microseconds in the protocol; 0 stands for none."""
    found = parameters.get("timeout", 0)
    if type(found) is not int or found < 0:
        _refuse(f"timeout is a whole number of microseconds, found {_shown(found)}")
    return min(found, 1 << 50) / 1e6 or None


def _names(tensors: Sequence[NamedTensor]) -> str:
    return ", ".join(each.name for each in tensors)


def _shown(found: Any) -> str:
    return "nothing" if found is None else reprlib.repr(found)[:_SHOWN]


def _refuse(problem: str) -> NoReturn:
    raise InputError(problem)
