"""Where the outputs of a run go: a folder, a .npz file, or standard output; by input number, in order.

A folder has one ``NUMBER.npz`` for each input, written whole or not at all. What goes to a .npz file or to standard
output is kept in the run folder as it comes (``outputs-STREAM.bin``), so that a run that is begun again gives what an
undisturbed one gives: the file is made of it at the end, and standard output begins with what was there before.
"""

from __future__ import annotations

import io
import itertools
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from planner.chain import TensorSpec
from planner.errors import InputError, StorageError
from runtime.batching import Arrays

STANDARD_OUTPUT = Path("-")
_BLOCK_BYTES = 1 << 20


class Outputs(ABC):
    """Takes the outputs of each input once, those of a stream in order."""

    @abstractmethod
    def resume(self, numbers: Sequence[Sequence[int]]) -> None:
        """Go on after the inputs of these numbers, by stream; what is there of others is forgotten."""

    @abstractmethod
    def add(self, stream: int, number: int, outputs: Arrays) -> None:
        """Keep them, before the input counts as answered."""

    def committed(self, stream: int, number: int, outputs: Arrays) -> None:  # noqa: B027 - only a stream shows them
        """The input counts as answered now."""

    def finish(self, numbers: Sequence[Sequence[int]]) -> None:  # noqa: B027 - a folder is finished as it is
        """Nothing more is added; ``numbers`` are those of every answered input, by stream."""

    def close(self) -> None:  # noqa: B027 - most keep nothing open
        """Free what is open; ``finish`` may not have come."""


class NoOutputs(Outputs):
    def resume(self, numbers: Sequence[Sequence[int]]) -> None:
        pass

    def add(self, stream: int, number: int, outputs: Arrays) -> None:
        pass


class FolderOutputs(Outputs):
    """``FOLDER/NUMBER.npz`` with ``output_0``, ...; of several streams ``FOLDER/STREAM/NUMBER.npz``."""

    def __init__(self, folder: Path, streams: int) -> None:
        self._folders = [folder] if streams == 1 else [folder / str(stream) for stream in range(streams)]

    def resume(self, numbers: Sequence[Sequence[int]]) -> None:
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, stream: int, number: int, outputs: Arrays) -> None:
        file = self._folders[stream] / f"{number:09d}.npz"
        with _whole(file) as opened:
            np.savez(opened, allow_pickle=False, **_named(outputs))


class _Kept(Outputs):
    """Outputs in one file for each stream: of each input the values of its tensors, one after the other."""

    def __init__(self, folder: Path, streams: int, specs: Sequence[TensorSpec]) -> None:
        self._files = [folder / f"outputs-{stream}.bin" for stream in range(streams)]
        self._specs = [(spec.shape, np.dtype(spec.dtype)) for spec in specs]
        self._sizes = [spec.nbytes for spec in specs]
        self._opened: list[IO[bytes]] = []

    def resume(self, numbers: Sequence[Sequence[int]]) -> None:
        for file, each in zip(self._files, numbers, strict=True):
            opened = file.open("a+b")
            self._opened.append(opened)
            size = len(each) * sum(self._sizes)
            if opened.seek(0, os.SEEK_END) < size:
                raise StorageError(f"{file} lacks outputs that were written", "pass another --output")
            opened.truncate(size)

    def add(self, stream: int, number: int, outputs: Arrays) -> None:
        self._opened[stream].write(b"".join(array.tobytes() for array in outputs))
        self._opened[stream].flush()

    def finish(self, numbers: Sequence[Sequence[int]]) -> None:
        for opened in self._opened:
            os.fsync(opened.fileno())

    def close(self) -> None:
        for opened in self._opened:
            opened.close()

    def records(self, stream: int) -> Iterator[Arrays]:
        with self._files[stream].open("rb") as opened:
            while content := opened.read(sum(self._sizes)):
                parts, at = [], 0
                for (shape, dtype), size in zip(self._specs, self._sizes, strict=True):
                    parts.append(np.frombuffer(content[at : at + size], dtype).reshape(shape))
                    at += size
                yield tuple(parts)


