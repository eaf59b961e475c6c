"""Options that say in which ways bundles are run: backends, precisions, fusion, calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from planner.errors import UnknownNameError
from planner.plan import Variant
from planner.recipe import CALIBRATORS, PRECISIONS, Calibration
from runtime.commands.options import FILE, F, gathered, parse_names


def variant_options(command: F) -> F:
    """The command receives ``variants`` (each backend in each precision) and ``calibration``."""

    def collect(
        backend_names: tuple[str, ...],
        precision_names: tuple[str, ...],
        fused: bool,
        calibrator: Any,
        percentile: float,
        policy: Path | None,
        **rest: Any,
    ) -> Any:
        from profiler import backends

        # A precision that one of several backends lacks is left out for it, by name.
        for name in backend_names:
            backends.entry(name)
        for precision in precision_names:
            if precision not in PRECISIONS:
                raise UnknownNameError("precision", precision, PRECISIONS)
        if (policy is not None) != ("mixed" in precision_names):
            raise click.BadParameter("precision mixed follows a --policy FILE, and nothing else does")
        variants = tuple(
            Variant(name, precision, fused=fused) for name in backend_names for precision in precision_names
        )
        rules = None
        if policy:
            from planner.policy_file import load_policy

            rules = load_policy(policy)
        calibration = Calibration(calibrator, percentile, rules)
        return command(variants=variants, calibration=calibration, **rest)

    return gathered(
        command,
        collect,
        click.option(
            "--backend", "--backends", "backend_names", callback=parse_names, default="torch",
            show_default=True, help="Backends, joined by commas; `edgecut doctor` lists them.",
        ),
        click.option(
            "--precision", "--precisions", "precision_names", callback=parse_names, default="fp32",
            show_default=True, help="fp32, fp16, bf16, int8, mixed, joined by commas.",
        ),
        click.option(
            "--fuse/--no-fuse", "fused", default=False, show_default=True,
            help="Fold batch normalisation into convolutions first.",
        ),
        click.option(
            "--calibrator", type=click.Choice(CALIBRATORS), default="percentile", show_default=True,
            help="How int8 finds the range of each tensor.",
        ),
        click.option(
            "--percentile", type=click.FloatRange(50, 100, min_open=True), default=99.99,
            show_default=True, help="Share of values that calibrator percentile keeps.",
        ),
        click.option(
            "--policy", type=FILE, help="TOML file that gives precision mixed: by layer or operator.",
        ),
    )  # fmt: skip
