"""What no peer should send: spoilt bytes, bad JSON, and orders with bodies that cannot be."""

from __future__ import annotations

import json
import random
import ssl
from contextlib import suppress
from typing import Any

CLIENT = "0123456789abcdef"
_DIGEST = "ab" * 32
_RELAY = {"place": 0, "boundary": 0, "inputs": {"tensors": [{"shape": [1, 3], "dtype": "float32"}]}}
_RELAY |= {"stages": [], "link": None, "arrives": "raw", "decodes": False, "encodes": None}
_PLAN = {"installation": CLIENT, "threads": 1, "slowdown": 1.0, "window": 1, "segments": [_RELAY]}
# The orders of an agent that need no network's weights, each with a body as it should be.
ORDERS: dict[str, dict[str, Any]] = {
    "has": {"artifacts": [{"digest": _DIGEST, "nbytes": 5}]},
    "put": {"digest": _DIGEST, "nbytes": 5},
    "files": {"table": "cd" * 16},
    "read": {"table": "cd" * 16, "name": "a", "offset": 0},
    "load": _PLAN,
    "run": {"installation": CLIENT},
    "unload": {"installation": CLIENT},
}
# A value that no key of theirs may have.
_NEVER = ("../../../etc/passwd", "", -1, -(1 << 70), 1e300, True, {"a": [1]}, "\x00" * 64)


def client_hello() -> bytes:
    """The first record of a good handshake."""
    out = ssl.MemoryBIO()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def spoilt(data: bytes, rng: random.Random) -> bytes:
    """Changed in a few places, cut off, or made longer; never the same."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 8)):
        changed[rng.randrange(min(len(changed), 60))] ^= rng.randrange(1, 256)
    kind = rng.randrange(3)
    if kind == 1:
        changed = changed[: rng.randrange(1, len(changed))]
    if kind == 2:
        changed += rng.randbytes(rng.randrange(1, 100))
    return bytes(changed)


def with_body(frame: bytes, body: bytes) -> bytes:
    """The control frame with another body; its header says how long it is."""
    return frame[:40] + len(body).to_bytes(8, "little") + body


def bad_json(rng: random.Random) -> bytes:
    deep = rng.choice((100, 900, 20_000))
    return rng.choice(
        (
            b"{",
            b"[1, 2]",
            b'{"client": NaN}',
            b'{"a":' * deep + b"1" + b"}" * deep,
            b'{"client": ' + b"9" * 5000 + b"}",
            b'{"client": "\\ud800", "who": "\\ud800", "order": "x", "body": {}}',
            b'{"client": "%s", "who": "", "order": "\\u001b[2J", "body": {}}' % CLIENT.encode(),
            b'{"client": "%s", "who": "", "order": "x", "body": %s}' % (CLIENT.encode(), b"[" * deep),
            b'{"client": "../../etc", "who": "", "order": "hello", "body": {}}',
            json.dumps({"x" * 100_000: 1}).encode(),
            b'{"client": "%s", "who": "%s", "order": "x", "body": {}}' % (CLIENT.encode(), b"w" * 10_000),
        )
    )


def damaged(body: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The body with a key too many, too few, or one that has a value that none may have."""
    changed: dict[str, Any] = json.loads(json.dumps(body))
    key = rng.choice(list(changed))
    kind = rng.randrange(3)
    if kind == 0:
        changed[rng.choice(("path", "__class__", "x" * 10_000))] = 1
    elif kind == 1:
        del changed[key]
    else:
        changed[key] = rng.choice(_NEVER)
    return changed
