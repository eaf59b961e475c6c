"""The web application: what each path of the protocol answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from planner.errors import BusyError, DeploymentError, EdgecutError, InputError, MissingDependencyError
from runtime.answering import Answering
from runtime.serving.content import TooLargeError
from runtime.serving.dispatch import Dispatcher
from runtime.serving.exchange import GoneAwayError, header_bytes, read_body, respond, unless_gone
from runtime.serving.openapi import openapi
from runtime.serving.protocol import (
    VERSION,
    Signature,
    decode_request,
    encode_response,
    read_flag,
    read_json,
)

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise MissingDependencyError(error.name or "starlette", "serving a plan", "serve") from error

QUEUE = 16
TIMEOUT_S = 60.0
_EXTENSIONS = ["binary_tensor_data", "statistics", "model_configuration"]
_MAX_SMALL_BODY = 1 << 16  # of a request that is none for inference


@dataclass(frozen=True)
class Service:
    """A pipeline as it is served. ``timeout_s``: until a request must be answered, unless it says less itself."""

    dispatcher: Dispatcher
    signature: Signature
    timeout_s: float
    max_body_bytes: int

    @property
    def ready(self) -> bool:
        return self.dispatcher.pipeline.ready and not self.dispatcher.closing


def application(
    pipeline: Answering,
    signature: Signature,
    *,
    queue: int = QUEUE,
    timeout_s: float = TIMEOUT_S,
    max_body_bytes: int,
) -> Starlette:
    """The application that serves a pipeline; ``state.service`` of it is its ``Service``.

    ``queue``: requests that wait while as many as the pipeline's window are on their way. It neither encrypts nor
    asks who calls: see ``runtime.serving.guard``.
    """
    service = Service(Dispatcher(pipeline, queue), signature, timeout_s, max_body_bytes)
    paths = _Paths(service)
    model = "/v2/models/{model}"
    named = (model, model + "/versions/{version}")
    routes = [Route(prefix + "/infer", paths.infer, methods=["POST"]) for prefix in named]  # tried in turn
    routes += [
        Route("/v2", paths.server),
        Route("/v2/health/live", paths.live),
        Route("/v2/health/ready", paths.ready),
        Route("/v2/models/stats", paths.statistics),
        Route("/v2/repository/index", paths.index, methods=["POST"]),
        Route("/openapi.json", paths.openapi),
        Route("/metrics", paths.metrics),
    ]
    for prefix in named:
        routes += [
            Route(prefix, paths.metadata),
            Route(prefix + "/ready", paths.model_ready),
            Route(prefix + "/config", paths.config),
            Route(prefix + "/stats", paths.statistics),
        ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _http_error,
            EdgecutError: paths.edgecut_error,
            Exception: _unexpected,
        },
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


class _Paths:
    def __init__(self, service: Service) -> None:
        self._service, self._dispatcher = service, service.dispatcher
        self._signature, self._counted = service.signature, service.dispatcher.statistics

    async def server(self, request: Request) -> Response:
        return JSONResponse({"name": "edgecut", "version": version("edgecut"), "extensions": _EXTENSIONS})

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self._service.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def model_ready(self, request: Request) -> Response:
        name, ready = self._model(request), self._service.ready
        return JSONResponse({"name": name, "ready": ready}, 200 if ready else 503)

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(
            {
                "name": self._model(request),
                "versions": [VERSION],
                "platform": "edgecut",
                "inputs": [each.metadata() for each in self._signature.inputs],
                "outputs": [each.metadata() for each in self._signature.outputs],
            }
        )

    async def config(self, request: Request) -> Response:
        def described(kind: str) -> list[dict[str, Any]]:
            return [
                {
                    "name": each.name,
                    "data_type": f"TYPE_{each.datatype}",
                    "dims": list(each.spec.shape[1:]),
                }
                for each in getattr(self._signature, kind)
            ]

        return JSONResponse(
            {
                "name": self._model(request),
                "platform": "edgecut",
                "backend": "edgecut",
                "max_batch_size": self._signature.max_samples,
                "input": described("inputs"),
                "output": described("outputs"),
            }
        )

    async def statistics(self, request: Request) -> Response:
        if request.path_params:
            self._model(request)
        batch = self._dispatcher.pipeline.plan.batch
        return JSONResponse(self._counted.document(self._signature.name, batch))

    async def index(self, request: Request) -> Response:
        body = await read_body(request, _MAX_SMALL_BODY)
        only_ready = bool(body) and read_flag(read_json(body), "ready")
        ready = self._service.ready
        state = "READY" if ready else "UNAVAILABLE"
        one = {"name": self._signature.name, "version": VERSION, "state": state, "reason": ""}
        return JSONResponse([one] if ready or not only_ready else [])

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(openapi(self._signature))

    async def metrics(self, request: Request) -> Response:
        try:
            from runtime.metrics import exposition
        except MissingDependencyError as error:
            raise HTTPException(404, str(error)) from None
        content, kind = exposition(self._dispatcher.monitor)
        return Response(content, media_type=kind)

    async def infer(self, request: Request) -> Response:
        self._model(request)
        begun_s = time.perf_counter()
        try:
            with self._dispatcher.place():
                body = await read_body(
                    request, self._service.max_body_bytes, begun_s + self._service.timeout_s
                )
                decoding_s = time.perf_counter()
                asked = decode_request(body, header_bytes(request), self._signature)
                self._counted.decode.add(time.perf_counter() - decoding_s)
                limit_s = min(asked.timeout_s or self._service.timeout_s, self._service.timeout_s)
                remaining_s = begun_s + limit_s - time.perf_counter()
                running = self._dispatcher.run(asked.arrays, asked.samples)
                outputs = await unless_gone(request.receive, running, remaining_s)
                encoding_s = time.perf_counter()
                response = await respond(request, *encode_response(asked, outputs, self._signature))
                self._counted.encode.add(time.perf_counter() - encoding_s)
        except BaseException as error:
            self._counted.fail.add(time.perf_counter() - begun_s)
            refused = isinstance(error, InputError)
            self._dispatcher.monitor.missed(failed=not refused, refused=refused)
            if isinstance(error, GoneAwayError):
                return Response(status_code=408)
            if isinstance(error, TimeoutError):
                raise HTTPException(504, "the request was not answered in time") from None
            raise
        self._counted.succeeded(asked.samples, time.perf_counter() - begun_s)
        return response

    def _model(self, request: Request) -> str:
        """The name of the model, which is the one asked for."""
        name, number = request.path_params["model"], request.path_params.get("version", VERSION)
        if name != self._signature.name:
            raise HTTPException(404, f"unknown model {name!r:.80}; this server has {self._signature.name}")
        if number != VERSION:
            raise HTTPException(404, f"unknown version {number!r:.80} of {name}; it has {VERSION}")
        return self._signature.name

    def edgecut_error(self, request: Request, error: Exception) -> Response:
        headers = {}
        status = 500
        if isinstance(error, TooLargeError):
            status = 413
        elif isinstance(error, InputError):
            status = 400
        elif isinstance(error, DeploymentError):
            status = 503
            if isinstance(error, BusyError):
                headers["Retry-After"] = str(self._dispatcher.retry_after_s)
        assert isinstance(error, EdgecutError)
        return JSONResponse({"error": error.message}, status, headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _unexpected(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed; see its log"}, 500)
