"""What an active profile leaves on disk, and what solving such a table says."""

from __future__ import annotations

from pathlib import Path

import pytest
from active_instances import Truth, synthetic

from planner.active import active_profile
from planner.active_note import ActiveNote, Alpha
from planner.active_result import note_of
from planner.cost import Way
from planner.errors import InputError, PlanningError, UnknownNameError
from planner.fleet import Fleet
from planner.limits import Limits
from planner.plan import Variant
from planner.sidecar import Environment, Sidecar
from planner.solver import solve
from planner.table import ProfileTable, format_row, header
from runtime.active_profile import DeviceMeasure, annotate, run_active, show_result


def write_tables(truth: Truth, folder: Path) -> tuple[dict[str, DeviceMeasure], dict[str, Path]]:
    """An empty table for each device, and a device that appends what it measures."""
    devices, tables = {}, {}
    for name in dict.fromkeys(way.device for way in truth.ways):
        tables[name] = folder / f"{name}.csv"
        environment = Environment("host", "machine", "3.11", {}, 1, (0,))
        Sidecar(name, truth.chain, environment, "2026-11-21", f"{name}.samples.jsonl").save(
            folder / f"{name}.json"
        )
        tables[name].write_text(header())

        def measure(wanted, name=name):
            for variant, bundle in wanted:
                row = truth.rows[Way(name, variant), bundle]
                with tables[name].open("a") as stream:
                    stream.write(format_row(row))
                yield row

        devices[name] = measure
    return devices, tables


def test_an_active_table_is_solved_to_the_same_plan_and_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = synthetic(12, 3, 2, 1)
    devices, tables = write_tables(truth, tmp_path)
    result = run_active(truth.chain, truth.fleet, truth.ways, devices, verify=4)
    show_result(result, "latency")
    for table in tables.values():
        annotate(table, note_of(result, truth.fleet, "latency", Limits(), 1))
    out = capsys.readouterr().out
    assert "round 1 (whole)" in out
    assert "calibrated: no skipped bundle takes less than its bound" in out
    table = ProfileTable.load(tables.values())
    assert set(table.rows) == set(result.rows)
    note = table.active["device0"]
    assert (note.outcome, note.verified, note.skipped) == (
        "calibrated",
        result.verified,
        sum(result.skipped.values()),
    )

    full = ProfileTable(truth.chain, tuple(truth.rows.values()))
    plan = solve(truth.chain, truth.fleet, table, objective="latency")
    assert plan.cost == solve(truth.chain, truth.fleet, full, objective="latency").cost
    assert [text for text in plan.notes if "complete for the least latency on the fleet device0" in text]
    assert not any("another one" in text for text in plan.notes)
    other = Fleet(truth.fleet.source, truth.fleet.sink, truth.fleet.devices, truth.fleet.links[:-1])
    plan = solve(truth.chain, other, table, objective="energy")
    assert any("This fleet or batch is another one" in text for text in plan.notes)


def test_without_the_note_an_incomplete_table_is_refused() -> None:
    truth = synthetic(12, 2, 1, 1)
    result = active_profile(truth.chain, truth.fleet, truth.ways, truth.measure)
    with pytest.raises(PlanningError, match="are not measured"):
        solve(truth.chain, truth.fleet, ProfileTable(truth.chain, result.rows), objective="latency")


def test_the_note_reads_back(tmp_path: Path) -> None:
    note = ActiveNote(
        "energy", Limits(0.1, 0.2), 1, "a, b", "0" * 64, 12, 30, "calibrated", "bounds hold", 0.0, 0.05, 5, 1,
        (Alpha("a", Variant("torch"), (2, 4), (0.9, 0.8)),),
    )  # fmt: skip
    assert note.purpose == "the least energy within 100 ms and 200 mJ on the fleet a, b, batch 1"
    truth = synthetic(3, 1, 1, 1)
    environment = Environment("host", "machine", "3.11", {}, 1, (0,))
    sidecar = Sidecar("a", truth.chain, environment, "2026-11-21", "a.samples.jsonl", active=note)
    sidecar.save(tmp_path / "a.json")
    assert Sidecar.load(tmp_path / "a.json") == sidecar
    with pytest.raises(ValueError, match="2 lengths with 1 alphas"):
        Alpha("a", Variant("torch"), (2, 4), (0.9,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gap": 1.0}, "gap 1.0 is not between 0 and 1"),
        ({"gap": float("nan")}, "gap nan"),
        ({"verify": -1}, "verify -1 is below 0"),
        ({"objective": "front", "limits": Limits(1.0)}, "a front has no limits"),
        ({"alpha": {}}, "alpha needs a number"),
        ({"ways": ()}, "each once"),
        ({"ways": (Way("mars", Variant("torch")),)}, "unknown device 'mars'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    truth = synthetic(4, 2, 1, 1)
    given = {"ways": truth.ways, **options}
    with pytest.raises(InputError, match=message):
        active_profile(truth.chain, truth.fleet, measure=truth.measure, **given)
    assert truth.asked == []


def test_a_device_nobody_measures_on_is_refused() -> None:
    truth = synthetic(4, 2, 1, 1)
    with pytest.raises(UnknownNameError, match="device to measure on"):
        run_active(truth.chain, truth.fleet, truth.ways, {})


def test_a_device_that_answers_nothing_is_an_error() -> None:
    truth = synthetic(4, 2, 1, 1)
    with pytest.raises(PlanningError, match="answered nothing"):
        active_profile(truth.chain, truth.fleet, truth.ways, lambda requests: [])
