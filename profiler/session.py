"""Profiling a device: bundles in every variant and batch, timed side by side from stored feature maps.

::

    Session ── measure(keys) ──► groups that fit into memory ──► rounds ──► rows
                                 opened, compared, warm          each visit on disk before the next
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from types import TracebackType

from planner.chain import Bundle
from planner.codec_table import CodecRow
from planner.errors import BundleError, EnergyError, InputError
from planner.plan import Variant
from planner.sample_lines import samples_file
from planner.sidecar import DriftPoint, LeftOut, MeterNote, Sidecar
from planner.table import ProfileRow
from profiler import backends
from profiler.bundles import OpenBundle
from profiler.clocks import Switch, plan_frequencies
from profiler.codec_bench import measure_codecs
from profiler.cut import CutModel, cut_model
from profiler.drift import drift, drift_point, reference_bundle
from profiler.energy.meter import Meter, open_meter
from profiler.energy.window import idle_power, measure_energy
from profiler.fusion import check_fusion
from profiler.journal import Journal
from profiler.model import load_model
from profiler.placement import environment, placed
from profiler.recipes import calibrated
from profiler.request import Key, ProfileRequest, ProfileSummary, Progress, Step, usable
from profiler.rounds import open_group, rounds
from profiler.runner import Backend, Setting
from profiler.samples import SampleStore

# Between visits to the reference bundle: late rounds are short.
_REFERENCE_S = 2.0


def profile(request: ProfileRequest, progress: Progress = lambda step: None) -> ProfileSummary:
    """Measure every bundle not yet in the table, and codecs; ``progress`` is told after each visit and bundle.

    A variant that this machine lacks, and a bundle that a backend cannot run, are left out by name.
    Raises an ``EdgecutError``, also where no variant is left; what was measured before it is in the table.
    """
    with Session(request) as session:
        session.measure(session.missing(), progress)
        session.measure_codecs()
    summary = session.summary
    if not summary.measured + summary.resumed and summary.left_out:
        raise BundleError(summary.left_out[0].reason, "no bundle could be measured: use another backend")
    return summary


class Session:
    """A device's table, open for measuring. Use as a context manager."""

    def __init__(self, request: ProfileRequest) -> None:
        self.request = request
        self.summary = ProfileSummary()
        self._stack = ExitStack()
        self._backends: dict[tuple[Variant, int], Backend | BundleError] = {}
        self._cuts: dict[int, CutModel] = {}
        self._meter: Meter | None = None

    def __enter__(self) -> Session:
        """Loads and cuts the model, and opens samples and table. Raises an ``EdgecutError``."""
        self._started = time.perf_counter()
        request = self.request
        possible = usable(request.variants, self.summary.lacking)
        cpus = request.placement.cpus
        self.variants, notes = plan_frequencies(possible, request.frequency, request.root, cpus)
        self.summary.notes.extend(notes)
        with placed(request.placement), ExitStack() as stack:
            self._switch = Switch(self.variants, cpus, request.root)
            stack.callback(lambda: self.summary.notes.extend(self._switch.notes))
            stack.enter_context(self._switch)
            self._model = load_model(request.source)
            cut = self._cuts[1] = cut_model(self._model)
            self.chain = cut.chain
            self.store = SampleStore(request.samples, cut.chain)
            if any(variant.fused for variant in self.variants):
                self.summary.unchanged_by_fusion = check_fusion(cut, self.store.inputs(0, 1, 1)[0]) == 0
            self.journal = stack.enter_context(Journal(request.output, self._sidecar(cut)))
            self.summary.resumed = len(self.journal.rows)
            if any(variant.precision in ("int8", "mixed") for variant in self.variants):
                before = self.journal.sidecar.recipe
                self.journal.agree(calibrated(request.calibration, cut, self.store, before))
            if request.meter:
                self._meter = stack.enter_context(open_meter(request.meter, request.root))
                self._note_meter(self._meter)
            stack.callback(self._close_backends)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        gc.unfreeze()
        self.summary.wall_s = time.perf_counter() - self._started

    @property
    def rows(self) -> Sequence[ProfileRow]:
        """What the table holds, from before and measured now."""
        return self.journal.rows

    def keys(self) -> list[Key]:
        """All that was asked for: bundles in order, and of each every variant."""
        return [
            Key(bundle, variant, batch)
            for batch in self.request.batches
            for bundle in self.chain.bundles()
            for variant in self.variants
        ]

    def missing(self) -> list[Key]:
        """The keys that the table has no row for."""
        done = {Key(row.bundle, row.variant, row.batch) for row in self.rows}
        return [key for key in self.keys() if key not in done]

    def measure(
        self, keys: Iterable[Key], progress: Progress = lambda step: None
    ) -> list[ProfileRow | LeftOut]:
        """A row, or the reason why there is none, for each key, in their order; rows are on disk.

        Raises ``InputError`` for a key that the request does not ask for.
        """
        wanted = list(dict.fromkeys(keys))
        work = {key: self._work(key) for key in self.keys()}
        if strange := [key for key in wanted if key not in work]:
            bundle, variant, batch = strange[0]
            raise InputError(f"nobody asked for {bundle} in {variant}, batch {batch}", "see Session.keys()")
        total, results = sum(work.values()), dict[Key, ProfileRow | LeftOut]()

        def step(bundle: Bundle | None, key: Key, work: float, row: ProfileRow | None = None) -> Step:
            done = len(self.rows) + len(self.summary.left_out)
            return Step(bundle, key.variant, key.batch, work, total, row, done, len(wanted) - len(results))

        def tell(key: Key, share: float, row: ProfileRow | None = None) -> None:
            left[key] -= share
            progress(step(key.bundle, key, share, row))

        def failed(key: Key, error: BundleError) -> None:
            results[key] = entry = LeftOut(*key, error.message)
            self.journal.leave_out(entry)
            self.summary.left_out.append(entry)
            tell(key, left[key])

        left = {key: work[key] for key in wanted}
        if wanted:
            progress(step(None, wanted[0], max(total - sum(left.values()), 0.0)))
        for batch in dict.fromkeys(key.batch for key in wanted):
            waiting = [key for key in wanted if key.batch == batch]
            # Here, not on entering: several sessions of one process may take turns.
            with placed(self.request.placement), self._reference(batch) as visit_reference:
                while waiting:
                    with ExitStack() as stack:
                        group = open_group(waiting, self._open, self._switch, failed, stack)
                        for key, opened, made in rounds(group, self._switch, visit_reference):
                            if isinstance(made, BundleError):
                                failed(key, made)
                                continue
                            if made:
                                self.journal.visited(*key, made)
                                self.summary.timed_s += made.first_s + sum(made.samples_s)
                            if not opened.settled:
                                tell(key, min(work[key] / self.request.protocol.rounds, left[key]))
                                continue
                            try:
                                results[key] = row = self._finish(key, opened)
                            except BundleError as error:
                                failed(key, error)
                            else:
                                tell(key, left[key], row)
        self.summary.drift = drift(self.journal.sidecar.drift)
        return [results[key] for key in wanted]

    def measure_codecs(self) -> list[CodecRow]:
        """The codecs asked for at every boundary, beside the table; what is there already is kept."""
        if not self.request.codecs:
            return []
        with placed(self.request.placement):
            return measure_codecs(
                self.store,
                self.chain,
                device=self.request.device,
                place=self.request.placement,
                batches=self.request.batches,
                table=self.request.output,
                codecs=self.request.codecs,
            )

    def _note_meter(self, meter: Meter) -> None:
        try:
            self.summary.idle_power_w = idle_power(meter)
        except EnergyError as error:
            self.summary.notes.append(error.message)
        self.journal.metered(MeterNote(meter.name, meter.domain, self.summary.idle_power_w))

    def _finish(self, key: Key, opened: OpenBundle) -> ProfileRow:
        row = opened.row()
        if self._meter:
            # After the timing, so that reading the meter does not slow what is timed.
            found = measure_energy(self._meter, opened.run, latency_s=row.latency_s)
            if found.valid:
                row = replace(row, energy_j=found.energy_j)
            else:
                self.summary.unmetered.append(f"{key.bundle} {key.variant}: {found.reason}")
        self.journal.append(row)
        self.summary.measured += 1
        if not row.stable:
            self.summary.unstable.append(row)
        return row

    def _open(self, key: Key) -> OpenBundle:
        return OpenBundle(
            self._backend(key.variant, key.batch),
            key.bundle,
            self.store,
            device=self.request.device,
            variant=key.variant,
            place=self.request.placement,
            protocol=self.request.protocol,
            visits=self.journal.visits(key.bundle, key.variant, key.batch),
        )

    def _backend(self, variant: Variant, batch: int) -> Backend:
        """Made once. Raises ``BundleError``, each time, where the whole network cannot be prepared."""
        variant = replace(variant, frequency_hz=None)
        if (variant, batch) not in self._backends:
            if batch not in self._cuts:
                self._cuts[batch] = cut_model(self._model, batch)
            threads, recipe = self.request.placement.threads, self.journal.sidecar.recipe
            setting = Setting(variant.precision, variant.fused, threads, recipe)
            make = backends.find(variant.backend, variant.precision)
            try:
                self._backends[variant, batch] = make(self._cuts[batch], setting)
            except BundleError as error:
                self._backends[variant, batch] = error
            # A capture or export leaves many objects behind; looking at them before each bundle takes long.
            gc.collect()
            gc.freeze()
        found = self._backends[variant, batch]
        if isinstance(found, BundleError):
            raise found
        return found

    def _close_backends(self) -> None:
        for backend in self._backends.values():
            if isinstance(backend, Backend):
                backend.close()

    @contextmanager
    def _reference(self, batch: int) -> Iterator[Callable[[], None]]:
        """Visits the reference bundle, which stays open meanwhile; does nothing where it cannot run."""
        key = Key(reference_bundle(self.chain), self.variants[0], batch)
        try:
            opened = self._open(key)
        except BundleError:
            yield lambda: None
            return
        opened.visits.clear()
        points: list[DriftPoint] = []

        def visit() -> None:
            if points and time.time() - points[-1].at_s < _REFERENCE_S:
                return
            # Always at one clock, whatever the others run at; what cannot be seen once is left out.
            with suppress(BundleError), self._switch.at(key.variant):
                points.append(drift_point(opened))

        with opened:
            yield visit
        self.journal.drifted(points)

    def _sidecar(self, cut: CutModel) -> Sidecar:
        return Sidecar(
            device=self.request.device,
            chain=cut.chain,
            environment=environment(self.request.placement),
            started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            samples=samples_file(self.request.output).name,
            precision_target=self.request.protocol.precision,
        )

    def _work(self, key: Key) -> float:
        """About how long a key takes to measure: a fixed part, and one that grows with its work."""
        macs = sum(layer.macs for layer in self.chain.layers[key.bundle.start : key.bundle.stop])
        return 1.0 + key.batch * macs / 2e9
