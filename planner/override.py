"""A plan made by hand, priced like any other, and each limit that it keeps or breaks."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from planner.chain import Bundle, Chain
from planner.cost import CostModel, Way, noise_of
from planner.errors import InputError, MismatchError, PlanningError, SolverError, UnknownNameError
from planner.fleet import Fleet
from planner.limits import Criterion, Limits
from planner.measured import profile_command
from planner.pipeline import Parts
from planner.placement import without
from planner.plan import Baseline, Cost, Hop, Plan, Variant, check_path
from planner.problem import Problem
from planner.rules import Rule, rules, taken
from planner.search import search
from planner.throughput import least_period_plan

_PIECE = re.compile(r"([^:\s]+):(?:\[(\d+),(\d+)\)|(\d+)(?:-(\d+))?)(?:@(\S+))?")


@dataclass(frozen=True)
class Piece:
    """A stage as a person writes it: ``variant`` as in ``onnxruntime-int8``, empty for any."""

    device: str
    bundle: Bundle
    variant: str = ""


@dataclass(frozen=True)
class Kept:
    """A limit and what a plan takes of it, in SI units (see ``planner.rules.taken``)."""

    rule: Rule
    taken: float
    kept: bool

    @property
    def shown(self) -> float:
        """What the plan takes, in the option's unit."""
        if self.rule.field == "min_sqnr_db":
            return Cost(0.0, 0.0, self.taken).sqnr_db
        return self.taken * float(self.rule.kind.per_si)

    @property
    def excess(self) -> float:
        """By how much a limit with a value is broken, in the option's unit."""
        return 0.0 if self.kept else abs(self.shown - self.rule.asked * float(self.rule.kind.per_si))

    @property
    def used(self) -> float:
        """The share that the plan takes of it; 0 or infinite for one without a value."""
        if not self.rule.valued or not self.taken:
            return 0.0 if self.kept else math.inf
        if self.rule.field == "private_layers":
            return self.rule.asked / self.taken
        most = noise_of(self.rule.asked) if self.rule.field == "min_sqnr_db" else self.rule.asked
        return self.taken / most if most > 0 else math.inf

    @property
    def binding(self) -> bool:
        """Whether the plan takes all of it."""
        return self.kept and self.used > 1 - 1e-6


def parse_pieces(text: str) -> tuple[Piece, ...]:
    """``edge:0-3 server:4-7@onnxruntime-int8``: layers 0 to 3 and 4 to 7; [0,4) is another way to write 0-3.

    Raises ``InputError``.
    """
    pieces = []
    for part in text.split():
        found = _PIECE.fullmatch(part)
        if not found:
            raise InputError(
                f"{part!r} is no stage", "write DEVICE:FIRST-LAST[@VARIANT], such as edge:0-3@torch-fp32"
            )
        device, start, stop, first, last, variant = found.groups()
        low, high = (int(start), int(stop)) if start else (int(first), int(last or first) + 1)
        if low >= high:
            raise InputError(f"{part!r} has no layer", "layers count from 0, the smaller first")
        pieces.append(Piece(device, Bundle(low, high), variant or ""))
    if not pieces:
        raise InputError("the plan has no stage", "write DEVICE:FIRST-LAST ..., such as edge:0-3 server:4-7")
    return tuple(pieces)


def load_override(text: str) -> Plan | tuple[Piece, ...]:
    """A plan's file, or stages as ``parse_pieces`` reads them."""
    if text.endswith(".json") or Path(text).is_file():
        return Plan.load(Path(text))
    return parse_pieces(text)


def priced_override(
    model: CostModel, limits: Limits, weights: Mapping[Criterion, float], given: Plan | Sequence[Piece]
) -> Baseline:
    """A hand-made plan at the model's prices; the model's fleet holds the links that limits exclude, too.

    A plan is taken as it is. Where pieces leave variants, codecs and routes open, it is the best by ``weights``
    (without any, the one of least period) within the limits, or where they cannot be kept, the best. Raises
    ``InputError`` for gaps, overlaps, bundles that were not measured, and codecs or links that are not there;
    ``MismatchError``; ``PlanningError`` without a route.
    """
    if isinstance(given, Plan):
        return _as_planned(model, given)
    _check_layers(model.chain, given)
    variants = [_variants(model, piece) for piece in given]
    wanted = np.zeros(model.latency_s.shape, dtype=bool)
    for piece, ways in zip(given, variants, strict=True):
        wanted[ways, piece.bundle.start, piece.bundle.stop] = True
    asked = replace(model, latency_s=np.where(wanted, model.latency_s, np.inf))
    # With a limit on their layers, bundles of one variant may follow each other.
    loosest = Limits(max_bundle_layers=len(model.chain))
    for tried in (replace(limits, max_bundle_layers=limits.max_bundle_layers or len(model.chain)), loosest):
        try:
            stages, hops = _best(replace(asked, fleet=without(model.fleet, tried)), tried, weights)
        except SolverError:
            raise
        except PlanningError:
            continue
        return Baseline("by hand", stages, hops, model.price(stages, hops))
    raise PlanningError(_no_route(model, given), "add the [[link]] to the fleet, or choose other devices")


