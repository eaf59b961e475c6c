from .codec_bench import measure_codecs
from .cut import CutModel, cut_model
from .model import LoadedModel, load_model
from .placement import Placement, placement
from .request import ProfileRequest, ProfileSummary
from .runner import Backend, Runner
from .samples import SampleStore, write_samples
from .session import Session, profile
from .timing import Measurement, Protocol

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
    "Session",
    "cut_model",
    "load_model",
    "measure_codecs",
    "placement",
    "profile",
    "write_samples",
]
