"""Bodies of HTTP requests and responses, within bounds."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from planner.errors import InputError, MissingDependencyError
from runtime.serving.content import TooLargeError, accepted_coding, compressed, decompressed, known_coding

try:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive
except ImportError as error:
    raise MissingDependencyError(error.name or "starlette", "serving a plan", "serve") from error

HEADER_BYTES = "Inference-Header-Content-Length"
_SMALL_BYTES = 1 << 16  # packed and unpacked at once; more on a thread

T = TypeVar("T")


class GoneAwayError(Exception):
    """The client is no longer there."""


async def read_body(request: Request, most: int, until_s: float | None = None) -> memoryview:
    """What the client sends, unpacked: of ``most`` bytes, until the performance counter says ``until_s``.

    Its Content-Length is not believed further than that. Raises ``InputError``, ``TooLargeError``, ``TimeoutError``,
    ``GoneAwayError``, and ``HTTPException`` for a coding that is not known.
    """
    try:
        coding = known_coding(request.headers.get("content-encoding", ""))
    except InputError as error:
        raise HTTPException(415, error.message, {"Accept-Encoding": "gzip, deflate"}) from None
    told = request.headers.get("content-length")
    if told is not None and (not told.isdecimal() or int(told[:20]) > most):
        raise TooLargeError(f"expected a body of at most {most} bytes, found Content-Length {told[:20]}")
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise GoneAwayError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise TooLargeError(f"expected a body of at most {most} bytes")
        more = message.get("more_body", False)
        if more and until_s is not None and time.perf_counter() > until_s:
            raise TimeoutError
    body = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
    if coding is None:
        return body
    return await _maybe_threaded(len(body), lambda: decompressed(body, coding, most))


def header_bytes(request: Request) -> int | None:
    """How much of the body is JSON; None for all of it. Raises ``InputError``."""
    told = request.headers.get(HEADER_BYTES)
    if told is None:
        return None
    if not told.isascii() or not told.isdecimal() or len(told) > 20:
        raise InputError(f"{HEADER_BYTES} is a number of bytes, found {told!r:.40}")
    return int(told)


async def respond(request: Request, header: bytes, binary: list[memoryview]) -> Response:
    """JSON and the bytes after it, packed as the client takes it."""
    headers = {"Content-Type": "application/octet-stream" if binary else "application/json"}
    if binary:
        headers[HEADER_BYTES] = str(len(header))
    content = b"".join((header, *binary))
    coding = accepted_coding(request.headers.get("accept-encoding", ""))
    if coding:
        headers["Content-Encoding"] = coding
        content = await _maybe_threaded(len(content), lambda: compressed(content, coding))
    return Response(content, headers=headers)


async def unless_gone(receive: Receive, work: Awaitable[T], timeout_s: float) -> T:
    """What ``work`` gives. Raises ``TimeoutError`` after ``timeout_s``, ``GoneAwayError`` where the client leaves.

    It is awaited here, without a task of its own: a task takes its turns of the loop before it is seen to be done.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    ended: list[Exception] = []

    def end(error: Exception) -> None:
        if not ended:
            ended.append(error)
            task.cancel()

    def leave(_: object) -> None:
        end(GoneAwayError())

    timer = loop.call_later(max(timeout_s, 0), end, TimeoutError())
    gone = loop.create_task(_until_gone(receive))
    gone.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if not ended:
            raise
        if sys.version_info >= (3, 11):
            task.uncancel()
        raise ended[0] from None
    finally:
        timer.cancel()
        gone.remove_done_callback(leave)
        gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _maybe_threaded(nbytes: int, work: Callable[[], T]) -> T:
    return work() if nbytes <= _SMALL_BYTES else await asyncio.to_thread(work)
