"""Samples for any network: images, arrays from a file, or seeded random tensors."""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.errors import DocumentError, InputError, ModelError
from profiler.arrays import ArrayFile
from profiler.model import LoadedModel
from profiler.runner import Array

# As many as there are default images.
DEFAULT_COUNT = 20


@dataclass(frozen=True)
class Sample:
    """What a network takes for one sample (one array per input, batch 1), and its class where known.

    ``source`` says where it came from; ``digest`` is the SHA-256 of its content.
    """

    source: str
    digest: str
    arrays: tuple[Array, ...]
    label: int | None = None


def model_samples(
    model: LoadedModel,
    where: Path | None = None,
    count: int | None = None,
    skipped: list[str] | None = None,
    labels: Path | None = None,
) -> Iterator[Sample]:
    """At most ``count`` samples that ``model`` can take.

    ``where``: a folder of images, a .npz or .npy file, or None: for a network that takes images the
    default ones, for any other random tensors. Unreadable images are named in ``skipped``. ``labels``: a
    file for ``read_labels``. Raises an ``InputError``.
    """
    arrays = where is not None and (where.is_file() or where.suffix in (".npz", ".npy"))
    if labels is not None and (where is None or arrays or model.preparation is None):
        raise InputError(
            "labels belong to the files of an image folder", "pass --images FOLDER with --labels"
        )
    if where is not None and arrays:
        return _array_samples(model, where, count)
    if model.preparation is not None:
        return _image_samples(model, where, count, [] if skipped is None else skipped, labels)
    if where is not None:
        problem = f"{model.source.name} takes {model.described}, which no image becomes"
        raise ModelError(problem, "pass --inputs FILE.npz with its arrays")
    return _random_samples(model, count or DEFAULT_COUNT)


def _image_samples(
    model: LoadedModel, folder: Path | None, count: int | None, skipped: list[str], labels: Path | None
) -> Iterator[Sample]:
    from profiler.images import pictures, prepare

    assert model.preparation is not None
    classes = read_labels(labels) if labels else {}
    known = 0
    for picture in pictures(folder, count, skipped):
        label = label_of(Path(picture.source), classes)
        known += label is not None
        yield Sample(
            picture.source,
            picture.digest,
            (prepare(picture, model.preparation, model.inputs[0].spec),),
            label,
        )
    if labels and not known:
        raise InputError(
            f"{labels} names none of the images in {folder}", "its lines are: prefix,class index"
        )


def _random_samples(model: LoadedModel, count: int) -> Iterator[Sample]:
    for seed in range(count):
        arrays = tuple(tensor.numpy() for tensor in model.example(1, seed))
        yield Sample(f"random, seed {seed}", _digest(arrays), arrays)


def _array_samples(model: LoadedModel, file: Path, count: int | None) -> Iterator[Sample]:
    for place, arrays in enumerate(itertools.islice(ArrayFile(file, model.inputs).rows(), count)):
        yield Sample(f"{file}[{place}]", _digest(arrays), arrays)


def read_labels(file: Path) -> dict[str, int]:
    """Class indices by image name, from lines ``prefix,class index[,class name]``; # starts a comment.

    Raises ``DocumentError`` naming the line.
    """
    classes: dict[str, int] = {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for number, fields in enumerate(csv.reader(lines), 1):
                if not fields or fields[0].startswith("#"):
                    continue
                if len(fields) < 2 or not fields[1].strip().isdecimal():
                    problem = f"{','.join(fields)!r:.80} is not: prefix,class index"
                    raise DocumentError(file, f"line {number}", problem)
                classes[fields[0].strip()] = int(fields[1])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DocumentError(file, "", f"cannot be read: {error}") from None
    return classes


def label_of(image: Path, classes: dict[str, int]) -> int | None:
    """The class that the image's name has: the stem's part before ``_``, the stem, or the folder."""
    for key in (image.stem, image.stem.split("_")[0], image.parent.name):
        if key in classes:
            return classes[key]
    return None


def _digest(arrays: Sequence[Array]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
