from .deployment import DeployRequest, deploy
from .pipeline import Answer, Pipeline
from .report import write_report

__all__ = ["Answer", "DeployRequest", "Pipeline", "deploy", "write_report"]
