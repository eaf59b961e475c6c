"""What a killed profile loses: python benchmarks/kills.py [KILLS]

A profile of a small network is killed (SIGKILL) at random moments and begun again, until it has been killed so
often (50) and is then left to finish. Each visit that the profile had announced must be on disk; in the end the
table must equal an uninterrupted one in keys and schema.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from planner import ProfileTable

HERE = Path(__file__).parent
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_profile
from profiler.session import profile
from profiler.timing import Protocol
folder = Path(sys.argv[1])
# Long visits, so that a profile outlives many kills.
protocol = Protocol(precision=1e-9, rounds=5, visit_runs=4, visit_s=0.05, max_runs=100_000)
request = test_profile.request(folder, protocol=protocol, output=folder / "killed.csv")
profile(request, lambda step: print(step.bundle, flush=True))
"""


def visits(file: Path) -> int:
    """Whole lines of raw samples."""
    return sum(
        1 for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n") and json.loads(line)
    )


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    sys.path.insert(0, str(HERE.parent / "tests"))
    import test_profile

    from profiler.session import profile

    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        test_profile.make_samples(test_profile.TINY, folder / "samples")
        lost, before = 0, 0
        for kill in range(kills):
            command = [sys.executable, "-c", SCRIPT, str(folder), str(HERE.parent / "tests")]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                assert process.stdout is not None
                process.stdout.readline()  # what was there before
                time.sleep(rng.uniform(0, 3))
                process.kill()
                announced = len(process.stdout.read().splitlines())
            have = visits(folder / "killed.samples.jsonl")
            lost = max(lost, before + announced - have)
            before = have
            print(f"kill {kill + 1}: {announced} visits announced, {have} on disk", flush=True)
        (folder / "killed.samples.jsonl").rename(folder / "edge.samples.jsonl")
        for suffix in (".csv", ".json"):
            (folder / f"killed{suffix}").rename(folder / f"edge{suffix}")
        sidecar = folder / "edge.json"
        sidecar.write_text(sidecar.read_text().replace("killed.samples.jsonl", "edge.samples.jsonl"))
        profile(test_profile.request(folder))
        profile(test_profile.request(folder, output=folder / "whole.csv"))
        tables = [ProfileTable.load([folder / file]) for file in ("edge.csv", "whole.csv")]
        keys = [{row.key for row in table.rows} for table in tables]
        print(f"{kills} kills; most visits lost by one: {max(lost, 0)}; keys equal: {keys[0] == keys[1]}")


if __name__ == "__main__":
    main()
