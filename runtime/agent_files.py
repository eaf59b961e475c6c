"""Files between a workstation and an agent: inputs go there by their SHA-256, tables come back.

::

    FOLDER/inputs/SHA256                 arrays that arrived, in pieces of at most 4 MiB, and were checked
    FOLDER/samples/ID/                   stored feature maps, made of them by the agent
    FOLDER/tables/ID/MODEL-NAME.csv      a table and what belongs to it

An ID is hexadecimal; no path from the network is ever used.
"""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import threading
from pathlib import Path

from planner.documents import document, file_digest, from_data
from planner.errors import DocumentError, InputError, StorageError, TransportError
from runtime.agent import Agent, Progress
from runtime.agent_messages import Body
from runtime.agents import AgentClient

PIECE_BYTES = 4 << 20
MAX_FILE_BYTES = 1 << 30
_DIGEST, _ID, _NAME = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{32}"), re.compile(r"[\w.-]{1,250}")


@document()
class Wanted:
    """Which inputs the workstation will ask for."""

    digests: tuple[str, ...]

    def __post_init__(self) -> None:
        if not all(map(_DIGEST.fullmatch, self.digests)):
            raise ValueError("a digest has 64 hexadecimal digits")


@document()
class Piece:
    """Bytes from ``offset`` of the file of ``nbytes`` that has this digest; ``data`` is base64."""

    digest: str
    nbytes: int
    offset: int
    data: str

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError("a digest has 64 hexadecimal digits")
        if not 0 <= self.offset < self.nbytes <= MAX_FILE_BYTES:
            raise ValueError(
                f"a file has at most {MAX_FILE_BYTES} bytes, found {self.offset} of {self.nbytes}"
            )
        if len(self.data) > PIECE_BYTES * 4 // 3 + 4:
            raise ValueError(f"a piece has at most {PIECE_BYTES} bytes")


@document()
class TableFiles:
    """The files of one table."""

    table: str

    def __post_init__(self) -> None:
        check_id(self.table)


@document()
class Part:
    """Up to 4 MiB from ``offset`` of a file of a table."""

    table: str
    name: str
    offset: int

    def __post_init__(self) -> None:
        check_id(self.table)
        if self.offset < 0:
            raise ValueError("offset is negative")


def check_id(text: str) -> None:
    if not _ID.fullmatch(text):
        raise ValueError(f"an ID has 32 hexadecimal digits, found {text[:40]!r}")


class AgentFiles:
    """The agent's side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def serve(self, agent: Agent) -> None:
        agent.handle("has", self._has)
        agent.handle("put", self._put)
        agent.handle("files", self._list)
        agent.handle("read", self._read)

    def input(self, digest: str) -> Path:
        return self.folder / "inputs" / digest

    def table(self, table: str) -> Path:
        return self.folder / "tables" / table

    def samples(self, samples: str) -> Path:
        return self.folder / "samples" / samples

    def _has(self, body: Body, progress: Progress) -> Body:
        wanted = from_data(Wanted, body, "has")
        return {"missing": [each for each in wanted.digests if not self.input(each).exists()]}

    def _put(self, body: Body, progress: Progress) -> Body:
        piece = from_data(Piece, body, "put")
        try:
            data = base64.b64decode(piece.data, validate=True)
        except (binascii.Error, ValueError):
            raise InputError("a piece's data is not base64") from None
        with self._lock:
            try:
                self._append(piece, data)
            except OSError as error:
                problem = f"cannot keep inputs in {self.folder}: {error.strerror or error}"
                raise StorageError(problem, "free space there") from error
        return {}

    def _append(self, piece: Piece, data: bytes) -> None:
        whole = self.input(piece.digest)
        part = whole.with_name(f".{piece.digest}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        if piece.offset == 0:
            part.unlink(missing_ok=True)
            free = shutil.disk_usage(part.parent).free
            if piece.nbytes > free:
                problem = f"an input has {piece.nbytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free"
                raise StorageError(f"{problem} at {part.parent}", "free space there")
        size = part.stat().st_size if part.exists() else 0
        if size != piece.offset or size + len(data) > piece.nbytes or not data:
            raise InputError(f"expected the piece at {size} of {piece.nbytes}, found {piece.offset}")
        with part.open("ab") as stream:
            stream.write(data)
        if size + len(data) == piece.nbytes:
            if file_digest(part) != piece.digest:
                part.unlink()
                raise InputError("an input arrived with another content than its digest says", "try again")
            part.replace(whole)

    def _list(self, body: Body, progress: Progress) -> Body:
        folder = self.table(from_data(TableFiles, body, "files").table)
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        kept = [each for each in found if each.is_file() and not each.name.startswith(".")]
        return {"files": [each.name for each in kept]}

    def _read(self, body: Body, progress: Progress) -> Body:
        part = from_data(Part, body, "read")
        if part.name not in self._list({"table": part.table}, progress)["files"]:
            raise InputError(f"the table has no file {part.name[:80]!r}")
        try:
            with (self.table(part.table) / part.name).open("rb") as stream:
                stream.seek(part.offset)
                data = stream.read(PIECE_BYTES)
        except (OSError, OverflowError) as error:
            raise StorageError(f"cannot read {part.name}: {error}") from error
        return {"data": base64.b64encode(data).decode()}


def send_input(client: AgentClient, file: Path, digest: str, remedy: str) -> None:
    """Give the agent this file unless it has it. Raises ``DocumentError`` for a file that changed."""
    if not client.request("has", {"digests": [digest]})["missing"]:
        return
    try:
        if file_digest(file) != digest:
            raise DocumentError(file, "", "its content differs from the manifest's digest", remedy)
        nbytes, offset = file.stat().st_size, 0
        with file.open("rb") as stream:
            while data := stream.read(PIECE_BYTES):
                body = {"digest": digest, "nbytes": nbytes, "offset": offset}
                client.request("put", {**body, "data": base64.b64encode(data).decode()})
                offset += len(data)
    except OSError as error:
        raise DocumentError(file, "", f"cannot be read: {error}", remedy) from None


def fetch_table(client: AgentClient, table: str, stem: str, folder: Path) -> list[Path]:
    """Bring the agent's files of a table here; only those called ``stem``.SOMETHING are taken.

    Raises ``TransportError`` for an answer that is none, ``StorageError`` where they cannot be written.
    """
    files = []
    for name in client.request("files", {"table": table}).get("files", []):
        plain = isinstance(name, str) and _NAME.fullmatch(name) and name.startswith(f"{stem}.")
        if not plain:
            raise TransportError(f"{client.name} offers a file {name!r:.80} as part of {stem}")
        files.append(folder / name)
        try:
            with (folder / name).open("wb") as stream:
                while data := _part(client, table, name, stream.tell()):
                    stream.write(data)
        except OSError as error:
            raise StorageError(f"cannot write {folder / name}: {error.strerror}", "free space") from error
    return files


def _part(client: AgentClient, table: str, name: str, offset: int) -> bytes:
    found = client.request("read", {"table": table, "name": name, "offset": offset})
    try:
        return base64.b64decode(found["data"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise TransportError(f"{client.name} sent no part of {name}: {error}") from None
