"""How bundles of reduced precision were made: enough to make the same ones again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from planner.documents import document

Precision = Literal["fp32", "fp16", "bf16", "int8", "mixed"]
Calibrator = Literal["max", "entropy", "percentile", "mse"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
CALIBRATORS: tuple[str, ...] = get_args(Calibrator)


@document()
class Policy:
    """Which precision each operation of a bundle takes (precision ``mixed``).

    ``rules`` maps a layer's name (``by`` = "name"; it covers every layer below it, the longest match
    wins) or an ONNX operator type (``by`` = "type") to a precision; ``default`` takes the rest.
    """

    by: Literal["name", "type"]
    default: Literal["fp32", "fp16", "int8"]
    rules: dict[str, Literal["fp32", "fp16", "int8"]]


@dataclass(frozen=True)
class Calibration:
    """What was asked for: how to find the ranges of int8, and the policy that mixed follows."""

    calibrator: Calibrator = "percentile"
    percentile: float = 99.99
    policy: Policy | None = None


@document()
class Recipe:
    """What int8 and mixed precision need beside the network.

    ``ranges``: least and largest value that the calibrator keeps of each tensor (named as in the ONNX
    export), in fp32 units, found once for the whole network on the stored feature maps. ``reduce_range``: weights use
    7 of their 8 bits, for a processor whose 8-bit products saturate.
    """

    calibrator: Calibrator
    percentile: float
    ranges: dict[str, tuple[float, float]]
    reduce_range: bool = False
    policy: Policy | None = None

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile must be above 50 and at most 100, found {self.percentile}")
        for name, (low, high) in self.ranges.items():
            if not low <= high:
                raise ValueError(f"range of {name!r}: {low} is above {high}")
