"""An explanation in a paragraph."""

from __future__ import annotations

import math

from planner.explanation import Explanation, Rival
from planner.plan import Cost, Plan, described
from planner.question import difference
from planner.rules import KINDS

# What a value is shown in, by the name of the objective.
_UNITS = {"latency": (1e3, "ms"), "energy": (1e3, "mJ"), "upload": (1e-6, "MB"), "period": (1e3, "ms")}


def amount(value: float, objective: str) -> str:
    """A value of the objective with its unit."""
    factor, unit = _UNITS.get(objective, (1.0, ""))
    return f"{value * factor:.4g} {unit}".rstrip()


def quantity(limit: str, value: float) -> str:
    """An amount of a limit as its option takes it, with its unit; a bandwidth in Mbit/s, a
    device's speed as a multiple."""
    if limit == "bandwidth":
        return f"{value / 125_000:.4g} Mbit/s"
    if limit == "speed":
        return f"{value:.4g} x"
    kind = KINDS[limit]
    return f"{value * float(kind.per_si):.4g}{kind.unit}"


def summary(found: Explanation) -> str:
    """Why the optimum, in plain language."""
    words = [_what(found), _busiest(found), _next(found), _hinges(found), _limits(found), _noise(found)]
    return " ".join(word for word in words if word)


def _what(found: Explanation) -> str:
    objective = found.plan.proof.objective
    best = amount(found.optimum_value, objective)
    sure = "the optimum, proven" if found.proven else "the best plan found, not proven"
    if found.holds:
        text = f"{described(found.optimum.stages)} costs {best} of {objective}: {sure} for these tables."
    else:
        lost = amount(found.value - found.optimum_value, objective)
        text = (
            f"The plan given is not the optimum for these tables: it costs {amount(found.value, objective)} of "
            f"{objective}, {lost} more than {described(found.optimum.stages)} ({best}, {sure}), which "
            "what follows explains."
        )
        if found.value <= found.optimum_value:
            text = (
                f"The plan given breaks its limits by these tables. {described(found.optimum.stages)} "
                f"({best} of {objective}, {sure}) keeps them; what follows explains it."
            )
    kept = [each for each in found.baselines if not each.breaks]
    rival = min(kept, key=lambda each: each.value, default=None)
    if rival is not None and found.optimum_value:
        more = rival.value / found.optimum_value - 1
        text += f" The best of the others' ways, {rival.name}, costs " + (
            f"{more:.1%} more." if more > 1e-9 else "the same."
        )
    return text


def _busiest(found: Explanation) -> str:
    """What a pipeline waits for, and what it would gain if that were faster."""
    if not found.busy_s:
        return ""
    name = next(iter(found.busy_s))
    others = [each for each in list(found.busy_s.values())[1:] if each > 0]
    text = f"The pipeline waits for {name.replace('->', ' → ')}"
    text += f"; what is next is busy {others[0] / found.optimum_value:.0%} of the time." if others else "."
    faster = next((each for each in found.limits if each.item == name and each.binds), None)
    if faster is not None:
        step = faster.steps[0]
        more = (step.allowed or 0.0) / (faster.allowed or 1.0) - 1
        text += f" {more:.0%} faster, the period would be {amount(step.value, 'period')}."
    return text


def _next(found: Explanation) -> str:
    if not found.runners_up:
        return ""
    first = found.runners_up[0]
    ties = sum(each.equal for each in found.runners_up)
    if ties:
        return f"{ties} other {'plan costs' if ties == 1 else 'plans cost'} exactly the same."
    objective = found.plan.proof.objective
    share = f" ({first.regret / found.optimum_value:.2%})" if found.optimum_value else ""
    return (
        f"The next plan, {difference(first.stages, found.optimum.stages)}, costs "
        f"{amount(first.regret, objective)}{share} more."
    )


def _hinges(found: Explanation) -> str:
    known = [each for each in found.slower if each.factor is not None]
    known = [each for each in known if each.kind in ("stage", "hop") or found.busy_s]
    if not known:
        return ""
    least = min(known, key=lambda each: each.factor or 0.0)
    return (
        f"The choice hangs most on {least.kind} {least.what}: it may be {(least.factor or 1) - 1:.1%} slower before "
        f"{'another plan is better' if not least.until.startswith('it breaks') else least.until}."
    )


def _limits(found: Explanation) -> str:
    objective, words = found.plan.proof.objective, []
    for each in found.limits:
        if each.limit in ("bandwidth", "speed") or not each.binds:
            continue
        name = KINDS[each.limit].option if each.limit in KINDS else each.item
        item = f" of {each.item}" if each.limit in KINDS and each.item else ""
        if each.next_step is not None and each.allowed is not None and each.next_step.allowed is not None:
            change = quantity(each.limit, abs(each.next_step.allowed - each.allowed))
            gain = amount(found.optimum_value - each.next_step.value, objective)
            words.append(f"{name}{item} binds: {change} {_looser(each.limit)} buys {gain}.")
        elif each.steps:
            gain = amount(found.optimum_value - each.steps[-1].value, objective)
            words.append(f"{name}{item} costs {gain}.")
    return " ".join(words)


def _looser(limit: str) -> str:
    return "more" if KINDS[limit].at_most else "less"


def _noise(found: Explanation) -> str:
    unsure = [each for each in found.runners_up if each.within_noise and not each.equal]
    if unsure:
        return f"{_count(unsure)} within the noise of the measurement: measuring longer may turn the order round."
    return ""


def _count(rivals: list[Rival]) -> str:
    return "The next plan is" if len(rivals) == 1 else f"The next {len(rivals)} plans are"


def drift(plan: Plan, cost: Cost) -> list[str]:
    """A note where these tables price the plan otherwise than it says."""
    pairs = zip(cost.values, plan.cost.values, strict=True)
    if all(math.isclose(now, then, rel_tol=1e-6, abs_tol=1e-12) for now, then in pairs):
        return []
    return [
        f"these tables make the plan {cost.latency_s * 1e3:.4g} ms and {cost.energy_j * 1e3:.4g} mJ, it was made for "
        f"{plan.cost.latency_s * 1e3:.4g} ms and {plan.cost.energy_j * 1e3:.4g} mJ: they are other measurements"
    ]
