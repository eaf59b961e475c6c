"""Files by their SHA-256, in a folder of limited size that several processes may share.

::

    FOLDER/SHA256               whole and checked; locked (shared) by whoever holds it
    FOLDER/.SHA256.SIZE.part    what has come of it so far; locked by whoever receives it
    FOLDER/.lock                locked for every decision about what may stay

A file is a cache's entry: what was used longest ago goes first when another needs its room, half or
whole, except what is locked. The locks are the kernel's, so they end with the process that has them,
however it ends; what it had received stays, and is continued at its last byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from planner.documents import file_digest
from planner.errors import InputError, StorageError, TransportError
from runtime.file_locks import folder_lock, lock

_DIGEST = re.compile("[0-9a-f]{64}")
_ENTRY = re.compile(r"(?P<digest>[0-9a-f]{64})|\.[0-9a-f]{64}\.(?P<nbytes>[0-9]{1,18})\.part")
_DEFAULT_SHARE = 0.5
_BLOCK_BYTES = 1 << 20


def check_digest(text: str) -> None:
    """Refuse (``ValueError``) what is no SHA-256 in hexadecimal."""
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"a digest has 64 hexadecimal digits, found {text[:80]!r}")


@dataclass(frozen=True)
class _Entry:
    """``nbytes`` it has or, while it is being received, will have; ``missing_bytes``: what is yet to come."""

    file: Path
    nbytes: int
    missing_bytes: int
    used_ns: int
    locked: bool


class ArtifactStore:
    """The files in ``folder``, together never more than ``limit_bytes``.

    None for it: half of what is free on that disk, and of what the files have already. Threads and
    processes may share a folder; each keeps to its own limit. Raises ``StorageError`` where the folder
    cannot be used.
    """

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        self.folder = folder
        self._checked: dict[str, tuple[int, int, int]] = {}  # files known to be what their digest says
        with self._errors(), folder_lock(self.folder):
            entries = self._entries()
            used = sum(entry.nbytes for entry in entries)
            free = shutil.disk_usage(folder).free
            self.limit_bytes = int((free + used) * _DEFAULT_SHARE) if limit_bytes is None else limit_bytes
            self._evict(entries, used - self.limit_bytes)

    @property
    def nbytes(self) -> int:
        """What its files take now."""
        with self._errors(), folder_lock(self.folder):
            return sum(entry.nbytes - entry.missing_bytes for entry in self._entries())

    def path(self, digest: str) -> Path:
        """Where the file is, if it is there; ``hold`` it before it is read."""
        try:
            check_digest(digest)
        except ValueError as error:
            raise InputError(str(error)) from None
        return self.folder / digest

    def has(self, digest: str) -> bool:
        """Whether it is there; asking counts as a use."""
        try:
            _touch(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def hold(self, digest: str) -> Iterator[Path]:
        """The file, checked against its digest, and kept until the context is left.

        Raises ``StorageError`` if it is not there, or damaged; then it is removed.
        """
        path = self.path(digest)
        with contextlib.ExitStack() as stack:
            with self._errors(), folder_lock(self.folder):
                try:
                    stream = stack.enter_context(path.open("rb"))
                except FileNotFoundError:
                    problem = f"{self.folder} has no artifact {digest[:12]}"
                    raise StorageError(problem, "run the same command again, which sends it") from None
                lock(stream.fileno(), exclusive=False)
                _touch(path)
            with self._errors():
                status = os.fstat(stream.fileno())
                state = status.st_ino, status.st_size, status.st_mtime_ns
                if self._checked.get(digest) != state:
                    if file_digest(path) != digest:
                        path.unlink(missing_ok=True)
                        problem = f"artifact {digest[:12]} in {self.folder} was damaged"
                        raise StorageError(problem, "run the same command again, which sends it anew")
                    self._checked[digest] = state
            yield path

    def receive(
        self, digest: str, nbytes: int, told: Callable[[int], None] = lambda done: None
    ) -> Incoming | None:
        """A file of this digest and size to write to, begun at the byte where an earlier one ended.

        None if it is there, or another is receiving it. What was used longest ago goes to make room. Raises
        ``StorageError`` if there is none even then; nothing has been removed. ``told`` gets the bytes found
        as they are read again.
        """
        whole = self.path(digest)
        part = whole.with_name(f".{digest}.{nbytes}.part")
        with self._errors():
            with folder_lock(self.folder):
                if whole.exists():
                    return None
                entries = self._entries()
                own = next((entry for entry in entries if entry.file == part), None)
                if own and own.locked:
                    return None
                self._make_room(digest, nbytes, own, [entry for entry in entries if entry is not own])
                handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                lock(handle, exclusive=True)
            return Incoming(self, handle, part, digest, nbytes, told)

    def _make_room(self, digest: str, nbytes: int, own: _Entry | None, others: list[_Entry]) -> None:
        locked = sum(entry.nbytes for entry in others if entry.locked)
        idle = sum(entry.nbytes for entry in others if not entry.locked)
        free = shutil.disk_usage(self.folder).free - sum(entry.missing_bytes for entry in others)
        lacking = nbytes - (own.nbytes if own else 0)
        what = f"artifact {digest[:12]} has {nbytes / 1e6:.1f} MB"
        if locked + nbytes > self.limit_bytes:
            used = f", of which {locked / 1e6:.1f} MB are in use" if locked else ""
            raise StorageError(
                f"{what}, the cache in {self.folder} takes {self.limit_bytes / 1e6:.1f} MB{used}",
                f"start the agent with --cache-limit {-(-(locked + nbytes) // 10**6)}MB or more",
            )
        if lacking > free + idle:
            raise StorageError(
                f"{what}, of the disk of {self.folder} {max(free + idle, 0) / 1e6:.1f} MB can be had",
                f"free {(lacking - free - idle) / 1e6:.1f} MB there",
            )
        self._evict(others, max(locked + idle + nbytes - self.limit_bytes, lacking - free))

    def _evict(self, entries: list[_Entry], excess_bytes: int) -> None:
        for entry in sorted(entries, key=lambda entry: entry.used_ns):
            if excess_bytes <= 0:
                return
            if not entry.locked:
                entry.file.unlink(missing_ok=True)
                excess_bytes -= entry.nbytes

    def _entries(self) -> list[_Entry]:
        found = []
        for each in os.scandir(self.folder):
            name = _ENTRY.fullmatch(each.name)
            if name is None:
                continue
            try:
                handle = os.open(each.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                locked = not lock(handle, exclusive=True)
                status = os.fstat(handle)
            finally:
                os.close(handle)
            nbytes = status.st_size
            if locked and name["nbytes"]:
                nbytes = max(nbytes, int(name["nbytes"]))
            used_ns = max(status.st_atime_ns, status.st_mtime_ns)
            found.append(_Entry(Path(each.path), nbytes, nbytes - status.st_size, used_ns, locked))
        return found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = f"cannot keep artifacts in {self.folder}: {error.strerror or error}"
            raise StorageError(
                problem, "free space there, or start the agent with another --folder"
            ) from error


class Incoming:
    """A file on its way. Use as a context manager: what has come stays for the next who brings it."""

    def __init__(
        self,
        store: ArtifactStore,
        handle: int,
        part: Path,
        digest: str,
        nbytes: int,
        told: Callable[[int], None],
    ) -> None:
        self.nbytes = nbytes
        self._store, self._handle, self._part, self._digest = store, handle, part, digest
        self._sha256 = hashlib.sha256()
        self.offset = 0
        try:
            if os.fstat(handle).st_size > nbytes:
                os.ftruncate(handle, 0)
            while block := os.pread(handle, _BLOCK_BYTES, self.offset):
                self._sha256.update(block)
                self.offset += len(block)
                told(self.offset)
        except BaseException:
            self.close()
            raise

    def write(self, data: memoryview) -> None:
        """Append what comes next. Raises ``StorageError``; what had come is then gone, as is its room."""
        if self.offset + len(data) > self.nbytes:
            raise TransportError(f"{self.offset + len(data)} bytes came of an artifact of {self.nbytes}")
        with self._discarding():
            left = data
            while len(left):
                left = left[os.write(self._handle, left) :]
        self._sha256.update(data)
        self.offset += len(data)

    def finish(self) -> Path:
        """Check the content and let it be seen; the incoming file is closed.

        Raises ``TransportError`` for another content than the digest says; it is gone then.
        """
        if (found := self._sha256.hexdigest()) != self._digest:
            self._discard()
            problem = f"artifact {self._digest[:12]} arrived with another content, {found[:12]}"
            raise TransportError(problem, "try again")
        whole = self._store.path(self._digest)
        with self._discarding():
            os.fsync(self._handle)
            with folder_lock(self._store.folder):  # seen and unlocked at once
                self._part.replace(whole)
                whole.chmod(0o444)
                _touch(whole)
                self.close()
        return whole

    def close(self) -> None:
        """Stop receiving."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        try:
            with self._store._errors():
                yield
        except StorageError:
            self._discard()
            raise

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)
        self.close()


def _touch(file: Path) -> None:
    """Note that it was used. The time of its last change stays: that is how a change is noticed."""
    os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))
