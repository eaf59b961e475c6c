"""The seven figures of a deployment: accuracy, latency, throughput, energy, model size, memory and cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from planner.errors import EdgecutError
from planner.period import period_s
from planner.plan import Plan, Stage
from planner.row import ProfileRow
from planner.run import Run
from planner.table import ProfileTable
from runtime.reports.case import Case
from runtime.reports.finding import Finding
from runtime.reports.theme import rounded

_SUMMED = {"accuracy": ("top-1",)}  # where a title takes only these rows
_NOT_RUN = "not measured: `edgecut deploy` the plan"


@dataclass(frozen=True)
class _Figure:
    """One figure of a plan: forecast and measured in ``unit``, None where there is none, and how each was got."""

    figure: str
    where: str
    unit: str
    forecast: float | None
    forecast_by: str
    measured: float | None
    measured_by: str


def deployment_finding(case: Case) -> Finding:
    """What the plan was forecast to be, and what its run measured, as a table."""
    found = list(_figures(case))
    return Finding(
        f"{case.stem}deployment",
        _said(found),
        None,
        pd.DataFrame([asdict(each) for each in found]),
        case.report,
        case.plan.notes,
    )


def _figures(case: Case) -> Iterator[_Figure]:
    plan, run = case.plan, _of_first_plan(case.run)
    table = None if isinstance(case.table, EdgecutError) else case.table
    yield from _accuracy(plan, run)
    yield _latency(plan, run)
    yield _throughput(plan, run)
    yield _energy(plan, table)
    yield from _size(plan, table)
    yield from _memory(plan)
    yield _price(plan)


def _of_first_plan(run: Run | None) -> Run | None:
    """What the run's own plan answered; None where nothing was."""
    answered = any(row.kind == "total" and row.plan == 0 for row in run.rows) if run else False
    return run.by_plan()[0] if run and answered else None


def _accuracy(plan: Plan, run: Run | None) -> Iterator[_Figure]:
    compared = f"mean over {run.checked} requests compared" if run else ""
    loses = "no forecast: the noise below is what is forecast of what the plan loses"

    def measured(value: float | None, otherwise: str) -> tuple[float | None, str]:
        return value, _NOT_RUN if run is None else otherwise if value is None else compared

    whole = run.whole_accuracy if run and plan.exact else None
    keeps = "the fp32 model's on the same samples: the plan computes exactly" if whole else loses
    yield _Figure(
        "accuracy", "top-1", "share", whole, keeps if plan.exact and whole else loses if not plan.exact
        else "that of the fp32 model: the plan computes exactly",
        *measured(run.accuracy if run else None, "not measured: deploy with --inputs and --labels"),
    )  # fmt: skip
    yield _Figure(
        "accuracy", "agreement with fp32", "share", 1.0 if plan.exact else None,
        "the plan computes exactly" if plan.exact else loses,
        *measured(run.top1_agreement if run else None, "not measured: deploy without --check none"),
    )  # fmt: skip
    sqnr_db = plan.cost.sqnr_db
    yield _Figure(
        "accuracy", "signal to noise", "dB", None if math.isinf(sqnr_db) else sqnr_db,
        "nothing is lost" if math.isinf(sqnr_db) else "sum of the noise of its stages and codecs",
        *measured(run.output_sqnr_db if run else None, "nothing differed in what was compared" if run and run.checked
                  else "not measured: deploy without --check none"),
    )  # fmt: skip


def _latency(plan: Plan, run: Run | None) -> _Figure:
    forecast_by = f"sum of stages and hops, by the {plan.proof.statistic} of each bundle"
    if run is None:
        return _Figure("latency", "per request", "s", plan.cost.latency_s, forecast_by, None, _NOT_RUN)
    totals = [row for row in run.rows if row.kind == "total"]
    waiting = run.info.concurrency > 1
    values = [row.measured_s - waiting * row.queue_s for row in totals]
    measured_by = f"median of {len(totals)} requests{', without their waiting' if waiting else ''}"
    measured_s = float(np.median(values))
    return _Figure("latency", "per request", "s", plan.cost.latency_s, forecast_by, measured_s, measured_by)


def _throughput(plan: Plan, run: Run | None) -> _Figure:
    period = period_s(plan.fleet, plan.stages, plan.hops)
    if run is None:
        at_best = "a full pipeline: batch over what its busiest device or link takes"
        return _Figure("throughput", "samples", "1/s", plan.batch / period, at_best, None, _NOT_RUN)
    flight = run.info.concurrency
    forecast = plan.batch * min(1 / period, flight / plan.cost.latency_s)
    forecast_by = f"{flight} in flight: batch over the busiest's time, or over the latency shared by so many"
    measured = (
        run.info.requests * plan.batch / run.info.wall_s if run.info.wall_s and run.info.requests else None
    )
    measured_by = (
        f"{run.info.requests} requests in {run.info.wall_s:.3g} s"
        if measured
        else "not measured: no request was answered"
    )
    return _Figure("throughput", "samples", "1/s", forecast, forecast_by, measured, measured_by)


