"""One fixed instance with everything that limits count: prices, memory, two clocks on a device, codecs."""

from __future__ import annotations

import random
from dataclasses import replace

from strategies import CLOCKED, Instance, make_chain, make_codec_row, make_row

from planner.fleet import Device, Fleet, Link
from planner.table import ProfileTable

_WAYS = {"edge": CLOCKED, "server": CLOCKED[:2], "cloud": CLOCKED[:1]}
_SPEED = {"edge": 1.0, "server": 3.0, "cloud": 8.0}
_GAIN = (1.0, 1.9, 1.4, 0.7)  # by variant


def rich_case(layers: int = 4, seed: int = 5) -> Instance:
    numbers = random.Random(seed)
    sizes = [9_000, 7_000, 3_000, 5_000, 800]
    chain = make_chain([*sizes[:layers], sizes[-1]])
    chain = replace(chain, layers=tuple(replace(layer, weight_bytes=9_000) for layer in chain.layers))
    fleet = Fleet(
        "edge",
        "edge",
        (
            Device("edge", battery=True, active_power_w=2.0, idle_power_w=0.2),
            Device("server", memory_bytes=60_000, worker_memory_bytes=4_000, price_per_s=3.0),
            Device("cloud", battery=True, active_power_w=9.0, price_per_s=20.0),
        ),
        (
            Link("edge", "server", 2e6, 1e-3, send_power_w=1.0, price_per_byte=1e-6),
            Link("server", "edge", 3e6, 1e-3, receive_power_w=1.0),
            Link("server", "cloud", 9e6, 5e-4),
            Link("cloud", "server", 9e6, 5e-4),
            Link("cloud", "edge", 3e6, 1e-3, receive_power_w=1.0),
        ),
    )
    rows = []
    for name, ways in _WAYS.items():
        for variant, gain in zip(ways, _GAIN, strict=False):
            for bundle in chain.bundles():
                time = 4e-3 * (len(bundle) * numbers.uniform(0.6, 1.4) + 0.3) / _SPEED[name] / gain
                joules = 2.0 * time * gain**1.5 if name == "edge" else None
                sqnr = None if variant.precision == "fp32" else numbers.uniform(20, 40)
                row = make_row(
                    name, bundle.start, bundle.stop, time, variant=variant, energy_j=joules, sqnr_db=sqnr
                )
                rows.append(
                    replace(row, peak_memory_bytes=numbers.choice([None, 9_000 * len(bundle) + 20_000]))
                )
    codecs = [
        make_codec_row(
            name, boundary, "int8", chain.wire_bytes(boundary) // 3, 4e-4, 3e-4, sqnr_db=30.0 + boundary
        )
        for name in ("edge", "server")
        for boundary in range(layers + 1)
    ]
    return Instance(chain, fleet, ProfileTable(chain, tuple(rows), codecs=tuple(codecs)))
