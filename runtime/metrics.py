"""A monitor's figures for Prometheus, worked out when they are asked for; the names stand in docs/live.md."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from planner.errors import InputError, MissingDependencyError
from runtime.counting import Durations
from runtime.monitor import Monitor
from runtime.monitor_state import Part, parts_of

try:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, start_http_server
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise MissingDependencyError("prometheus-client", "offering metrics", "metrics") from error

_DOUBLINGS = range(7, 26)  # 128 microseconds to 34 seconds
_LABEL = 120  # characters
_LABELS = {"stage": ("device", "bundle", "variant"), "hop": ("route", "boundary", "codec")}


def register(monitor: Monitor, registry: CollectorRegistry) -> None:
    """Add the monitor's figures to a registry, which has none of another one."""
    registry.register(_Figures(monitor))


def exposition(monitor: Monitor) -> tuple[bytes, str]:
    """The figures as Prometheus reads them, and the media type of that."""
    registry = CollectorRegistry()
    register(monitor, registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST


def parse_endpoint(text: str) -> tuple[str, int]:
    """``HOST:PORT``, ``[ADDRESS]:PORT``, or a port alone, which is this machine's own. Raises ``ValueError``."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9464")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


@contextmanager
def served(monitor: Monitor, endpoint: tuple[str, int]) -> Iterator[str]:
    """Offer the figures over HTTP meanwhile; yields the address. Raises ``InputError`` where it cannot listen."""
    host, port = endpoint
    registry = CollectorRegistry()
    register(monitor, registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "the port is in use" if taken else error.strerror or str(error)
        raise InputError(
            f"cannot offer metrics at {host}:{port}: {reason}",
            f"choose another port, such as --metrics {host}:{port % 65535 + 1}"
            if taken
            else "pass --metrics with an address of this machine and a free port from 1024 up",
        ) from error
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Figures(Collector):
    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterable[Metric]:
        """All figures at one moment."""
        with self._monitor.lock:
            return [*self._requests(), *self._places(), *self._durations(), *self._forecasts()]

    def _requests(self) -> Iterator[Metric]:
        monitor, state = self._monitor, self._monitor.state()
        yield CounterMetricFamily("edgecut_requests", "Requests answered.", monitor.answered)
        yield CounterMetricFamily("edgecut_request_failures", "Requests that got no answer.", monitor.failed)
        yield CounterMetricFamily(
            "edgecut_inputs_refused", "Inputs the network cannot take.", monitor.refused
        )
        yield CounterMetricFamily("edgecut_plan_switches", "Times another plan took over.", monitor.switches)
        yield GaugeMetricFamily("edgecut_requests_in_flight", "Requests not yet answered.", state.in_flight)

    def _places(self) -> Iterator[Metric]:
        monitor, state = self._monitor, self._monitor.state()
        busy = GaugeMetricFamily(
            "edgecut_device_busy_ratio", "Share of the last seconds a device was at work.", labels=["device"]
        )
        queue = GaugeMetricFamily(
            "edgecut_device_queue_requests", "Requests that wait for a device, on average.", labels=["device"]
        )
        watts = GaugeMetricFamily("edgecut_device_power_watts", "Power a device draws.", labels=["device"])
        worked = CounterMetricFamily(
            "edgecut_device_busy_seconds", "Time a device was at work.", labels=["device"]
        )
        for device in state.devices:
            busy.add_metric([device.name], device.busy)
            queue.add_metric([device.name], device.queue)
            if device.power_w is not None:
                watts.add_metric([device.name], device.power_w)
        for name, place in monitor.devices.items():
            worked.add_metric([name], place.busy.total)
        pair = ["source", "target"]
        use = GaugeMetricFamily("edgecut_link_use_ratio", "Share of a link's bandwidth in use.", labels=pair)
        sent = CounterMetricFamily("edgecut_link_bytes", "Bytes of tensors sent over a link.", labels=pair)
        for link in state.links:
            use.add_metric([link.source, link.target], link.use)
        for names, place in monitor.links.items():
            sent.add_metric(list(names), place.sent.total)
        yield from (busy, queue, watts, worked, use, sent)

    def _durations(self) -> Iterator[Metric]:
        latency = HistogramMetricFamily(
            "edgecut_latency_seconds", "From input to output, all waiting included."
        )
        _add(latency, [], self._monitor.latency)
        yield latency
        said = {
            "stage": "A stage at work, without waiting.",
            "hop": "A hop, with its codec, without waiting.",
        }
        for kind, labels in _LABELS.items():
            family = HistogramMetricFamily(f"edgecut_{kind}_seconds", said[kind], labels=labels)
            for part, durations in self._monitor.parts.items():
                if part.kind == kind:
                    _add(family, _values(part), durations)
            yield family

    def _forecasts(self) -> Iterator[Metric]:
        """Of the present plan."""
        plan = self._monitor.plan
        yield GaugeMetricFamily("edgecut_latency_forecast_seconds", "Of the plan.", plan.cost.latency_s)
        for kind, labels in _LABELS.items():
            family = GaugeMetricFamily(
                f"edgecut_{kind}_forecast_seconds", f"Of the plan's {kind}s.", labels=labels
            )
            for part, forecast_s in parts_of(plan):
                if part.kind == kind:
                    family.add_metric(_values(part), forecast_s)
            yield family


def _values(part: Part) -> list[str]:
    """As labels: text that any encoding takes, of bounded length."""
    return [text.encode("utf-8", "replace").decode()[:_LABEL] for text in (part.where, part.what, part.how)]


def _add(family: HistogramMetricFamily, labels: list[str], durations: Durations) -> None:
    buckets = [(f"{bound:.6g}", float(count)) for bound, count in durations.cumulative(_DOUBLINGS)]
    family.add_metric(labels, [*buckets, ("+Inf", float(durations.count))], durations.sum_s)
