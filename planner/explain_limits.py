"""What each limit costs: the optimum again with that limit loosened, by the least that helps and by more.

The optimum as a function of a limit is a staircase. Its next step is found from the far end: the plan without the
limit uses some amount; just below that amount the search is repeated, and in the middle, until no better plan than
the optimum is left below. The Lagrangian multiplier is the slope of a line under the staircase.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from planner.cost import noise_of
from planner.explanation import ShadowPrice, Step
from planner.plan import Baseline, Cost
from planner.question import Question
from planner.rules import Rule, only, rules, taken

# What limits are loosened by, relative, besides the next step, and what links are made faster by.
LOOSENED = (0.01, 0.1, 0.5)
FASTER = (0.1, 1.0)
MBIT_BYTES_PER_S = 125_000.0
MOST_LINKS = 12

# Relative: steps nearer to each other count as one. Closer to a path's own sum, solvers err by their tolerances.
_JUST_BELOW = 1e-6
_MOST_SEARCHES = 60


def shadow_prices(question: Question) -> tuple[ShadowPrice, ...]:
    """Of every limit, binding or not, then of every link's bandwidth."""
    limits = [_Limit(question, rule).price() for rule in rules(question.fleet, question.limits)]
    return (*limits, *_bandwidths(question))


@dataclass(frozen=True)
class _Answer:
    """The optimum where a limit is some amount, and what it takes of the limit."""

    value: float
    used: float
    path: str
    proven: bool


class _Limit:
    """One limit of a question. Amounts are on a scale on which more is looser: what a plan takes, noise for the
    signal to noise, and below 0 where a limit asks for at least so much."""

    def __init__(self, question: Question, rule: Rule) -> None:
        self.question, self.rule = question, rule
        self.others = [each for each in rules(question.fleet, question.limits) if each != rule]
        self.whole = rule.valued and rule.kind.counts
        self.least = rule.field == "private_layers"

    def price(self) -> ShadowPrice:
        rule, question = self.rule, self.question
        without, steps, step = self.answer(None), [], None
        binds = question.better(without.value)
        proven = question.best.proven and without.proven
        if binds and rule.valued:
            nearest, sure = self.nearest(without)
            step, proven = Step(self.shown(nearest.used), nearest.value, nearest.path), proven and sure
            for amount in self.loosened(nearest.used, without.used):
                answer = self.answer(amount)
                steps.append(Step(self.shown(amount), answer.value, answer.path))
                proven = proven and answer.proven
        if binds:
            steps.append(Step(None, without.value, without.path))
        return ShadowPrice(
            limit=rule.field,
            item=rule.item if rule.valued else rule.shown,
            allowed=rule.asked if rule.valued else None,
            used=self.shown(self.used(question.optimum)) if rule.valued else None,
            binds=binds,
            next_step=step,
            steps=tuple(steps),
            slope=self.slope() if binds else 0.0,
            proven=proven,
        )

    def answer(self, amount: float | None) -> _Answer:
        """The optimum with this limit at an amount, None for without it."""
        question = self.question
        kept = self.others if amount is None else [*self.others, replace(self.rule, asked=self.shown(amount))]
        fleet, limits = only(question.fleet, question.limits, kept, len(question.model.chain))
        found = question.under(limits, fleet)
        if found is None:  # only where a search gave up: what is looser than a limit that is kept can be kept
            return _Answer(question.best.value, self.used(question.optimum), "", False)
        stages, hops = found[0].graph.decode(found[1].arcs)
        plan = Baseline("", stages, hops, found[0].graph.model.price(stages, hops))
        path = question.differs(found[0].graph, found[1].arcs)
        return _Answer(found[1].value, self.used(plan), path, found[1].proven)

    def used(self, plan: Baseline) -> float:
        amount = taken(self.rule, self.question.fleet, self.question.limits, plan)
        return -amount if self.least else amount

    def shown(self, amount: float) -> float:
        """An amount in the unit of the limit."""
        if self.rule.field == "min_sqnr_db":
            return min(Cost(0.0, 0.0, amount).sqnr_db, 3000.0)  # where nothing is lost
        return -amount if self.least else amount

    @property
    def allowed(self) -> float:
        if self.rule.field == "min_sqnr_db":
            return noise_of(self.rule.asked)
        return -self.rule.asked if self.least else self.rule.asked

    def loosened(self, least: float, most: float) -> Iterable[float]:
        for more in LOOSENED:
            amount = self.allowed + abs(self.allowed) * more
            amount = math.ceil(amount) if self.whole else amount
            if least < amount < most:
                yield amount

    def nearest(self, without: _Answer) -> tuple[_Answer, bool]:
        """The plan that takes least of this limit among all that are better than the optimum, and whether that is
        proven."""
        low, best, proven = self.allowed, without, without.proven
        for turn in range(_MOST_SEARCHES):
            # Just below what the best so far takes; in the middle every other time, to get down faster.
            amount = best.used - 1 if self.whole else best.used - _JUST_BELOW * abs(best.used)
            middle = (low + best.used) / 2
            middle = math.floor(middle) if self.whole else middle
            halves = turn % 2 == 0 and low < middle < amount
            amount = middle if halves else amount
            if amount <= low:
                return best, proven
            answer = self.answer(amount)
            proven = proven and answer.proven
            if self.question.better(answer.value):
                best = answer
            elif halves:
                low = amount
            else:
                return best, proven
        return best, False

    def slope(self) -> float | None:
        """Objective per unit of the limit; None where no resource stands for it alone."""
        if self.rule.field in ("max_share", "max_bundle_layers") or not self.rule.valued or self.least:
            return None
        resources = zip(self.question.problem.resources, self.question.prices.tolist(), strict=True)
        mine = [price for each, price in resources
                if each.limit == self.rule.field and self.rule.item in ("", each.item)]  # fmt: skip
        total = math.fsum(mine)
        return total * self.allowed * math.log(10) / 10 if self.rule.field == "min_sqnr_db" else total


