"""Arrays in a file or a stream, read one sample at a time; nothing in them is unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.lib import format as npy

from planner.chain import TensorSpec
from planner.errors import DocumentError
from profiler.model import ModelInput
from profiler.runner import Array

_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    MemoryError,
    RuntimeError,  # an encrypted member
)
_BLOCK_BYTES = 1 << 20
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Stream(Protocol):
    """What is read of a binary stream; fewer bytes than asked for may come."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class Header:
    """What an array in numpy's format says of itself before its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool = False

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return "x".join(map(str, self.shape or ("scalar",))) + f" {self.dtype}"


def read_header(stream: Stream) -> Header | None:
    """The header of the next array; None at the end of the stream.

    Raises ``ValueError`` for what is no array, and for pickled objects.
    """
    begin = read_bytes(stream, npy.MAGIC_LEN)
    if not begin:
        return None
    if not begin.startswith(npy.MAGIC_PREFIX):
        raise ValueError(f"no array as numpy.save writes it: it begins with {begin[:8]!r}")
    read = _HEADERS.get((begin[-2], begin[-1]))
    if len(begin) < npy.MAGIC_LEN or read is None:
        raise ValueError("its header is of another version")
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    if any(extent < 0 for extent in shape):
        raise ValueError(f"its shape is {shape}")
    return Header(shape, dtype, fortran)


def read_values(stream: Stream, header: Header) -> Array:
    """The values that follow their header. Raises ``ValueError`` where the stream ends within them."""
    content = read_bytes(stream, header.nbytes)
    if len(content) < header.nbytes:
        raise ValueError(f"it ends after {len(content)} of {header.nbytes} bytes of values")
    flat = np.frombuffer(content, header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def skip_bytes(stream: Stream, count: int) -> None:
    """Read past ``count`` bytes. Raises ``ValueError`` where there are fewer."""
    while count:
        block = stream.read(min(count, _BLOCK_BYTES))
        if not block:
            raise ValueError(f"it ends {count} bytes too early")
        count -= len(block)


def read_bytes(stream: Stream, count: int) -> bytearray:
    """``count`` bytes, fewer only at the end of the stream."""
    content = bytearray()
    while len(content) < count:
        block = stream.read(min(count - len(content), _BLOCK_BYTES))
        if not block:
            break
        content += block
    return content


def fitted(array: Array, wanted: TensorSpec) -> Array:
    """``array`` as the one sample that ``wanted`` describes: the axis of the batch may be lacking.

    Raises ``ValueError`` with what was expected and what was found.
    """
    if not fits(array.shape, array.dtype, wanted):
        found = Header(array.shape, array.dtype)
        raise ValueError(f"expected {wanted}, found {found}")
    return np.ascontiguousarray(array.reshape(wanted.shape).astype(wanted.dtype, copy=False))


def fits(shape: tuple[int, ...], dtype: np.dtype[Any], wanted: TensorSpec) -> bool:
    """Whether an array is one sample of ``wanted``, with or without the axis of the batch."""
    return shape in (wanted.shape, wanted.shape[1:]) and np.can_cast(dtype, wanted.dtype, "same_kind")


class ArrayFile:
    """The samples in a .npz file, one array for each input of a network, or a .npy file for its only input.

    Sample k is row k of each array. Opening reads the headers alone. Raises ``DocumentError``.
    """

    def __init__(self, file: Path, inputs: Sequence[ModelInput]) -> None:
        self.file = file
        self._names = [given.name or f"arg_{place}" for place, given in enumerate(inputs)]
        self._specs = [given.spec for given in inputs]
        with self._understood():
            with file.open("rb") as opened:
                self._single = opened.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX
            self._headers = self._one() if self._single else self._several()
        for name, header, wanted in zip(self._names, self._headers, self._specs, strict=True):
            alike = header.shape[1:] == wanted.shape[1:] and bool(header.shape and header.shape[0])
            if not alike or not np.can_cast(header.dtype, wanted.dtype, "same_kind"):
                shape = "x".join(["N", *map(str, wanted.shape[1:])])
                problem = f"shape {header.shape} {header.dtype}; the model takes {shape} {wanted.dtype}"
                raise DocumentError(file, name, problem)
        lengths = [header.shape[0] for header in self._headers]
        if len(set(lengths)) > 1:
            raise DocumentError(file, "", f"its arrays hold {lengths} samples")
        self._length = lengths[0]

    def __len__(self) -> int:
        return self._length

    def rows(self, begin: int = 0) -> Iterator[tuple[Array, ...]]:
        """From sample ``begin`` on, the arrays of each, batch 1; only one is in memory."""
        with self._understood(), ExitStack() as opened:
            if self._single:
                mapped = np.load(self.file, mmap_mode="r", allow_pickle=False)
                columns: list[Iterator[Array]] = [(mapped[place] for place in range(begin, len(self)))]
            else:
                archive = opened.enter_context(zipfile.ZipFile(self.file))
                members = [opened.enter_context(archive.open(f"{name}.npy")) for name in self._names]
                columns = [_rows(member, begin) for member in members]
            for arrays in zip(*columns, strict=True):
                yield tuple(
                    np.array(array, spec.dtype, order="C").reshape(1, *spec.shape[1:])
                    for array, spec in zip(arrays, self._specs, strict=True)
                )

    def _one(self) -> list[Header]:
        if len(self._names) > 1:
            problem = f"it holds one array; the model takes {', '.join(self._names)}"
            raise DocumentError(self.file, "", problem, "save them with numpy.savez")
        mapped = np.load(self.file, mmap_mode="r", allow_pickle=False)
        return [Header(mapped.shape, mapped.dtype)]

    def _several(self) -> list[Header]:
        with zipfile.ZipFile(self.file) as archive:
            found = [name.removesuffix(".npy") for name in archive.namelist()]
            if sorted(found) != sorted(self._names):
                held, wanted = ", ".join(found) or "nothing", ", ".join(self._names)
                raise DocumentError(self.file, "", f"it holds {held}; the model takes {wanted}")
            headers = []
            for name in self._names:
                with archive.open(f"{name}.npy") as member:
                    header = read_header(member)
                if header is None:
                    raise ValueError(f"{name} is empty")
                headers.append(header)
            return headers

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            problem = f"no readable arrays: {error!s:.200}"
            raise DocumentError(self.file, "", problem, "save with numpy.savez") from None


def _rows(member: IO[bytes], begin: int) -> Iterator[Array]:
    """The rows of an array in an archive, from ``begin`` on."""
    header = read_header(member)
    if header is None:
        raise ValueError("an array is gone")
    if header.fortran:  # a row is scattered over all of it
        yield from read_values(member, header)[begin:]
        return
    row = Header(header.shape[1:], header.dtype)
    skip_bytes(member, row.nbytes * begin)
    for _ in range(begin, header.shape[0]):
        yield read_values(member, row)
