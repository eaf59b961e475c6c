from .cut import CutModel, cut_model
from .model import LoadedModel, load_model
from .placement import Placement, placement
from .runner import Backend, Runner
from .samples import SampleStore, write_samples
from .session import ProfileRequest, ProfileSummary, profile
from .timing import Measurement, Protocol, measure

__all__ = [
    "Backend",
    "CutModel",
    "LoadedModel",
    "Measurement",
    "Placement",
    "ProfileRequest",
    "ProfileSummary",
    "Protocol",
    "Runner",
    "SampleStore",
    "cut_model",
    "load_model",
    "measure",
    "placement",
    "profile",
    "write_samples",
]
