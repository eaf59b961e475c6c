from .deployed import Deployed, deploy
from .pipeline import Answer, Pipeline
from .reports.report import write_report

__all__ = ["Answer", "Deployed", "Pipeline", "deploy", "write_report"]
