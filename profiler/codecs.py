"""How tensors are packed for the wire, and unpacked again.

::

                  form                          squeeze
    raw, zstd     exact: the bytes as they are   zstd: level 1 (*zstd codecs)
    fp16          half precision
    int8*         affine: q = round(x / scale) + zero, 0..255, x = (q - zero) x scale, per tensor

The affine form is that of ONNX's DynamicQuantizeLinear: its range holds 0, so a zero stays a zero. Integers
and booleans always travel exactly, and so does a tensor that its form cannot hold: NaN or infinity among
the values, or values beyond half precision. Nothing received is trusted: what it unpacks to is known
beforehand, and anything else is refused before memory is taken for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import zstandard

from planner.chain import TensorSpec
from planner.codec_table import CodecName
from planner.errors import TransportError
from profiler.runner import Array, sleep_until

Bytes = npt.NDArray[np.uint8]
T = TypeVar("T")

_HALF_END = 65520.0  # from here on half precision rounds to infinity
_LEVEL = 1  # higher ones gain a few per cent of size and take several times as long


class Form(IntEnum):
    """What a tensor's values have become."""

    EXACT = 0
    HALF = 1
    AFFINE = 2


@dataclass(frozen=True)
class _Codec:
    form: Form
    squeezed: bool


_CODECS: dict[CodecName, _Codec] = {
    "zstd": _Codec(Form.EXACT, True),
    "fp16": _Codec(Form.HALF, False),
    "int8": _Codec(Form.AFFINE, False),
    "int8-zstd": _Codec(Form.AFFINE, True),
}


@dataclass(frozen=True, eq=False)
class Packed:
    """A packed tensor: the ``spec`` it unpacks to, what unpacking needs, and the bytes that travel."""

    spec: TensorSpec
    body: Bytes
    form: Form = Form.EXACT
    zero: int = 0
    scale: float = 1.0

    @property
    def nbytes(self) -> int:
        return self.body.nbytes


def pack(arrays: Sequence[Array], codec: CodecName) -> tuple[Packed, ...]:
    """The tensors as ``codec``, any but raw, sends them."""
    return tuple(_pack(array, _CODECS[codec]) for array in arrays)


def unpack(packed: Sequence[Packed], codec: CodecName) -> tuple[Array, ...]:
    """The tensors again, of the shapes and dtypes that they had.

    Raises ``TransportError`` where the bytes are not what ``codec`` makes of such tensors.
    """
    return tuple(_unpack(each, _CODECS[codec]) for each in packed)


def timed(work: Callable[[], T], slowdown: float) -> tuple[T, int, int]:
    """The result of ``work``, and when it began and ended (monotonic ns), slowed as an emulated device is."""
    begin_ns = time.monotonic_ns()
    result = work()
    end_ns = time.monotonic_ns()
    if slowdown > 1:
        sleep_until(begin_ns + round((end_ns - begin_ns) * slowdown))
        end_ns = time.monotonic_ns()
    return result, begin_ns, end_ns


def _pack(array: Array, codec: _Codec) -> Packed:
    spec = TensorSpec(array.shape, array.dtype.name)
    packed = _in_form(array, codec.form, spec)
    if not codec.squeezed:
        return packed
    body = zstandard.ZstdCompressor(level=_LEVEL).compress(packed.body.data)
    return Packed(spec, np.frombuffer(body, np.uint8), packed.form, packed.zero, packed.scale)


def _in_form(array: Array, form: Form, spec: TensorSpec) -> Packed:
    if array.dtype.kind == "f" and form is not Form.EXACT:
        low, high = float(array.min()), float(array.max())  # a NaN anywhere makes both NaN
        if form is Form.HALF and max(high, -low) < _HALF_END and array.dtype.itemsize > 2:
            return Packed(spec, _bytes(_cast(array, np.dtype(np.float16))), Form.HALF)
        scale = _scale(min(low, 0.0), max(high, 0.0)) if low == low else math.nan
        if form is Form.AFFINE and math.isfinite(scale):
            return _affine(array, spec, scale, round(-min(low, 0.0) / scale))
    return Packed(spec, _bytes(array))


