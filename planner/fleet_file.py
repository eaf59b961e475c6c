"""A fleet as a person writes it in TOML, and back.

::

    schema = "edgecut.fleet/1"
    source = "edge"                      # where inputs start; sink = source unless given
    router = "tcp/203.0.113.9:7447"      # through which agents without an address are reached

    [device.edge]
    battery = true
    emulate = { threads = 1, cpus = [0], slowdown = 5.0 }

    [device.server]
    address = "tls/192.168.1.5:7447"     # where its agent listens

    [[link]]                             # both directions; the first named carries the radio
    between = ["edge", "server"]
    preset = "wifi"                      # 3g, 4g, wifi or lan; keys given beside it win
    latency_s = 0.002

    [[link]]                             # one direction
    source = "server"
    target = "cloud"
    bandwidth_bytes_per_s = 1.25e7
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from planner.documents import check_schema, from_data, read_text, to_data, write_text
from planner.errors import DocumentError, UnknownNameError
from planner.fleet import Device, Fleet, Link

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = "edgecut.fleet/1"


@dataclasses.dataclass(frozen=True)
class Radio:
    """A battery device's radio: rates in Mbit/s, power in mW = alpha x rate + beta.

    Source: Huang et al., "A close examination of performance and power characteristics of 4G LTE
    networks", MobiSys 2012, with the rates that JointDNN (Eshratifar et al. 2019) uses.
    """

    up_mbps: float
    down_mbps: float
    alpha_up: float
    alpha_down: float
    beta: float

    @property
    def send_power_w(self) -> float:
        """While sending at its rate up."""
        return (self.alpha_up * self.up_mbps + self.beta) / 1e3

    @property
    def receive_power_w(self) -> float:
        """While receiving at its rate down."""
        return (self.alpha_down * self.down_mbps + self.beta) / 1e3


RADIOS = {
    "3g": Radio(1.1, 2.0275, 868.98, 122.12, 817.88),
    "4g": Radio(5.85, 13.76, 438.39, 51.97, 1288.04),
    "wifi": Radio(18.88, 54.97, 283.17, 137.01, 132.86),
    # Gigabit Ethernet (IEEE 802.3ab): a cable, so no radio; its nominal rate, of which TCP leaves 94 %.
    "lan": Radio(1000.0, 1000.0, 0.0, 0.0, 0.0),
}


def load_fleet(file: Path | str) -> Fleet:
    """Read a fleet; ``DocumentError`` says where it is wrong and how to mend it."""
    return parse_fleet(read_text(Path(file)), file)


def save_fleet(fleet: Fleet, file: Path | str) -> None:
    """Write it as TOML. Raises ``StorageError``."""
    write_text(Path(file), format_fleet(fleet))


def format_fleet(fleet: Fleet) -> str:
    """The fleet as TOML, every link directed and every preset spelled out."""
    import tomli_w

    data = _without_none(to_data(fleet))
    devices = {device.pop("name"): device for device in data.pop("devices")}
    links = data.pop("links")
    return tomli_w.dumps({"schema": SCHEMA, **data, "device": devices, "link": links})


def parse_fleet(text: str, file: object = "fleet") -> Fleet:
    """The fleet that this TOML describes."""
    try:
        data = dict(check_schema(tomllib.loads(text), SCHEMA, file))
    except (ValueError, RecursionError) as error:
        raise DocumentError(file, "", f"not TOML: {error}") from None
    del data["schema"]
    entries = data.pop("device", None)
    if not isinstance(entries, dict) or not entries:
        raise DocumentError(file, "device", "no device", "add a table such as [device.edge]")
    devices = [_device(name, entry, file) for name, entry in entries.items()]
    links = data.pop("link", [])
    if not isinstance(links, list):
        raise DocumentError(file, "link", "expected a list of tables", "write [[link]], in double brackets")
    emulated = {device.name for device in devices if device.emulate}
    data.setdefault("sink", data.get("source"))
    data["devices"] = [to_data(device) for device in devices]
    data["links"] = [
        to_data(link)
        for place, entry in enumerate(links)
        for link in _links(entry, emulated, f"{file}: link[{place}]")
    ]
    return from_data(Fleet, data, file)


def _device(name: str, entry: object, file: object) -> Device:
    place = f"{file}: device.{name}"
    if not isinstance(entry, dict):
        raise DocumentError(place, "", "expected a table", f"write [device.{name}]")
    return from_data(Device, {**entry, "name": name}, place)


def _links(entry: object, emulated: set[str], place: str) -> list[Link]:
    """The directed links that one ``[[link]]`` stands for."""
    if not isinstance(entry, dict):
        raise DocumentError(place, "", "expected a table", "write [[link]], in double brackets")
    keys = dict(entry)
    between, preset = keys.pop("between", None), keys.pop("preset", None)
    if preset is not None and between is None:
        raise DocumentError(
            place,
            "preset",
            "a preset describes both directions",
            'write between = ["edge", "server"], the radio first',
        )
    if between is None:
        return [_link(keys, {}, emulated, place)]
    if not isinstance(between, list) or len(between) != 2 or "source" in keys or "target" in keys:
        raise DocumentError(
            place,
            "between",
            "expected two device names and no source or target",
            'write between = ["edge", "server"]',
        )
    up, down = _preset(preset, place)
    return [
        _link({**keys, "source": between[0], "target": between[1]}, up, emulated, place),
        _link({**keys, "source": between[1], "target": between[0]}, down, emulated, place),
    ]


def _link(keys: dict[str, Any], defaults: dict[str, float], emulated: set[str], place: str) -> Link:
    both_emulated = all(
        isinstance(keys.get(end), str) and keys[end] in emulated for end in ("source", "target")
    )
    return from_data(Link, {"emulate": both_emulated, **defaults, **keys}, place)


def _preset(name: str | None, place: str) -> tuple[dict[str, float], dict[str, float]]:
    if name is None:
        return {}, {}
    if not isinstance(name, str) or name not in RADIOS:
        raise UnknownNameError(f"preset in {place}:", str(name), RADIOS)
    radio = RADIOS[name]
    up = {"bandwidth_bytes_per_s": radio.up_mbps * 125_000, "send_power_w": radio.send_power_w}
    down = {"bandwidth_bytes_per_s": radio.down_mbps * 125_000, "receive_power_w": radio.receive_power_w}
    return up, down


def _without_none(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_none(value) for key, value in data.items() if value is not None}
    return [_without_none(value) for value in data] if isinstance(data, list) else data
