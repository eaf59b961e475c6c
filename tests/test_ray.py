"""Plans on a real Ray cluster of several nodes here: answers right, each once, through deaths of actors."""

from __future__ import annotations

import dataclasses
import http.server
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Edgecut
from hypothesis import given
from hypothesis import strategies as st
from sources import answers_of_the_whole, noise_images
from test_deploy import PLANS, TINY, fleet, plan

from planner.chain import Chain
from planner.errors import DeploymentError, InputError, UnknownNameError
from planner.fleet_plan import FleetPlan, Share, Stream, utilisation
from planner.plan import Plan
from planner.run import Run
from profiler.cut import CutModel, cut_model
from profiler.model import load_model
from profiler.runner import Array
from runtime import ray_engine
from runtime.bundles import Preparation, preparation
from runtime.ray_actor import Process
from runtime.ray_cluster import connected
from runtime.ray_engine import OnRay, opened_on_ray
from runtime.ray_pipeline import Course, Dealer, RayPipeline, Replica

HERE = OnRay("auto")  # the cluster that this process is connected to


@pytest.fixture(scope="module")
def cut() -> CutModel:
    return cut_model(load_model(TINY))


@pytest.fixture(scope="module")
def prepare(cut: CutModel, tmp_path_factory: pytest.TempPathFactory) -> Preparation:
    return preparation(cut, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def images() -> list[tuple[Array, ...]]:
    return noise_images(24)


@pytest.fixture(scope="module")
def expected(cut: CutModel, images: list[tuple[Array, ...]]) -> list[Array]:
    return answers_of_the_whole(cut, images)


@pytest.fixture(scope="module")
def nodes() -> Iterator[None]:
    """Three nodes of one cluster: one carries a, two carry b. This process is connected to it."""
    pytest.importorskip("ray")
    with connected("local", fleet(), {"a": 1, "b": 2}):
        yield


@dataclasses.dataclass
class Deployed:
    pipeline: RayPipeline
    said: list[str]


@pytest.fixture(scope="class")
def deployed(nodes: None, cut: CutModel, prepare: Preparation) -> Iterator[Deployed]:
    """There and back, by two actors of b."""
    said: list[str] = []
    where = dataclasses.replace(HERE, replicas={"b": 2})
    with opened_on_ray(
        of(cut.chain, "there and back"), prepare, where, window=4, log=said.append
    ) as pipeline:
        yield Deployed(pipeline, said)


def of(chain: Chain, name: str) -> Plan:
    return plan(chain, PLANS[name], fleet())


def kill(replica: Replica) -> Process:
    """The process that was killed."""
    assert replica.process
    os.kill(replica.process.pid, signal.SIGKILL)
    return replica.process


def test_replicas_of_a_device_that_the_plan_has_not(cut: CutModel, prepare: Preparation) -> None:
    with (
        pytest.raises(UnknownNameError, match="'bb'"),
        opened_on_ray(of(cut.chain, "there"), prepare, OnRay("local", {"bb": 2})),
    ):
        pass


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 60))
def test_requests_are_dealt_out_by_shares(weights: list[int], count: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    courses = [Course(None, share, (), (place,)) for place, share in enumerate(shares)]
    dealer = Dealer(courses)
    given_to = Counter(dealer.next().places[0] for _ in range(count))
    for place, share in enumerate(shares):
        assert given_to[place] < share * count + 1 + 1e-9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "ray", "--static"], "--static does nothing with --engine ray"),
        (["--engine", "ray", "--transport", "in-process"], "--transport does nothing with --engine ray"),
        (["--ray-address", "local"], "--ray-address does nothing with --engine agents"),
        (["--replicas", "b=2"], "--replicas does nothing with --engine agents"),
        (["--engine", "ray", "--replicas", "b"], "write DEVICE=N"),
        (["--engine", "ray", "--replicas", "b=2", "--replicas", "b=3"], "b is given twice"),
        (["--engine", "ray", "--ray-address", "nowhere"], "is no address of a Ray cluster"),
    ],
)
def test_options_that_do_not_fit(
    cut: CutModel, workdir: Path, edgecut: Edgecut, options: list[str], said: str
) -> None:
    of(cut.chain, "there").save(workdir / "plan.json")
    code, found = edgecut("deploy", "plan.json", *options)
    assert code == 2
    assert said in " ".join(found.split())


def test_ray_is_not_installed(
    cut: CutModel, workdir: Path, edgecut: Edgecut, monkeypatch: pytest.MonkeyPatch
) -> None:
    of(cut.chain, "there").save(workdir / "plan.json")
    monkeypatch.setitem(sys.modules, "ray", None)
    code, said = edgecut("deploy", "plan.json", "--engine", "ray")
    assert code == 1
    assert "pip install 'edgecut[ray]'" in said


def test_an_address_where_nothing_listens(cut: CutModel, prepare: Preparation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        pytest.raises(DeploymentError, match=f"no Ray cluster at 127.0.0.1:{port}"),
        opened_on_ray(of(cut.chain, "there"), prepare, OnRay(f"127.0.0.1:{port}")),
    ):
        pass


