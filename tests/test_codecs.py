"""Codecs: what they lose, what they refuse, what they cost, and a plan that uses them."""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard
from cases import CHAIN, FLEET, make_table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from sources import TINY
from strategies import make_codec_row, make_row

from planner.chain import Boundary, TensorSpec
from planner.codec_table import (
    COLUMNS,
    LOSSLESS,
    MEASURED,
    CodecName,
    CodecRow,
    append_codec_row,
    codec_file,
    codec_header,
    codecs_named,
    format_codec_row,
    load_codec_rows,
)
from planner.cost import CostModel, noise_of
from planner.errors import (
    DocumentError,
    InfeasibleError,
    InputError,
    MismatchError,
    StorageError,
    TransportError,
    UnknownNameError,
)
from planner.limits import Limits
from planner.plan import Variant
from planner.solver import solve
from planner.table import ProfileTable
from profiler.codec_bench import measure_codec, measure_codecs
from profiler.codecs import Form, Packed, pack, timed, unpack
from profiler.cut import cut_model
from profiler.inputs import Sample
from profiler.model import load_model
from profiler.placement import Placement
from profiler.samples import SampleStore, write_samples
from runtime.wire import Frame, check_boundary, decode, encode

SHAPES = hn.array_shapes(min_dims=1, max_dims=4, max_side=6)
DTYPES = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int8, np.uint8, np.bool_])
ARRAYS = st.tuples(DTYPES, SHAPES).flatmap(lambda both: hn.arrays(*both))
FLOATS = st.tuples(st.sampled_from([np.float32, np.float64]), SHAPES).flatmap(
    lambda both: hn.arrays(*both, elements=st.floats(-1e4, 1e4, width=32))
)


def sent(array: np.ndarray, codec: CodecName) -> np.ndarray:
    """What arrives, through a frame's bytes."""
    frame = decode(bytes(encode(Frame(codec=codec, packed=pack((array,), codec)))))
    (found,) = unpack(frame.packed, frame.codec)
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    return found


# What arrives -----------------------------------------------------------------------------------------


@given(ARRAYS, st.sampled_from(MEASURED))
@settings(max_examples=200)
def test_lossless_codecs_and_integers_travel_exactly(array: np.ndarray, codec: CodecName) -> None:
    found = sent(array, codec)
    if codec in LOSSLESS or array.dtype.kind != "f" or not np.isfinite(array).all():
        assert found.tobytes() == array.tobytes()


@given(FLOATS)
@settings(max_examples=200)
def test_int8_errs_by_half_a_step_at_most(array: np.ndarray) -> None:
    (packed,) = pack((array,), "int8")
    if packed.form is Form.EXACT:  # a range too small for a scale
        assert np.abs(array).max() < 1e-30
        return
    low, high = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
    assert packed.scale == ((high - low) / 255 or 1.0)
    found = sent(array, "int8")
    rounding = 4e-7 * max(-low, high)
    assert np.abs(found.astype(float) - array.astype(float)).max() <= packed.scale / 2 + rounding
    assert not found[array == 0].any()


@given(FLOATS)
def test_fp16_errs_by_half_a_unit_in_the_last_place_at_most(array: np.ndarray) -> None:
    np.testing.assert_array_equal(sent(array, "fp16"), array.astype(np.float16).astype(array.dtype))


@pytest.mark.parametrize("codec", MEASURED)
@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.0], [3.25, 3.25], [-7.5], [1e-45, 0.0], [3.4e38, -3.4e38], [65520.0, 1.0], [np.nan, 1.0],
        [np.inf, 0.0], [-np.inf, np.nan], [-0.0],
    ],
)  # fmt: skip
def test_odd_values_arrive(values: list[float], codec: CodecName) -> None:
    array = np.array(values, np.float32)
    step = np.abs(array).max() / 255 if "int8" in codec and np.isfinite(array).all() else 0.0
    np.testing.assert_allclose(sent(array, codec), array, rtol=1e-3, atol=step + 1e-44)


def test_an_array_that_is_not_contiguous_or_cannot_be_written() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6).T
    array.flags.writeable = False
    for codec in MEASURED:
        np.testing.assert_allclose(sent(array, codec), array, atol=23 / 255 / 2 + 1e-5)


