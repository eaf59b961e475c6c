"""The backends by name. Listing them imports none; adding one is one file and one line here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from planner.errors import UnknownNameError

if TYPE_CHECKING:
    from profiler.runner import Backend

# name: (module:class, precisions it can run)
_BACKENDS = {
    "torch": ("profiler.backends.eager:TorchBackend", ("fp32",)),
    "onnxruntime": ("profiler.backends.ort:OnnxRuntimeBackend", ("fp32",)),
}
NAMES = tuple(_BACKENDS)


def precisions(name: str) -> tuple[str, ...]:
    """The precisions a backend can run. Raises ``UnknownNameError``."""
    if name not in _BACKENDS:
        raise UnknownNameError("backend", name, _BACKENDS)
    return _BACKENDS[name][1]


def check(name: str, precision: str) -> None:
    """Refuse (``UnknownNameError``) a backend, or a precision it cannot run; imports no library."""
    if precision not in precisions(name):
        raise UnknownNameError(f"precision for backend {name}:", precision, precisions(name))


def find(name: str, precision: str = "fp32") -> type[Backend]:
    """The backend's class; imports its library.

    Raises ``UnknownNameError``, or ``MissingDependencyError`` with the command that installs it.
    """
    check(name, precision)
    module, _, attribute = _BACKENDS[name][0].partition(":")
    backend: type[Backend] = getattr(importlib.import_module(module), attribute)
    return backend
