"""Which precision a policy gives each operation of an exported network."""

from __future__ import annotations

import ast
import difflib

import onnx_ir as ir

from planner.errors import InputError
from planner.recipe import Policy


def precisions(graph: ir.Graph, policy: Policy) -> dict[str, str]:
    """The precision of every node of ``graph`` by its name, as ``policy`` says.

    Raises ``InputError`` for a rule that no operation follows.
    """

    def keys(node: ir.Node) -> list[str]:
        return [node.op_type] if policy.by == "type" else _scopes(node)

    # MaseRT writes a layer's path as a Python name, with underscores for dots.
    rules = {rule.replace(".", "_"): rule for rule in policy.rules}
    used: set[str] = set()
    chosen: dict[str, str] = {}
    for node in graph:
        rule = next(
            (rules[key.replace(".", "_")] for key in keys(node) if key.replace(".", "_") in rules), ""
        )
        used.add(rule)
        chosen[str(node.name)] = policy.rules.get(rule, policy.default)
    for rule in policy.rules.keys() - used:
        known = sorted({key for node in graph for key in keys(node)})
        near = difflib.get_close_matches(rule, known, n=3, cutoff=0.4)
        kind = "operator type" if policy.by == "type" else "layer"
        raise InputError(
            f"the policy's rule {rule!r} matches no {kind} of the network",
            f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known[:12])}",
        )
    return chosen


def _scopes(node: ir.Node) -> list[str]:
    """The modules that a node is part of, the innermost first, as paths such as ``features.0``."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    return [scope for scope in reversed(scopes[:-1]) if scope]
