"""Where engines are kept: one folder each, named by what they were made of, with and for.

``engine`` holds the bytes, ``engine.json`` says what they are. The folder is written elsewhere and
renamed, so it is there whole or not at all, whoever else writes the same one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from planner.chain import TensorSpec
from planner.documents import document, read_document, to_data, write_document
from planner.errors import DocumentError, StorageError

SCHEMA = "edgecut.engine/1"
_DIGEST_BYTES = hashlib.sha256().digest_size


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@document()
class EngineKey:
    """What decides whether an engine can serve: any difference makes it another one.

    ``content``: SHA-256 of the ONNX it is built from. ``precision`` and ``batch`` are None where only
    the file's content says them. ``trt_library`` carries its version, ``device`` what the engine runs on.
    """

    content: str
    precision: str | None
    batch: int | None
    trt_library: str
    device: str

    @property
    def digest(self) -> str:
        return sha256(json.dumps(to_data(self)).encode())


@document()
class Port:
    """An input or output of an engine, by the name it has there."""

    name: str
    spec: TensorSpec


@document()
class EngineRecord:
    """What is known of an engine. ``layers``: one entry per kernel, with the operations fused into it."""

    key: EngineKey
    digest: str
    nbytes: int
    build_s: float
    layers: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Engine:
    """A serialised engine, found in the cache or built just now; ``unkept`` says why it was not kept."""

    record: EngineRecord
    blob: bytes
    found: bool
    unkept: str = ""


class EngineCache:
    """Engines under ``folder``, by default ``$XDG_CACHE_HOME/edgecut/engines``."""

    def __init__(self, folder: Path | None = None) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.folder = folder or Path(home) / "edgecut" / "engines"

    def find(self, key: EngineKey) -> Engine | None:
        """The engine kept for ``key``; None where there is none, or it is not what its record says."""
        place = self.folder / key.digest
        try:
            record = read_document(EngineRecord, place / "engine.json", SCHEMA)
            blob = (place / "engine").read_bytes()
        except (DocumentError, OSError):
            return None
        sound = record.key == key and record.digest == sha256(blob)
        return Engine(record, blob, found=True) if sound else None

    def keep(self, engine: Engine) -> None:
        """Keep an engine in place of whatever is there for its key. Raises ``StorageError``."""
        place = self.folder / engine.record.key.digest
        with self._scratch() as scratch:
            made, retired = scratch / "made", scratch / "retired"
            made.mkdir()
            write_document(engine.record, made / "engine.json", SCHEMA)
            (made / "engine").write_bytes(engine.blob)
            with suppress(FileNotFoundError):
                place.replace(retired)
            try:
                made.replace(place)
            except OSError:
                if not place.is_dir():  # else another process was first with the same engine
                    raise

    def note(self, kind: str, *of: str) -> bytes:
        """What ``keep_note`` kept last of this kind for this; empty where there is none, or it is damaged."""
        try:
            content = self._note(kind, of).read_bytes()
        except OSError:
            return b""
        digest, blob = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        return blob if digest == hashlib.sha256(blob).digest() else b""

    def keep_note(self, blob: bytes, kind: str, *of: str) -> None:
        """Keep what the library learnt (tactics timed, kernels compiled). Raises ``StorageError``."""
        with self._scratch() as scratch:
            made = scratch / "note"
            made.write_bytes(hashlib.sha256(blob).digest() + blob)
            made.replace(self._note(kind, of))

    def _note(self, kind: str, of: tuple[str, ...]) -> Path:
        return self.folder / f"{sha256(json.dumps(of).encode())}.{kind}"

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as scratch:
                yield Path(scratch)
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(
                f"cannot write to {self.folder}: {reason}", "free space, or choose another cache folder"
            ) from error
