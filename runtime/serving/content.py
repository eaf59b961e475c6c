"""Content codings of HTTP bodies: gzip, and deflate in the zlib format, with a bound on what comes out."""

from __future__ import annotations

import zlib
from typing import Literal

from planner.errors import InputError

Coding = Literal["gzip", "deflate"]
_WINDOW: dict[Coding, int] = {"gzip": 31, "deflate": 15}
_LEVEL = 1  # tensors compress little, and time is what a client waits for


class TooLargeError(InputError):
    """A body of more bytes than are taken."""


def known_coding(text: str) -> Coding | None:
    """What a Content-Encoding names; None where nothing is encoded. Raises ``InputError`` for any other."""
    name = text.strip().lower()
    if name in ("", "identity"):
        return None
    for coding in _WINDOW:
        if name == coding:
            return coding
    raise InputError(f"Content-Encoding is {', '.join(_WINDOW)} or identity, found {text:.40}")


def accepted_coding(text: str) -> Coding | None:
    """What a client accepts best, by its Accept-Encoding; None where it named none that is known here."""
    best: Coding | None = None
    highest = 0.0
    for part in text.split(","):
        name, _, rest = part.partition(";")
        weight = rest.strip().removeprefix("q=") or "1"
        try:
            quality = float(weight)
        except ValueError:
            continue
        for coding in _WINDOW:
            if name.strip().lower() == coding and quality > highest:
                best, highest = coding, quality
    return best


def compressed(content: bytes, coding: Coding) -> bytes:
    packer = zlib.compressobj(_LEVEL, wbits=_WINDOW[coding])
    return packer.compress(content) + packer.flush()


def decompressed(content: memoryview, coding: Coding, most: int) -> memoryview:
    """Raises ``TooLargeError`` for more than ``most`` bytes, ``InputError`` for what is not of this coding."""
    unpacker = zlib.decompressobj(_WINDOW[coding])
    try:
        found = unpacker.decompress(content, most + 1)
    except zlib.error as error:
        raise InputError(f"the body is not {coding}: {error}") from None
    if len(found) > most:
        raise TooLargeError(f"expected at most {most} bytes, and the body is {coding} of more")
    if not unpacker.eof or unpacker.unused_data:
        raise InputError(
            f"the body is not {coding}: it {'goes on after its end' if unpacker.eof else 'ends early'}"
        )
    return memoryview(found)
