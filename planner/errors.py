"""Every error edgecut raises on purpose.

::

    EdgecutError                      exit code 1
    ├── InputError                    exit code 2: what was asked for cannot be used as given
    │   ├── UnknownNameError          no such model, device, backend, ...: names the nearest
    │   ├── DocumentError             a fleet, table, plan or run file: file, place, remedy
    │   ├── ModelError                a network that cannot be loaded, captured or cut
    │   ├── ImageError                input images that cannot be read
    │   └── MismatchError             two documents that do not belong together
    ├── MissingDependencyError        names the command that installs it
    ├── StorageError                  disk full, no permission; what was measured is safe
    ├── BundleError                   a bundle that a backend cannot prepare or run
    ├── EnergyError                   a meter that cannot be read, a window that its samples do not cover
    ├── PlanningError
    │   ├── InfeasibleError           which limit, and the nearest value that would do
    │   │   └── OverloadError         rates that devices or links cannot serve, and those that they can
    │   └── SolverError               the solver crashed, gave no answer, or a wrong one
    └── DeploymentError
        ├── BusyError                 as many requests in flight, or waiting, as may be
        ├── TransportError            a peer is gone, a frame is malformed
        ├── WorkerError               a worker process failed or did not answer in time
        │   ├── GoneError             the agent that was asked is gone or silent
        │   └── StoppedError          the order was cancelled, or whoever gave it is gone
        └── VerificationError         the deployed outputs differ from the whole model's

Third-party exceptions are turned into one of these where they arise.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgecutError(Exception):
    """Base of the tree; ``message`` says what was asked and found, ``remedy`` what to do."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  try: {self.remedy}" if self.remedy else self.message


class InputError(EdgecutError):
    exit_code = 2


class UnknownNameError(InputError):
    """A name that is not among those known, with the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], remedy: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        if near:
            remedy = remedy or "did you mean " + " or ".join(near) + "?"
        elif names:
            shown = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
            remedy = remedy or f"known: {shown}"
        super().__init__(f"unknown {kind} {name!r}", remedy)
        self.name = name
        self.near = tuple(near)


class DocumentError(InputError):
    """A document that breaks its schema: which file, where in it, and how to mend it."""

    def __init__(self, file: object, place: str, problem: str, remedy: str = "") -> None:
        where = f"{file}: {place}" if place else str(file)
        super().__init__(f"{where}: {problem}", remedy)
        self.file = file
        self.place = place


class ModelError(InputError):
    pass


class ImageError(InputError):
    pass


class MismatchError(InputError):
    pass


class MissingDependencyError(EdgecutError):
    """A library that this command needs and this machine lacks."""

    def __init__(self, library: str, purpose: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs {library}, which is not installed here", f"pip install 'edgecut[{extra}]'"
        )


class StorageError(EdgecutError):
    pass


class BundleError(EdgecutError):
    pass


class EnergyError(EdgecutError):
    pass


class PlanningError(EdgecutError):
    pass


class InfeasibleError(PlanningError):
    pass


class OverloadError(InfeasibleError):
    pass


class SolverError(PlanningError):
    pass


class DeploymentError(EdgecutError):
    pass


class BusyError(DeploymentError):
    pass


class TransportError(DeploymentError):
    pass


class WorkerError(DeploymentError):
    pass


class GoneError(WorkerError):
    pass


class StoppedError(WorkerError):
    pass


class VerificationError(DeploymentError):
    pass
