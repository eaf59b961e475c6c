"""Timing and power merged: energies known by hand, from our tables and from DIME's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cases import CHAIN, TORCH
from click.testing import CliRunner
from strategies import make_row
from test_powerlog import UNIX_NS, log_of, write_log

from planner import Bundle, Sidecar
from planner.documents import to_data
from planner.errors import DocumentError, EnergyError, InputError
from planner.sidecar import Environment
from planner.table import ProfileTable, format_row, header
from profiler.energy.clocksync import AlignedPower, Lack, align
from profiler.energy.dime import frequency_in, merge_runs, read_runs, write_merged
from profiler.energy.log_file import read_log
from profiler.energy.merge import merge_rows, merge_table, read_windows
from runtime.cli import cli

BUNDLES = tuple(CHAIN.bundles())[:5]


def power(t: float) -> float:
    """Watts at ``t`` seconds: 2 W, and 5 W from 4 s to 6 s."""
    return 5.0 if 4 <= t < 6 else 2.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """20 s that begin at ``UNIX_NS``."""
    file = tmp_path / "power.csv"
    write_log(file, 20.0, power)
    return file


@pytest.fixture
def aligned(log: Path) -> AlignedPower:
    return align(read_log(log, "0"))


def visit(bundle: Bundle, start_s: float, stop_s: float, runs: int, /, **more: object) -> str:
    line = {
        "bundle": to_data(bundle),
        "variant": to_data(TORCH),
        "batch": 1,
        "latency_s": [(stop_s - start_s) / runs] * runs,
        "first_s": 0.1,
        "cpu_time_s": 0.1,
        "start_ns": UNIX_NS + round(start_s * 1e9),
        "stop_ns": UNIX_NS + round(stop_s * 1e9),
    }
    return json.dumps({**line, **more}) + "\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Five bundles: at 5 W, at 2 W and 5 W, too short, outside the log, and never visited."""
    file = tmp_path / "table.csv"
    rows = [make_row("a", each.start, each.stop, 0.1, energy_j=9.0) for each in BUNDLES]
    file.write_text(header() + "".join(map(format_row, rows)))
    here = Environment("host", "machine", "3.11", {}, 1, (0,))
    Sidecar("a", CHAIN, here, "2026-01-01", "table.samples.jsonl").save(file.with_suffix(".json"))
    file.with_suffix(".samples.jsonl").write_text(
        visit(BUNDLES[0], 4.5, 5.5, 10)
        + visit(BUNDLES[1], 1.0, 2.0, 10)
        + visit(BUNDLES[1], 5.0, 5.5, 5)
        + visit(BUNDLES[0], 30.0, 31.0, 10)  # the log had ended; the other visit still counts
        + visit(BUNDLES[2], 8.0, 8.02, 4)
        + visit(BUNDLES[3], 40.0, 41.0, 10)
        + '{"half": '
    )
    return file


def test_energy_per_run_by_hand(table: Path, aligned: AlignedPower, tmp_path: Path) -> None:
    output = tmp_path / "merged.csv"
    merged = merge_table(table, aligned, output)
    energies = [row.energy_j for row in merged.rows]
    assert energies[0] == pytest.approx(5.0 * 1.0 / 10)
    assert energies[1] == pytest.approx((2.0 * 1.0 + 5.0 * 0.5) / 15)
    assert energies[2:] == [None] * 3  # what stood there was not of this log
    assert list(merged.lacks.values()) == [Lack.SAMPLES, Lack.COVERAGE, None]
    assert (merged.windows, merged.used) == (6, 3)
    assert ProfileTable.load([output]).rows == merged.rows
    assert read_windows(output.with_suffix(".samples.jsonl")) == read_windows(
        table.with_suffix(".samples.jsonl")
    )
    assert ProfileTable.load([table]).rows[0].energy_j == 9.0  # the table itself is left alone


