"""Reading a precision policy: our own TOML, or one written for MaseRT's TensorRT pass."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from planner.documents import check_schema, from_data, read_text
from planner.errors import DocumentError
from planner.recipe import Policy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = "edgecut.policy/1"
# MaseRT's names for types of layers: PyTorch's modules and functions in lower case.
_OPERATORS = {
    "conv1d": "Conv", "conv2d": "Conv", "conv3d": "Conv", "linear": "Gemm", "matmul": "MatMul", "bmm": "MatMul",
    "add": "Add", "mul": "Mul", "relu": "Relu", "relu6": "Clip", "sigmoid": "Sigmoid", "softmax": "Softmax",
    "max_pool2d": "MaxPool", "maxpool2d": "MaxPool", "avg_pool2d": "AveragePool",
    "adaptive_avg_pool2d": "GlobalAveragePool", "adaptiveavgpool2d": "GlobalAveragePool",
    "batch_norm": "BatchNormalization", "batch_norm2d": "BatchNormalization", "layer_norm": "LayerNormalization",
    "gelu": "Gelu", "cat": "Concat",
}  # fmt: skip


def load_policy(file: Path) -> Policy:
    """Read a policy. Raises ``DocumentError`` with file, place and remedy."""
    try:
        data = tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise DocumentError(file, "", f"is no TOML: {error}") from None
    passes = data.get("passes")
    if isinstance(passes, dict) and isinstance(passes.get("tensorrt"), dict):
        return from_data(Policy, _from_maser(passes["tensorrt"], file), file)
    data = dict(check_schema(data, SCHEMA, file))
    del data["schema"]
    return from_data(Policy, {"rules": {}, **data}, file)


def _from_maser(given: dict[str, Any], file: Path) -> dict[str, Any]:
    """``by``, a ``default`` and one table per layer or type, each with ``config.precision``."""
    by = given.get("by", "type")
    default = _precision(given.get("default", {}), file, "default", "fp32")
    rules = {}
    for name, entry in given.items():
        if name in ("by", "default") or not isinstance(entry, dict):
            continue
        precision = _precision(entry, file, name, default)
        if by == "name":
            rules[name] = precision
        elif name.lower() in _OPERATORS:
            rules[_OPERATORS[name.lower()]] = precision
        else:
            raise DocumentError(
                file,
                f"passes.tensorrt.{name}",
                f"unknown type of layer {name!r}",
                f"known: {', '.join(_OPERATORS)}",
            )
    return {"by": by, "default": default, "rules": rules}


def _precision(entry: Any, file: Path, place: str, otherwise: str) -> str:
    config = entry.get("config", {}) if isinstance(entry, dict) else None
    if not isinstance(config, dict):
        raise DocumentError(file, f"passes.tensorrt.{place}", "expected a table with a config")
    if config.get("quantize") is False:
        return "fp32"
    return str(config.get("precision", otherwise))
