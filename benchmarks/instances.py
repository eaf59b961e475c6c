"""Synthetic instances of any size, straight into the arrays of a cost model: no rows, no files.

Layer times are log-normal; the slowest device takes about 20 times as long as the fastest; each device, precision
and, a little, clock has its own factor for every layer. Bundles are sub-additive per variant but for one per cent
of jitter: a start costs time, and layers that run together save some. Boundaries shrink along the chain. About
half of the devices, the source among them, have a battery. Lower precisions are faster and add noise; higher
clocks are faster and take more power. With a battery in every device latency-energy fronts are long.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from planner.chain import Boundary, Chain, Layer, ModelSource, TensorSpec
from planner.cost import CostModel, FloatArray, Way
from planner.fleet import Device, Fleet, Link
from planner.plan import Variant

# Bits, speed against fp32, and the noise of one layer in dB below the signal.
_PRECISIONS = {"fp32": (32, 1.0, math.inf), "fp16": (16, 1.6, 70.0), "int8": (8, 2.5, 42.0)}
_LAYER_S = 5e-3
_JITTER = 0.01


def instance(layers: int, devices: int, variants: int, seed: int, *, batteries: float = 0.5) -> CostModel:
    """A model of ``layers`` layers on ``devices`` devices, each with ``variants`` variants; the same for the same
    arguments. ``batteries``: the share of devices that have one, beside the source."""
    draw = np.random.default_rng((seed, layers, devices, variants))
    speeds = np.geomspace(1, 20, devices) * draw.lognormal(0, 0.1, devices)
    fleet = _fleet(draw, speeds, batteries)
    weights = np.exp(draw.uniform(math.log(1e6), math.log(1e8), layers))
    falling = np.geomspace(600e3, 4e3, layers + 1) * draw.lognormal(0, 0.5, layers + 1)
    chain = Chain(
        ModelSource(f"synthetic{layers}"),
        "0" * 64,
        tuple(Layer(f"layer{k}", 1, int(weight / 4), int(weight)) for k, weight in enumerate(weights)),
        tuple(Boundary((TensorSpec((1, int(size)), "uint8"),)) for size in falling),
    )
    chosen = _variants(variants)
    ways = tuple(Way(device.name, variant) for device in fleet.devices for variant in chosen)
    layer_s = _LAYER_S * draw.lognormal(0, 1, layers)
    shape = len(ways), layers, layers + 1
    latency_s, energy_j, noise, memory = (np.full(shape, np.nan) for _ in range(4))
    start, stop = np.triu_indices(layers, k=1, m=layers + 1)
    ends = np.array([boundary.nbytes for boundary in chain.boundaries], dtype=float)
    # A layer's own factor on a device, and there in a precision; clocks differ little.
    on_device = layer_s * draw.lognormal(0, 0.2, (devices, layers))
    in_precision = draw.lognormal(0, 0.15, (devices, len(_PRECISIONS), layers))
    powers = {}
    for place, (name, variant) in enumerate(ways):
        number = place // variants
        device, clock = fleet.devices[number], (variant.frequency_hz or 1e9) / 1e9
        bits, gain, sqnr_db = _PRECISIONS[variant.precision]
        view = on_device[number] * in_precision[number, list(_PRECISIONS).index(variant.precision)]
        view = view * draw.lognormal(0, 0.01, layers) / (speeds[number] * gain * clock**0.8)
        time = _bundles(draw, view)[start, stop]
        latency_s[place, start, stop] = time
        power = (device.active_power_w or 0.0) * (0.35 + 0.65 * clock**2.5)
        energy_j[place, start, stop] = power * time if device.battery else 0.0
        each = 10 ** (-sqnr_db / 10) * draw.lognormal(0, 0.7, layers)
        noise[place, start, stop] = _sums(each)[start, stop]
        memory[place, start, stop] = _sums(weights * bits / 32)[start, stop] + ends[start] + ends[stop]
        if device.battery:
            powers[name] = device.active_power_w or 0.0
    return CostModel(chain, fleet, 1, ways, latency_s, energy_j, noise, memory, {}, powers, (), ())


def _sums(each: FloatArray) -> FloatArray:
    """Of every run of neighbours, by start and stop."""
    prefix = np.concatenate([[0.0], np.cumsum(each)])
    sums: FloatArray = prefix - prefix[:-1, None]
    return sums


def _bundles(draw: np.random.Generator, layer_s: FloatArray) -> FloatArray:
    """Seconds of every bundle by start and stop: the layers, less what neighbours save, and a start."""
    layers = layer_s.size
    saved = np.append(draw.uniform(0, 0.25, layers - 1) * np.minimum(layer_s[1:], layer_s[:-1]), 0.0)
    # A bundle saves at the boundaries inside it, which are one fewer than its layers.
    time = _sums(layer_s - saved) + np.append(0.0, saved)
    time += draw.uniform(0.1, 0.5) * layer_s.mean()
    jittered: FloatArray = time * draw.lognormal(0, _JITTER, time.shape)
    return jittered


def _variants(count: int) -> tuple[Variant, ...]:
    """So many of precision x clock, the clocks from 0.4 to 1 GHz."""
    clocks = max(1, -(-count // len(_PRECISIONS)))
    found = [
        Variant("onnxruntime", precision, hertz)
        for hertz, precision in itertools.product(np.linspace(1e9, 0.4e9, clocks).tolist(), _PRECISIONS)
    ]
    return tuple(found[:count])


def _fleet(draw: np.random.Generator, speeds: FloatArray, batteries: float) -> Fleet:
    """Every device linked with every other; the first is source and sink."""
    devices = []
    for place, speed in enumerate(speeds):
        power = float(3 * speed**0.7 * draw.lognormal(0, 0.3))
        price = 0.0 if place == 0 else float(1e-4 * speed * draw.lognormal(0, 0.3))
        battery = place == 0 or bool(draw.random() < batteries)
        devices.append(Device(f"d{place}", battery, active_power_w=power, price_per_s=price))
    links = []
    for source, target in itertools.permutations(devices, 2):
        bandwidth = float(np.exp(draw.uniform(math.log(1e6), math.log(60e6))))
        latency = float(draw.uniform(0.2e-3, 10e-3))
        send, receive = float(draw.uniform(0.5, 2)), float(draw.uniform(0.3, 1))
        links.append(Link(source.name, target.name, bandwidth, latency, send, receive, price_per_byte=1e-11))
    return Fleet("d0", "d0", tuple(devices), tuple(links))
