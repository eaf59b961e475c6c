"""How long a report takes and how large its page is: python benchmarks/report.py [LAYERS] [DEVICES] [VARIANTS] [FOLDER]

Makes tables of every bundle, a plan solved from them and a run of it from a seed, and runs `edgecut report` on all of
them in a fresh process, three times. The goal for 50 layers x 4 devices x 2 variants is 10 s and 5 MB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from study import make_study


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        run(list(map(Path, sys.argv[3:])), Path(sys.argv[2]))
        return
    given = list(map(int, sys.argv[1:4]))
    layers, devices, variants = given + [50, 4, 2][len(given) :]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        files = make_study(folder, layers, devices, variants)
        output = Path(sys.argv[4]) if len(sys.argv) > 4 else folder / "report"
        for _ in range(3):
            command = [sys.executable, __file__, "--run", str(output), *map(str, files)]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True
            )


def run(files: list[Path], output: Path) -> None:
    begun = time.perf_counter()
    from runtime.reports.report import write_report

    report = write_report(files, output)
    wall, cpu = time.perf_counter() - begun, time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    beside = sum(file.stat().st_size for file in report.files) / 1e6
    print(
        f"{wall:.2f} s, {cpu:.2f} s of processor time with start-up; page {report.page.stat().st_size / 1e6:.2f} MB; "
        f"{len(report.files)} files beside it, {beside:.1f} MB; peak memory {peak:.2f} GB"
    )


if __name__ == "__main__":
    main()
