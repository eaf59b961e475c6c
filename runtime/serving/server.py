"""A web server around the application: it listens, drains, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator

from planner.errors import DeploymentError, EdgecutError, InputError, MissingDependencyError
from runtime.serving.app import Service
from runtime.serving.connection import Connection
from runtime.serving.guard import Endpoint, Guard

try:
    import uvicorn
    from starlette.applications import Starlette
except ImportError as error:
    raise MissingDependencyError(error.name or "uvicorn", "serving a plan", "serve") from error

_LAST_ANSWERS_S = 10  # so long a client may take to read what it was answered while the server ends
_BACKLOG = 128


def listener(endpoint: Endpoint) -> socket.socket:
    """A socket that listens there. Raises ``InputError``."""
    try:
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        return socket.create_server((endpoint.host, endpoint.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"cannot listen on {endpoint.host}:{endpoint.port}: {reason}", "choose another address or port"
        ) from None


def serve(
    app: Starlette, endpoint: Endpoint, listening: socket.socket, stopping: Callable[[], bool] = lambda: False
) -> None:
    """Serve ``app`` until ``stopping()``: then answer what is here, and nothing new. Raises what ended its pipeline."""
    service: Service = app.state.service
    config = uvicorn.Config(
        Guard(app, endpoint.token, endpoint.loopback),
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
        ssl_certfile=endpoint.certificate,
        ssl_keyfile=endpoint.key,
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    asyncio.run(_Server(config, service, stopping).serve([listening]))
    failure = service.dispatcher.pipeline.failure
    if isinstance(failure, EdgecutError):
        raise failure
    if failure:
        raise DeploymentError(f"the deployment ended: {type(failure).__name__}: {failure}") from failure


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service, stopping: Callable[[], bool]) -> None:
        super().__init__(config)
        self._dispatcher, self._stopping = service.dispatcher, stopping

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ``stopping``'s."""
        yield

    async def on_tick(self, counter: int) -> bool:
        failed = self._dispatcher.pipeline.failure is not None
        if failed or self._stopping():
            self._dispatcher.closing = True
        ended = self._dispatcher.closing and not self._dispatcher.held
        return await super().on_tick(counter) or ended
