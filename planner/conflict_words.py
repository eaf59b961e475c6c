"""What is said of limits in conflict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from planner.rules import Rule


def others(kept: Iterable[Rule], rule: Rule) -> list[Rule]:
    return [each for each in kept if each != rule]


def impossible(rule: Rule, least: float, within_rest: float | None) -> str:
    """A limit that no plan keeps: the least there is, and the least within the other limits where that differs."""
    most, end = ("most", "least") if rule.kind.at_most else ("least", "most")
    text = (
        f"no plan {rule.kind.asks} at {most} {rule}; the {end} possible is {rule.amount(rule.value(least))}"
    )
    return text + _rest(rule, least, within_rest)


def apart(rule: Rule, least: float, core: Sequence[Rule], within_rest: float | None) -> str:
    """How far a plan that keeps the others of a conflict comes."""
    kept = others(core, rule)
    budgets = " and ".join(str(each) for each in kept if each.valued)
    flags = " and ".join(str(each) for each in kept if not each.valued)
    where = " and ".join(
        part for part in (budgets and f"within {budgets}", flags and f"with {flags}") if part
    )
    text = f"{where} the {rule.kind.best}{rule.where} is {rule.amount(rule.value(least))}"
    return text + _rest(rule, least, within_rest)


def _rest(rule: Rule, least: float, within_rest: float | None) -> str:
    """The nearest value within all other limits, where it is another."""
    if within_rest is None or rule.value(within_rest) == rule.value(least):
        return ""
    return f", with the other limits {rule.amount(rule.value(within_rest))}"
