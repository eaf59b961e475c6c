from planner.chain import Boundary, Bundle, Chain, Layer, ModelSource, TensorSpec
from planner.errors import EdgecutError
from planner.fleet import Device, Emulation, Fleet, Link
from planner.fleet_file import RADIOS, Radio, format_fleet, load_fleet, parse_fleet, save_fleet
from planner.plan import Baseline, Cost, Hop, Limits, Outcome, Plan, Proof, Stage, Variant
from planner.table import Environment, ProfileRow, ProfileTable, Sidecar

__all__ = [
    "RADIOS",
    "Baseline",
    "Boundary",
    "Bundle",
    "Chain",
    "Cost",
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
]
