"""Stored feature maps: what samples become at every boundary of a chain.

A store is a folder: ``manifest.json`` and one ``.npy`` array per tensor of each boundary, with the
samples along axis 0.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from planner.chain import Bundle, Chain, ModelSource
from planner.documents import document, file_digest, read_document, read_json, write_document
from planner.errors import DocumentError, InputError, MismatchError, ModelError, StorageError
from profiler.cut import CutModel
from profiler.inputs import Sample
from profiler.runner import Array

SCHEMA = "edgecut.samples/2"


@document()
class SampleFile:
    """One array: tensor ``tensor`` of boundary ``boundary``, shape count x (the spec's, without its 1)."""

    name: str
    boundary: int
    tensor: int
    shape: tuple[int, ...]
    dtype: str
    digest: str


@document()
class SampleEntry:
    """Where a sample came from, the SHA-256 of its content, and its class where known."""

    source: str
    digest: str
    label: int | None = None


@document()
class Manifest:
    chain_digest: str
    samples: tuple[SampleEntry, ...]
    files: tuple[SampleFile, ...]


def stored_bytes(chain: Chain, count: int) -> int:
    """Size of the feature maps of ``count`` samples at every boundary."""
    return count * sum(boundary.nbytes for boundary in chain.boundaries)


def write_samples(
    cut: CutModel, samples: Iterable[Sample], folder: Path | str, progress: Callable[[], None] = lambda: None
) -> Manifest:
    """Run every sample through the network once and store what crosses each boundary.

    The store appears whole or not at all. Raises ``StorageError`` before it starts if the disk is too
    small, ``InputError`` without samples, ``ModelError`` if the network fails on one.
    """
    folder, samples = Path(folder), list(samples)
    if not samples:
        raise InputError("nothing to make samples from", "pass --images FOLDER or --inputs FILE")
    _check_replaceable(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}", "pass another --output") from error
    try:
        needed, free = stored_bytes(cut.chain, len(samples)), shutil.disk_usage(partial).free
        if needed > free:
            problem = (
                f"the samples take {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free at {folder.parent}"
            )
            raise StorageError(problem, "pass a smaller --count, or another --output")
        store = partial / "store"
        store.mkdir()
        arrays = _create(cut.chain, len(samples), store)
        layers = len(cut.chain)
        module = cut.module(Bundle(0, layers), outputs=range(1, layers + 1))
        for place, sample in enumerate(samples):
            values = [torch.from_numpy(array) for array in sample.arrays]
            values += _feature_maps(module, sample, values)
            for array, value in zip(arrays.values(), values, strict=True):
                array[place] = value[0].numpy()
            progress()
        for array in arrays.values():
            array.flush()
        manifest = _manifest(cut.chain, samples, arrays, store)
        write_document(manifest, store / "manifest.json", SCHEMA)
        if folder.exists():
            folder.replace(partial / "retired")
        store.replace(folder)
    except OSError as error:
        problem = f"cannot write samples to {folder}: {error}"
        raise StorageError(problem, "free space or pass another --output") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(partial)
    return manifest


def _feature_maps(
    module: torch.nn.Module, sample: Sample, inputs: list[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    try:
        with torch.inference_mode():
            maps: tuple[torch.Tensor, ...] = module(*inputs)
    except (RuntimeError, IndexError) as error:  # such as a token the embedding has no row for
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"the network fails on {sample.source}: {reason:.200}", "leave that sample out"
        ) from None
    return maps


def _check_replaceable(folder: Path) -> None:
    """Only samples, or an empty folder, may be replaced by new samples."""
    try:
        names = [entry.name for entry in folder.iterdir()] if folder.exists() else []
        if names:
            read_json(folder / "manifest.json", SCHEMA)
            if all(name == "manifest.json" or name.startswith("boundary_") for name in names):
                return
            raise StorageError(f"{folder} holds more than samples", "pass another --output")
    except (OSError, DocumentError):
        raise StorageError(f"{folder} exists and holds no samples", "pass another --output") from None


def _create(chain: Chain, count: int, folder: Path) -> dict[tuple[int, int], np.memmap]:
    arrays = {}
    for k, boundary in enumerate(chain.boundaries):
        for place, spec in enumerate(boundary.tensors):
            file = folder / f"boundary_{k:03d}_{place}.npy"
            shape = (count, *spec.shape[1:])
            arrays[k, place] = np.lib.format.open_memmap(file, "w+", dtype=np.dtype(spec.dtype), shape=shape)
    return arrays


def _manifest(
    chain: Chain,
    samples: Sequence[Sample],
    arrays: dict[tuple[int, int], np.memmap],
    folder: Path,
) -> Manifest:
    files = []
    for (k, place), array in arrays.items():
        file = folder / f"boundary_{k:03d}_{place}.npy"
        files.append(SampleFile(file.name, k, place, array.shape, array.dtype.name, file_digest(file)))
    entries = tuple(SampleEntry(sample.source, sample.digest, sample.label) for sample in samples)
    return Manifest(chain.digest, entries, tuple(files))


def read_manifest(folder: Path, source: ModelSource) -> Manifest:
    """What a store holds. Raises ``DocumentError`` where there is none."""
    file = folder / "manifest.json"
    if not file.exists():
        remedy = f"edgecut samples {source.arguments}, or pass --samples FOLDER"
        raise DocumentError(file, "", "no stored feature maps", remedy)
    return read_document(Manifest, file, SCHEMA)


class SampleStore:
    """Stored feature maps, opened for a chain; arrays are read as they are needed."""

    def __init__(self, folder: Path, chain: Chain) -> None:
        self.manifest = read_manifest(folder, chain.source)
        if self.manifest.chain_digest != chain.digest:
            raise MismatchError(
                f"{folder} holds feature maps of {self.manifest.chain_digest[:12]}, not of "
                f"{chain.source.label} {chain.digest[:12]} (other weights or granularity)",
                f"edgecut samples {chain.source.arguments}",
            )
        self._folder = folder
        self._chain = chain
        self._checked: set[str] = set()

    @property
    def count(self) -> int:
        """How many samples are stored."""
        return len(self.manifest.samples)

    @property
    def labels(self) -> tuple[int | None, ...]:
        """Each sample's class, None where it is not known."""
        return tuple(entry.label for entry in self.manifest.samples)

    def picks(self, batch: int, limit: int) -> list[Array]:
        """Which samples make up each of at most ``limit`` batches, at every boundary the same.

        With fewer samples than a batch has, samples repeat.
        """
        batches = min(limit, max(self.count // batch, 1))
        return [np.arange(place * batch, (place + 1) * batch) % self.count for place in range(batches)]

    def inputs(self, boundary: int, batch: int, limit: int) -> list[tuple[Array, ...]]:
        """The feature maps of ``picks`` at a boundary, in memory; what is not picked stays on disk.

        Those at boundary j are what bundle [i, j) makes of those at boundary i. Raises ``DocumentError``
        for a damaged file.
        """
        files = [entry for entry in self.manifest.files if entry.boundary == boundary]
        arrays = [self._open(entry) for entry in sorted(files, key=lambda entry: entry.tensor)]
        return [tuple(array[pick] for array in arrays) for pick in self.picks(batch, limit)]

    def _open(self, entry: SampleFile) -> Array:
        file = self._folder / Path(entry.name).name
        remedy = f"edgecut samples {self._chain.source.arguments}"
        try:
            if entry.name not in self._checked:
                if file_digest(file) != entry.digest:
                    raise DocumentError(file, "", "its content differs from the manifest's digest", remedy)
                self._checked.add(entry.name)
            array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DocumentError(file, "", f"cannot be read: {error}", remedy) from None
        return array
