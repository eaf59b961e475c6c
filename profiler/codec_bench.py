"""Measuring codecs: every one at every boundary, on the feature maps that will cross it.

::

    feature maps of a boundary ──► 3 warm-up runs ──► 30 runs, each on the next map ──► trimmed means
    one run:   cool ─► copy ─► pack │ cool ─► copy ─► unpack        a clock around pack and unpack

    cool       the caches are filled with something else, as a bundle or the network leaves them
    copy       what is packed or unpacked was just written, as it will be then

The two halves are timed by the very function that a deployment times them with, slowed as the device is.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from planner.chain import Chain
from planner.codec_table import MEASURED, CodecName, CodecRow, append_codec_row, codec_file, load_codec_rows
from planner.errors import MismatchError
from planner.statistics import trimmed_mean
from profiler.bundles import largest_error, signal_to_noise_db
from profiler.codecs import pack, timed, unpack
from profiler.placement import Placement
from profiler.runner import Array
from profiler.samples import SampleStore
from profiler.timing import collector_off

RUNS = 30
_WARMUP_RUNS = 3
_SCRATCH_BYTES = 32 << 20
# Feature maps at a boundary that size and error are the mean of, as far as there are so many.
_MAPS = 16


def measure_codecs(
    store: SampleStore,
    chain: Chain,
    *,
    device: str,
    place: Placement,
    batches: Sequence[int],
    table: Path,
    codecs: Sequence[CodecName] = MEASURED,
    runs: int = RUNS,
    progress: Callable[[CodecRow | None], None] = lambda row: None,
) -> list[CodecRow]:
    """Measure each codec at each boundary and batch, beside the profile table ``table``.

    What is measured there already is kept, so a killed measurement resumes. Run it inside
    ``profiler.placement.placed(place)``; ``place.slowdown`` is what an emulated device is slowed by.
    ``progress`` is told of each new row, and None for one that was there.

    Raises ``DocumentError`` or ``MismatchError`` where the file is damaged or another device's,
    ``StorageError`` where it cannot be written; rows already written stay whole.
    """
    file = codec_file(table)
    rows = load_codec_rows(file) if file.exists() else []
    for row in rows:
        if row.device != device:
            problem = f"{file} holds rows of device {row.device!r}, not {device!r}"
            raise MismatchError(problem, "pass another --output")
    done = {row.key for row in rows}
    gc.collect()
    for batch in batches:
        for boundary in range(len(chain) + 1):
            wanted = [codec for codec in codecs if codec != "raw"]
            todo = [codec for codec in wanted if (device, boundary, codec, batch) not in done]
            maps = store.inputs(boundary, batch, _MAPS) if todo else []
            for codec in wanted:
                if codec not in todo:
                    progress(None)
                    continue
                row = measure_codec(maps, codec, device, boundary, batch, place.slowdown, runs)
                append_codec_row(file, row)
                rows.append(row)
                progress(row)
    return rows


def measure_codec(
    maps: Sequence[tuple[Array, ...]],
    codec: CodecName,
    device: str,
    boundary: int,
    batch: int,
    slowdown: float = 1.0,
    runs: int = RUNS,
) -> CodecRow:
    """One codec on the tensors at one boundary, each of ``maps`` a tuple of them."""
    arrays = [tuple(np.ascontiguousarray(array) for array in each) for each in maps]
    sizes, pairs = [], []
    for each in arrays:
        packed = pack(each, codec)
        sizes.append(sum(tensor.nbytes for tensor in packed))
        pairs += list(zip(unpack(packed, codec), each, strict=True))
    encode_s: list[float] = []
    decode_s: list[float] = []
    scratch = np.zeros(_SCRATCH_BYTES, np.uint8)
    with collector_off():
        for run in range(_WARMUP_RUNS + runs):
            np.add(scratch, 1, out=scratch)
            plain = tuple(array.copy() for array in arrays[run % len(arrays)])
            packed, begin_ns, end_ns = timed(lambda: pack(plain, codec), slowdown)  # noqa: B023 - called at once
            encode_s.append((end_ns - begin_ns) / 1e9)
            np.add(scratch, 1, out=scratch)
            packed = tuple(replace(each, body=each.body.copy()) for each in packed)
            _, begin_ns, end_ns = timed(lambda: unpack(packed, codec), slowdown)  # noqa: B023
            decode_s.append((end_ns - begin_ns) / 1e9)
    # Integers, NaN and infinity travel exactly and are no part of the signal.
    pairs = [pair for pair in pairs if pair[1].dtype.kind == "f" and np.isfinite(pair[1]).all()]
    return CodecRow(
        device=device,
        boundary=boundary,
        codec=codec,
        batch=batch,
        encode_s=trimmed_mean(encode_s[_WARMUP_RUNS:]),
        decode_s=trimmed_mean(decode_s[_WARMUP_RUNS:]),
        runs=runs,
        wire_bytes=round(float(np.mean(sizes))),
        wire_bytes_max=max(sizes),
        sqnr_db=signal_to_noise_db(pairs),
        max_error=max((largest_error(found, sent) for found, sent in pairs), default=0.0),
    )
