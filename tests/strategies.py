"""Random instances and documents for property tests."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from planner.chain import Boundary, Bundle, Chain, InputSpec, Layer, ModelSource, TensorSpec
from planner.codec_table import CODECS, CodecName, CodecRow
from planner.cost import CostModel
from planner.fleet import Device, Fleet, Link
from planner.limits import CRITERIA, Limits
from planner.plan import Baseline, Cost, Hop, Outcome, Plan, Proof, Stage, Variant
from planner.recipe import CALIBRATORS, Policy, Recipe
from planner.sidecar import Environment, LeftOut, Sidecar
from planner.table import ProfileRow, ProfileTable

VARIANTS = (Variant("torch"), Variant("onnxruntime", "int8", 1.5e9))
# Two of one clock, two of another than theirs.
CLOCKED = (*VARIANTS, Variant("onnxruntime", "fp16", 1.5e9), Variant("torch", "fp32", 0.6e9))


def make_chain(boundary_bytes: list[int]) -> Chain:
    """A chain whose boundaries carry so many bytes for one sample."""
    layers = tuple(Layer(f"layer{k}", 1, 4, 10) for k in range(len(boundary_bytes) - 1))
    boundaries = tuple(Boundary((TensorSpec((1, size), "uint8"),)) for size in boundary_bytes)
    return Chain(ModelSource("net"), "0" * 64, layers, boundaries)


def make_row(
    device: str,
    start: int,
    stop: int,
    latency_s: float,
    *,
    variant: Variant = VARIANTS[0],
    batch: int = 1,
    energy_j: float | None = None,
    sqnr_db: float | None = None,
) -> ProfileRow:
    bundle = Bundle(start, stop)
    return ProfileRow(
        device, bundle, variant, batch, latency_s, latency_s, latency_s, 0.0, latency_s, 9, 0.0,
        sqnr_db=sqnr_db, energy_j=energy_j,
    )  # fmt: skip


def make_codec_row(
    device: str,
    boundary: int,
    codec: CodecName,
    wire_bytes: int,
    encode_s: float,
    decode_s: float,
    *,
    batch: int = 1,
    sqnr_db: float | None = None,
) -> CodecRow:
    return CodecRow(device, boundary, codec, batch, encode_s, decode_s, 9, wire_bytes, wire_bytes, sqnr_db)


@dataclass(frozen=True)
class Instance:
    chain: Chain
    fleet: Fleet
    table: ProfileTable

    @property
    def model(self) -> CostModel:
        return CostModel.of(
            self.chain, self.fleet, self.table.rows, 1, self.table.left_out, codecs=self.table.codecs
        )


@st.composite
def instances(draw: st.DrawFn, *, rich: bool = False) -> Instance:
    """2-4 devices with 0-2 variants each, 1-5 layers, any links; or fewer, and codecs. Hypothesis draws
    the structure, a seed the numbers: small whole ones in half of the instances, so that many plans tie.
    ``rich``: smaller, and with all that limits may count: prices, memory, two clocks on a device."""
    numbers = random.Random(draw(st.integers(0, 2**32)))
    ties = draw(st.booleans())

    def number(most: int) -> float:
        return numbers.randint(1, most) * 1.0 if ties else numbers.uniform(0.5, most)

    coded = draw(st.booleans())  # each codec multiplies the plans there are
    if rich:
        sizes = [(4, 3), (3, 3), (4, 2)] if coded else [(4, 3), (5, 2), (3, 4), (4, 3)]
        boundaries, most = draw(st.sampled_from(sizes))
    else:
        boundaries, most = draw(st.integers(2, 4 if coded else 6)), draw(st.integers(2, 3 if coded else 4))
    chain = make_chain([numbers.randint(1, 30) * 1000 for _ in range(boundaries)])
    if rich:
        weights = [numbers.randint(0, 20) * 1000 for _ in chain.layers]
        layers = [
            replace(layer, weight_bytes=size) for layer, size in zip(chain.layers, weights, strict=True)
        ]
        chain = replace(chain, layers=tuple(layers))
    names = ["edge", "server", "cloud", "gpu"][:most]
    devices = []
    for name in names:
        battery = draw(st.booleans())
        idle = number(2) if draw(st.booleans()) else 0.0
        devices.append(Device(name, battery, active_power_w=number(6), idle_power_w=idle))
        if rich:
            devices[-1] = replace(
                devices[-1],
                memory_bytes=draw(st.sampled_from([None, None, numbers.randint(20, 120) * 1000])),
                worker_memory_bytes=draw(st.sampled_from([0, numbers.randint(1, 9) * 1000])),
                price_per_s=draw(st.sampled_from([0.0, number(9)])),
            )
    radio = draw(st.booleans())
    links = tuple(
        Link(
            source,
            target,
            bandwidth_bytes_per_s=number(5) * 1e6,
            latency_s=number(4) * 1e-3 if draw(st.booleans()) else 0.0,
            send_power_w=number(3) if radio else 0.0,
            receive_power_w=number(2) if radio else 0.0,
            price_per_byte=number(9) * 1e-6 if rich and draw(st.booleans()) else 0.0,
        )
        for source, target in itertools.permutations(names, 2)
        if draw(st.integers(0, 3))  # three links in four
    )
    sink = draw(st.sampled_from([names[0], names[0], names[-1]]))
    variants, most_ways = (numbers.sample(CLOCKED, len(CLOCKED)), 5) if rich else (VARIANTS, 6)
    rows, left_out = [], {}
    holes = draw(st.sampled_from([0.0, 0.0, 0.3]))
    for name in names:
        for variant in variants[: min(draw(st.sampled_from([1, 2, 1, 2, 3 * rich])), most_ways)]:
            most_ways -= 1
            for bundle in chain.bundles():
                if numbers.random() < holes:
                    left_out.setdefault(name, []).append(
                        LeftOut(bundle, variant, 1, "an operator is missing")
                    )
                    continue
                latency = len(bundle) * number(20) * 1e-3
                metered = number(50) * 1e-3 if numbers.random() < 0.3 else None
                sqnr = number(5) * 10.0 if variant.precision != "fp32" and numbers.random() < 0.9 else None
                row = make_row(
                    *(name, bundle.start, bundle.stop, latency),
                    **{"variant": variant, "energy_j": metered, "sqnr_db": sqnr},
                )
                if rich:
                    sizes = [None, numbers.randint(1, 40) * 1000]
                    row = replace(
                        row, weight_bytes=numbers.choice(sizes), peak_memory_bytes=numbers.choice(sizes)
                    )
                rows.append(row)
    codecs = []
    if coded:
        kinds: tuple[CodecName, ...] = ("zstd", "int8")
        for name, boundary, codec in itertools.product(names, range(len(chain) + 1), kinds):
            if numbers.random() < 0.8:
                size = max(chain.wire_bytes(boundary) * numbers.randint(1, 4) // 4, 1)
                times = number(4) * 1e-3, number(4) * 1e-3
                sqnr = number(5) * 10.0 if codec == "int8" and numbers.random() < 0.8 else None
                codecs.append(make_codec_row(name, boundary, codec, size, *times, sqnr_db=sqnr))
    table = ProfileTable(chain, tuple(rows), left_out=left_out, codecs=tuple(codecs))
    return Instance(chain, Fleet(names[0], sink, tuple(devices), links), table)


# Documents -----------------------------------------------------------------------------------------

names = st.text(st.characters(categories=["L", "Nd"]) | st.sampled_from("-_."), min_size=1, max_size=8)
words = st.text(st.characters(categories=["L", "Nd"]) | st.sampled_from("-_. "), max_size=8)
positive = st.floats(1e-9, 1e9)
not_negative = st.just(0.0) | positive
costs = st.builds(Cost, *[not_negative] * 5)
variants = st.builds(Variant, names, names, st.none() | positive, st.booleans())
devices = st.builds(Device, names, st.booleans(), st.none() | not_negative, not_negative)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    members = draw(st.lists(devices, min_size=1, max_size=4, unique_by=lambda device: device.name))
    pairs = list(itertools.permutations([device.name for device in members], 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    links = tuple(
        Link(*pair, draw(positive), *(draw(not_negative) for _ in range(3)), draw(st.booleans()))
        for pair in chosen
    )
    ends = st.sampled_from([device.name for device in members])
    return Fleet(draw(ends), draw(ends), tuple(members), links)


shapes = st.lists(st.integers(1, 99), max_size=4).map(tuple)
specs = st.builds(TensorSpec, shapes, st.sampled_from(["float32", "bfloat16"]))
precisions = st.sampled_from(["fp32", "fp16", "int8"])
ranges = st.tuples(not_negative.map(lambda x: -x), not_negative)
policies = st.builds(
    Policy, st.sampled_from(["name", "type"]), precisions, st.dictionaries(names, precisions, max_size=3)
)
recipes = st.builds(
    Recipe,
    st.sampled_from(CALIBRATORS),
    st.floats(51, 100),
    st.dictionaries(names, ranges, max_size=3),
    st.booleans(),
    st.none() | policies,
)


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    counts = st.integers(0, 2**40)
    layers = draw(st.lists(st.builds(Layer, words, counts, counts, counts), min_size=1, max_size=4))
    boundaries = st.builds(Boundary, st.lists(specs, min_size=1, max_size=3).map(tuple))
    source = st.builds(
        ModelSource,
        names,
        words,
        counts,
        st.sampled_from(["layer", "op"]),
        st.none() | counts,
        st.integers(1, 9),
        st.lists(st.builds(InputSpec, shapes, st.sampled_from(["float32", "int64"]), names), max_size=2).map(
            tuple
        ),
        st.lists(words, max_size=2).map(tuple),
    )
    count = len(layers) + 1
    both = draw(st.lists(boundaries, min_size=count, max_size=count))
    return Chain(draw(source), draw(words), tuple(layers), tuple(both))


bundles = st.builds(lambda start, size: Bundle(start, start + size), st.integers(0, 99), st.integers(1, 99))
sizes = st.none() | st.integers(0, 2**50)
rows = st.builds(
    ProfileRow,
    device=names,
    bundle=bundles,
    variant=variants,
    batch=st.integers(1, 512),
    latency_s=positive,
    latency_median_s=positive,
    latency_p95_s=positive,
    latency_std_s=not_negative,
    cpu_time_s=not_negative,
    runs=st.integers(1, 1000),
    load_s=not_negative,
    build_s=not_negative,
    peak_memory_bytes=sizes,
    artifact_bytes=sizes,
    weight_bytes=sizes,
    sqnr_db=st.none() | st.floats(-100, 300),
    max_error=st.none() | not_negative,
    energy_j=st.none() | not_negative,
)
environments = st.builds(
    Environment,
    words,
    words,
    words,
    st.dictionaries(names, words, max_size=3),
    st.integers(1, 64),
    st.lists(st.integers(0, 63)).map(tuple),
    st.floats(1, 100),
)
left_outs = st.builds(LeftOut, bundles, variants, st.integers(1, 99), words)
sidecars = st.builds(
    Sidecar, names, chains(), environments, words, words, st.none() | recipes,
    st.lists(left_outs, max_size=2).map(tuple),
)  # fmt: skip


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any path over a fleet in which every device reaches every other."""
    chain, members = draw(chains()), draw(st.lists(names, min_size=2, max_size=3, unique=True))
    links = tuple(Link(*pair, draw(positive)) for pair in itertools.permutations(members, 2))
    device = st.sampled_from(members)
    fleet = Fleet(draw(device), draw(device), tuple(Device(name) for name in members), links)

    def path() -> tuple[tuple[Stage, ...], tuple[Hop, ...]]:
        cuts = sorted(draw(st.sets(st.integers(1, len(chain) - 1))) if len(chain) > 1 else ())
        stages, hops, at = [], [], fleet.source
        for start, stop in itertools.pairwise([0, *cuts, len(chain)]):
            stages.append(Stage(draw(device), Bundle(start, stop), draw(variants), draw(costs)))
        for boundary, name in [*((s.bundle.start, s.device) for s in stages), (len(chain), fleet.sink)]:
            if name != at:
                size, times = draw(st.integers(0, 2**40)), (draw(not_negative), draw(not_negative))
                hops.append(
                    Hop(boundary, (at, name), draw(st.sampled_from(CODECS)), size, draw(costs), *times)
                )
            at = name
        return tuple(stages), tuple(hops)

    proof = Proof(
        draw(words),
        draw(st.sampled_from(Outcome)),
        draw(words),
        *(draw(not_negative) for _ in range(3)),
        *(draw(st.integers(0, 9999)) for _ in range(2)),
        draw(st.dictionaries(words, not_negative, max_size=2)),
        draw(words),
        draw(st.dictionaries(st.sampled_from(CRITERIA), positive, max_size=2)),
    )
    limits = Limits(*(draw(st.none() | positive) for _ in range(3)))
    by_hand = tuple(Baseline(draw(words), *path(), draw(costs)) for _ in range(draw(st.integers(0, 2))))
    notes = tuple(draw(st.lists(words, max_size=2)))
    batch = draw(st.integers(1, 64))
    made = draw(st.dictionaries(names, recipes, max_size=2))
    return Plan(chain, fleet, batch, limits, *path(), draw(costs), proof, by_hand, notes, made)
