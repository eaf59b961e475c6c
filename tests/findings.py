"""What tests of a report's findings share: findings by name, and runs made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from planner import Plan, ProfileTable
from planner.run import Run, RunInfo
from planner.run_rows import RunRow
from runtime.reports.analysis import analysis
from runtime.reports.finding import Finding, Missing
from runtime.reports.theme import any_script

HOSTILE = "<script>alert(1)</script> $\\frac{a}{b}$ \u202e ../" + "x" * 200


def of_plan(
    plan: Plan, tables: Sequence[ProfileTable], file: Path = Path("plan.json")
) -> dict[str, Finding | Missing]:
    return by_name(analysis("net", tables, [("plan", plan)], [], {"plan": str(file)}))


def of_run(run: Run, tables: Sequence[ProfileTable] = ()) -> dict[str, Finding | Missing]:
    return by_name(analysis("net", tables, [], [("run", run)], {"run": "run"}))


def by_name(sections: list[tuple[str, list[Finding | Missing]]]) -> dict[str, Finding | Missing]:
    found = [part for _, parts in sections for part in parts]
    assert len({part.name for part in found}) == len(found), "two findings would share their files"
    return {part.name: part for part in found}


def finding(found: dict[str, Finding | Missing], name: str) -> Finding:
    part = found[name]
    assert isinstance(part, Finding), part
    return part


def missing(found: dict[str, Finding | Missing], name: str) -> str:
    part = found[name]
    assert isinstance(part, Missing), part
    return part.reason


def drawn(part: Finding) -> None:
    assert part.draw is not None
    with any_script():
        part.draw().draw_without_rendering()


def by_hand(
    plan: Plan, requests: int, *, concurrency: int = 1, apart_s: float = 0.05, begun: bool = True
) -> Run:
    """Every part waits 1 ms and takes twice its forecast, of request 3 thrice; one begins every ``apart_s``."""
    rows: list[RunRow] = []
    parts = [(2 * each.bundle.start + 1, "stage", k, each.cost) for k, each in enumerate(plan.stages)]
    parts += [(2 * each.boundary, "hop", k, each.cost) for k, each in enumerate(plan.hops)]
    for request in range(requests):
        first_s = now_s = request * apart_s
        for _, kind, index, cost in sorted(parts, key=lambda part: part[0]):
            took_s = cost.latency_s * (3 if request == 3 else 2)
            now_s += 0.001
            rows.append(
                RunRow(request, kind, index, cost.latency_s, took_s, 0.001, begin_s=now_s if begun else None)
            )
            now_s += took_s
        given = {"output_error": 1e-7, "accuracy": 0.5, "top1_agreement": 1.0, "whole_accuracy": 0.75}
        rows.append(
            RunRow(
                request, "total", 0, plan.cost.latency_s, now_s - first_s, 0.001 * len(parts),
                begin_s=first_s if begun else None, **given,
            )
        )  # fmt: skip
    info = RunInfo(plan, "2026-01-01", "zenoh", concurrency, 1e-4, requests * apart_s, requests)
    return Run(info, tuple(rows))
