from .chain import Boundary, Bundle, Chain, InputSpec, Layer, ModelSource, TensorSpec
from .codec_table import CodecRow
from .cost import CostModel
from .errors import EdgecutError
from .explain import explain
from .explanation import Explanation
from .fleet import Device, Emulation, Fleet, Link
from .fleet_file import RADIOS, Radio, format_fleet, load_fleet, parse_fleet, save_fleet
from .fleet_plan import FleetPlan, Share, Stream
from .fleet_solver import Demand, solve_many
from .front import Front, front
from .front_points import Point
from .limits import Limits, Placement
from .plan import Baseline, Cost, Hop, Outcome, Plan, Proof, Stage, Variant
from .replicas import replicate
from .run import Run, RunInfo
from .run_rows import RunRow
from .sidecar import Environment, Sidecar
from .simulate_result import Simulation
from .simulate_run import simulate
from .simulate_scenario import Arrivals, Scenario
from .solver import solve
from .table import ProfileRow, ProfileTable, save_table

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
    "Explanation",
    "Fleet",
    "FleetPlan",
    "Front",
    "Hop",
    "InputSpec",
    "Layer",
    "Limits",
    "Link",
    "ModelSource",
    "Outcome",
    "Placement",
    "Plan",
    "Point",
    "ProfileRow",
    "ProfileTable",
    "Proof",
    "Radio",
    "Run",
    "RunInfo",
    "RunRow",
    "Scenario",
    "Share",
    "Sidecar",
    "Simulation",
    "Stage",
    "Stream",
    "TensorSpec",
    "Variant",
    "explain",
    "format_fleet",
    "front",
    "load_fleet",
    "parse_fleet",
    "replicate",
    "save_fleet",
    "save_table",
    "simulate",
    "solve",
    "solve_many",
]