def _energy(plan: Plan, table: ProfileTable | None) -> _Figure:
    metered = "not measured: a run meters none; `edgecut energy log` beside it records the power"
    counted = [device.name for device in plan.fleet.devices if device.battery]
    if not counted:
        why = "no device has battery = true in the fleet, so none counts"
        return _Figure("energy", "per request", "J", None, why, None, metered)
    rows = _rows(plan, table)
    by_power = [
        stage.device
        for stage, row in rows
        if stage.device in counted and (row is None or row.energy_j is None)
    ]
    how = f"of {', '.join(counted)}: "
    if table is None:
        how += "as the plan says"
    elif by_power:
        unknown = [name for name in dict.fromkeys(by_power) if plan.fleet.device(name).active_power_w is None]
        how += f"active_power_w of {', '.join(dict.fromkeys(by_power))} times time"
        if unknown:
            why = f"unknown of {', '.join(unknown)}: profile with a meter, or set active_power_w in the fleet"
            return _Figure("energy", "per request", "J", None, why, None, metered)
    else:
        how += "metered stages, radio power times transfer time, idle power"
    return _Figure("energy", "per request", "J", plan.cost.energy_j, how, None, metered)


def _size(plan: Plan, table: ProfileTable | None) -> Iterator[_Figure]:
    """Bytes of what each device receives; a profile measures it, a run does not again."""
    rows = _rows(plan, table)
    for device in dict.fromkeys(stage.device for stage in plan.stages):
        mine = [(stage, row) for stage, row in rows if stage.device == device]
        sizes = [row.artifact_bytes for _, row in mine if row is not None and row.artifact_bytes is not None]
        weights = sum(
            layer.weight_bytes
            for stage, _ in mine
            for layer in plan.chain.layers[stage.bundle.start : stage.bundle.stop]
        )
        known = len(sizes) == len(mine)
        yield _Figure(
            "model size", device, "bytes", weights, "the layers' weights as the model has them",
            float(sum(sizes)) if known else None,
            "the files it receives, when it was profiled" if known
            else "not measured: report the profile tables with it, of `edgecut profile` with --artifacts",
        )  # fmt: skip


def _memory(plan: Plan) -> Iterator[_Figure]:
    for device in dict.fromkeys(stage.device for stage in plan.stages):
        mine = [stage.memory_bytes for stage in plan.stages if stage.device == device]
        forecast = sum(mine) + plan.fleet.device(device).worker_memory_bytes
        yield _Figure(
            "memory", device, "bytes", forecast if any(mine) else None,
            "peak of each stage when it was profiled, and the process" if any(mine)
            else "not known: the profile measured no memory",
            None, "not measured: a run does not ask the operating system",
        )  # fmt: skip


def _price(plan: Plan) -> _Figure:
    priced = any(device.price_per_s for device in plan.fleet.devices) or any(
        link.price_per_byte for link in plan.fleet.links
    )
    how = (
        "computing time and bytes sent, at the fleet's prices"
        if priced
        else "no price_per_s or price_per_byte in the fleet"
    )
    bill = "not measured: a bill is its provider's"
    return _Figure("cost", "per request", "currency", plan.cost.price if priced else None, how, None, bill)


def _rows(plan: Plan, table: ProfileTable | None) -> list[tuple[Stage, ProfileRow | None]]:
    """The stages, and what the table says of them."""
    known = {row.key: row for row in table.rows} if table else {}
    return [
        (stage, known.get((stage.device, stage.bundle, stage.variant, plan.batch))) for stage in plan.stages
    ]


_SHOWN = {
    "latency": ("{} ms", 1e3), "throughput": ("{} samples/s", 1.0), "accuracy": ("{} % top-1", 1e2),
    "energy": ("{} mJ", 1e3), "model size": ("{} MB of model", 1e-6),
    "memory": ("{} MB of memory", 1e-6), "cost": ("price {}", 1.0),
}  # fmt: skip


def _said(found: Sequence[_Figure]) -> str:
    """The figures in a sentence, those of several devices summed: what was measured, then what is forecast."""
    said: dict[str, list[str]] = {"measured": [], "forecast": []}
    for name, (text, factor) in _SHOWN.items():
        mine = [
            each for each in found if each.figure == name and each.where in _SUMMED.get(name, (each.where,))
        ]
        for which in said:
            values = [value for each in mine if (value := getattr(each, which)) is not None]
            if values and len(values) == len(mine):
                said[which].append(text.format(rounded(sum(values) * factor, 4)))
                break
    return "; ".join(
        f"{which[:1].upper()}{which[1:]}: {', '.join(each)}" for which, each in said.items() if each
    )
