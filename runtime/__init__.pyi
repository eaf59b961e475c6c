from .answering import Answer
from .deployed import Deployed, deploy
from .deployment import DeployRequest, record
from .pipeline import Pipeline
from .reports.report import write_report

__all__ = ["Answer", "DeployRequest", "Deployed", "Pipeline", "deploy", "record", "write_report"]
