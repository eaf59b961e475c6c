"""What travels between processes: a frame, as one run of little-endian bytes.

::

    header   magic, version, kind, counts, request, attempt, times of a shaped link
    marks    int64 each: monotonic nanoseconds, one added at every place the request passes
    specs    per tensor: dtype code, rank, extents, bytes
    tensors  the raw bytes of each, starting at a multiple of 64
    body     a control frame has a JSON object in place of tensors

Nothing is allocated and no tensor is touched until every number has been checked, and no content is
ever executed. Anything malformed raises ``TransportError`` with what was expected and what was found.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from planner.chain import Boundary
from planner.errors import TransportError

Array = npt.NDArray[Any]
Buffer = bytes | bytearray | memoryview

MAX_FRAME_BYTES = 1 << 30
_MAX_BODY_BYTES = 16 << 20
_MAX_RANK = 16
_MAGIC, _VERSION = b"ECUT", 1
_TENSORS, _BODY = 1, 2

# magic, version, kind, marks, tensors, attempt, request, sent_ns, due_ns, body bytes
_HEADER = struct.Struct("<4sBBHHxxIQqqQ")
_SPEC = struct.Struct("<BBQ")
_ALIGNMENT = 64

# A dtype's code is its place here, so names are only ever added at the end.
_DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
_CODES = {name: code for code, name in enumerate(_DTYPES)}
_LITTLE = tuple(np.dtype(name).newbyteorder("<") for name in _DTYPES)


@dataclass(frozen=True, eq=False)
class Frame:
    """Tensors of one request, or a control message (``body``, a JSON object), never both.

    ``request`` and ``attempt`` say whose it is; ``marks`` are monotonic nanoseconds that grow along
    the path. ``sent_ns`` and ``due_ns`` belong to a shaped link: when it began to take the frame and
    when it hands it over; 0 elsewhere. ``arrived_ns`` is when it reached this process; it does not
    travel.
    """

    tensors: tuple[Array, ...] = ()
    body: dict[str, Any] | None = None
    request: int = 0
    attempt: int = 0
    marks: tuple[int, ...] = ()
    sent_ns: int = 0
    due_ns: int = 0
    arrived_ns: int = field(default=0, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors: what the cost model calls wire bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def late_s(self) -> float:
        """Seconds by which it reached this process after it was due; 0 where no link is shaped."""
        return max(self.arrived_ns - self.due_ns, 0) / 1e9 if self.due_ns else 0.0

    def marked(self, *times_ns: int) -> Frame:
        """The same frame with more marks."""
        return replace(self, marks=(*self.marks, *times_ns))


def encode(frame: Frame) -> bytearray:
    """The frame as one run of bytes; each tensor is copied once. Raises as ``encode_parts`` does."""
    return bytearray().join(encode_parts(frame))


def encode_parts(frame: Frame) -> list[bytes | memoryview]:
    """The pieces of an encoded frame in order, without copying contiguous little-endian tensors.

    Raises ``TransportError`` for a dtype or rank that does not travel, an extent below 1, and more than
    ``MAX_FRAME_BYTES`` in all.
    """
    if frame.tensors and frame.body is not None:
        raise TransportError("a frame carries tensors or a body, found both")
    arrays = [_plain(array) for array in frame.tensors]
    body = b"" if frame.body is None else _dump(frame.body)
    try:
        head = [
            _HEADER.pack(
                *(_MAGIC, _VERSION, _TENSORS if frame.body is None else _BODY),
                *(len(frame.marks), len(arrays), frame.attempt, frame.request),
                *(frame.sent_ns, frame.due_ns, len(body)),
            ),
            struct.pack(f"<{len(frame.marks)}q", *frame.marks),
        ]
    except struct.error as error:
        raise TransportError(f"a number of the frame does not fit its field: {error}") from None
    for array in arrays:
        head.append(_SPEC.pack(_CODES[array.dtype.name], array.ndim, array.nbytes))
        head.append(struct.pack(f"<{array.ndim}Q", *array.shape))
    parts: list[bytes | memoryview] = [b"".join([*head, body])]
    length = len(parts[0])
    for array in arrays:
        parts.append(bytes(_padding(length)))
        parts.append(array.reshape(-1).view(np.uint8).data)
        length += _padding(length) + array.nbytes
    if length > MAX_FRAME_BYTES:
        raise TransportError(f"a frame has at most {MAX_FRAME_BYTES} bytes, found {length}")
    return parts


def decode(buffer: Buffer, max_bytes: int = MAX_FRAME_BYTES, arrived_ns: int = 0) -> Frame:
    """The frame in ``buffer``; its tensors are views of the buffer, and as writable as it is.

    Raises ``TransportError`` for anything but exactly one well-formed frame of at most ``max_bytes``.
    """
    view = memoryview(buffer).cast("B")
    if len(view) > max_bytes:
        _refuse(f"at most {max_bytes} bytes", f"{len(view)}")
    if len(view) < _HEADER.size:
        _refuse(f"a header of {_HEADER.size} bytes", f"{len(view)} bytes")
    magic, version, kind, marks, tensors, attempt, request, sent, due, body = _HEADER.unpack_from(view)
    if magic != _MAGIC:
        _refuse(f"magic {_MAGIC!r}", f"{magic!r}")
    if version != _VERSION:
        _refuse(f"version {_VERSION}", f"{version}")
    if kind not in (_TENSORS, _BODY):
        _refuse(f"kind {_TENSORS} (tensors) or {_BODY} (body)", f"{kind}")
    at = _HEADER.size + 8 * marks
    if at > len(view):
        _refuse(f"{marks} marks", f"{len(view) - _HEADER.size} bytes after the header")
    stamps = struct.unpack_from(f"<{marks}q", view, _HEADER.size)
    common = {"request": request, "attempt": attempt, "marks": stamps, "arrived_ns": arrived_ns}
    common |= {"sent_ns": sent, "due_ns": due}
    if kind == _BODY:
        if tensors:
            _refuse("no tensors in a control frame", f"{tensors}")
        return Frame(body=_load(view[at:], body), **common)
    if body:
        _refuse("no body in a frame of tensors", f"{body} bytes")
    specs = []
    for place in range(tensors):
        code, shape, at = _spec(view, at, place)
        specs.append((_LITTLE[code], shape))
    return Frame(tensors=_views(view, at, specs), **common)


def check_boundary(frame: Frame, boundary: Boundary, place: int) -> None:
    """Refuse (``TransportError``) a frame whose tensors are not those of boundary ``place``.

    ``boundary`` has the batch applied: see ``Boundary.batched``.
    """
    found = [(tensor.shape, tensor.dtype.name) for tensor in frame.tensors]
    if found != [(spec.shape, spec.dtype) for spec in boundary.tensors]:
        shown = " + ".join("x".join(map(str, shape)) + f" {dtype}" for shape, dtype in found)
        raise TransportError(
            f"request {frame.request} at boundary {place}: expected {boundary}, found {shown or 'no tensors'}"
        )


def _padding(length: int) -> int:
    return -length % _ALIGNMENT


def _plain(array: Array) -> Array:
    """Contiguous and little-endian."""
    if array.dtype.name not in _CODES:
        raise TransportError(f"tensors travel as {', '.join(_DTYPES)}; found {array.dtype.name}")
    if array.ndim > _MAX_RANK or 0 in array.shape:
        raise TransportError(
            f"tensors travel with at most {_MAX_RANK} axes and no empty one; found {array.shape}"
        )
    return array.astype(_LITTLE[_CODES[array.dtype.name]], order="C", copy=False)


def _dump(body: dict[str, Any]) -> bytes:
    try:
        data = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TransportError(f"a control frame's body is not JSON: {error}") from None
    if len(data) > _MAX_BODY_BYTES:
        raise TransportError(f"a body has at most {_MAX_BODY_BYTES} bytes; found {len(data)}")
    return data


def _load(data: memoryview, length: int) -> dict[str, Any]:
    if length != len(data) or length > _MAX_BODY_BYTES:
        _refuse(f"a body of {length} bytes, at most {_MAX_BODY_BYTES}", f"{len(data)} bytes")
    try:
        body = json.loads(bytes(data), parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        _refuse("a JSON body", f"{error}")
    if not isinstance(body, dict):
        _refuse("a JSON object as body", type(body).__name__)
    return body


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _spec(view: memoryview, at: int, place: int) -> tuple[int, tuple[int, ...], int]:
    """Dtype code and shape of tensor ``place``, and where the next spec starts."""
    if at + _SPEC.size > len(view):
        _refuse(f"the spec of tensor {place}", f"the end of the frame at byte {len(view)}")
    code, rank, nbytes = _SPEC.unpack_from(view, at)
    at += _SPEC.size
    if code >= len(_DTYPES):
        _refuse(f"a dtype code below {len(_DTYPES)} for tensor {place}", f"{code}")
    if rank > _MAX_RANK:
        _refuse(f"at most {_MAX_RANK} axes for tensor {place}", f"{rank}")
    if at + 8 * rank > len(view):
        _refuse(f"{rank} extents of tensor {place}", f"the end of the frame at byte {len(view)}")
    shape = struct.unpack_from(f"<{rank}Q", view, at)
    if 0 in shape or math.prod(shape) * _LITTLE[code].itemsize != nbytes:
        _refuse(f"{nbytes} bytes for tensor {place}", f"shape {shape} of {_DTYPES[code]}")
    return code, shape, at + 8 * rank


def _views(
    view: memoryview, at: int, specs: list[tuple[np.dtype[Any], tuple[int, ...]]]
) -> tuple[Array, ...]:
    places = []
    for dtype, shape in specs:
        at += _padding(at)
        places.append(at)
        at += math.prod(shape) * dtype.itemsize
    if at != len(view):
        _refuse(f"a frame of {at} bytes", f"{len(view)}")
    arrays = []
    for (dtype, shape), start in zip(specs, places, strict=True):
        count = math.prod(shape)
        if dtype == np.bool_ and np.frombuffer(view, np.uint8, count, start).max() > 1:
            _refuse("booleans of 0 and 1", "other bytes")
        arrays.append(np.frombuffer(view, dtype, count, start).reshape(shape))
    return tuple(arrays)


def _refuse(expected: str, found: str) -> NoReturn:
    raise TransportError(f"malformed frame: expected {expected}, found {found}")
