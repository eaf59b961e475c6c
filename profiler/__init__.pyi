from . import backends
from .cut import CutModel, cut_model
from .energy.meter import Meter, Reading, open_meter
from .energy.window import EnergyMeasurement, idle_power, measure_energy
from .inputs import Sample, model_samples
from .model import LoadedModel, load_model
from .placement import Placement, placement
from .request import Key, ProfileRequest, ProfileSummary, Step
from .runner import Artifact, Backend, Runner, Setting
from .samples import SampleStore, write_samples
from .session import Session, profile
from .timing import Protocol

__all__ = [
    "Artifact",
    "Backend",
    "CutModel",
    "EnergyMeasurement",
    "Key",
    "LoadedModel",
    "Meter",
    "Placement",
    "ProfileRequest",
    "ProfileSummary",
    "Protocol",
    "Reading",
    "Runner",
    "Sample",
    "SampleStore",
    "Session",
    "Setting",
    "Step",
    "backends",
    "cut_model",
    "idle_power",
    "load_model",
    "measure_energy",
    "model_samples",
    "open_meter",
    "placement",
    "profile",
    "write_samples",
]
