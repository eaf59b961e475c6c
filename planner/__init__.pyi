from .chain import Boundary, Bundle, Chain, Layer, ModelSource, TensorSpec
from .cost import CostModel
from .errors import EdgecutError
from .fleet import Device, Emulation, Fleet, Link
from .fleet_file import RADIOS, Radio, format_fleet, load_fleet, parse_fleet, save_fleet
from .plan import Baseline, Cost, Hop, Limits, Outcome, Plan, Proof, Stage, Variant
from .solver import solve
from .table import Environment, ProfileRow, ProfileTable, Sidecar

__all__ = [
    "RADIOS",
    "Baseline",
    "Boundary",
    "Bundle",
    "Chain",
    "Cost",
    "CostModel",
    "Device",
    "EdgecutError",
    "Emulation",
    "Environment",
    "Fleet",
    "Hop",
    "Layer",
    "Limits",
    "Link",
    "ModelSource",
    "Outcome",
    "Plan",
    "ProfileRow",
    "ProfileTable",
    "Proof",
    "Radio",
    "Sidecar",
    "Stage",
    "TensorSpec",
    "Variant",
    "format_fleet",
    "load_fleet",
    "parse_fleet",
    "save_fleet",
    "solve",
]
