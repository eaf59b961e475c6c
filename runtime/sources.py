"""Where a stream's inputs come from: images in a folder, arrays in a file, frames on standard input.

A source gives its inputs one at a time, so that no more are in memory than are on their way; an input that the
model cannot take is a ``Refusal`` with its number, and the others go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.chain import TensorSpec
from planner.errors import DocumentError, ImageError, InputError, ModelError
from profiler.arrays import (
    ArrayFile,
    Stream,
    fits,
    fitted,
    read_header,
    read_values,
    skip_bytes,
)
from profiler.inputs import label_of, model_samples, read_labels
from profiler.model import LoadedModel
from runtime.batching import Arrays, Input, Refusal

STANDARD_INPUT = Path("-")
_ENDS_BYTES = 1 << 20


class Source(ABC):
    """The inputs of one stream.

    ``length``: how many there are; None where only reading tells, and then they can be read once. ``fingerprint``
    differs where another source would give other inputs, as far as that shows without reading them all.
    """

    name: str
    length: int | None
    fingerprint: str

    @abstractmethod
    def read(self, begin: int) -> Iterator[Input | Refusal]:
        """The inputs from number ``begin`` on, once. Raises ``InputError`` where nothing more can be read."""

    def stream(self, begin: int, limit: int | None) -> Iterator[Input | Refusal]:
        """Numbers ``begin`` to ``limit``: from the start again after the last one; each once without a limit."""
        if self.length is None:
            yield from itertools.takewhile(
                lambda item: limit is None or item.number < limit, self.read(begin)
            )
            return
        limit = self.length if limit is None else limit
        while begin < limit:
            turn, place = divmod(begin, self.length)
            for item in itertools.islice(self.read(place), limit - begin):
                yield replace(item, number=turn * self.length + item.number)
            begin = min((turn + 1) * self.length, limit)


def open_source(where: Path | None, model: LoadedModel, labels: Path | None = None) -> Source:
    """What ``where`` names: a folder of images, a .npz or .npy file, ``-`` for standard input, None for the
    default inputs. ``labels``: the file that gives the images' classes. Raises an ``InputError``."""
    arrays = where is not None and (where.is_file() or where.suffix in (".npz", ".npy"))
    folder = where is not None and not arrays and where != STANDARD_INPUT
    if labels is not None and not (folder and model.preparation):
        raise InputError(
            "labels belong to the files of an image folder", "pass --inputs FOLDER with --labels"
        )
    if where is None:
        return DefaultSource(model)
    if where == STANDARD_INPUT:
        return FrameSource(
            open(os.dup(sys.stdin.fileno()), "rb", buffering=0),  # noqa: PTH123 - read to the end
            [given.spec for given in model.inputs],
        )
    return ArraySource(where, model) if arrays else FolderSource(where, model, labels)


class FolderSource(Source):
    """The JPEG and PNG files of a folder, by name."""

    def __init__(self, folder: Path, model: LoadedModel, labels: Path | None) -> None:
        from profiler.images import folder_files

        if model.preparation is None:
            problem = f"{model.source.name} takes {model.described}, which no image becomes"
            raise ModelError(problem, "pass --inputs FILE.npz with its arrays")
        self._preparation, self._spec = model.preparation, model.inputs[0].spec
        self._files = folder_files(folder)
        if not self._files:
            raise ImageError(f"no JPEG or PNG image in {folder}", "pass another folder")
        classes = read_labels(labels) if labels else {}
        self._labels = [label_of(file, classes) for file in self._files]
        if labels and set(self._labels) == {None}:
            raise InputError(
                f"{labels} names none of the images in {folder}", "its lines are: prefix,class index"
            )
        self.name, self.length = str(folder), len(self._files)
        self.fingerprint = _digest(f"{file.relative_to(folder)} {_size(file)}\n" for file in self._files)

    def read(self, begin: int) -> Iterator[Input | Refusal]:
        from profiler.images import open_picture, prepare

        for number in range(begin, len(self._files)):
            try:
                picture = open_picture(self._files[number])
            except ImageError as error:
                yield Refusal(number, error.message)
                continue
            yield Input(number, (prepare(picture, self._preparation, self._spec),), self._labels[number])


