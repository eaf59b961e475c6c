"""How chains, fleets, tables, plans and runs show themselves, and the tables they give."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

import pandas as pd
import pytest
from cases import CHAIN, FLEET, make_table
from IPython.core.formatters import DisplayFormatter

import planner
import profiler
import runtime
from planner import Arrivals, Demand, Device, Plan, Run, RunInfo, RunRow, Simulation
from planner.notebook import Displayed
from planner.run import COLUMNS

HOSTILE = '<script>alert("1")</script>&'
TABLE = make_table()
PLAN = planner.solve(CHAIN, FLEET, TABLE, limits=planner.Limits(private_layers=1))
INFO = RunInfo(PLAN, "2026-11-21T20:00:00+00:00", "in-process", 1, 1e-4, 1.0, 2)


def made_run() -> Run:
    """Two requests, the second a tenth slower than forecast."""
    rows = []
    for request in range(2):
        parts = [("stage", place, stage.cost.latency_s) for place, stage in enumerate(PLAN.stages)]
        parts += [("hop", place, hop.cost.latency_s) for place, hop in enumerate(PLAN.hops)]
        parts += [("total", 0, PLAN.cost.latency_s)]
        rows += [
            RunRow(request, kind, place, time, time * (1 + request / 10), 0.0) for kind, place, time in parts
        ]
    return Run(INFO, tuple(rows))


def shown() -> dict[str, Displayed]:
    simulation, _ = planner.simulate([PLAN], [Arrivals("constant", rate_per_s=2.0)])
    assert isinstance(simulation, Simulation)
    return {
        "chain": CHAIN,
        "fleet": FLEET,
        "table": TABLE,
        "plan": PLAN,
        "run": made_run(),
        "empty run": Run(INFO, ()),
        "front": planner.front(CHAIN, FLEET, TABLE),
        "explanation": planner.explain(PLAN, TABLE),
        "simulation": simulation,
        "fleet plan": planner.solve_many(FLEET, [Demand("camera", TABLE, 1.0)]),
    }


SHOWN = shown()


class Page(HTMLParser):
    """Collects tags and text, and notes what is closed without having been opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_shows_it(name: str) -> None:
    what = SHOWN[name]
    data, _ = DisplayFormatter().format(what)
    page = Page(data["text/html"])
    assert not {"script", "style", "link", "img"} & set(page.tags)
    assert "color" not in data["text/html"]  # they are the notebook's
    assert what.headline() in page.text
    assert page.tags.count("table") == (0 if name == "empty run" else len(what._tables()))
    assert len(data["text/html"]) < 20_000
    # As text, where there is no browser.
    assert data["text/plain"] == repr(what) == f"<{type(what).__name__} {what.headline()}>"
    assert str(what) == what.headline()
    assert "\n" not in repr(what)


@pytest.mark.parametrize("name", [name for name in SHOWN if name != "empty run"])
def test_frames_are_in_si_units(name: str) -> None:
    frame = SHOWN[name].frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame)
    assert frame.columns.is_unique
    units = {column.rsplit("_", 1)[-1] for column in frame.columns}
    assert not units & {"ms", "us", "mj", "mw", "mb", "kb", "mhz", "mbps"}
    assert SHOWN[name].frame().equals(frame)


def test_names_from_files_are_escaped() -> None:
    chain = dataclasses.replace(
        CHAIN,
        source=dataclasses.replace(CHAIN.source, name=HOSTILE),
        layers=tuple(dataclasses.replace(layer, name=HOSTILE) for layer in CHAIN.layers),
    )
    plan = dataclasses.replace(PLAN, chain=chain)
    run = Run(dataclasses.replace(INFO, plan=plan), made_run().rows)
    table = dataclasses.replace(TABLE, chain=chain)
    for what in (chain, plan, run, table):
        text = what._repr_html_()
        assert HOSTILE in Page(text).text
        assert "<script" not in text


def test_a_plan_as_a_table() -> None:
    frame = PLAN.frame()
    assert frame["part"].tolist() == ["stage", "hop", "stage", "hop"]
    assert frame["where"].tolist()[:2] == ["edge", "edge → server"]
    assert frame["start"].is_monotonic_increasing
    assert frame["latency_s"].sum() == pytest.approx(PLAN.cost.latency_s)
    assert frame["energy_j"].sum() == pytest.approx(PLAN.cost.energy_j)
    assert frame["upload_bytes"].sum() == PLAN.cost.upload_bytes
    assert frame.loc[frame["part"] == "hop", "start"].tolist() == [hop.boundary for hop in PLAN.hops]


def test_a_run_as_tables() -> None:
    run = made_run()
    assert tuple(run.frame().columns) == COLUMNS
    assert len(run.frame()) == len(run.rows)
    compared = run.comparison_frame()
    assert compared["error"].tolist() == pytest.approx([0.05] * len(compared))
    assert compared["label"].tolist()[-1] == "total"


def test_a_table_in_brief() -> None:
    frame = TABLE.summary_frame()
    assert frame["device"].tolist() == ["edge", "server", "cloud"]
    assert frame["bundles"].tolist() == [6, 6, 6]
    assert frame["latency_s"].tolist() == pytest.approx([0.030, 0.006, 0.0057])
    assert frame["energy_j"].isna().all()


def test_a_chain_and_a_fleet_as_tables() -> None:
    assert CHAIN.frame()["output_bytes"].tolist() == [each.nbytes for each in CHAIN.boundaries[1:]]
    assert FLEET.frame()["battery"].tolist() == [True, False, False]
    assert FLEET.link_frame()["bandwidth_bytes_per_s"].tolist() == [1e6] * 4


def test_a_long_table_is_shortened() -> None:
    devices = tuple(Device(f"d{number}") for number in range(1000))
    fleet = planner.Fleet("d0", "d0", devices, ())
    text = fleet._repr_html_()
    assert "1000 rows" in text
    assert len(text) < 40_000


@pytest.mark.parametrize("file", ["plan.json", "elsewhere/plan.json"])
def test_files_may_be_named_by_strings(file: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    PLAN.save(file)
    assert Plan.load(file) == PLAN


@pytest.mark.parametrize("package", [planner, profiler, runtime], ids=lambda package: package.__name__)
def test_public_names_are_documented(package) -> None:
    """Each says what it is; what a dataclass makes of itself, its fields alone, does not count."""
    bare = []
    for name in package.__all__:
        what = getattr(package, name)
        said = getattr(what, "__doc__", None) or ""
        if not said.strip() or said.startswith(f"{name}("):
            bare.append(name)
    assert not bare