def test_nothing_known_writes_nothing(table: Path, aligned: AlignedPower, tmp_path: Path) -> None:
    with pytest.raises(EnergyError, match=r"none of 5 bundles is known.*does not cover(.|\n)*--offset"):
        merge_table(table, aligned.shifted(1e6), tmp_path / "merged.csv")
    assert not (tmp_path / "merged.csv").exists()
    with pytest.raises(InputError, match="the table itself"):
        merge_table(table, aligned, table)


def test_a_log_with_a_jump_leaves_out_the_runs_across_it() -> None:
    times_s = np.arange(0, 60, 0.01)
    host_s = 1.7e9 + times_s + np.where(times_s >= 30, 5.0, 0.0)
    row = make_row("a", 0, 1, 0.1)
    aligned = align(log_of(times_s * 1e3, host_s))
    windows = {row.key[1:]: _windows((10, 11), (29.5, 36), (40, 41))}
    merged = merge_rows([row], windows, aligned)
    assert (merged.windows, merged.used) == (3, 2)
    assert merged.rows[0].energy_j == pytest.approx(0.2)


def _windows(*spans: tuple[float, float]) -> list:
    from profiler.energy.merge import RunWindow

    return [RunWindow(1.7e9 + start_s, 1.7e9 + stop_s, 10) for start_s, stop_s in spans]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense\n",
        "[]\n",
        "{}\n",
        visit(Bundle(0, 1), 1, 2, 3, batch="1"),
        visit(Bundle(0, 1), 1, 2, 3, bundle=[0, 1]),
        visit(Bundle(0, 1), 2, 1, 3),
        visit(Bundle(0, 1), 1, 2, 3, latency_s=[]),
        visit(Bundle(0, 1), 1, 2, 3, start_ns=1.5),
        visit(Bundle(0, 1), 1, 2, 3).replace("start_ns", "began"),
        "[" * 100_000 + "\n",
    ],
)
def test_samples_that_are_none_are_refused_by_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "table.samples.jsonl"
    file.write_text(visit(Bundle(0, 1), 1, 2, 3) + line)
    with pytest.raises(DocumentError, match="line 2"):
        read_windows(file)


# --- DIME ---


def test_dimes_lists_of_iterations(tmp_path: Path, aligned: AlignedPower) -> None:
    """As for its Jetson: a row has all durations (s), and start and end (s) of each iteration."""
    file = tmp_path / "alexnet_segments_latencies_921600000.csv"
    base = UNIX_NS / 1e9
    file.write_text(
        ",layers,durs,starts,ends\n"
        f'0,conv1_conv2,"[0.1, 0.1, 0.1, 0.3]","[{base + 1}, {base + 4.5}]","[{base + 1.5}, {base + 5.5}]"\n'
        f'1,broken,"[0.1, 0.1, 0.1]","[{base + 1}, {base + 4.5}]","[{base + 1.5}, {base + 5.5}]"\n'
        f"2,conv1,__import__('os'),1,2\n"
    )
    runs, bad = read_runs(file)
    merged = merge_runs(runs, bad, aligned)
    assert merged.bad_rows == 2
    # 2 W x 0.5 s = 1 J for two runs, and 5 W x 1 s = 5 J for two, by their durations: in microjoules.
    assert [energy for _, energy in merged.runs] == pytest.approx([0.5e6, 0.5e6, 1.25e6, 3.75e6])
    assert [(run.iteration, run.run) for run, _ in merged.runs] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    output = tmp_path / "latency_and_energy.csv"
    write_merged([(frequency_in(file.name), merged)], output)
    lines = output.read_text().splitlines()
    assert lines[0] == "layers,frequency,durs,iter,run,run_energy"
    assert lines[1].startswith("conv1_conv2,921600000,0.1,1,1,5")


