"""What is said of limits in conflict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from planner.rules import Rule


class Least(NamedTuple):
    """What a plan takes of a limit, as `rules.taken` gives it; ``bound``: no plan takes less. ``proven``: that plan
    takes the least there is."""

    taken: float
    bound: float
    proven: bool


def others(kept: Iterable[Rule], rule: Rule) -> list[Rule]:
    return [each for each in kept if each != rule]


def impossible(rule: Rule, least: Least, within_rest: Least | None) -> str:
    """A limit that no plan keeps: the least there is, and the least within the other limits where that differs."""
    most, end = ("most", "least") if rule.kind.at_most else ("least", "most")
    how = "possible" if least.proven else "found in time"
    text = f"no plan {rule.kind.asks} at {most} {rule}; the {end} {how} is {_amount(rule, least)}"
    return text + _below(rule, least) + _rest(rule, least, within_rest)


def apart(rule: Rule, least: Least, core: Sequence[Rule], within_rest: Least | None) -> str:
    """How far a plan that keeps the others of a conflict comes."""
    kept = others(core, rule)
    budgets = " and ".join(str(each) for each in kept if each.valued)
    flags = " and ".join(str(each) for each in kept if not each.valued)
    where = " and ".join(
        part for part in (budgets and f"within {budgets}", flags and f"with {flags}") if part
    )
    found = "" if least.proven else " found in time"
    text = f"{where} the {rule.kind.best}{rule.where}{found} is {_amount(rule, least)}"
    return text + _below(rule, least) + _rest(rule, least, within_rest)


def _amount(rule: Rule, least: Least) -> str:
    return rule.amount(rule.value(least.taken))


def _below(rule: Rule, least: Least) -> str:
    """The bound, where the value is not proven to be the nearest."""
    if least.proven or least.bound <= 0 or rule.kind.counts or not rule.kind.at_most:
        return ""
    return f", and none is below {rule.amount(rule.value(least.bound, up=False))}"


def _rest(rule: Rule, least: Least, within_rest: Least | None) -> str:
    """The nearest value within all other limits, where it is another, or only this one is proven."""
    if within_rest is None:
        return ""
    same = rule.value(within_rest.taken) == rule.value(least.taken)
    if same and (least.proven or not within_rest.proven):
        return ""
    found = "" if within_rest.proven else " is the best found in time"
    return f", with the other limits {_amount(rule, within_rest)}{found}" + _below(rule, within_rest)
