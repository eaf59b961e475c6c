"""What a workstation and an agent say to each other; each is the body of one control frame."""

from __future__ import annotations

import functools
import re
from typing import Any, Literal

from planner import errors
from planner.documents import document, to_data
from planner.errors import EdgecutError, WorkerError
from profiler.machine import versions

# Counts up where what the two say to each other changes.
PROTOCOL = 3
CANCEL, HELLO = "cancel", "hello"
LEAVING = "leaving"  # what an agent that will end soon adds to its name
# The most that one frame on these channels has: a body of 16 MiB and its header.
MAX_CONTROL_BYTES = (16 << 20) + (1 << 10)
# A peer silent for so long is gone; one that is killed is seen at once. Shorter, a device that starts a large
# library on a busy processor was taken for dead.
LEASE_S = 3.0
_CLIENT = re.compile("[0-9a-f]{16}")

Body = dict[str, Any]
State = Literal["progress", "result", "error"]


@functools.cache
def version() -> str:
    """The version of edgecut installed here."""
    return versions(["edgecut"]).get("edgecut", "unknown")


@document()
class Request:
    """``client``: where to answer; ``who``: the workstation and process, for people."""

    client: str
    who: str
    order: str
    body: Body

    def __post_init__(self) -> None:
        if not _CLIENT.fullmatch(self.client):
            raise ValueError(f"client must be 16 hexadecimal digits, found {self.client[:40]!r}")
        if not all(len(text) <= 200 and text.isprintable() for text in (self.who, self.order)):
            raise ValueError("who and order have at most 200 characters, all printable")


@document()
class Reply:
    state: State
    body: Body


@document()
class Failure:
    """An error as it travels: the name of its class, and its two sentences."""

    kind: str
    message: str
    remedy: str


def _plain(kind: type[EdgecutError]) -> bool:
    """Whether it is made from message and remedy."""
    own = kind.__mro__[: kind.__mro__.index(EdgecutError)]
    return all("__init__" not in vars(each) for each in own)


_KINDS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EdgecutError) and _plain(kind)
}


def failure(error: EdgecutError) -> Body:
    """The error as a body; one with a constructor of its own becomes the nearest one without."""
    kind = next(each.__name__ for each in type(error).__mro__ if each.__name__ in _KINDS)
    return dict(to_data(Failure(kind, error.message, error.remedy)))


def carried(found: Failure) -> EdgecutError:
    """The error that travelled."""
    return _KINDS.get(found.kind, WorkerError)(found.message, found.remedy)
