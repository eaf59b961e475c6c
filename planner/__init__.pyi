from .chain import Boundary, Bundle, Chain, InputSpec, Layer, ModelSource, TensorSpec
from .codec_table import CodecRow
from .cost import CostModel
from .errors import EdgecutError
from .fleet import Device, Emulation, Fleet, Link
from .fleet_file import RADIOS, Radio, format_fleet, load_fleet, parse_fleet, save_fleet
from .fleet_plan import FleetPlan, Share, Stream
from .fleet_solver import Demand, solve_many
from .limits import Limits, Placement
from .plan import Baseline, Cost, Hop, Outcome, Plan, Proof, Stage, Variant
from .replicas import replicate
from .sidecar import Environment, Sidecar
from .simulate_result import Simulation
from .simulate_run import simulate
from .simulate_scenario import Arrivals, Scenario
from .solver import solve
from .table import ProfileRow, ProfileTable

__all__ = [
    "RADIOS",
    "Arrivals",
    "Baseline",
    "Boundary",
    "Bundle",
    "Chain",
    "CodecRow",
    "Cost",
    "CostModel",
    "Demand",
    "Device",
    "EdgecutError",
    "Emulation",
    "Environment",
    "Fleet",
    "FleetPlan",
    "Hop",
    "InputSpec",
    "Layer",
    "Limits",
    "Link",
    "ModelSource",
    "Outcome",
    "Placement",
    "Plan",
    "ProfileRow",
    "ProfileTable",
    "Proof",
    "Radio",
    "Scenario",
    "Share",
    "Sidecar",
    "Simulation",
    "Stage",
    "Stream",
    "TensorSpec",
    "Variant",
    "format_fleet",
    "load_fleet",
    "parse_fleet",
    "replicate",
    "save_fleet",
    "simulate",
    "solve",
    "solve_many",
]
