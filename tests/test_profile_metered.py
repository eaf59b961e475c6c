"""Joules next to seconds: a profile with a meter over a tree of files that stands for a board's sensors."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_energy import write
from test_profile import TINY, make_samples, request

from planner import ProfileTable, Sidecar, Variant
from planner.errors import EnergyError, MismatchError
from profiler.session import profile

# An INA226 that always reads 2.5 W.
BOARD = {
    "sys/class/hwmon/hwmon3/name": "ina226\n",
    "sys/class/hwmon/hwmon3/power1_input": "2500000\n",
    "sys/class/hwmon/hwmon3/update_interval": "1\n",
}
TORCH = (Variant("torch"),)


def test_every_row_has_its_energy(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")
    write(tmp_path, BOARD)
    summary = profile(request(tmp_path, variants=TORCH, meter="hwmon", root=tmp_path))
    assert summary.unmetered == []
    assert summary.idle_power_w == pytest.approx(2.5)
    table = ProfileTable.load([tmp_path / "edge.csv"])
    assert len(table.rows) == 6
    for row in table.rows:
        # The window's runs follow the timed ones, on a machine that others use: the power is what is known.
        assert row.energy_j is not None
        assert row.energy_j > 0
    note = Sidecar.load(tmp_path / "edge.json").meter
    assert note is not None
    assert note.idle_power_w == pytest.approx(2.5)
    assert "ina226" in note.domain
    other = {name.replace("hwmon3", "hwmon1"): text.replace("226", "219") for name, text in BOARD.items()}
    write(tmp_path / "other", other)
    with pytest.raises(MismatchError, match="holds energies of"):
        profile(request(tmp_path, variants=TORCH, meter="hwmon", root=tmp_path / "other"))


def test_a_meter_that_vanishes_loses_no_row(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")
    write(tmp_path, BOARD)

    def vanish(step: object) -> None:
        (tmp_path / "sys/class/hwmon/hwmon3/power1_input").unlink(missing_ok=True)

    summary = profile(request(tmp_path, variants=TORCH, meter="hwmon", root=tmp_path), vanish)
    rows = ProfileTable.load([tmp_path / "edge.csv"]).rows
    assert [row.bundle for row in rows] == [*ProfileTable.load([tmp_path / "edge.csv"]).chain.bundles()]
    assert len(summary.unmetered) == len(rows) == 6
    assert all(row.energy_j is None for row in rows)
    assert "[0, 1) torch fp32: " in summary.unmetered[0]


def test_without_a_meter_nothing_is_measured(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")
    with pytest.raises(EnergyError):
        profile(request(tmp_path, variants=TORCH, meter="auto", root=tmp_path))