def test_dimes_rows_of_runs(tmp_path: Path, aligned: AlignedPower) -> None:
    """As for its small board: a row a run, in ns; runs shorter than a sample have their neighbours' power."""
    file = tmp_path / "potato_alexnet_latencies_fixed_1200000.csv"
    lines = [",layers,durs,starts,ends,iter,run"]
    for iteration, begin_s in ((1, 1.0), (2, 4.5), (3, 25.0)):
        for run in range(20):
            start_ns = UNIX_NS + round((begin_s + run * 0.01) * 1e9)
            lines.append(f"0,fc1,8000000,{start_ns},{start_ns + 8_000_000},{iteration},{run + 1}")
    file.write_text("\n".join(lines) + "\n")
    merged = merge_runs(*read_runs(file), aligned)
    energies = [energy for _, energy in merged.runs]
    assert energies[:20] == pytest.approx([2.0 * 0.008 * 1e6] * 20, rel=1e-3)
    assert energies[20:40] == pytest.approx([5.0 * 0.008 * 1e6] * 20, rel=1e-3)
    assert energies[40:] == [None] * 20
    assert merged.lacks == {Lack.COVERAGE: 20}


def test_dimes_rows_within_an_iteration(tmp_path: Path, aligned: AlignedPower) -> None:
    file = tmp_path / "latencies.csv"
    base = UNIX_NS / 1e9
    rows = [f"{k},conv1,{duration},1,{k + 1},{base + 1},{base + 2}" for k, duration in enumerate((1, 3))]
    file.write_text("\n".join([",layers,durs,iter,run,iter_start,iter_end", *rows]))
    merged = merge_runs(*read_runs(file), aligned)
    assert [energy for _, energy in merged.runs] == pytest.approx([0.5e6, 1.5e6])
    assert frequency_in(file.name) == -1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "missing columns: layers, durs"),
        ("layers,durs\na,1\n", "missing columns: iter_start"),
        ("layers,durs,starts,ends\na,1,5,6\n", "no run"),
    ],
)
def test_what_is_no_timing_table_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "timing.csv"
    file.write_text(text)
    with pytest.raises(DocumentError, match=problem):
        read_runs(file)


def test_dimes_parquet(tmp_path: Path, aligned: AlignedPower) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    file = tmp_path / "latencies.csv"
    base = UNIX_NS / 1e9
    file.write_text(f"layers,durs,iter_start,iter_end\nconv1,1,{base + 1},{base + 2}\n")
    output = tmp_path / "latency_and_energy.parquet"
    write_merged([(5, merge_runs(*read_runs(file), aligned))], output)
    (row,) = pandas.read_parquet(output).to_dict("records")
    assert row["frequency"] == 5
    assert row["run_energy"] == pytest.approx(2e6)


# --- the command ---


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, ["energy", "merge", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_names_what_it_left_empty(table: Path, log: Path, tmp_path: Path) -> None:
    said = run("--table", table, "--power", log, "-o", tmp_path / "merged.csv")
    assert "2001 samples every 10.00 ms over 20.0 s" in said
    assert "energy of 2 of 5 rows, from 3 of 6 visits" in said
    assert f"1 left empty, the run holds too few samples of power: {BUNDLES[2]} torch" in said
    assert f"1 left empty, the power log does not cover the run: {BUNDLES[3]}" in said
    said = run(
        "--table", table, "--power", log, "--min-samples", 1, "--offset", 0.001, "-o", tmp_path / "2.csv"
    )
    assert "energy of 3 of 5 rows" in said


def test_the_command_merges_dimes_tables(log: Path, tmp_path: Path) -> None:
    base = UNIX_NS / 1e9
    files = []
    for frequency in (100, 200):
        file = tmp_path / f"latencies_{frequency}.csv"
        file.write_text(f"layers,durs,iter_start,iter_end\nconv1,1,{base + 1},{base + 2}\n,,,\n")
        files += ["--timing", file]
    said = run(*files, "--power", log, "-o", tmp_path / "latency_and_energy.csv")
    assert "energy of 1 of 1 runs, frequency 100" in said
    assert "1 rows cannot be read" in said
    assert len((tmp_path / "latency_and_energy.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "arguments", [[], ["--table", "a", "--timing", "b"], ["--table", "a", "--frequency", "5"]]
)
def test_the_command_wants_one_kind_of_table(arguments: list[str], log: Path) -> None:
    command = ["energy", "merge", "--power", str(log), "-o", "out.csv", *arguments]
    assert CliRunner().invoke(cli, command).exit_code == 2