def limits_kept(fleet: Fleet, limits: Limits, entry: Plan | Baseline) -> tuple[Kept, ...]:
    """What a plan takes of each limit in force."""
    found = []
    for rule in rules(fleet, limits):
        amount = taken(rule, fleet, limits, entry)
        found.append(Kept(rule, amount, rule.keeps(amount)))
    return tuple(found)


def _best(model: CostModel, limits: Limits, weights: Mapping[Criterion, float]) -> Parts:
    """Raises as `search`."""
    if not weights:
        return least_period_plan(model, limits, several=True).parts
    problem = Problem.of(model, limits)
    return problem.graph.decode(search(problem, dict(weights)).arcs)


def _check_layers(chain: Chain, pieces: Sequence[Piece]) -> None:
    """Refuse gaps, overlaps and layers that are not there."""
    at, remedy = 0, f"give every layer from 0 to {len(chain) - 1} once, in order"
    for piece in pieces:
        if piece.bundle.stop > len(chain):
            raise InputError(f"{piece.device}:{piece.bundle}: the chain has {len(chain)} layers", remedy)
        if piece.bundle.start > at:
            raise InputError(f"gap: no stage runs {_layers(at, piece.bundle.start)}", remedy)
        if piece.bundle.start < at:
            twice = min(at, piece.bundle.stop)
            raise InputError(f"overlap: two stages run {_layers(piece.bundle.start, twice)}", remedy)
        at = piece.bundle.stop
    if at < len(chain):
        raise InputError(f"gap: no stage runs {_layers(at, len(chain))}", remedy)


def _layers(start: int, stop: int) -> str:
    return f"layer {start}" if stop == start + 1 else f"layers {start} to {stop - 1}"


def _label(variant: Variant) -> str:
    """A variant in one word: ``onnxruntime-int8-1500MHz-fused``."""
    return str(variant).replace(" MHz", "MHz").replace(" ", "-")


def _variants(model: CostModel, piece: Piece) -> list[int]:
    """The ways that may run a piece."""
    model.fleet.device(piece.device)
    mine = [place for place, way in enumerate(model.ways) if way.device == piece.device]
    named = [place for place in mine if _means(piece.variant, model.ways[place].variant)]
    if mine and not named:
        known = [_label(model.ways[place].variant) for place in mine]
        raise UnknownNameError(f"variant of {piece.device}", piece.variant, known)
    cell = piece.bundle.start, piece.bundle.stop
    can = [place for place in named if np.isfinite(model.latency_s[place, cell[0], cell[1]])]
    if not can:
        raise _unmeasured(model, piece.device, piece.bundle, piece.variant)
    return can


def _means(text: str, variant: Variant) -> bool:
    """Whether a word names a variant: its label, or its beginning up to a hyphen."""
    return not text or f"{_label(variant)}-".lower().startswith(f"{text}-".lower())


def _unmeasured(model: CostModel, device: str, bundle: Bundle, variant: str) -> InputError:
    how = f" in {variant}" if variant else ""
    return InputError(
        f"{bundle} was not measured on {device}{how}",
        f"`{profile_command(model.chain, device)}` measures it, or cut elsewhere",
    )


def _no_route(model: CostModel, pieces: Sequence[Piece]) -> str:
    """Where a hand-made plan cannot get from one device to the next."""
    devices = [model.fleet.source, *(piece.device for piece in pieces), model.fleet.sink]
    boundaries = [piece.bundle.start for piece in pieces] + [len(model.chain)]
    for boundary, (one, other) in zip(boundaries, itertools.pairwise(devices), strict=True):
        if one != other and other not in {hop.route[-1] for hop in model.hops(boundary, one)}:
            return f"no route leads from {one} to {other}, which boundary {boundary} needs"
    return "the stages do not join"


def _as_planned(model: CostModel, plan: Plan) -> Baseline:
    """A plan's own stages and hops at the model's prices."""
    if plan.chain.digest != model.chain.digest:
        raise MismatchError(
            f"the plan is for chain {plan.chain.digest[:12]}, the table for {model.chain.digest[:12]}",
            "give a plan of the model, weights and granularity that were profiled",
        )
    ways = {way: place for place, way in enumerate(model.ways)}
    for stage in plan.stages:
        model.fleet.device(stage.device)
        way = ways.get(Way(stage.device, stage.variant))
        if way is None or not np.isfinite(model.latency_s[way, stage.bundle.start, stage.bundle.stop]):
            raise _unmeasured(model, stage.device, stage.bundle, str(stage.variant))
    try:
        check_path(model.chain, model.fleet, plan.stages, plan.hops)
    except ValueError as error:
        raise InputError(
            f"the plan does not fit this fleet: {error}", "give the fleet it was made for"
        ) from None
    stages = tuple(model.stage(stage.device, stage.bundle, stage.variant) for stage in plan.stages)
    hops = tuple(_hop(model, hop) for hop in plan.hops)
    return Baseline("by hand", stages, hops, model.price(stages, hops))


def _hop(model: CostModel, hop: Hop) -> Hop:
    for device in (hop.route[0], hop.route[-1]) if hop.codec != "raw" else ():
        if (device, hop.boundary, hop.codec) not in model.codecs:
            raise InputError(
                f"{hop.codec} at boundary {hop.boundary} is not measured on {device}, or not among the codecs allowed",
                "pass --codecs all, or profile with it",
            )
    return model.hop(hop.boundary, hop.route, hop.codec)
