"""The orders to profile and to measure: what travels, and how an agent carries it out."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from planner.chain import Bundle, ModelSource
from planner.documents import document, from_data, to_data
from planner.errors import DocumentError, InputError, MismatchError
from planner.fleet import Emulation
from planner.plan import Variant
from planner.sidecar import LeftOut
from planner.table import ProfileRow
from profiler.cut import CutModel, cut_model
from profiler.inputs import Sample
from profiler.model import load_model
from profiler.placement import placement
from profiler.request import Key, ProfileRequest, Step
from profiler.samples import SampleEntry, SampleFile, write_samples
from profiler.session import Session, profile
from runtime.agent_files import AgentFiles, check_id
from runtime.agent_messages import Body
from runtime.orders import Progress
from runtime.profile_progress import Progressing

_TELL_S = 0.25
_SERIAL = re.compile(r"[a-z0-9]+:/dev/tty\w+")


@document()
class ProfileOrder:
    """What to measure; the agent puts its own device, places and files into ``request``.

    ``chain_digest``: the model as the workstation knows it. ``samples`` are those in ``inputs``, the
    arrays at boundary 0. ``table``: an ID that the workstation chose.
    """

    request: ProfileRequest
    emulate: Emulation | None
    chain_digest: str
    samples: tuple[SampleEntry, ...]
    inputs: tuple[SampleFile, ...]
    table: str

    def __post_init__(self) -> None:
        check_id(self.table)
        request = self.request
        if not self.samples or not self.inputs or not request.variants or min(request.batches, default=0) < 1:
            raise ValueError("a profile has samples, inputs, variants and batches of at least 1")


@document()
class MeasureKey:
    """What ``profiler.request.Key`` names."""

    bundle: Bundle
    variant: Variant
    batch: int


@document()
class MeasureOrder:
    """Some bundles of a profile: a session stays open between orders that differ in ``keys`` alone."""

    profile: ProfileOrder
    keys: tuple[MeasureKey, ...]


class ProfileHandler:
    """Carries out the orders. ``modules``: the user's own modules that may be imported to build a network."""

    def __init__(self, name: str, files: AgentFiles, modules: Collection[str]) -> None:
        self._name, self._files, self._modules = name, files, frozenset(modules)
        self._open: tuple[ProfileOrder, Session] | None = None
        self._client = ""  # for whom it is open

    def profile(self, body: Body, progress: Progress) -> Body:
        """Measure every bundle; answers with the summary."""
        order = from_data(ProfileOrder, body, f"profile order to {self._name}")
        self._release()
        return {"summary": to_data(profile(self._request(order, progress), _telling(progress)))}

    def measure(self, body: Body, progress: Progress) -> Body:
        """Measure some bundles, and codecs; answers with rows, bundles left out, and usable variants."""
        order = from_data(MeasureOrder, body, f"measure order to {self._name}")
        if self._open is None or self._open[0] != order.profile:
            self._release()
            session = Session(self._request(order.profile, progress))
            session.__enter__()
            self._open, self._client = (order.profile, session), progress.request.client
            session.measure_codecs()
        session = self._open[1]
        found = session.measure(
            [Key(each.bundle, each.variant, each.batch) for each in order.keys], _telling(progress)
        )
        return {
            "rows": [to_data(each) for each in found if isinstance(each, ProfileRow)],
            "left_out": [to_data(each) for each in found if isinstance(each, LeftOut)],
            "variants": [to_data(variant) for variant in session.variants],
        }

    def release(self, body: Body, progress: Progress) -> Body:
        """Close the session that ``measure`` keeps open, and with it the table."""
        self._release()
        return {}

    def part(self, client: str | None) -> None:
        """Close the session if it is kept open for this client (None: for anyone)."""
        if client in (None, self._client):
            self._release()

    def _release(self) -> None:
        if self._open:
            _, session = self._open
            self._open = None
            session.__exit__(None, None, None)

    def _request(self, order: ProfileOrder, progress: Progress) -> ProfileRequest:
        """The order with this device's own places in it. Refuses what the network may not ask for."""
        source = order.request.source
        check_source(self._name, source, self._modules)
        check_meter(self._name, order.request.meter)
        return replace(
            order.request,
            device=self._name,
            samples=self._samples(order, progress),
            output=self._files.table(order.table) / f"{source.label}-{self._name}.csv",
            placement=placement(order.emulate),
            root=Path("/"),
        )

    def _samples(self, order: ProfileOrder, progress: Progress) -> Path:
        """The feature maps of the order's inputs at every boundary, made once."""
        parts = [
            order.chain_digest,
            *(each.digest for each in order.samples),
            *(each.digest for each in order.inputs),
        ]
        folder = self._files.samples(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32])
        if (folder / "manifest.json").exists():
            return folder
        progress({"share": 0.0, "note": "loading the model"})
        cut = cut_model(load_model(order.request.source))
        if cut.chain.digest != order.chain_digest:
            raise MismatchError(
                f"{order.request.source.label} on {self._name} is {cut.chain.digest[:12]}, "
                f"on the workstation {order.chain_digest[:12]}",
                "use the same weights and the same version of torch on both",
            )
        samples = list(self._inputs(order, cut))
        progress({"share": 0.0, "note": "making feature maps"})
        write_samples(cut, samples, folder, progress.check)
        return folder

    def _inputs(self, order: ProfileOrder, cut: CutModel) -> list[Sample]:
        specs = cut.chain.boundaries[0].tensors
        files = sorted(order.inputs, key=lambda each: each.tensor)
        if len(files) != len(specs):
            raise InputError(f"the model takes {len(specs)} inputs, {len(files)} were sent")
        arrays = []
        for file, spec in zip(files, specs, strict=True):
            with self._files.store.hold(file.digest) as where:
                try:
                    array = np.load(where, allow_pickle=False)
                except (OSError, ValueError) as error:
                    raise DocumentError(where, "", f"is no array: {error}") from None
            wanted = (len(order.samples), *spec.shape[1:])
            if (array.shape, array.dtype.name) != (wanted, spec.dtype):
                problem = f"is {array.shape} {array.dtype}, the model takes {wanted} {spec.dtype}"
                raise DocumentError(where, "", problem)
            arrays.append(array)
        return [
            Sample(
                entry.source,
                entry.digest,
                tuple(array[place : place + 1] for array in arrays),
                entry.label,
            )
            for place, entry in enumerate(order.samples)
        ]