def _scale(low: float, high: float) -> float:
    """The step of 256 levels over the range; all zeros have any. NaN: none will do."""
    if low == high == 0.0:
        return 1.0
    scale = (high - low) / 255
    # Its inverse is needed as well, and float32 must hold both.
    tiny, huge = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    return scale if tiny < scale < huge / 256 and 1 / scale < huge else math.nan


def _affine(array: Array, spec: TensorSpec, scale: float, zero: int) -> Packed:
    real = np.float64 if array.dtype == np.float64 else np.float32
    steps: npt.NDArray[Any] = np.multiply(array, real(1 / scale), dtype=real)
    np.rint(steps, out=steps)
    steps += real(zero)
    np.clip(steps, 0, 255, out=steps)
    return Packed(spec, _bytes(steps.astype(np.uint8)), Form.AFFINE, zero, scale)


def _unpack(packed: Packed, codec: _Codec) -> Array:
    spec = packed.spec
    if packed.form not in (codec.form, Form.EXACT):
        raise TransportError(
            f"a tensor came in the form {packed.form.name}, its codec makes {codec.form.name}"
        )
    dtype = _dtype(packed)
    count = math.prod(spec.shape)
    body = _expanded(packed.body, count * dtype.itemsize) if codec.squeezed else packed.body
    if body.nbytes != count * dtype.itemsize:
        raise TransportError(f"{spec} needs {count * dtype.itemsize} bytes, found {body.nbytes}")
    values: Array = body.view(dtype).reshape(spec.shape)
    target = np.dtype(spec.dtype)
    if packed.form is Form.EXACT:
        if target == np.bool_ and body.max(initial=0) > 1:
            raise TransportError("booleans are 0 and 1, found other bytes")
        return values.copy() if codec.squeezed else values  # what came from zstd cannot be written
    if packed.form is Form.HALF:
        return _cast(values, target)
    return _from_levels(values, packed.zero, packed.scale, target)


def _cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Rounded to ``dtype``; by torch between half and single, where it is some forty times as fast."""
    if {array.dtype.name, dtype.name} != {"float16", "float32"}:
        with np.errstate(under="ignore"):
            return array.astype(dtype)
    import torch

    # torch takes no array that it could not write to.
    given = torch.from_numpy(array if array.flags.writeable else array.copy())
    cast: Array = given.to(torch.float16 if dtype.itemsize == 2 else torch.float32).numpy()
    return cast


def _dtype(packed: Packed) -> np.dtype[Any]:
    """What the body holds, little-endian. Raises ``TransportError`` for a form that its tensor cannot have."""
    if packed.form is Form.EXACT:
        exact: np.dtype[Any] = np.dtype(packed.spec.dtype).newbyteorder("<")
        return exact
    if packed.spec.dtype not in ("float16", "float32", "float64"):
        raise TransportError(f"{packed.spec} travels exactly, found the form {packed.form.name}")
    if packed.form is Form.HALF:
        return np.dtype("<f2")
    if not 0 <= packed.zero <= 255 or not 0 < packed.scale < math.inf:
        raise TransportError(f"no affine form has scale {packed.scale} and zero point {packed.zero}")
    return np.dtype(np.uint8)


def _from_levels(levels: Array, zero: int, scale: float, target: np.dtype[Any]) -> Array:
    real = np.float64 if target == np.float64 else np.float32
    if max(zero, 255 - zero) * scale > float(np.finfo(target).max):
        raise TransportError(f"{target} cannot hold the levels of scale {scale} and zero point {zero}")
    values = levels.astype(real)
    values -= real(zero)
    values *= real(scale)
    return values.astype(target, copy=False)


def _expanded(body: Bytes, nbytes: int) -> Bytes:
    """The compressed bytes expanded to exactly ``nbytes``, the memory for which is all that is taken."""
    try:
        stated = zstandard.frame_content_size(body.data)
        if stated != nbytes:
            raise TransportError(f"a compressed tensor states {stated} bytes, expected {nbytes}")
        # One piece made at once needs no window beside its own content.
        expander = zstandard.ZstdDecompressor(max_window_size=max(1 << (nbytes - 1).bit_length(), 1 << 10))
        expanded = expander.decompress(body.data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise TransportError(f"a compressed tensor is damaged: {error}") from None
    return np.frombuffer(expanded, np.uint8)


def _bytes(array: npt.NDArray[Any]) -> Bytes:
    """The array's bytes, little-endian and in order, without a copy where they are so already."""
    dtype = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8)
