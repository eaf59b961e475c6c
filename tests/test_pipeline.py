"""A pipeline over agents in this process: every request answered once, in order, whatever ends meanwhile."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from sources import answers_of_the_whole, noise_images
from test_deploy import PLANS, TINY, fleet, plan

from planner import Fleet, Plan
from planner.errors import DeploymentError, EdgecutError
from profiler.cut import CutModel, cut_model
from profiler.model import load_model
from profiler.runner import Array
from runtime import keeper as keeping
from runtime import pipeline as pipelines
from runtime.adviser import Devices, Links, StaticAdviser
from runtime.agent import Agent
from runtime.agent_files import AgentFiles
from runtime.agent_network import AgentNetwork
from runtime.agent_service import make_agent
from runtime.bundles import Preparation, preparation
from runtime.fleet_agents import FleetAgents
from runtime.in_process import Hub, InProcessTransport
from runtime.pipeline import Pipeline

WAIT_S = 60.0


@pytest.fixture(scope="module")
def cut() -> CutModel:
    return cut_model(load_model(TINY))


@pytest.fixture(scope="module")
def prepare(cut: CutModel, tmp_path_factory: pytest.TempPathFactory) -> Preparation:
    return preparation(cut, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def images() -> list[tuple[Array, ...]]:
    return noise_images(12)


@pytest.fixture(scope="module")
def expected(cut: CutModel, images: list[tuple[Array, ...]]) -> list[Array]:
    return answers_of_the_whole(cut, images)


class Crew:
    """Agents that can be ended and started one by one."""

    def __init__(self, over: Fleet, folder: Path, stack: ExitStack) -> None:
        self._hub, self._folder, self._stack = Hub(), folder, stack
        self._running: dict[str, tuple[Agent, threading.Thread, InProcessTransport]] = {}
        network = stack.enter_context(AgentNetwork(stack.enter_context(InProcessTransport(self._hub))))
        self.agents = FleetAgents(network, folder)
        for device in over.devices:
            self.start(device.name)
            self.agents.add(device, "this process")
        stack.callback(lambda: [self.end(name) for name in list(self._running)])

    def start(self, name: str) -> None:
        transport = InProcessTransport(self._hub)
        agent = make_agent(name, transport, AgentFiles(self._folder / name))
        thread = threading.Thread(target=agent.serve, daemon=True)
        self._running[name] = agent, thread, transport
        thread.start()

    def agent(self, name: str) -> Agent:
        return self._running[name][0]

    def serves(self, name: str) -> bool:
        return self._running[name][1].is_alive()

    def end(self, name: str) -> None:
        """Its channels close at once, as when a process dies."""
        agent, thread, transport = self._running.pop(name)
        transport.close()
        agent.stop()
        thread.join(WAIT_S)


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    with ExitStack() as stack:
        yield Crew(fleet("abc"), tmp_path, stack)


def there(cut: CutModel) -> Plan:
    return plan(cut.chain, PLANS["there"], fleet("abc"))


class Ranked(StaticAdviser):
    """Plans, the better first; ``wish`` asks for one."""

    def __init__(self, *plans: Plan) -> None:
        super().__init__(plans[0])
        self.plans = plans
        self.wish: Plan | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        return "a", "b", "c"

    def without(self, devices: Devices, links: Links) -> Plan | None:
        return next((one for one in self.plans if StaticAdviser(one).without(devices, links)), None)

    def better(self, plan: Plan, devices: Devices, links: Links) -> tuple[Plan, str] | None:
        return (self.wish, "asked for") if self.wish not in (None, plan) else None


def check(answers: list[pipelines.Answer], expected: list[Array], count: int) -> None:
    assert [answer.request for answer in answers] == list(range(count))
    for answer in answers:
        wanted = expected[answer.request % len(expected)]
        np.testing.assert_allclose(answer.outputs[0], wanted, atol=1e-5)


def until_set(ended: threading.Event, images: list[tuple[Array, ...]]) -> Iterator[tuple[Array, ...]]:
    """The images again and again."""
    for image in itertools.cycle(images[:12]):
        if ended.is_set():
            return
        yield image


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_an_agent_that_ends_and_returns_costs_no_request(
    cut: CutModel, crew: Crew, prepare: Preparation, images: list[tuple[Array, ...]], expected: list[Array]
) -> None:
    log: list[str] = []
    count = 60
    with Pipeline(StaticAdviser(there(cut)), crew.agents, prepare, window=4, log=log.append) as pipeline:
        answers = []
        for answer in pipeline.map(images[k % 12] for k in range(count)):
            answers.append(answer)
            if answer.request in (10, 30):
                crew.end("b")
                crew.start("b")
        check(answers, expected, count)
        assert len(pipeline.keeper.switches) == 2
    assert all("b" in line for line in log)


def test_the_next_best_plan_takes_over(
    cut: CutModel, crew: Crew, prepare: Preparation, images: list[tuple[Array, ...]], expected: list[Array]
) -> None:
    other = plan(cut.chain, PLANS["all on the source"], fleet("abc"))
    adviser = Ranked(there(cut), other)
    with Pipeline(adviser, crew.agents, prepare, window=3) as pipeline:
        answers = []
        for answer in pipeline.map(images[k % 12] for k in range(40)):
            answers.append(answer)
            if answer.request == 10:
                crew.end("b")
        check(answers, expected, 40)
        assert [switch.plan for switch in pipeline.keeper.switches] == [other]
        assert "b is gone" in pipeline.keeper.switches[0].reason
        assert answers[-1].plan == other


def test_a_better_plan_takes_over_while_the_stream_goes_on(
    cut: CutModel, crew: Crew, prepare: Preparation, images: list[tuple[Array, ...]], expected: list[Array]
) -> None:
    first, second = there(cut), plan(cut.chain, PLANS["all on the other"], fleet("abc"))
    adviser, ended = Ranked(first, second), threading.Event()
    with Pipeline(adviser, crew.agents, prepare, window=3) as pipeline:
        answers = []
        for answer in pipeline.map(until_set(ended, images)):
            answers.append(answer)
            if answer.request == 10:
                adviser.wish = second
            if answer.plan == second:
                ended.set()
        check(answers, expected, len(answers))
        until(lambda: len(pipeline.keeper.switches) == 1)
        assert pipeline.keeper.switches[0].reason == "asked for"
        assert pipeline.duplicates == 0


def test_an_agent_told_to_stop_is_left_before_it_ends(
    cut: CutModel, crew: Crew, prepare: Preparation, images: list[tuple[Array, ...]], expected: list[Array]
) -> None:
    first, other = there(cut), plan(cut.chain, PLANS["all on the source"], fleet("abc"))
    ended = threading.Event()
    with Pipeline(Ranked(first, other), crew.agents, prepare, window=3) as pipeline:
        answers = []
        for answer in pipeline.map(until_set(ended, images)):
            answers.append(answer)
            if answer.request == 10:
                crew.agent("b").leave()
            if answer.plan == other:
                ended.set()
        check(answers, expected, len(answers))
        until(lambda: not crew.serves("b"))
        assert [switch.reason for switch in pipeline.keeper.switches] == ["the agent of b is stopping"]
        assert pipeline.duplicates == 0


def test_streams_share_a_pipeline(
    cut: CutModel, crew: Crew, prepare: Preparation, images: list[tuple[Array, ...]], expected: list[Array]
) -> None:
    found: dict[int, list[pipelines.Answer]] = {}
    with Pipeline(StaticAdviser(there(cut)), crew.agents, prepare, window=4) as pipeline:

        def stream(which: int) -> None:
            found[which] = list(pipeline.map(images[k % 12] for k in range(15 + which)))

        threads = [threading.Thread(target=stream, args=(which,)) for which in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    for which, answers in found.items():
        check(answers, expected, 15 + which)
    assert len(found) == 3


@pytest.mark.parametrize("window", [1, 2, 5])
def test_no_more_is_read_than_the_window_takes(
    cut: CutModel, crew: Crew, prepare: Preparation, images: list[tuple[Array, ...]], window: int
) -> None:
    read = 0

    def inputs() -> Iterator[tuple[Array, ...]]:
        nonlocal read
        for k in range(30):
            read += 1
            yield images[k % 12]

    with Pipeline(StaticAdviser(there(cut)), crew.agents, prepare, window=window) as pipeline:
        for answer in pipeline.map(inputs()):
            # In flight, read ahead by the thread that feeds, and answered but not taken.
            assert read <= answer.request + 1 + 2 * window + 1


def test_a_stream_that_is_left_keeps_nothing_back(
    cut: CutModel, crew: Crew, prepare: Preparation, images: list[tuple[Array, ...]]
) -> None:
    with Pipeline(StaticAdviser(there(cut)), crew.agents, prepare, window=3) as pipeline:
        for _ in range(5):
            stream = pipeline.map(images[k % 12] for k in range(1000))
            next(stream)
            stream.close()
        assert len(list(pipeline.map(images))) == 12


def test_an_input_that_cannot_be_read_ends_its_stream_only(
    cut: CutModel, crew: Crew, prepare: Preparation, images: list[tuple[Array, ...]]
) -> None:
    def broken() -> Iterator[tuple[Array, ...]]:
        yield images[0]
        raise OSError("the camera is gone")

    with Pipeline(StaticAdviser(there(cut)), crew.agents, prepare, window=3) as pipeline:
        with pytest.raises(OSError, match="camera"):
            list(pipeline.map(broken()))
        assert len(list(pipeline.map(images))) == 12


def test_without_any_plan_the_stream_ends_with_the_reason(
    cut: CutModel,
    crew: Crew,
    prepare: Preparation,
    images: list[tuple[Array, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "RETURN_TIMEOUT_S", 0.5)
    with Pipeline(StaticAdviser(there(cut)), crew.agents, prepare, window=2) as pipeline:
        stream = pipeline.map(images[k % 12] for k in range(1000))
        next(stream)
        crew.end("b")
        with pytest.raises(
            DeploymentError, match=r"the agent of b is gone, and no plan could be run .*needs what is gone: b"
        ):
            list(stream)
        with pytest.raises(DeploymentError):
            pipeline.submit(images[0])


def test_a_request_that_ends_every_installation_is_given_up(
    cut: CutModel,
    crew: Crew,
    prepare: Preparation,
    images: list[tuple[Array, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stage that always fails is tried a bounded number of times, and its own words reach the user."""
    import runtime.loading as loading

    class Failing:
        def __init__(self, inner: object) -> None:
            self._inner = inner

        def __call__(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
            raise EdgecutError("the accelerator is on fire")

        def close(self) -> None:
            pass

    monkeypatch.setattr(loading, "slowed", lambda runner, slowdown: Failing(runner))
    monkeypatch.setattr(pipelines, "MAX_ATTEMPTS", 2)
    with (
        Pipeline(StaticAdviser(there(cut)), crew.agents, prepare, window=1) as pipeline,
        pytest.raises(DeploymentError, match=r"tried too often.*on fire"),
    ):
        list(pipeline.map(images))
