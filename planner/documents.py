"""Reading and writing documents strictly.

A document is a frozen dataclass. Loading refuses unknown keys, wrong types, NaN, and whatever the
dataclass's own ``__post_init__`` refuses, and says in which file, at which place, and what to do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import dataclass_transform

from planner.errors import DocumentError, StorageError

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def document(*, order: bool = False) -> Callable[[type[T]], type[T]]:
    """A frozen, slotted dataclass that is read strictly. One that inherits a ``repr`` keeps it."""

    def decorate(cls: type[T]) -> type[T]:
        cls.__pydantic_config__ = {  # type: ignore[attr-defined]
            "extra": "forbid",
            "strict": True,
            "allow_inf_nan": False,
        }
        plain = cls.__repr__ is object.__repr__
        return dataclasses.dataclass(frozen=True, slots=True, order=order, repr=plain)(cls)

    return decorate


# What people write by habit, and the key this project uses instead.
_UNITS = {
    "ms": ("s", "in seconds: divide milliseconds by 1000"),
    "us": ("s", "in seconds: divide microseconds by 1e6"),
    "ns": ("s", "in seconds: divide nanoseconds by 1e9"),
    "mj": ("j", "in joules: divide millijoules by 1000"),
    "uj": ("j", "in joules: divide microjoules by 1e6"),
    "mw": ("w", "in watts: divide milliwatts by 1000"),
    "mhz": ("hz", "in hertz: multiply megahertz by 1e6"),
    "ghz": ("hz", "in hertz: multiply gigahertz by 1e9"),
    "khz": ("hz", "in hertz: multiply kilohertz by 1000"),
    "kb": ("bytes", "in bytes"),
    "mb": ("bytes", "in bytes"),
    "mbps": ("bytes_per_s", "in bytes per second: 1 Mbit/s is 125000"),
    "kbps": ("bytes_per_s", "in bytes per second: 1 kbit/s is 125"),
    "gbps": ("bytes_per_s", "in bytes per second: 1 Gbit/s is 1.25e8"),
    "bits_per_s": ("bytes_per_s", "in bytes per second: divide bits by 8"),
}


def unit_remedy(key: str) -> str:
    """What to write instead of a key that carries another unit than SI, or ``""``."""
    for unit, (si, how) in _UNITS.items():
        stem = key.lower().removesuffix("_" + unit)
        if stem != key.lower():
            return f"write {stem}_{si}, {how}"
    return ""


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _place(error: ErrorDetails) -> str:
    place = ""
    for part in error["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    return place


def _problem(kind: type, error: ErrorDetails) -> tuple[str, str]:
    """What is wrong with a value, and the remedy, from pydantic's finding."""
    key = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "unexpected_keyword_argument":
        remedy = unit_remedy(key) or "remove it or correct its spelling; docs/formats.md lists the keys"
        return f"unknown key {key!r}", remedy
    if error["type"] in ("missing", "missing_argument"):
        return f"key {key!r} is missing", f"add {key!r}; docs/formats.md lists the keys"
    problem = re.sub("^Value error, ", "", error["msg"])
    if error["type"] != "value_error":
        problem += f", found {error['input']!r:.60}"
    return problem, ""


def from_data(kind: type[T], data: object, file: object) -> T:
    """``data`` (as JSON or TOML gives it) as a ``kind``; ``DocumentError`` names ``file`` and place."""
    from pydantic import ValidationError

    try:
        document: T = _adapter(kind).validate_json(json.dumps(data, default=str))
        return document
    except ValidationError as found:
        # An unknown key is often why another one is missing: say it first.
        first = min(found.errors(), key=lambda error: error["type"] != "unexpected_keyword_argument")
        problem, remedy = _problem(kind, first)
        raise DocumentError(file, _place(first), problem, remedy) from None


def to_data(value: Any) -> Any:
    """The document as plain lists and dicts."""
    return _adapter(type(value)).dump_python(value, mode="json")


# The command that writes a kind of document.
_MAKERS = {
    "plan": "edgecut solve",
    "fleetplan": "edgecut solve-many",
    "run": "edgecut deploy",
    "simulation": "edgecut simulate",
    "profile": "edgecut profile",
    "samples": "edgecut samples",
}


def check_schema(data: object, schema: str, file: object) -> dict[str, Any]:
    """The document's mapping, or ``DocumentError`` where its schema tag is not ``schema``."""
    if not isinstance(data, dict):
        raise DocumentError(file, "", f"expected a {schema} document, found {type(data).__name__}")
    found = data.get("schema")
    if found != schema:
        kind = schema.split("/")[0]
        name = kind.removeprefix("edgecut.")
        problem = f"expected {schema!r}, found {found!r}" if found else f"no schema tag; expected {schema!r}"
        remedy = f"is this a {name} file of this version of edgecut?"
        if str(found).startswith(f"{kind}/") and name in _MAKERS:
            remedy = f"another version of edgecut wrote it: `{_MAKERS[name]}` makes it anew"
        raise DocumentError(file, "schema", problem, remedy)
    return data


def read_text(file: Path) -> str:
    """The file's text, or ``DocumentError``."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DocumentError(file, "", "no such file", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(file, "", f"cannot be read: {error}") from error


def read_json(file: Path, schema: str) -> dict[str, Any]:
    """The mapping in a JSON document with this schema tag."""
    try:
        data = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise DocumentError(file, place, f"not JSON: {error.msg}", "was the file cut off?") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deep nesting
        raise DocumentError(file, "", f"is no document of ours: {error}") from None
    return check_schema(data, schema, file)


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal. Raises ``OSError``."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_text(file: Path, text: str) -> None:
    """Write whole or not at all: a reader never sees half a document."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot write {file}: {reason}", "free space or choose another path") from error


def read_document(kind: type[T], file: Path, schema: str) -> T:
    """The document of this schema in a JSON file. Raises ``DocumentError``."""
    data = dict(read_json(file, schema))
    del data["schema"]
    return from_data(kind, data, file)


def write_document(document: object, file: Path, schema: str) -> None:
    """Write a document as JSON with its schema tag. Raises ``StorageError``."""
    write_json(file, {"schema": schema, **to_data(document)})


def write_json(file: Path, data: object) -> None:
    write_text(file, json.dumps(data, indent=1, allow_nan=False) + "\n")
