"""What an agent keeps on its disk, and how its tables come back.

::

    FOLDER/artifacts/SHA256              what was sent to it: inputs and bundles (see ``runtime.artifacts``)
    FOLDER/samples/ID/                   stored feature maps, made of them by the agent
    FOLDER/tables/ID/MODEL-NAME.csv      a table and what belongs to it

An ID is hexadecimal; no path from the network is ever used.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

from planner.documents import document, from_data
from planner.errors import InputError, StorageError, TransportError
from runtime.agent import Agent
from runtime.agent_messages import Body
from runtime.agents import AgentClient
from runtime.artifact_store import ArtifactStore
from runtime.artifacts import ArtifactService
from runtime.orders import Progress

PART_BYTES = 4 << 20
_ID, _NAME = re.compile("[0-9a-f]{32}"), re.compile(r"[\w.-]{1,250}")


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
    """The agent's side. ``limit_bytes``: what its artifacts may take, None for a share of the free disk.

    Raises ``StorageError`` where the folder cannot be used.
    """

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        self.folder = folder
        self.store = ArtifactStore(folder / "artifacts", limit_bytes)

    def serve(self, agent: Agent) -> None:
        ArtifactService(agent, self.store)
        agent.handle("files", self._list)
        agent.handle("read", self._read)

    def table(self, table: str) -> Path:
        return self.folder / "tables" / table

    def samples(self, samples: str) -> Path:
        return self.folder / "samples" / samples

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
                data = stream.read(PART_BYTES)
        except (OSError, OverflowError) as error:
            raise StorageError(f"cannot read {part.name}: {error}") from error
        return {"data": base64.b64encode(data).decode()}


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
