"""An explanation as tables, on the terminal and as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from planner.explain_words import amount, quantity
from planner.explanation import Challenger, Endurance, Explanation, Rival, ShadowPrice, Step
from planner.plan import described
from planner.question import difference
from planner.rules import KINDS
from runtime.console import console, millijoules, milliseconds, table


def show(found: Explanation) -> None:
    """The paragraph, then each part that has something to say."""
    out = console()
    objective = found.plan.proof.objective
    out.print(found.summary, style="bold", soft_wrap=True)
    for note in found.notes:
        out.print(f"note: {note}", style="yellow", soft_wrap=True)
    out.print()
    if found.busy_s:
        busy = [
            (name.replace("->", " → "), milliseconds(each), f"{each / found.optimum_value:.1%}")
            for name, each in found.busy_s.items()
        ]
        columns: tuple[str, ...] = ("device or link", "busy ms", "of the period")
        out.print(table("what the pipeline waits for", columns, busy, left=(0,)))
    if found.runners_up:
        title = f"the plans that come next ({_DISTINCT[found.distinct]})"
        # Of equal periods, the latency tells which comes first.
        last = "latency ms" if found.busy_s else "± noise"
        columns = ("", "plan", objective, "regret", "regret %", last, "")
        rows = [_next_row(each, found) for each in found.runners_up]
        out.print(table(title, columns, rows, left=(0, 1, 6)))
    columns = ("plan", "by", "stages", "latency ms", "energy mJ", objective, "breaks")
    rows = [_baseline_row(each, found) for each in found.baselines]
    out.print(table("what others would do, at the same prices", columns, rows, left=(0, 1, 2, 6)))
    if found.limits:
        columns = ("limit", "allowed", "used", "next step", "buys", "per unit", "then")
        rows = [row for each in found.limits for row in _limit_rows(each, found)]
        title = "what would shorten the period" if found.busy_s else "what each limit costs"
        out.print(table(title, columns, rows, left=(0, 3, 6)))
    if found.slower:
        named = ("part", "what", "may be slower by", "± noise", "until")
        rows = [_slower_row(each) for each in found.slower]
        out.print(table("what the choice hangs on", named, rows, left=(0, 1, 4)))
    if found.quicker:
        named = ("device", "bundle", "quicker by", "± noise", "then")
        rows = [_quicker_row(each) for each in found.quicker]
        out.print(table("bundles that come closest to the plan", named, rows, left=(0, 1, 4)))
    for command in found.remeasure:
        out.print(f"within the noise; to settle it: {command}", style="yellow", soft_wrap=True)


_DISTINCT = {
    "devices": "other devices for some layer",
    "cuts": "other devices or bundles",
    "variants": "different in anything",
}


def _next_row(each: Rival, found: Explanation) -> Sequence[str]:
    objective = found.plan.proof.objective
    remarks = ["equal"] if each.equal else []
    remarks += ["within the noise"] if each.within_noise and not each.equal else []
    remarks += [] if each.proven else ["not proven"]
    share = f"{each.regret / found.optimum_value * 100:.2f}" if found.optimum_value else ""
    last = "" if each.noise_s is None else milliseconds(each.noise_s)
    if found.busy_s:
        last = milliseconds(each.cost.latency_s)
    return (
        each.name, difference(each.stages, found.optimum.stages), amount(each.value, objective),
        amount(max(each.regret, 0.0), objective), share, last, ", ".join(remarks),
    )  # fmt: skip


def _baseline_row(each: Rival, found: Explanation) -> Sequence[str]:
    best = found.optimum_value
    breaks = ", ".join(each.breaks)
    if each.expected is not None:
        breaks = "; ".join(
            [f"expects {amount(each.expected, found.plan.proof.objective)}", *([breaks] if breaks else [])]
        )
    return (
        each.name, each.source, described(each.stages), milliseconds(each.cost.latency_s),
        millijoules(each.cost.energy_j), f"{each.value / best:.2f} x" if best else "", breaks,
    )  # fmt: skip


def _limit_rows(each: ShadowPrice, found: Explanation) -> Iterable[Sequence[str]]:
    """One for the limit, with its next step; one for each larger step that buys more."""
    objective = found.plan.proof.objective

    def bought(step: Step) -> str:
        return amount(max(found.optimum_value - step.value, 0.0), objective)

    valued = each.allowed is not None
    name = KINDS[each.limit].option if each.limit in KINDS else each.limit if valued else each.item
    name += f" {each.item}" if valued and each.item else ""
    allowed, used = (
        "" if value is None else quantity(each.limit, value) for value in (each.allowed, each.used)
    )
    slope = _slope(each, objective)
    if not each.binds:
        yield name, allowed, used, "does not bind", "", slope, _slack(each)
        return
    first, *rest = [*([each.next_step] if each.next_step else []), *each.steps]
    yield name, allowed, used, _change(each, first), bought(first), slope, first.path
    last = first.value
    for step in rest:
        if step.value < last:
            yield "", "", "", _change(each, step), bought(step), "", step.path
        last = min(last, step.value)


def _change(each: ShadowPrice, step: Step) -> str:
    if step.allowed is None or each.allowed is None:
        return "without it"
    word = "less" if each.limit in KINDS and not KINDS[each.limit].at_most else "more"
    return f"{quantity(each.limit, abs(step.allowed - each.allowed))} {word}"


def _slack(each: ShadowPrice) -> str:
    if each.allowed is None or each.used is None:
        return ""
    return f"{quantity(each.limit, abs(each.allowed - each.used))} to spare"


def _slope(each: ShadowPrice, objective: str) -> str:
    """Objective per unit that is shown."""
    if not each.slope:
        return ""
    if each.limit == "bandwidth":
        return f"{amount(each.slope * 125_000, objective)} per Mbit/s"
    kind = KINDS[each.limit]
    return f"{amount(each.slope / float(kind.per_si), objective)} per{kind.unit or ' unit'}"


def _slower_row(each: Endurance) -> Sequence[str]:
    if each.factor is None:
        return each.kind, each.what, "any factor", _percent(each.noise), "no other plan"
    by = f"{(each.factor - 1) * 100:.2f} %"
    until = each.until + (" (within the noise)" if each.within_noise else "")
    return each.kind, each.what, by if each.exact else f"at least {by}", _percent(each.noise), until


def _quicker_row(each: Challenger) -> Sequence[str]:
    by = f"{(1 - each.factor) * 100:.2f} %"
    if not each.exact:
        by = f"{(1 - each.at_most) * 100:.2f} to {by}"
    then = each.path + (" (within the noise)" if each.within_noise else "")
    return each.device, each.what, by, _percent(each.noise), then


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.2f} %"


def write_csv(found: Explanation, folder: Path) -> list[Path]:
    """One file per table, in SI units. Raises ``StorageError``."""
    import pandas as pd

    from planner.documents import to_data
    from planner.errors import StorageError

    def plain(rivals: Iterable[Rival]) -> list[dict[str, object]]:
        rows = []
        for each in rivals:
            data = to_data(each)
            stages, cost, breaks = data.pop("stages"), data.pop("cost"), data.pop("breaks")
            del stages, data["hops"]
            rows.append({**data, **cost, "plan": described(each.stages), "breaks": "; ".join(breaks)})
        return rows

    def stepped(prices: Iterable[ShadowPrice]) -> list[dict[str, object]]:
        rows = []
        for each in prices:
            data = to_data(each)
            steps = [*([each.next_step] if each.next_step else []), *each.steps]
            del data["next_step"], data["steps"]
            for step in steps or [Step(None, found.optimum_value, "")]:
                rows.append({**data, "step": step.allowed, "value": step.value, "plan": step.path})
        return rows

    tables: dict[str, Callable[[], list[dict[str, object]]]] = {
        "runners-up": lambda: plain(found.runners_up),
        "baselines": lambda: plain(found.baselines),
        "limits": lambda: stepped(found.limits),
        "slower": lambda: [to_data(each) for each in found.slower],
        "quicker": lambda: [to_data(each) for each in found.quicker],
    }
    if found.busy_s:
        tables["busy"] = lambda: [{"item": name, "busy_s": each} for name, each in found.busy_s.items()]
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            file = folder / f"{name}.csv"
            pd.DataFrame(rows()).to_csv(file, index=False)
            written.append(file)
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error}", "pass another --csv") from error
    return written