# What is refused --------------------------------------------------------------------------------------

SPEC = TensorSpec((1, 1000))


def squeezed(data: bytes, **header: bool) -> np.ndarray:
    return np.frombuffer(zstandard.ZstdCompressor(level=1, **header).compress(data), np.uint8)


@pytest.mark.parametrize(
    ("packed", "codec", "problem"),
    [
        (Packed(SPEC, squeezed(bytes(10**9))), "zstd", "states 1000000000 bytes, expected 4000"),
        (Packed(SPEC, squeezed(bytes(4000), write_content_size=False)), "zstd", "states"),
        (Packed(SPEC, np.append(squeezed(bytes(4000)), np.uint8(7))), "zstd", "damaged"),
        (Packed(SPEC, squeezed(bytes(4000))[:-3]), "zstd", "damaged"),
        (Packed(SPEC, np.zeros(50, np.uint8)), "zstd", "damaged"),
        (Packed(SPEC, np.zeros(999, np.uint8), Form.AFFINE), "int8", "needs 1000 bytes, found 999"),
        (Packed(SPEC, np.zeros(1000, np.uint8), Form.AFFINE, 0, -1.0), "int8", "no affine form"),
        (Packed(SPEC, np.zeros(1000, np.uint8), Form.AFFINE, 0, float("nan")), "int8", "no affine form"),
        (Packed(SPEC, np.zeros(1000, np.uint8), Form.AFFINE, 0, 1e38), "int8", "cannot hold the levels"),
        (Packed(SPEC, np.zeros(2000, np.uint8), Form.HALF), "int8", "form HALF"),
        (Packed(TensorSpec((4,), "int32"), np.zeros(4, np.uint8), Form.AFFINE), "int8", "travels exactly"),
        (Packed(TensorSpec((4,), "bool"), np.full(4, 2, np.uint8)), "int8", "booleans"),
    ],
)  # fmt: skip
def test_bytes_that_no_codec_made_are_refused(packed: Packed, codec: CodecName, problem: str) -> None:
    with pytest.raises(TransportError, match=problem):
        unpack((packed,), codec)


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_frame_is_refused_or_is_another_frame(data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(MEASURED))
    array = np.linspace(-1, 2, 60, dtype=np.float32)
    frame = bytearray(encode(Frame(codec=codec, packed=pack((array,), codec))))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    frame = frame[: data.draw(st.sampled_from([len(frame), len(frame) - 1, len(frame) // 2]))]
    try:
        found = decode(frame)
        if found.packed:
            unpack(found.packed, found.codec)
    except TransportError:
        pass


def test_a_frame_in_another_codec_or_of_other_tensors_is_refused() -> None:
    frame = Frame(codec="int8", packed=pack((np.ones((1, 4), np.float32),), "int8"))
    boundary = Boundary((TensorSpec((1, 4)),))
    check_boundary(frame, boundary, 2, "int8")
    with pytest.raises(TransportError, match="boundary 2: expected codec zstd, found int8"):
        check_boundary(frame, boundary, 2, "zstd")
    with pytest.raises(TransportError, match="expected 1x5 float32, found 1x4 float32"):
        check_boundary(frame, Boundary((TensorSpec((1, 5)),)), 2, "int8")
    with pytest.raises(TransportError, match="0 packed tensors in a frame of codec int8"):
        encode(Frame((np.ones(3),), codec="int8"))
    # A frame that claims more than a frame could have carried is refused before anything is unpacked.
    huge = dataclasses.replace(frame.packed[0], spec=TensorSpec((1 << 40,)))
    with pytest.raises(TransportError, match="malformed frame"):
        decode(encode(Frame(codec="int8", packed=(huge,))))


# The table --------------------------------------------------------------------------------------------

ROW = make_codec_row("edge", 1, "int8", 1000, 0.001, 0.0005, sqnr_db=40.0)


def test_rows_come_back_and_a_half_written_one_is_replaced(tmp_path: Path) -> None:
    file = codec_file(tmp_path / "edge.csv")
    assert file.name == "edge.codecs.csv"
    rows = [ROW, make_codec_row("edge", 1, "zstd", 3000, 0.1 + 0.2, 1e-7)]
    append_codec_row(file, rows[0])
    file.write_text(file.read_text() + "edge,1,zs")
    assert load_codec_rows(file) == rows[:1]
    append_codec_row(file, rows[1])
    assert load_codec_rows(file) == rows
    for size in range(len(codec_header())):
        file.write_text(codec_header()[:size])
        assert load_codec_rows(file) == []
    with pytest.raises(StorageError, match="cannot write"):
        append_codec_row(tmp_path / "none" / "edge.codecs.csv", ROW)


def altered(**cells: str) -> str:
    values = dict(zip(COLUMNS, format_codec_row(ROW).strip().split(","), strict=True)) | cells
    return codec_header() + ",".join(values.values()) + "\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (altered(codec="raw"), "raw is sent as it is"),
        (altered(codec="gzip"), "codec"),
        (altered(encode_s="-1"), "encode_s must be at least 0"),
        (altered(encode_s="nan"), "encode_s"),
        (altered(wire_bytes="2000"), "wire_bytes must be 1 to wire_bytes_max"),
        (altered(wire_bytes="1.5"), "not a number: '1.5'"),
        (altered(codec="zstd"), "zstd loses nothing"),
        (altered() + format_codec_row(ROW), "line 3: measures the same codec as line 2"),
        (codec_header() + "edge,1\n", "line 2: expected 11 cells, found 2"),
        ("encode_ms,device\n", "unknown column 'encode_ms'"),
        ("device,codec\n", "missing columns: boundary"),
        ("\x00\n", "line 1"),
    ],
)
def test_a_broken_table_is_refused_by_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "edge.codecs.csv"
    file.write_text(text)
    with pytest.raises(DocumentError) as caught:
        load_codec_rows(file)
    assert str(caught.value).startswith(str(file))
    assert problem in str(caught.value)


def test_names_of_codecs() -> None:
    assert codecs_named("int8, zstd") == ("raw", "zstd", "int8")
    assert codecs_named("none") == ("raw",)
    assert codecs_named("all") == ("raw", *MEASURED)
    with pytest.raises(UnknownNameError, match="unknown codec 'int9'"):
        codecs_named("int9")
    with pytest.raises(InputError, match="leaves a name empty"):
        codecs_named("int8,,zstd")


# What they cost ---------------------------------------------------------------------------------------

CODECS = tuple(
    make_codec_row(name, boundary, codec, size * CHAIN.boundaries[boundary].nbytes // 100, encode_s, 0.0005,
                   sqnr_db=sqnr_db)
    for name, (boundary, (codec, size, encode_s, sqnr_db)) in itertools.product(
        ("edge", "server"),
        itertools.product(range(4), [("zstd", 50, 0.001, None), ("int8", 25, 0.0004, 40.0)]),
    )
)  # fmt: skip
TABLE = dataclasses.replace(make_table(), codecs=CODECS)


def test_a_hop_in_a_codec_by_hand() -> None:
    """40 kB over 1 MB/s in int8: 0.4 ms to encode, 10 ms on the link, 0.5 ms to decode on the mains."""
    model = CostModel.of(CHAIN, FLEET, TABLE.rows, 1, codecs=CODECS)
    hop = model.hop(0, ("edge", "server"), "int8")
    assert (hop.wire_bytes, hop.encode_s, hop.decode_s) == (10_000, 0.0004, 0.0005)
    assert hop.cost.latency_s == pytest.approx(0.0004 + 0.010 + 0.0005)
    assert hop.wire_s == pytest.approx(0.010)
    assert hop.cost.energy_j == pytest.approx(2.0 * 0.0004 + 1.0 * 0.010)  # active power, then radio
    assert hop.cost.noise == pytest.approx(1e-4)
    assert model.hop(0, ("edge", "server")).cost.latency_s == pytest.approx(0.040)
    # The cloud has no rows, so nothing but raw can be sent there; relays need none.
    assert {hop.codec for hop in model.hops(0, "edge") if hop.route[-1] == "cloud"} == {"raw"}
    # Raw is the slowest and keeps neither end busy; where a share of the time is limited, that may help.
    found = {hop.codec for hop in model.hops(0, "edge") if hop.route[-1] == "server"}
    assert found == {"int8", "zstd", "raw"}


def test_a_codec_that_another_beats_in_everything_is_offered_where_it_is_asked_for() -> None:
    worse = [
        dataclasses.replace(row, codec="fp16", encode_s=row.encode_s * 2)
        for row in CODECS
        if row.codec == "zstd"
    ]
    model = CostModel.of(CHAIN, FLEET, TABLE.rows, 1, codecs=[*CODECS, *worse])
    for every, expected in ((False, {"int8", "zstd", "raw"}), (True, {"int8", "zstd", "fp16", "raw"})):
        hops = model.hops(0, "edge", every_codec=every)
        assert {hop.codec for hop in hops if hop.route[-1] == "server"} == expected


def test_metered_power_stands_in_for_the_active_power_of_a_device_that_encodes() -> None:
    fleet = dataclasses.replace(
        FLEET, devices=tuple(dataclasses.replace(each, active_power_w=None) for each in FLEET.devices)
    )
    rows = [dataclasses.replace(row, energy_j=3.0 * row.latency_s) for row in TABLE.rows]
    model = CostModel.of(CHAIN, fleet, rows, 1, codecs=CODECS)
    assert model.coding("edge", 0.01).energy_j == pytest.approx(0.03)
    assert model.unmetered == ()
    assert CostModel.of(CHAIN, fleet, TABLE.rows, 1, codecs=CODECS).unmetered == ("edge",)


def test_lossless_codecs_need_no_permission_and_lossy_ones_do() -> None:
    raw = solve(CHAIN, FLEET, TABLE, objective="latency", codecs=["raw"])
    plain = solve(CHAIN, FLEET, TABLE, objective="latency")
    free = solve(CHAIN, FLEET, TABLE, objective="latency", codecs=codecs_named("all"))
    assert raw.cost.latency_s == pytest.approx(0.0181)
    assert {hop.codec for hop in plain.hops} == {"zstd", "raw"}
    assert plain.exact
    assert plain.notes == ("only lossless codecs are used; --min-sqnr-db or --codecs all lets in int8",)
    assert "int8" in {hop.codec for hop in free.hops}
    assert not free.exact
    assert free.notes == ()
    assert raw.cost.latency_s > plain.cost.latency_s > free.cost.latency_s


def test_the_accuracy_budget_binds() -> None:
    """int8 at 40 dB on the way there; the 100 bytes back are not worth encoding."""
    enough = solve(CHAIN, FLEET, TABLE, objective="latency", limits=Limits(min_sqnr_db=39.9))
    assert [hop.codec for hop in enough.hops] == ["int8", "raw"]
    assert enough.cost.sqnr_db == pytest.approx(40)
    more = solve(CHAIN, FLEET, TABLE, objective="latency", limits=Limits(min_sqnr_db=40.1))
    assert more.exact
    assert more.cost.noise == 0
    assert more.cost.latency_s > enough.cost.latency_s


def test_a_budget_that_nothing_keeps_says_what_would_do() -> None:
    int8 = Variant("onnxruntime", "int8")
    rows = tuple(
        make_row(row.device, row.bundle.start, row.bundle.stop, row.latency_s, variant=int8, sqnr_db=30.0)
        for row in make_table().rows
    )
    table = ProfileTable(CHAIN, rows)
    with pytest.raises(InfeasibleError) as caught:
        solve(CHAIN, FLEET, table, objective="latency", limits=Limits(min_sqnr_db=35))
    assert caught.value.message == "no plan reaches at least 35 dB (min_sqnr); the most possible is 30 dB"
    assert caught.value.remedy == "lower --min-sqnr-db to 30 or less"
    both = ProfileTable(CHAIN, tuple(
        row for row in (*rows, *(dataclasses.replace(r, latency_s=0.5, sqnr_db=50.0) for r in TABLE.rows))
    ))  # fmt: skip
    with pytest.raises(InfeasibleError) as caught:
        solve(CHAIN, FLEET, both, objective="latency", limits=Limits(max_latency_s=0.1, min_sqnr_db=35))
    assert "within 100 ms (max_latency) the best sqnr is 30 dB" in caught.value.message
    assert "within 35 dB (min_sqnr) the least latency is 500 ms" in caught.value.message


def test_an_error_that_nothing_measured_counts_as_the_signal() -> None:
    rows = tuple(dataclasses.replace(row, variant=Variant("torch", "bf16")) for row in TABLE.rows)
    table = ProfileTable(CHAIN, rows)
    assert solve(CHAIN, FLEET, table, objective="latency").cost.noise >= 1.0
    with pytest.raises(InfeasibleError, match="the most possible is 0 dB") as caught:
        solve(CHAIN, FLEET, table, objective="latency", limits=Limits(min_sqnr_db=1.0))
    assert caught.value.remedy == "leave out --min-sqnr-db"


def test_noise_by_hand() -> None:
    assert noise_of(None) == 0.0
    assert noise_of(30.0) == pytest.approx(1e-3)
    assert noise_of(-1e9) < float("inf")


# Measured ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", MEASURED)
def test_a_codec_is_measured_on_feature_maps(codec: CodecName) -> None:
    numbers = np.random.default_rng(0)
    maps = [
        (np.maximum(numbers.normal(size=(2, 8, 9)), 0).astype(np.float32), np.arange(16).reshape(2, 8))
        for _ in range(3)
    ]
    row = measure_codec(maps, codec, "edge", 1, batch=2, runs=5)
    assert (row.device, row.boundary, row.codec, row.batch, row.runs) == ("edge", 1, codec, 2, 5)
    assert min(row.encode_s, row.decode_s) > 0
    raw = sum(array.nbytes for array in maps[0])
    assert row.wire_bytes < raw
    if codec in LOSSLESS:
        assert row.sqnr_db is None
        assert row.max_error == 0
    else:
        assert row.sqnr_db is not None
        assert (35 if "int8" in codec else 60) < row.sqnr_db < 80
        assert 0 < row.max_error < 3e-3


def test_an_emulated_device_takes_as_much_longer_as_its_slowdown_says() -> None:
    def work() -> int:
        begun = time.monotonic_ns()
        sum(range(1000))
        return time.monotonic_ns() - begun

    inner_ns, begin_ns, end_ns = timed(work, 7.0)
    assert end_ns - begin_ns >= 7 * inner_ns


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    cut = cut_model(load_model(TINY))
    folder = tmp_path_factory.mktemp("codecs") / "samples"
    numbers = np.random.default_rng(0)
    shape = cut.chain.boundaries[0].tensors[0].shape
    samples = [Sample(f"{k}", f"{k}" * 64, (numbers.random(shape, np.float32),)) for k in range(3)]
    write_samples(cut, samples, folder)
    return SampleStore(folder, cut.chain)


def test_a_killed_measurement_resumes(
    store: SampleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiler.codec_bench._SCRATCH_BYTES", 1)  # nothing is compared in time
    chain, told = store._chain, []

    def measure(table: Path) -> list[CodecRow]:
        told.clear()
        options = {"device": "edge", "place": Placement(1, (0,)), "batches": [2], "runs": 1}
        return measure_codecs(
            store, chain, table=table, codecs=["int8", "zstd"], progress=told.append, **options
        )

    rows = measure(tmp_path / "edge.csv")
    keys = [("edge", k, codec, 2) for k in range(len(chain) + 1) for codec in ("int8", "zstd")]
    assert [row.key for row in rows] == keys
    file = codec_file(tmp_path / "edge.csv")
    assert load_codec_rows(file) == rows == told
    text = file.read_text()
    for size in (10, len(text) // 2, len(text) - 1):
        file.write_text(text[:size])
        whole = max(text[:size].count("\n") - 1, 0)
        assert [row.key for row in measure(tmp_path / "edge.csv")] == keys
        assert load_codec_rows(file)[:whole] == rows[:whole]
        assert told.count(None) == whole


def test_codecs_beside_a_table_of_another_device_are_refused(tmp_path: Path) -> None:
    append_codec_row(tmp_path / "edge.codecs.csv", ROW)
    with pytest.raises(MismatchError, match="rows of device 'edge', not 'phone'"):
        measure_codecs(
            None,
            CHAIN,
            device="phone",
            place=Placement(1, (0,)),
            batches=[1],
            table=tmp_path / "edge.csv",
        )


def test_every_column_is_a_field() -> None:
    assert set(COLUMNS) == set(CodecRow.__dataclass_fields__)