class ArraySource(Source):
    """The rows of the arrays in a file."""

    def __init__(self, file: Path, model: LoadedModel) -> None:
        self._arrays = ArrayFile(file, model.inputs)
        self.name, self.length = str(file), len(self._arrays)
        self.fingerprint = _ends_digest(file)

    def read(self, begin: int) -> Iterator[Input | Refusal]:
        for number, arrays in enumerate(self._arrays.rows(begin), begin):
            yield Input(number, arrays)


class DefaultSource(Source):
    """Crops of one photograph, or seeded random tensors: few enough to be kept."""

    def __init__(self, model: LoadedModel) -> None:
        self._samples = list(model_samples(model, None, None, []))
        self.name, self.length = "default inputs", len(self._samples)
        self.fingerprint = _digest(sample.digest for sample in self._samples)

    def read(self, begin: int) -> Iterator[Input | Refusal]:
        for number, sample in enumerate(self._samples[begin:], begin):
            yield Input(number, sample.arrays)


class FrameSource(Source):
    """Arrays one after the other in a binary stream, each as ``numpy.save`` writes it: one for each input of the model.

    Where a frame cannot be told from the next one (no array, pickled objects, the stream ends within it), the
    stream has no more.
    """

    length = None

    def __init__(self, stream: Stream, specs: Sequence[TensorSpec], name: str = "standard input") -> None:
        self._stream, self._specs, self.name = stream, specs, name
        self.fingerprint = name

    def read(self, begin: int) -> Iterator[Input | Refusal]:
        for number in itertools.count():
            try:
                found = self._frame(wanted=number >= begin)
            except (OSError, ValueError, EOFError) as error:
                problem = f"{error!s:.200}; nothing after it can be read"
                remedy = "write each frame with numpy.save(stream, array, allow_pickle=False)"
                raise DocumentError(self.name, f"input {number}", problem, remedy) from None
            if found is None:
                return
            if number >= begin:
                yield Refusal(number, found) if isinstance(found, str) else Input(number, found)

    def _frame(self, wanted: bool) -> Arrays | str | None:
        """The next frame, what is wrong with it, or None at the end; nothing is kept that does not fit."""
        arrays: list[Any] = []
        problems = []
        for place, spec in enumerate(self._specs):
            header = read_header(self._stream)
            if header is None:
                if place:
                    raise ValueError(f"it ends after {place} of {len(self._specs)} arrays")
                return None
            if not fits(header.shape, header.dtype, spec):
                problems.append(f"expected {spec}, found {header}")
            if wanted and not problems:
                arrays.append(fitted(read_values(self._stream, header), spec))
            else:
                skip_bytes(self._stream, header.nbytes)
        return "; ".join(problems) or tuple(arrays)


def checked_inputs(samples: Iterable[Any], specs: Sequence[TensorSpec]) -> Iterator[Input | Refusal]:
    """The samples of any iterable: an array, or a tuple of one for each input of the model.

    The axis of the batch may be lacking; numbers are cast where nothing is lost but precision.
    """
    for number, sample in enumerate(samples):
        given = sample if isinstance(sample, tuple) else (sample,)
        try:
            if len(given) != len(specs):
                raise ValueError(f"expected {len(specs)} arrays, found {len(given)}")
            pairs = zip(map(np.asarray, given), specs, strict=True)
            yield Input(number, tuple(fitted(array, spec) for array, spec in pairs))
        except (ValueError, TypeError) as error:
            yield Refusal(number, str(error))


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode())
    return digest.hexdigest()


def _size(file: Path) -> int | None:
    with contextlib.suppress(OSError):  # a link to nowhere, which reading refuses
        return file.stat().st_size
    return None


def _ends_digest(file: Path) -> str:
    """SHA-256 over a file's size, its first and its last megabyte: the headers and some of the values."""
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            digest = hashlib.sha256(f"{size} ".encode() + stream.read(_ENDS_BYTES))
            stream.seek(max(size - _ENDS_BYTES, 0))
            digest.update(stream.read(_ENDS_BYTES))
    except OSError as error:
        raise DocumentError(file, "", f"cannot be read: {error}") from None
    return digest.hexdigest()
