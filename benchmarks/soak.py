"""A long stream while machines die and a link is cut: python benchmarks/soak.py [REQUESTS]

A tiny network in three stages on three hosts (network namespaces; needs root), agents of which are killed (SIGKILL) and
started again, one after every 500 requests (of 100000), and the link between two of them cut ten times, for 5 s each.
Without one of them the next best plan is run. Every answer is compared with the whole network's. It tells of answers
lost, given twice or wrong, and of the memory of each process.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from lab import Lab, Stream, Streamer, lab

KILL_EVERY = 500
CUTS, CUT_S = 10, 5.0
WINDOW = 8
NAMES = "a", "b", "c"
PLANS = {
    "three": [("a", 0, 1, "torch"), ("b", 1, 2, "onnxruntime"), ("c", 2, 3, "onnxruntime")],
    "without_b": [("a", 0, 1, "torch"), ("c", 1, 3, "onnxruntime")],
    "without_c": [("a", 0, 1, "torch"), ("b", 1, 3, "onnxruntime")],
}


def memory_mb(process: int) -> float:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(requests: int, fleet: Lab, streamer: Streamer, stream: Stream) -> None:
    began_s, kills, cuts = time.monotonic(), 0, 0
    tenth = max(requests // 10, 1)
    print(
        "answers     s   kills  cuts  switches   coordinator MB   "
        + "   ".join(f"{name} MB" for name in NAMES)
    )
    for mark in range(KILL_EVERY, requests + 1, KILL_EVERY):
        stream.until(lambda mark=mark: stream.answers >= mark)
        if mark % tenth < KILL_EVERY:
            memory = [memory_mb(one.pid) for one in (streamer.process, *map(fleet.agents.get, NAMES))]
            counts = (
                f"{mark:7}  {time.monotonic() - began_s:4.0f}  {kills:6}  {cuts:4}  {len(stream.events):8}"
            )
            print(counts, "  ".join(f"{each:6.0f}" for each in memory), flush=True)
            if cuts < CUTS:
                fleet.network.cut("b", "c")
                time.sleep(CUT_S)
                fleet.network.mend("b", "c")
                cuts += 1
        name = "bc"[kills % 2]
        fleet.kill_agent(name)
        fleet.start_agent(name)
        kills += 1
    stream.until(lambda: stream.answers >= requests)
    stream.end()
    print(
        f"{stream.answers} requests, {kills} kills, {cuts} cuts, {time.monotonic() - began_s:.0f} s: "
        f"none lost, none twice, none wrong; longest gap {stream.longest_s:.1f} s"
    )


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder), *NAMES) as fleet:
        fleet.write_fleet(list(itertools.combinations(NAMES, 2)))
        plans = fleet.write_plans(**PLANS)
        streamer = Streamer(fleet, WINDOW, plans[0], pause_s=0)
        soak(requests, fleet, streamer, streamer.begin(*plans))


if __name__ == "__main__":
    main()
