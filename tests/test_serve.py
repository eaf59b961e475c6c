"""Serving a plan: the public client gets what the network gives, and bounds hold."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serving import PATIENCE_S, Served, served
from sources import TINY, cut
from test_deploy import PLANS, fleet, plan

from planner import ModelSource
from planner.errors import DeploymentError, InputError
from profiler.model import load_model
from profiler.runner import Array
from runtime.adviser import StaticAdviser
from runtime.authority import issue, make_authority
from runtime.bundles import preparation
from runtime.credentials import AUTHORITY, CERTIFICATE, KEY
from runtime.pipeline import Pipeline, opened
from runtime.security import Security
from runtime.serving.guard import Endpoint
from runtime.serving.protocol import Signature
from runtime.serving.signature import input_names, output_names, signature_of

triton = pytest.importorskip("tritonclient.http")
from tritonclient.utils import InferenceServerException

WINDOW, QUEUE = 2, 3
INFER = "/v2/models/tiny/infer"


@contextmanager
def deployed(folder: Path, batch: int = 1) -> Iterator[tuple[Pipeline, Signature]]:
    model, made = cut(TINY, batch)
    split = plan(made.chain, PLANS["there and back"], fleet(), batch)
    prepare = preparation(made, folder / "bundles")
    with opened(StaticAdviser(split), prepare, folder, window=WINDOW, transport="in-process") as pipeline:
        yield pipeline, signature_of(model, split.chain, batch, "tiny", 1_000_000)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipeline, Signature]]:
    with deployed(tmp_path_factory.mktemp("single")) as made:
        yield made


@pytest.fixture
def server(single: tuple[Pipeline, Signature]) -> Iterator[Served]:
    with served(*single, queue=QUEUE) as made:
        yield made


@pytest.fixture
def client(server: Served) -> Iterator[Any]:
    with triton.InferenceServerClient(server.url, concurrency=8) as made:
        yield made


def images(samples: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(samples, 3, 32, 32)).astype(np.float32)


def whole(values: Array) -> Array:
    """What the network gives, uncut."""
    return cut(TINY)[0].run((torch.from_numpy(values),))[0].numpy()


def tensor(values: Array, binary: bool = True) -> Any:
    return triton.InferInput("x", list(values.shape), "FP32").set_data_from_numpy(values, binary_data=binary)


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@contextmanager
def paused(pipeline: Pipeline) -> Iterator[None]:
    """As while another plan is installed for one that failed: nothing is sent, and no answer is lost."""
    target = pipeline._target
    pipeline.direct(None)
    try:
        yield
    finally:
        pipeline.direct(target)


def ask(server: Served, body: Any = None, headers: dict[str, str] | None = None, **rest: Any) -> Any:
    """Status, headers and JSON of one answer."""
    content = body if isinstance(body, bytes) else json.dumps(body or asking()).encode()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
    try:
        connection.request(rest.get("method", "POST"), rest.get("path", INFER), content, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())
    finally:
        connection.close()


def asking(seed: int = 0, **changes: Any) -> dict[str, Any]:
    one = {"name": "x", "shape": [1, 3, 32, 32], "datatype": "FP32", "data": images(1, seed).ravel().tolist()}
    return {"inputs": [one], **changes}


def test_the_public_client_learns_what_is_served(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("large")
    assert client.get_server_metadata()["extensions"][0] == "binary_tensor_data"
    found = client.get_model_metadata("tiny", "1")
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 32, 32]}]
    assert found["outputs"] == [{"name": "output0", "datatype": "FP32", "shape": [-1, 5]}]
    assert found["versions"] == ["1"]
    config = client.get_model_config("tiny")
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [3, 32, 32]}]
    assert config["max_batch_size"] == 1_000_000 // (3 * 32 * 32 * 4)
    assert [(each["name"], each["state"]) for each in client.get_model_repository_index()] == [
        ("tiny", "READY")
    ]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_public_client_gets_what_the_network_gives(
    client: Any, binary: bool, packed: str | None, samples: int
) -> None:
    values = images(samples)
    outputs = None if binary else [triton.InferRequestedOutput("output0", binary_data=False)]
    result = client.infer(
        "tiny",
        [tensor(values, binary)],
        outputs=outputs,
        request_id="some",
        request_compression_algorithm=packed,
        response_compression_algorithm=packed,
    )
    np.testing.assert_allclose(result.as_numpy("output0"), whole(values), atol=1e-5)
    assert result.get_response()["id"] == "some"
    assert ("data" in result.get_output("output0")) is not binary


def test_clients_at_once_get_each_their_own(client: Any, server: Served) -> None:
    asked = [
        (values, client.async_infer("tiny", [tensor(values)])) for values in map(images, [1] * 5, range(5))
    ]
    for values, answer in asked:
        np.testing.assert_allclose(answer.get_result().as_numpy("output0"), whole(values), atol=1e-5)
    client.infer("tiny", [tensor(images(3))])
    stats = client.get_inference_statistics("tiny")["model_stats"][0]
    assert (stats["inference_count"], stats["execution_count"]) == (8, 8)
    assert stats["inference_stats"]["success"]["count"] == 6
    assert stats["inference_stats"]["fail"]["count"] == 0
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0
    assert server.service.dispatcher.held == 0


def test_samples_are_split_over_the_plans_batch(tmp_path: Path) -> None:
    with deployed(tmp_path, batch=2) as made:
        for samples in (1, 2, 3, 5):
            with served(*made) as server, triton.InferenceServerClient(server.url) as client:
                values = images(samples)
                found = client.infer("tiny", [tensor(values)]).as_numpy("output0")
                np.testing.assert_allclose(found, whole(values), atol=1e-5)
                stats = client.get_inference_statistics()["model_stats"][0]
            assert (stats["inference_count"], stats["execution_count"]) == (samples, (samples + 1) // 2)


def test_names_come_from_the_network(single: tuple[Pipeline, Signature]) -> None:
    model = load_model(ModelSource("models:Recommender"))
    assert sorted(input_names(model)) == ["history", "unused", "user"]
    assert output_names(model, 3) == ["score", "other.0", "other.2"]
    assert output_names(model, 2) == ["output0", "output1"]
    assert [each.name for each in single[1].inputs + single[1].outputs] == ["x", "output0"]


def test_more_than_there_is_room_for_is_turned_away(
    single: tuple[Pipeline, Signature], server: Served
) -> None:
    places = WINDOW + QUEUE
    with ThreadPoolExecutor(places) as threads:
        with paused(single[0]):
            asked = [threads.submit(ask, server) for _ in range(places)]
            until(lambda: server.service.dispatcher.held == places)
            status, headers, found = ask(server)
            assert (status, found["error"]) == (
                503,
                f"{places} requests are here already, as many as there is room for",
            )
            assert int(headers["Retry-After"]) >= 1
            status, _, found = ask(server, method="GET", path="/v2/health/ready")
            assert (status, found) == (503, {"ready": False})
            assert ask(server, method="GET", path="/v2/health/live")[0] == 200
            assert ask(server, path="/v2/repository/index", body={"ready": True})[2] == []
        for each in asked:
            status, _, found = each.result(PATIENCE_S)
            assert status == 200
            np.testing.assert_allclose([found["outputs"][0]["data"]], whole(images(1)), atol=1e-5)
    assert ask(server)[0] == 200


def test_a_deadline_ends_the_wait_and_loses_nothing(
    single: tuple[Pipeline, Signature], server: Served
) -> None:
    pipeline, duplicates = single[0], single[0].duplicates
    with paused(pipeline):
        for _ in range(WINDOW + 1):  # the last one waits here, not in the pipeline
            status, _, found = ask(server, asking(parameters={"timeout": 50_000}))
            assert (status, found) == (504, {"error": "the request was not answered in time"})
        assert server.service.dispatcher.held == 0
    for seed in range(3):
        found = ask(server, asking(seed))[2]
        np.testing.assert_allclose([found["outputs"][0]["data"]], whole(images(1, seed)), atol=1e-5)
    assert pipeline.duplicates == duplicates
    stats = server.service.dispatcher.statistics
    assert (stats.fail.count, stats.success.count) == (WINDOW + 1, 3)
    until(lambda: stats.runs == WINDOW + 3)


def test_the_servers_own_deadline_holds_where_the_client_asks_for_more(
    single: tuple[Pipeline, Signature],
) -> None:
    with served(*single, timeout_s=0.1) as server, paused(single[0]):
        assert ask(server, asking(parameters={"timeout": 10**9}))[0] == 504


def test_a_client_that_leaves_frees_its_place(single: tuple[Pipeline, Signature], server: Served) -> None:
    body = json.dumps(asking()).encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with paused(single[0]):
        for _ in range(WINDOW + QUEUE + 1):
            with socket.create_connection((server.host, server.port)) as connection:
                connection.sendall(head + body)
                until(lambda: server.service.dispatcher.held == 1)
            until(lambda: server.service.dispatcher.held == 0)
    assert ask(server)[0] == 200


def test_a_server_that_is_told_to_stop_answers_what_is_there(single: tuple[Pipeline, Signature]) -> None:
    with served(*single, queue=QUEUE) as server, ThreadPoolExecutor(1) as threads:
        with paused(single[0]):
            asked = threads.submit(ask, server)
            until(lambda: server.service.dispatcher.held == 1)
            server.stop.set()
            until(lambda: server.service.dispatcher.closing)
            status, _, found = ask(server)
            assert (status, found["error"]) == (503, "the server is stopping")
            assert ask(server, method="GET", path="/v2/health/ready")[0] == 503
        assert asked.result(PATIENCE_S)[0] == 200
        assert server.wait() is None
        with pytest.raises(OSError, match=r"refused|reset"):
            ask(server)


def test_a_server_ends_with_its_pipeline(tmp_path: Path) -> None:
    with deployed(tmp_path) as made, served(*made) as server, ThreadPoolExecutor(1) as threads:
        with paused(made[0]):
            asked = threads.submit(ask, server)
            until(lambda: server.service.dispatcher.held == 1)
            made[0].fail(DeploymentError("no plan is left"))
        assert asked.result(PATIENCE_S)[0] == 503
        error = server.wait()
        assert isinstance(error, DeploymentError)
        assert error.message == "no plan is left"


@pytest.mark.parametrize(
    ("status", "said", "request_"),
    [
        (400, "the JSON cannot be read", {"body": b"{"}),
        (400, "x is FP32, found 'FP64'", {"body": asking(inputs=[asking()["inputs"][0] | {"datatype": "FP64"}])}),
        (400, "Inference-Header-Content-Length is a number", {"headers": {"Inference-Header-Content-Length": "-1"}}),
        (400, "Inference-Header-Content-Length is 99999999", {"headers": {"Inference-Header-Content-Length": "9" * 8}}),
        (400, "the body is not gzip", {"headers": {"Content-Encoding": "gzip"}}),
        (404, "unknown model 'large'; this server has tiny", {"path": "/v2/models/large/infer"}),
        (404, "unknown version '2' of tiny; it has 1", {"path": "/v2/models/tiny/versions/2/infer"}),
        (404, "Not Found", {"path": "/v2/models/tiny/load"}),
        (404, "Not Found", {"method": "GET", "path": "/v2/"}),
        (405, "Method Not Allowed", {"method": "GET"}),
        (405, "Method Not Allowed", {"path": "/v2"}),
        (413, "at most 1000000 bytes", {"body": b" " * 1_000_001}),
        (415, "found br", {"headers": {"Content-Encoding": "br"}}),
        (421, "this machine's own name", {"headers": {"Host": "evil.example"}}),
        (400, "expected a JSON object", {"path": "/v2/repository/index", "body": b"[]"}),
        (400, "ready is true or false, found 1", {"path": "/v2/repository/index", "body": {"ready": 1}}),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_in_json(
    server: Served, status: int, said: str, request_: Any
) -> None:
    found = ask(server, **request_)
    assert found[0] == status
    assert said in found[2]["error"]
    assert ask(server)[0] == 200


def test_prometheus_reads_what_was_served(server: Served) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    for body in (None, None, b"{"):
        ask(server, body)
    until(lambda: server.service.dispatcher.monitor.answered == 2)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = {
        one.name: one.value
        for family in parser.text_string_to_metric_families(text)
        for one in family.samples
        if not one.labels
    }
    assert found["edgecut_requests_total"] == 2
    assert found["edgecut_inputs_refused_total"] == 1
    assert found["edgecut_request_failures_total"] == 0
    assert found["edgecut_latency_seconds_count"] == 2


def test_the_client_is_told_what_it_got_wrong(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"\[400\] unknown input 'why'; the inputs are x"):
        client.infer(
            "tiny", [triton.InferInput("why", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))]
        )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_authority(folder, "lab")
    issue(folder, "desk", folder, workstation=True)
    token = folder / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    return folder


def test_with_keys_and_a_token_others_may_call(single: tuple[Pipeline, Signature], keys: Path) -> None:
    security = Security.of(keys / "desk")
    endpoint = Endpoint.of("0.0.0.0:0", token_file=keys / "token", security=security)
    assert endpoint.url == "https://0.0.0.0:0"
    with served(*single, endpoint=endpoint) as server:
        trusted = ssl.create_default_context(cafile=str(keys / "desk" / AUTHORITY))
        found = {}
        for name, path, headers in (
            ("alive", "/v2/health/live", {}),
            ("nobody", "/v2", {}),
            ("wrong", "/v2", {"Authorization": "Bearer 0123456789abcdeF"}),
            ("scheme", "/v2", {"Authorization": "Basic 0123456789abcdef"}),
            ("right", "/v2", {"Authorization": "Bearer 0123456789abcdef", "Host": "any.example"}),
        ):
            connection = http.client.HTTPSConnection(
                "127.0.0.1", server.port, context=trusted, timeout=PATIENCE_S
            )
            connection.request("GET", path, headers=headers)
            found[name] = connection.getresponse().status
            connection.close()
        assert found == {"alive": 200, "nobody": 401, "wrong": 401, "scheme": 401, "right": 200}
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(server, method="GET", path="/v2/health/live")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "0.0.0.0:8000"}, "without encryption or token"),
        ({"address": "0.0.0.0:8000", "security": "keys"}, "without token"),
        ({"address": "[::]:8000", "token_file": "token"}, "without encryption"),
        ({"address": "8000"}, "is no address"),
        ({"address": "127.0.0.1:99999"}, "is no address"),
        ({"address": "127.0.0.1:0", "certificate": f"desk/{CERTIFICATE}"}, "belong together"),
        ({"address": "127.0.0.1:0", "certificate": f"desk/{AUTHORITY}", "key": f"desk/{KEY}"},
         "no certificate and its key"),
        ({"address": "127.0.0.1:0", "certificate": "none", "key": "token"}, "no certificate and its key"),
        ({"address": "127.0.0.1:0", "token_file": "open"}, "can be read by others"),
        ({"address": "127.0.0.1:0", "token_file": "short"}, "no token of at least 16"),
        ({"address": "127.0.0.1:0", "token_file": "none"}, "cannot be read"),
    ],
)  # fmt: skip
def test_an_endpoint_that_is_not_safe_is_refused(keys: Path, options: dict[str, str], said: str) -> None:
    for name, text, mode in (("open", "0123456789abcdef", 0o644), ("short", "0123456789", 0o600)):
        (keys / name).write_text(text)
        (keys / name).chmod(mode)
    given: dict[str, Any] = {
        name: keys / value for name, value in options.items() if name not in ("address", "security")
    }
    given["security"] = Security.of(keys / "desk") if "security" in options else Security()
    with pytest.raises(InputError, match=said):
        Endpoint.of(options["address"], **given)


def test_insecure_says_so_and_goes_on() -> None:
    endpoint = Endpoint.of("0.0.0.0:8000", security=Security(insecure=True))
    assert (endpoint.url, endpoint.loopback) == ("http://0.0.0.0:8000", False)


def test_a_port_that_is_taken_is_refused(single: tuple[Pipeline, Signature], server: Served) -> None:
    with pytest.raises(InputError, match="cannot listen"), served(*single, endpoint=Endpoint.of(server.url)):
        pass


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    file = folder / "plan.json"
    plan(cut(TINY)[1].chain, PLANS["there"], fleet()).save(file)
    main = "import sys; from runtime.cli import main; main()"
    tests = Path(__file__).parent
    paths = os.pathsep.join((str(tests.parent), str(tests)))
    return subprocess.Popen(
        [sys.executable, "-c", main, "serve", str(file), "--http", "127.0.0.1:0", "--transport", "in-process",
         "--static", "--name", "tiny", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path) as process:
        assert process.stdout
        said = []
        try:
            while not said or "serving" not in said[-1]:
                said.append(process.stdout.readline())
                assert said[-1], "".join(said)
            assert said[0] == "input x: FP32 [-1, 3, 32, 32]\n"
            with triton.InferenceServerClient(said[-1].strip().rpartition("http://")[2]) as client:
                values = images(2)
                found = client.infer("tiny", [tensor(values)]).as_numpy("output0")
                np.testing.assert_allclose(found, whole(values), atol=1e-5)
            process.send_signal(number)
            rest, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    assert len(rest.splitlines()) == 1, rest


def test_the_command_refuses_what_is_not_safe(edgecut: Any, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plan(cut(TINY)[1].chain, PLANS["there"], fleet()).save(file)
    code, said = edgecut("serve", file, "--http", "0.0.0.0:8000")
    assert code == 2
    assert "can be reached by other machines" in said
    assert "--token-file" in said
    code, said = edgecut("serve", file, "--name", "a/b")
    assert code == 2
    assert "use letters" in said


def test_without_the_extra_the_command_names_what_installs_it(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plan(cut(TINY)[1].chain, PLANS["there"], fleet()).save(file)
    script = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('starlette', 'starlette.applications', 'uvicorn')))\n"
        f"sys.argv = ['edgecut', 'serve', {str(file)!r}, '--static']\n"
        "from runtime.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'edgecut[serve]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_requests_of_threads_leave_nothing_behind(client: Any, server: Served) -> None:
    before = threading.active_count()
    for seed in range(20):
        client.infer("tiny", [tensor(images(1, seed))])
    assert server.service.dispatcher.held == 0
    assert threading.active_count() <= before + 1