def _bandwidths(question: Question) -> Iterable[ShadowPrice]:
    """Of the links: the optimum with one Mbit/s more, and with more still. The slope is that of the plan as it is,
    per byte/s. Links that the plan does not use are only doubled, and left out of large fleets."""
    used = {pair for hop in question.optimum.hops for pair in itertools.pairwise(hop.route)}
    for place, link in enumerate(question.fleet.links):
        excluded = "->".join(link.pair) in question.limits.without_links
        if excluded or (link.pair not in used and len(question.fleet.links) > MOST_LINKS):
            continue
        now = link.bandwidth_bytes_per_s
        tried = (
            [now + MBIT_BYTES_PER_S, *(now * (1 + more) for more in FASTER)]
            if link.pair in used
            else [2 * now]
        )
        steps, proven = [], True
        for faster in tried:
            links = list(question.fleet.links)
            links[place] = replace(link, bandwidth_bytes_per_s=faster)
            found = question.under(question.limits, replace(question.fleet, links=tuple(links)))
            if found is None:
                continue
            proven = proven and found[1].proven
            path = question.differs(found[0].graph, found[1].arcs)
            steps.append(Step(faster, found[1].value, path))
        hops = [hop for hop in question.optimum.hops if link.pair in itertools.pairwise(hop.route)]
        moved = sum(hop.wire_bytes for hop in hops)
        # What a transfer costs beside its latency and price falls with the bandwidth.
        some, none = question.model.link(link, moved), question.model.link(link, 0)
        passing = math.fsum(
            factor * (some.of(name) - none.of(name))
            for name, factor in question.weights.items()
            if name in ("latency", "energy")
        )
        yield ShadowPrice(
            limit="bandwidth",
            item="->".join(link.pair),
            allowed=now,
            used=None,
            binds=any(question.better(step.value) for step in steps),
            next_step=None,
            steps=tuple(steps),
            slope=passing / now,
            proven=proven and question.best.proven,
        )
