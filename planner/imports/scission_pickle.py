"""Scission's pickles, read without unpickling.

A pickle is a program, and running one can run anything. ``pickletools`` splits it into opcodes without
executing any; the few that containers of numbers and ``LayerBenchmark`` need are interpreted here, and no
class is ever looked up. Everything else is refused.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any

from planner.errors import DocumentError

_MOST_BYTES = 64 << 20
_CLASS, _MARK = object(), object()
_FIELDS = {"model", "device", "platform", "input_layer", "output_layer", "second_prediction", "output_size"}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_REMEDY = "only benchmarks as Scission writes them are read"


class LayerBenchmark(dict[str, Any]):
    """One layer's fields by name."""


def read_benchmarks(file: Path) -> dict[str, list[LayerBenchmark]]:
    """Layers by model. Raises ``DocumentError`` for anything but a dict of lists of ``LayerBenchmark``."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise DocumentError(file, "", f"is larger than {_MOST_BYTES >> 20} MiB", _REMEDY)
        content = file.read_bytes()
    except OSError as error:
        raise DocumentError(
            file, "", f"cannot be read: {error.strerror or error}", "check the path"
        ) from None
    try:
        found = _interpret(content)
    except _RefusedError as error:
        raise DocumentError(file, "", f"is no benchmark: {error}", _REMEDY) from None
    # Malformed opcodes and arguments surface as these, from pickletools or from the stack.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DocumentError(file, "", f"is no pickle: {error!s:.100}", _REMEDY) from None
    if not isinstance(found, dict) or not all(
        isinstance(model, str)
        and isinstance(layers, list)
        and all(isinstance(x, LayerBenchmark) for x in layers)
        for model, layers in found.items()
    ):
        raise DocumentError(file, "", "is no dict of lists of LayerBenchmark", _REMEDY)
    return found


class _RefusedError(Exception):
    pass


def _interpret(content: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        place = max(k for k, value in enumerate(stack) if value is _MARK)
        values = stack[place + 1 :]
        del stack[place:]
        return values

    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "MARK"):
            stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": (), "MARK": _MARK}[name])
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("SETITEMS", "SETITEM"):
            pairs = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _plain(stack[-1], dict).update(zip(pairs[::2], pairs[1::2], strict=True))
        elif name in ("APPENDS", "APPEND"):
            values = since_mark() if name == "APPENDS" else [stack.pop()]
            _plain(stack[-1], list).extend(values)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            path = argument if name == "GLOBAL" else f"{stack.pop(-2)} {stack.pop()}"
            if path.rpartition(" ")[2] != "LayerBenchmark":
                raise _RefusedError(f"it names {path!r:.60}")
            stack.append(_CLASS)
        elif name == "NEWOBJ":
            arguments, kind = stack.pop(), stack.pop()
            if kind is not _CLASS or arguments != ():
                raise _RefusedError("it makes an object that is no LayerBenchmark")
            stack.append(LayerBenchmark())
        elif name == "BUILD":
            state = _plain(stack.pop(), dict)
            if not set(state) <= _FIELDS or type(stack[-1]) is not LayerBenchmark:
                raise _RefusedError(f"a LayerBenchmark with fields {', '.join(map(str, state)):.100}")
            stack[-1].update(state)
        else:
            raise _RefusedError(f"opcode {name} is not among those that benchmarks need")
    raise _RefusedError("it does not end")


def _plain(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise _RefusedError(f"{type(value).__name__} where a {kind.__name__} is expected")
    return value
