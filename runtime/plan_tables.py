"""What a command prints of a plan: its parts, what it takes of its limits, and what one would try by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.fleet import Fleet
    from planner.limits import Limits
    from planner.override import Kept
    from planner.plan import Baseline, Plan


def show_plan(plan: Plan) -> None:
    """Print a plan, its proof, what it takes of its limits, and its baselines."""
    from planner.verdict import verdict
    from runtime.console import console

    out = console()
    title = f"{plan.chain.source.name}: least {plan.proof.objective} for a batch of {plan.batch}"
    out.print(_parts_table(title, plan, plan.fleet))
    proof = plan.proof
    out.print(
        f"{proof.outcome.value} by {proof.solver}: gap {proof.gap:.2g}, {proof.arcs:,} arcs, "
        f"{proof.solve_s:.2f} s; {proof.check}",
        soft_wrap=True,
    )
    if not proof.weights:
        out.print(_pace(plan), soft_wrap=True)
    if plan.cost.noise:
        out.print(f"forecast signal to noise at the output: {plan.cost.sqnr_db:.1f} dB")
    for note in plan.notes:
        out.print(f"note: {note}", style="yellow", soft_wrap=True)
    out.print()
    _show_limits(plan, plan.fleet, plan.limits)
    out.print(_baseline_table(plan))
    out.print(f"{plan.chain.source.name}: {verdict(plan)}", style="bold", soft_wrap=True)


def _pace(plan: Plan) -> str:
    """The period, and what bounds it."""
    from planner.period import busy_s
    from runtime.console import milliseconds

    busy = busy_s(plan.fleet, plan.stages, plan.hops)
    name, period_s = max(busy.items(), key=lambda item: item[1])
    rate = f"{plan.batch / period_s:.4g} samples/s" if period_s else "no time at all"
    return f"period {milliseconds(period_s)} ms, {rate}; busiest is {name.replace('->', ' → ')}"


def show_by_hand(entry: Baseline, fleet: Fleet, limits: Limits, name: str, best: Plan | None) -> None:
    """Print a hand-made plan, the limits that it keeps or breaks, and how far it is from the ``best``."""
    from planner.verdict import objective_value
    from runtime.console import console

    out = console()
    out.print(_parts_table(f"{name}: a plan by hand", entry, fleet))
    out.print()
    _show_limits(entry, fleet, limits)
    if best is None:
        return
    value, optimum = objective_value(entry, best), objective_value(best, best)
    over = value - optimum
    share = f" ({over / optimum * 100:+.2f} %)" if optimum else ""
    optimal = best.proof.outcome.value == "optimal"
    found = "the optimum" if optimal else "the best plan found, which is not proven"
    unit, factor = _unit(best.proof.objective)
    out.print(
        f"{best.proof.objective}: {value * factor:,.6g}{unit} by hand, {optimum * factor:,.6g}{unit} {found}: "
        f"{over * factor:+,.6g}{unit}{share}",
        style="bold",
        soft_wrap=True,
    )


def _unit(objective: str) -> tuple[str, float]:
    """The unit that an objective is printed in, and how many of them its SI unit is; a weighted sum has none."""
    return {"latency": (" ms", 1e3), "period": (" ms", 1e3), "energy": (" mJ", 1e3)}.get(objective, ("", 1.0))


def _parts_table(title: str, entry: Plan | Baseline, fleet: Fleet) -> Any:
    """Stages and hops in running order; with prices where the fleet has any."""
    from runtime.console import megabytes, millijoules, milliseconds, table

    prices = any(each.price_per_s for each in fleet.devices) or any(
        each.price_per_byte for each in fleet.links
    )
    parts = [
        (2 * stage.bundle.start + 1, (stage.device, str(stage.bundle), str(stage.variant), "", stage.cost))
        for stage in entry.stages
    ]
    for hop in entry.hops:
        route, codec = " → ".join(hop.route), str(hop.codec)
        if hop.codec != "raw":
            codec += f" ({milliseconds(hop.encode_s)} + {milliseconds(hop.decode_s)} ms)"
        shown = (route, f"at {hop.boundary}", codec, megabytes(hop.wire_bytes), hop.cost)
        parts.append((2 * hop.boundary, shown))
    ordered = [part for _, part in sorted(parts, key=lambda part: part[0])]
    rows = [
        (
            where,
            what,
            how,
            size,
            milliseconds(cost.latency_s),
            millijoules(cost.energy_j),
            f"{cost.price:,.4g}",
        )
        for where, what, how, size, cost in [*ordered, ("total", "", "", "", entry.cost)]
    ]
    columns = ("where", "layers", "how", "MB", "latency ms", "energy mJ", "price")
    shown_columns = len(columns) if prices else len(columns) - 1
    return table(title, columns[:shown_columns], [row[:shown_columns] for row in rows], left=(0, 1, 2))


def _show_limits(entry: Plan | Baseline, fleet: Fleet, limits: Limits) -> None:
    """What a plan takes of each limit and of each device's memory; nothing where no limit is in force."""
    from planner.override import limits_kept
    from runtime.console import console, megabytes, table

    kept = limits_kept(fleet, limits, entry)
    if not kept:
        return
    rows = [_limit_row(each) for each in sorted(kept, key=lambda each: -each.used)]
    limited = {each.rule.item for each in kept if each.rule.field == "max_memory_bytes"}
    for device in fleet.devices:
        memory = sum(stage.memory_bytes for stage in entry.stages if stage.device == device.name)
        if memory and device.name not in limited:
            total = megabytes(memory + device.worker_memory_bytes)
            rows.append((f"memory on {device.name}", "none", f"{total} MB", ""))
    out = console()
    out.print(table("limits, the tightest first", ("limit", "asked", "this plan", "used"), rows))
    binding = [str(each.rule) for each in kept if each.binding]
    if binding:
        out.print(f"binding: {', '.join(binding)}", soft_wrap=True)
    out.print()


def _limit_row(each: Kept) -> tuple[str, str, str, str]:
    rule = each.rule
    if not rule.valued:
        return rule.shown, "", "kept" if each.kept else f"broken {each.taken:.0f} x", ""
    found = rule.amount(f"{each.shown:,.6g}")
    if not each.kept:
        found += f", broken by {each.excess:,.4g}{rule.kind.unit}"
    used = f"{each.used * 100:.1f} %" if each.used < 1e3 else ""
    option = f"{rule.kind.option} {rule.item}".rstrip()
    return option, rule.amount(f"{rule.asked * float(rule.kind.per_si):,.6g}"), found, used


def _baseline_table(plan: Plan) -> Any:
    from planner.verdict import objective_value
    from runtime.console import millijoules, milliseconds, table

    rows = []
    entries: list[tuple[str, Plan | Baseline]] = [("this plan", plan)]
    entries += [(each.name, each) for each in plan.baselines]
    best = objective_value(plan, plan)
    for name, entry in entries:
        computing = sum(stage.cost.latency_s for stage in entry.stages)
        moving = sum(hop.cost.latency_s for hop in entry.hops)
        against = "" if entry is plan or not best else f"{objective_value(entry, plan) / best:.2f} x"
        rows.append(
            (name, milliseconds(computing), milliseconds(moving), milliseconds(entry.cost.latency_s),
             millijoules(entry.cost.energy_j), against)
        )  # fmt: skip
    columns = ("baseline", "computing ms", "moving ms", "latency ms", "energy mJ", plan.proof.objective)
    return table("what one would try by hand", columns, rows)
