"""DIME's timing CSVs and ``latency_and_energy.parquet``: one device's bundles, at one or several clocks.

The network and its order come from ``dime_networks`` or from the caller, never from sorting names.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from planner.chain import Bundle
from planner.errors import InputError, UnknownNameError
from planner.imports.dime_files import Entry, read_entries
from planner.imports.dime_networks import NETWORKS, Network
from planner.imports.result import DeviceTable, Import, byte_tensor, foreign_chain, measured_row, plain_layer
from planner.imports.units import BOUND, SECONDS, infer_time_unit, plausible_s
from planner.plan import Variant
from planner.sidecar import LeftOut

_LEAST_RUN_J, _MOST_RUN_J = 1e-6, 1e6


def read_dime(
    files: Sequence[Path],
    device: str,
    *,
    network: Network | None = None,
    unit: str | None = None,
    frequency_hz: float | None = None,
    skip_iterations: int = 0,
) -> Import:
    """One device's table from these files.

    ``unit`` is that of ``durs``, inferred where None. A CSV has no clock: it comes from a number of five or
    more digits that ends the file's name, or is ``frequency_hz``. The first ``skip_iterations`` are warm-up.
    Raises ``DocumentError``, ``InputError``, ``MissingDependencyError``.
    """
    refused: list[str] = []
    entries = [entry for file in files for entry in read_entries(file, frequency_hz, refused)]
    network = network or _recognise({entry.layers for entry in entries})
    bundles: list[tuple[Entry, Bundle]] = []
    for entry in entries:
        try:
            bundles.append((entry, network.bundle(entry.layers)))
        except ValueError as error:
            refused.append(f"{entry.place}: {error}")
    skipped = [e for e, _ in bundles if e.iteration is not None and e.iteration <= skip_iterations]
    bundles = [(e, b) for e, b in bundles if e.iteration is None or e.iteration > skip_iterations]
    notes = [f"{len(skipped)} rows of the first {skip_iterations} iterations are warm-up"] if skipped else []
    unit, why = (unit, f"{unit}, as asked for") if unit else _infer(bundles)
    notes.append(f"durs are in {why}")
    durations: dict[tuple[Bundle, float | None], list[float]] = defaultdict(list)
    energies: dict[tuple[Bundle, float | None], list[float]] = defaultdict(list)
    used = 0
    for entry, bundle in bundles:
        found = [value * SECONDS[unit] for value in entry.durs]
        wrong = [value for value in found if not plausible_s(value)]
        if wrong:
            refused.append(f"{entry.place}: {wrong[0]:.3g} s in {unit}; {BOUND}")
            continue
        used += 1
        durations[bundle, entry.frequency_hz] += found
        if entry.energy_uj is not None and _LEAST_RUN_J < entry.energy_uj * 1e-6 < _MOST_RUN_J:
            energies[bundle, entry.frequency_hz].append(entry.energy_uj * 1e-6)
        elif entry.energy_uj is not None:
            refused.append(
                f"{entry.place}: run_energy {entry.energy_uj:g} uJ is not above 1 uJ; its time is used"
            )
    if not durations:
        first = f"; {refused[0]}" if refused else ""
        raise InputError(f"none of {len(entries)} rows can be used{first}", "is this a DIME timing file?")
    if energies:
        notes.append("run_energy is in uJ; a bundle's energy is the mean of its runs")
    table = _table(device, network, durations, energies)
    layers = [plain_layer(name) for name in network.layers]
    chain = foreign_chain("dime", network.name, layers, network.boundaries)
    return Import(
        chain, (table,), "DIME: bundles measured in PyTorch", used, None, tuple(notes), tuple(refused)
    )


def custom_network(
    name: str, layers: Sequence[str], boundary_bytes: Sequence[int], separator: str
) -> Network:
    """A network that DIME's scripts were adapted to. Raises ``InputError``."""
    if len(boundary_bytes) != len(layers) + 1 or min(boundary_bytes) < 1:
        raise InputError(
            f"{len(layers)} layers have {len(layers) + 1} boundaries of at least 1 byte, found {len(boundary_bytes)}",
            "pass --boundary-bytes: the input's, one between each two layers, the output's",
        )
    if len(set(layers)) != len(layers) or not all(layers):
        raise InputError("two layers share a name, or one has none", "pass --layers NAME,NAME,...")
    return Network(name, tuple(layers), tuple(byte_tensor(size) for size in boundary_bytes), separator)


def _table(
    device: str,
    network: Network,
    durations: Mapping[tuple[Bundle, float | None], list[float]],
    energies: Mapping[tuple[Bundle, float | None], list[float]],
) -> DeviceTable:
    rows, samples, left_out = [], {}, []
    for clock in sorted({clock for _, clock in durations}, key=lambda clock: clock or 0.0):
        variant = Variant("torch", "fp32", clock)
        for start in range(len(network.layers)):
            for stop in range(start + 1, len(network.layers) + 1):
                bundle = Bundle(start, stop)
                runs = durations.get((bundle, clock))
                if runs is None:
                    left_out.append(LeftOut(bundle, variant, 1, "not in the imported files"))
                    continue
                row = measured_row(device, bundle, variant, runs, energies.get((bundle, clock), ()))
                rows.append(row)
                samples[row.key] = tuple(runs)
    return DeviceTable(device, tuple(rows), tuple(left_out), samples)


def _recognise(names: set[str]) -> Network:
    """The one network in which most of these names are bundles. Raises ``InputError``."""

    def fits(network: Network) -> int:
        count = 0
        for name in names:
            try:
                network.bundle(name)
                count += 1
            except ValueError:
                pass
        return count

    scores = sorted(((fits(network), network) for network in NETWORKS.values()), key=lambda each: -each[0])
    if scores[0][0] == 0:
        shown = ", ".join(sorted(names)[:3])
        raise InputError(
            f"no network that DIME profiles has these bundles: {shown:.200}",
            "pass --layers and --boundary-bytes",
        )
    if scores[0][0] == scores[1][0]:
        both = " and ".join(network.name for score, network in scores if score == scores[0][0])
        raise InputError(f"the bundles are of {both} alike", "pass --network")
    return scores[0][1]


def find_network(name: str) -> Network:
    """Raises ``UnknownNameError``."""
    if name not in NETWORKS:
        raise UnknownNameError("network", name, NETWORKS, "pass --layers and --boundary-bytes for another")
    return NETWORKS[name]


def _infer(bundles: Sequence[tuple[Entry, Bundle]]) -> tuple[str, str]:
    spans: dict[object, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for entry, bundle in bundles:
        if entry.span_s is None:
            continue
        key = (bundle, entry.frequency_hz, entry.iteration) if entry.span_shared else entry.place
        spans[key][0] += math.fsum(entry.durs)
        spans[key][1] = max(spans[key][1], entry.span_s)
    durations = [value for entry, _ in bundles for value in entry.durs]
    single = [value for entry, bundle in bundles for value in entry.durs if len(bundle) == 1]
    return infer_time_unit(durations, [(total, span) for total, span in spans.values()], single)
