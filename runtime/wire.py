"""What travels between processes: a frame, as one run of little-endian bytes.

::

    header   magic, version, kind, counts, codec, request, attempt, times of a shaped link
    marks    int64 each: monotonic nanoseconds, one added at every place the request passes
    specs    per tensor: dtype code, rank, bytes, extents; of a packed one also form, zero point, scale
    tensors  the bytes of each, starting at a multiple of 64: raw, or as the codec packed them
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

from planner.chain import Boundary, TensorSpec
from planner.codec_table import CODECS, CodecName
from planner.errors import TransportError
from profiler.codecs import Form, Packed

Array = npt.NDArray[Any]
Buffer = bytes | bytearray | memoryview

MAX_FRAME_BYTES = 1 << 30
_MAX_BODY_BYTES = 16 << 20
_MAX_RANK = 16
_MAGIC, _VERSION = b"ECUT", 2
_TENSORS, _BODY = 1, 2

# magic, version, kind, marks, tensors, codec, attempt, request, sent_ns, due_ns, body bytes
_HEADER = struct.Struct("<4sBBHHBxIQqqQ")
_SPEC = struct.Struct("<BBQ")
_PACKED = struct.Struct("<BBd")  # form, zero point, scale
_ALIGNMENT = 64

# A dtype's code is its place here, so names are only ever added at the end.
_DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
_CODES = {name: code for code, name in enumerate(_DTYPES)}
_LITTLE = tuple(np.dtype(name).newbyteorder("<") for name in _DTYPES)


@dataclass(frozen=True, eq=False)
class Frame:
    """Tensors of one request, or a control message (``body``, a JSON object), never both.

    With a ``codec`` other than raw the tensors are ``packed``, and there are no others.

    ``request`` and ``attempt`` say whose it is; ``marks`` are monotonic nanoseconds that grow along
    the path. ``sent_ns`` and ``due_ns`` belong to a shaped link: when it began to take the frame and
    when it hands it over; 0 elsewhere. ``arrived_ns`` is when it reached this process; it does not
    travel.
    """

    tensors: tuple[Array, ...] = ()
    body: dict[str, Any] | None = None
    codec: CodecName = "raw"
    packed: tuple[Packed, ...] = ()
    request: int = 0
    attempt: int = 0
    marks: tuple[int, ...] = ()
    sent_ns: int = 0
    due_ns: int = 0
    arrived_ns: int = field(default=0, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors: what the cost model calls wire bytes."""
        return sum(tensor.nbytes for tensor in self.tensors) + sum(each.nbytes for each in self.packed)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Its tensors, as they are or will be again once unpacked."""
        plain = tuple(TensorSpec(tensor.shape, tensor.dtype.name) for tensor in self.tensors)
        return plain + tuple(each.spec for each in self.packed)

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
    if bool(frame.tensors) + bool(frame.packed) + (frame.body is not None) > 1:
        raise TransportError("a frame carries tensors, packed ones or a body, found more than one")
    if (frame.codec == "raw") == bool(frame.packed):
        raise TransportError(f"{len(frame.packed)} packed tensors in a frame of codec {frame.codec}")
    arrays = [_plain(array) for array in frame.tensors] + [each.body for each in frame.packed]
    body = b"" if frame.body is None else _dump(frame.body)
    try:
        head = [
            _HEADER.pack(
                *(_MAGIC, _VERSION, _TENSORS if frame.body is None else _BODY),
                *(len(frame.marks), len(arrays), CODECS.index(frame.codec), frame.attempt, frame.request),
                *(frame.sent_ns, frame.due_ns, len(body)),
            ),
            struct.pack(f"<{len(frame.marks)}q", *frame.marks),
        ]
    except struct.error as error:
        raise TransportError(f"a number of the frame does not fit its field: {error}") from None
    for spec, array in zip(frame.specs, arrays, strict=True):
        head.append(_SPEC.pack(_code(spec.dtype), len(spec.shape), array.nbytes))
        head.append(struct.pack(f"<{len(spec.shape)}Q", *spec.shape))
    head += [_PACKED.pack(each.form, each.zero, each.scale) for each in frame.packed]
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
    magic, version, kind, marks, tensors, code, attempt, request, sent, due, body = _HEADER.unpack_from(view)
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
    if code >= len(CODECS):
        _refuse(f"a codec below {len(CODECS)}", f"{code}")
    if kind == _BODY:
        if tensors or code:
            _refuse("no tensors in a control frame", f"{tensors} in codec {CODECS[code]}")
        return Frame(body=_load(view[at:], body), **common)
    if body:
        _refuse("no body in a frame of tensors", f"{body} bytes")
    codec = CODECS[code]
    specs = []
    for place in range(tensors):
        spec, nbytes, at = _spec(view, at, place, codec != "raw", max_bytes)
        specs.append((spec, nbytes))
    if codec == "raw":
        plain = [(_LITTLE[_CODES[spec.dtype]], spec.shape) for spec, _ in specs]
        return Frame(tensors=_views(view, at, plain), **common)
    if not tensors:
        _refuse(f"tensors in codec {codec}", "none")
    return Frame(codec=codec, packed=_packed(view, at, specs), **common)


def check_boundary(frame: Frame, boundary: Boundary, place: int, codec: CodecName = "raw") -> None:
    """Refuse (``TransportError``) a frame whose tensors are not those of boundary ``place`` in ``codec``.

    ``boundary`` has the batch applied: see ``Boundary.batched``.
    """
    where = f"request {frame.request} at boundary {place}"
    if frame.codec != codec:
        raise TransportError(f"{where}: expected codec {codec}, found {frame.codec}")
    if frame.specs != boundary.tensors:
        shown = " + ".join(map(str, frame.specs))
        raise TransportError(f"{where}: expected {boundary}, found {shown or 'no tensors'}")


def _code(dtype: str) -> int:
    if dtype not in _CODES:
        raise TransportError(f"tensors travel as {', '.join(_DTYPES)}; found {dtype}")
    return _CODES[dtype]


def _padding(length: int) -> int:
    return -length % _ALIGNMENT


def _plain(array: Array) -> Array:
    """Contiguous and little-endian."""
    code = _code(array.dtype.name)
    if array.ndim > _MAX_RANK or 0 in array.shape:
        raise TransportError(
            f"tensors travel with at most {_MAX_RANK} axes and no empty one; found {array.shape}"
        )
    return array.astype(_LITTLE[code], order="C", copy=False)


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


def _spec(view: memoryview, at: int, place: int, packed: bool, max_bytes: int) -> tuple[TensorSpec, int, int]:
    """Tensor ``place`` and its bytes in the frame, and where the next spec starts."""
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
    size = math.prod(shape) * _LITTLE[code].itemsize
    # What a packed tensor unpacks to may be no larger than what a frame could have carried raw.
    if 0 in shape or (size > max_bytes or not nbytes if packed else size != nbytes):
        _refuse(f"{nbytes} bytes for tensor {place}", f"shape {shape} of {_DTYPES[code]}")
    return TensorSpec(shape, _DTYPES[code]), nbytes, at + 8 * rank


def _packed(view: memoryview, at: int, specs: list[tuple[TensorSpec, int]]) -> tuple[Packed, ...]:
    end = at + _PACKED.size * len(specs)
    if end > len(view):
        _refuse(f"the forms of {len(specs)} tensors", f"the end of the frame at byte {len(view)}")
    forms = list(_PACKED.iter_unpack(view[at:end]))
    for place, (form, _, _) in enumerate(forms):
        if form not in Form.__members__.values():
            _refuse(f"a form below {len(Form)} for tensor {place}", f"{form}")
    bodies = _views(view, end, [(np.dtype(np.uint8), (nbytes,)) for _, nbytes in specs])
    return tuple(
        Packed(spec, body, Form(form), zero, scale)
        for (spec, _), body, (form, zero, scale) in zip(specs, bodies, forms, strict=True)
    )


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
