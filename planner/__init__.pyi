from .chain import Boundary, Bundle, Chain, InputSpec, Layer, ModelSource, TensorSpec
from .codec_table import CodecRow
from .cost import CostModel
from .errors import EdgecutError
from .fleet import Device, Emulation, Fleet, Link
from .fleet_file import RADIOS, Radio, format_fleet, load_fleet, parse_fleet, save_fleet
from .plan import Baseline, Cost, Hop, Limits, Outcome, Plan, Proof, Stage, Variant
from .sidecar import Environment, Sidecar
from .solver import solve
from .table import ProfileRow, ProfileTable

__all__ = [
    "RADIOS",
    "Baseline",
    "Boundary",
    "Bundle",
    "Chain",
    "CodecRow",
    "Cost",
    "CostModel",
    "Device",
    "EdgecutError",
    "Emulation",
    "Environment",
    "Fleet",
    "Hop",
    "InputSpec",
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