def test_an_address_where_something_else_listens(cut: CutModel, prepare: Preparation) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with (
            pytest.raises(DeploymentError, match="something else"),
            opened_on_ray(of(cut.chain, "there"), prepare, OnRay(f"127.0.0.1:{server.server_port}")),
        ):
            pass
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_agents_do_not_deal_out(cut: CutModel, workdir: Path, edgecut: Edgecut) -> None:
    stream = Stream("tiny", 1.0, 1.0, (Share(of(cut.chain, "there"), 1.0),))
    made = stream.shares[0].plan
    FleetPlan(made.fleet, 1.0, (stream,), utilisation([stream]), made.proof).save(workdir / "many.json")
    code, said = edgecut("deploy", "many.json")
    assert code == 2
    assert "--engine ray" in said
    two = (stream, dataclasses.replace(stream, name="other"))
    FleetPlan(made.fleet, 1.0, two, utilisation(two), made.proof).save(workdir / "two.json")
    code, said = edgecut("deploy", "two.json", "--engine", "ray")
    assert code == 2
    assert "several streams: tiny, other" in said


# What follows is connected to a cluster; what goes before must not be.


@pytest.mark.slow
class TestDeployed:
    def test_replicas_share_the_requests(
        self, deployed: Deployed, images: list[tuple[Array, ...]], expected: list[Array]
    ) -> None:
        pipeline = deployed.pipeline
        for wanted, answer in zip(expected, pipeline.map(images), strict=True):
            np.testing.assert_allclose(answer.outputs[0], wanted, atol=1e-5)
        processes = {replica.process for replica in pipeline.replicas["b"]}
        assert len(processes) == 2
        assert set(pipeline._clocks) >= processes  # both answered something

    def test_nodes_that_are_in_use(self, deployed: Deployed, cut: CutModel, prepare: Preparation) -> None:
        with (
            pytest.raises(DeploymentError, match=r"another deployment uses edgecut:a"),
            opened_on_ray(of(cut.chain, "there and back"), prepare, HERE),
        ):
            pass

    def test_actors_that_are_killed_cost_no_answer(
        self, deployed: Deployed, images: list[tuple[Array, ...]], expected: list[Array]
    ) -> None:
        pipeline, killed, found = deployed.pipeline, [], []
        victims = [pipeline.replicas["b"][0], pipeline.replicas["a"][0]]
        for answer in pipeline.map(images * 4):
            found.append(answer)
            if len(found) in (10, 50):
                killed.append(kill(victims[len(killed)]))
        assert [answer.request for answer in found] == list(range(4 * len(images)))
        for answer in found:
            np.testing.assert_allclose(answer.outputs[0], expected[answer.request % len(images)], atol=1e-5)
        for process in killed:
            assert [line for line in deployed.said if f"process {process.pid} ended, Ray started" in line]


@pytest.mark.slow
@pytest.mark.usefixtures("nodes")
class TestOnACluster:
    def test_what_replicate_wrote_is_dealt_out_on_the_command_line(
        self, cut: CutModel, workdir: Path, edgecut: Edgecut
    ) -> None:
        shares = (
            Share(of(cut.chain, "there and back"), 0.75),
            Share(of(cut.chain, "all on the source"), 0.25),
        )
        stream = Stream("tiny", 10.0, 1.0, shares)
        made = shares[0].plan
        FleetPlan(made.fleet, 1.0, (stream,), utilisation([stream]), made.proof).save(workdir / "many.json")
        code, said = edgecut(
            "deploy", "many.json", "--engine", "ray", "--requests", 8, "--concurrency", 2, "-o", "run",
            "--trace", "trace.json",
        )  # fmt: skip
        assert code == 0, said
        assert "over ray, forecast at most 10.00" in said
        run = Run.load(workdir / "run")
        assert run.info.transport == "ray"
        assert (workdir / "trace.json").stat().st_size > 1000
        assert Counter(row.plan for row in run.rows if row.kind == "total") == {0: 6, 1: 2}
        assert run.largest_output_error < 1e-5
        for row in run.rows:
            if row.kind == "hop":  # a link that the fleet emulates is never faster
                assert row.measured_s >= row.forecast_s * 0.999

    def test_an_actor_that_ends_for_good_ends_the_deployment(
        self,
        cut: CutModel,
        prepare: Preparation,
        images: list[tuple[Array, ...]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(ray_engine, "MAX_RESTARTS", 0)
        with opened_on_ray(of(cut.chain, "there and back"), prepare, HERE, window=2) as pipeline:
            next(pipeline.map(images[:1]))
            kill(pipeline.replicas["b"][0])
            with pytest.raises(DeploymentError, match="the actor of b ended for good"):
                list(pipeline.map(images))

    def test_a_device_that_nobody_carries(self, cut: CutModel, workdir: Path, edgecut: Edgecut) -> None:
        plan(cut.chain, [("c", 0, 3, "torch")], fleet("ac")).save(workdir / "plan.json")
        code, said = edgecut("deploy", "plan.json", "--engine", "ray")
        assert code == 2
        assert "the plan needs edgecut:c" in said
        assert "nobody carries it" in said
        assert "edgecut:a (1)" in said
        assert """--resources='{"edgecut:c": 1}'""" in said

    def test_fewer_nodes_than_replicas(self, cut: CutModel, prepare: Preparation) -> None:
        where = dataclasses.replace(HERE, replicas={"b": 3})
        with (
            pytest.raises(InputError, match=r"needs 3 of edgecut:b.*only 2"),
            opened_on_ray(of(cut.chain, "there and back"), prepare, where),
        ):
            pass

    def test_another_cluster_than_the_one_this_process_is_connected_to(
        self, cut: CutModel, prepare: Preparation
    ) -> None:
        with (
            pytest.raises(InputError, match="is connected to"),
            opened_on_ray(of(cut.chain, "there"), prepare, OnRay("local")),
        ):
            pass
