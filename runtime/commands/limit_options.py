"""What a plan must keep and what it is least in: options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from runtime.commands.options import F, gathered, time_limit_option

if TYPE_CHECKING:
    from planner.limits import Criterion, Limits, Objective


class Amount(click.ParamType):  # type: ignore[type-arg]
    """A number of at least ``least`` (above it where ``least`` is 0 and ``zero`` is not allowed)."""

    name = "number"

    def __init__(self, scale: str = "1", *, zero: bool = False, most: float | None = None) -> None:
        self.scale, self.zero, self.most = Decimal(scale), zero, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """In SI units, without the error of a binary fraction."""
        if not isinstance(value, str):
            return float(value)
        try:
            number = Decimal(value)
        except InvalidOperation:
            self.fail(f"{value!r} is no number", param, ctx)
        if not number.is_finite() or number < 0 or (number == 0 and not self.zero):
            self.fail(f"{value} must be {'at least' if self.zero else 'above'} 0 and finite", param, ctx)
        if self.most is not None and number > self.most:
            self.fail(f"{value} must be at most {self.most:g}", param, ctx)
        return float(number * self.scale)


class PerDevice(click.ParamType):  # type: ignore[type-arg]
    """DEVICE=NUMBER."""

    name = "device=number"

    def __init__(self, amount: Amount) -> None:
        self.amount = amount

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        device, equals, number = value.partition("=")
        if not equals or not device:
            self.fail(f"{value!r}: write DEVICE=NUMBER", param, ctx)
        return device, self.amount.convert(number, param, ctx)


_MS, _MB, _MHZ = Amount("0.001"), Amount("1000000"), Amount("1000000")
_OPTIONS = [
    click.option("--max-latency-ms", type=_MS, help="At most so many milliseconds per inference."),
    click.option("--max-energy-mj", type=_MS, help="At most so many millijoules per inference."),
    click.option(
        "--min-sqnr-db", type=Amount(), help="Signal to noise that fewer bits must leave, over the whole plan."
    ),
    click.option("--max-period-ms", type=_MS, help="At most so many milliseconds between two answers."),
    click.option(
        "--max-price", type=Amount(zero=True), help="At most this price per inference, in the fleet's currency."
    ),
    click.option(
        "--max-upload-mb", type=Amount("1000000", zero=True), help="At most so many megabytes leave the source."
    ),
    click.option(
        "--max-memory-mb", type=PerDevice(_MB), multiple=True, metavar="DEVICE=MB",
        help="Memory for a device's stages; before the fleet's memory_bytes. May be repeated.",
    ),
    click.option(
        "--max-share", type=PerDevice(Amount(most=1.0)), multiple=True, metavar="DEVICE=SHARE",
        help="Share of the latency that a device may be busy, such as 0.3. May be repeated.",
    ),
    click.option("--max-bundles", type=click.IntRange(min=1), help="Bundles on one device, at most."),
    click.option("--max-bundle-layers", type=click.IntRange(min=1), help="Layers of one bundle, at most."),
    click.option(
        "--ceil-rule", is_flag=True,
        help="With --max-bundle-layers M: l layers on a device are at most ceil(l / M) bundles (DIME).",
    ),
    click.option("--once", is_flag=True, help="Each device once: its stages follow each other."),
    click.option("--one-clock", is_flag=True, help="All stages of a device run at one clock."),
    click.option(
        "--clock", "clocks", type=PerDevice(_MHZ), multiple=True, metavar="DEVICE=MHZ",
        help="The clock that a device runs at. May be repeated.",
    ),
    click.option(
        "--private-layers", type=click.IntRange(min=0), default=0, help="First layers that stay on the source."
    ),
    click.option(
        "--pin", "pins", multiple=True, metavar="LAYERS=DEVICE",
        help="Where layers must run: 3=edge, 3-6=edge, or [3,7)=edge as one stage. May be repeated.",
    ),
    click.option(
        "--forbid", "forbidden", multiple=True, metavar="LAYERS=DEVICE",
        help="Where layers, or [3,7) as one stage, must not run. May be repeated.",
    ),
    click.option(
        "--without-device", "without_devices", multiple=True, metavar="DEVICE",
        help="It neither computes nor relays. May be repeated.",
    ),
    click.option(
        "--without-link", "without_links", multiple=True, metavar="A->B",
        help="Nothing travels over it. May be repeated.",
    ),
]  # fmt: skip
# By the name of the command's argument, in the order of help; and what it is where nobody asks for it.
_BY_NAME = dict(
    zip(
        (
            "max_latency_ms", "max_energy_mj", "min_sqnr_db", "max_period_ms", "max_price", "max_upload_mb",
            "max_memory_mb", "max_share", "max_bundles", "max_bundle_layers", "ceil_rule", "once", "one_clock",
            "clocks", "private_layers", "pins", "forbidden", "without_devices", "without_links",
        ),
        _OPTIONS,
        strict=True,
    )
)  # fmt: skip
_NOTHING = {
    **dict.fromkeys(_BY_NAME),
    **dict.fromkeys(("max_memory_mb", "max_share", "clocks", "pins", "forbidden"), ()),
    **dict.fromkeys(("without_devices", "without_links"), ()),
    **dict.fromkeys(("ceil_rule", "once", "one_clock"), False),
    "private_layers": 0,
}


def limit_options(command: F) -> F:
    """An option for every limit; the command receives them as one mapping ``asked``, for `limits_from`."""
    return some_limit_options(*_BY_NAME)(command)


def some_limit_options(*names: str) -> Callable[[F], F]:
    """Options for these limits only."""

    def decorate(command: F) -> F:
        def collect(**given: Any) -> Any:
            asked = {name: given.pop(name) for name in names}
            return command(asked=asked, **given)

        return gathered(command, collect, *(_BY_NAME[name] for name in names))

    return decorate


def limits_from(asked: Mapping[str, Any]) -> Limits:
    """The limits that the options ask for. Raises ``InputError`` for what makes no sense."""
    from planner.errors import InputError
    from planner.limits import Limits, Placement

    asked = {**_NOTHING, **asked}
    try:
        return Limits(
            max_latency_s=asked["max_latency_ms"],
            max_energy_j=asked["max_energy_mj"],
            min_sqnr_db=asked["min_sqnr_db"],
            max_period_s=asked["max_period_ms"],
            max_price=asked["max_price"],
            max_upload_bytes=asked["max_upload_mb"],
            max_memory_bytes=_once_each("--max-memory-mb", asked["max_memory_mb"]),
            max_share=_once_each("--max-share", asked["max_share"]),
            max_bundles=asked["max_bundles"],
            max_bundle_layers=asked["max_bundle_layers"],
            ceil_rule=asked["ceil_rule"],
            once=asked["once"],
            one_clock=asked["one_clock"],
            clocks_hz=_once_each("--clock", asked["clocks"]),
            private_layers=asked["private_layers"],
            pins=tuple(dict.fromkeys(map(Placement.parse, asked["pins"]))),
            forbidden=tuple(dict.fromkeys(map(Placement.parse, asked["forbidden"]))),
            without_devices=tuple(dict.fromkeys(asked["without_devices"])),
            without_links=tuple(dict.fromkeys(map(_link, asked["without_links"]))),
        )
    except ValueError as error:
        raise InputError(str(error), "`edgecut solve --help` lists the limits") from None


def _once_each(option: str, pairs: tuple[tuple[str, float], ...]) -> dict[str, float]:
    from planner.errors import InputError

    found: dict[str, float] = {}
    for device, value in pairs:
        if device in found:
            raise InputError(f"{option} is given twice for {device}", "give it once for each device")
        found[device] = value
    return found


def _link(text: str) -> str:
    return "->".join(part.strip() for part in text.split("->"))


class Aim(click.ParamType):  # type: ignore[type-arg]
    """latency, energy, price or throughput (the least period), or a weighted sum such as latency=1,energy=0.5."""

    name = "objective"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Objective | dict[Criterion, float]:
        from planner.limits import CRITERIA, UNITS

        value = "period" if value == "throughput" else value
        if not isinstance(value, str) or value in ("latency", "energy", "price", "period"):
            return value  # type: ignore[no-any-return]
        weights: dict[Criterion, float] = {}
        for part in value.split(","):
            name, equals, factor = part.partition("=")
            if name.strip() in ("throughput", "period"):
                self.fail(
                    f"{value!r}: throughput cannot be weighed against others; maximise it alone, and limit the others: "
                    "--max-latency-ms, --max-energy-mj, ...",
                    param,
                    ctx,
                )
            criterion = next((each for each in CRITERIA if each == name.strip()), None)
            if criterion is None or not equals or criterion in weights:
                self.fail(
                    f"{value!r}: write latency, energy, price, throughput, or weights such as latency=1,energy=0.5 "
                    f"(each of {', '.join(CRITERIA)} once)",
                    param,
                    ctx,
                )
            weights[criterion] = Amount(zero=True).convert(factor, param, ctx) * UNITS[criterion].per_si
        if not any(weights.values()):
            self.fail("every weight is 0", param, ctx)
        return weights


def objective_options(command: F) -> F:
    """What to minimise, with which statistic of the table, and by which solver in which time."""
    for decorate in reversed(
        [
            click.option(
                "--objective", type=Aim(), default="latency", show_default=True, metavar="NAME|WEIGHTS",
                help="What to minimise: latency, energy, price or throughput, or a sum weighted per ms, mJ, price, MB "
                "and unit of noise, such as latency=1,energy=0.5.",
            ),
            click.option(
                "--statistic", default="mean", show_default=True, metavar="mean|median|p95|mean+Nstd",
                help="Statistic of the measured times to plan with.",
            ),
            click.option(
                "--solver", default="cbc", show_default=True, metavar="NAME",
                help="cbc, or another that PuLP knows and that is installed: highs, gurobi, scip_cmd, ...",
            ),
            time_limit_option("the solver"),
        ]
    ):  # fmt: skip
        command = decorate(command)
    return command