class FileOutputs(_Kept):
    """A .npz file: ``request`` (the input numbers) and ``output_0``, ... with a row for each of them.

    Of several streams ``STREAM/request``, ``STREAM/output_0``, ...
    """

    def __init__(self, file: Path, folder: Path, streams: int, specs: Sequence[TensorSpec]) -> None:
        super().__init__(folder, streams, specs)
        self.file = file

    def finish(self, numbers: Sequence[Sequence[int]]) -> None:
        super().finish(numbers)
        with _whole(self.file) as opened, zipfile.ZipFile(opened, "w", allowZip64=True) as archive:
            for stream, answered in enumerate(numbers):
                prefix = f"{stream}/" if len(numbers) > 1 else ""
                with archive.open(f"{prefix}request.npy", "w") as member:
                    npy.write_array(member, np.array(answered, np.int64), allow_pickle=False)
                for place, (shape, dtype) in enumerate(self._specs):
                    header = {
                        "descr": npy.dtype_to_descr(dtype),
                        "fortran_order": False,
                        "shape": (len(answered) * shape[0], *shape[1:]),
                    }
                    with archive.open(f"{prefix}output_{place}.npy", "w", force_zip64=True) as member:
                        npy.write_array_header_1_0(member, header)
                        for outputs in itertools.islice(self.records(stream), len(answered)):
                            member.write(outputs[place].tobytes())


class StreamOutputs(_Kept):
    """Arrays on standard output, each as ``numpy.save`` writes it: those of the inputs in order."""

    def __init__(self, stream: IO[bytes], folder: Path, specs: Sequence[TensorSpec]) -> None:
        super().__init__(folder, 1, specs)
        self._stream = stream

    def resume(self, numbers: Sequence[Sequence[int]]) -> None:
        super().resume(numbers)
        for number, outputs in zip(numbers[0], self.records(0), strict=True):
            self.committed(0, number, outputs)

    def committed(self, stream: int, number: int, outputs: Arrays) -> None:
        for array in outputs:
            framed = io.BytesIO()  # numpy writes to no pipe
            npy.write_array(framed, array, allow_pickle=False)
            self._stream.write(framed.getbuffer())
        self._stream.flush()

    def close(self) -> None:
        super().close()
        with suppress(BrokenPipeError):  # nobody reads it any more, which was said before
            self._stream.close()


def open_outputs(where: Path | None, folder: Path, streams: int, specs: Sequence[TensorSpec]) -> Outputs:
    """The place that ``where`` names: a folder, a .npz file, ``-``, or None for nowhere.

    ``specs``: what one input gives. ``folder`` is the run's. Raises ``InputError``.
    """
    if where is None:
        return NoOutputs()
    if where == STANDARD_OUTPUT:
        if streams > 1:
            raise InputError(
                "standard output takes the outputs of one stream", "pass --outputs FOLDER or FILE.npz"
            )
        return StreamOutputs(open(os.dup(1), "wb"), folder, specs)  # noqa: PTH123 - for as long as it runs
    if where.suffix == ".npz":
        return FileOutputs(where, folder, streams, specs)
    if where.suffix == ".npy" or where.is_file():
        raise InputError(
            f"outputs go to a folder, a .npz file or -; found {where}", "pass --outputs FOLDER or FILE.npz"
        )
    return FolderOutputs(where, streams)


def _named(outputs: Arrays) -> dict[str, Any]:
    return {f"output_{place}": array for place, array in enumerate(outputs)}


@contextmanager
def _whole(file: Path) -> Iterator[IO[bytes]]:
    """A file that is there whole once it is there; what a killed run left of it is written over by the next."""
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb") as opened:
            yield opened
        part.replace(file)
    except Exception:
        part.unlink(missing_ok=True)
        raise