def _telling(progress: Progress) -> Callable[[Step], None]:
    """Passes steps on now and then, and ends the measurement where its order was cancelled."""
    told_s, steps = 0.0, Progressing()

    def show(step: Step) -> None:
        nonlocal told_s
        progress.check()
        advance = steps.after(step)
        if time.monotonic() - told_s > _TELL_S:
            told_s = time.monotonic()
            progress(to_data(advance))

    return show


def check_source(name: str, source: ModelSource, modules: Collection[str]) -> None:
    """Refuse what the network must not make an agent import, and weights that are not there.

    ``package.module:callable`` calls what it names: any callable of any module would be the whole
    machine. So a module must be allowed by whoever started the agent, and define the callable itself.
    """
    module, colon, attribute = source.name.partition(":")
    if colon and module != "hf":
        if module not in modules:
            raise InputError(
                f"the agent of {name} may not import {module[:80]!r}",
                f"copy it to that machine, and start the agent beside it with --modules {module[:80]}",
            )
        if "." in attribute or not _defines(module, attribute):
            raise InputError(
                f"the module {module} on {name} defines no {attribute[:80]!r}", "copy it there again"
            )
    if source.weights not in ("none", "default") and not Path(source.weights).is_file():
        raise InputError(f"{name} has no weights {source.weights}", "copy them there, to the same path")


def check_meter(name: str, meter: str | None) -> None:
    """Refuse a meter that is a file of the device other than a serial line."""
    if meter and "/" in meter and not _SERIAL.fullmatch(meter):
        raise InputError(f"the agent of {name} opens no meter at {meter[:80]!r}", "name a /dev/tty... line")


def _defines(module: str, attribute: str) -> bool:
    import importlib

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # the user's module raises what it likes
        raise InputError(f"module {module} cannot be imported: {type(error).__name__}: {error}") from error
    return getattr(found, "__module__", None) == module
