"""The paths of the server as an OpenAPI document."""

from __future__ import annotations

from typing import Any

from runtime.serving.protocol import VERSION, NamedTensor, Signature

_FREE = {"type": "object"}


def openapi(signature: Signature) -> dict[str, Any]:
    """What the server of this network takes and gives, binary tensors aside: OpenAPI 3.1."""
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("Name, version and extensions", _object(name=_TEXT, version=_TEXT))},
        "/v2/health/live": {"get": _operation("Whether it answers", _object(live=_FLAG))},
        "/v2/health/ready": {"get": _operation("Whether it infers", _object(ready=_FLAG), "503")},
        "/v2/models/stats": {"get": _operation("What was counted", _object(model_stats=_list(_FREE)))},
        "/v2/repository/index": {
            "post": _operation("The models", _list(_FREE), "400", "413")
            | {"requestBody": _content(_object(ready=_FLAG, required=False), required=False)}
        },
    }
    tensors = _list(_object(name=_TEXT, datatype=_TEXT, shape=_list({"type": "integer"})))
    metadata = _object(name=_TEXT, platform=_TEXT, inputs=tensors, outputs=tensors)
    model = "/v2/models/{model}"
    for prefix in (model, model + "/versions/{version}"):
        named = {"parameters": _parameters(prefix, signature)}
        infer = _operation("Infer", _object(model_name=_TEXT, outputs=tensors), *_INFER_ERRORS)
        for path, method, operation in (
            ("", "get", _operation("Inputs and outputs", metadata, "404")),
            ("/ready", "get", _operation("Whether it infers", _object(ready=_FLAG), "404", "503")),
            ("/config", "get", _operation("As Triton words it", _FREE, "404")),
            ("/stats", "get", _operation("What was counted", _FREE, "404")),
            ("/infer", "post", infer | {"requestBody": _content(_request(signature))}),
        ):
            paths[prefix + path] = {method: operation, **named}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"edgecut serves {signature.name}", "version": VERSION},
        "paths": paths,
    }


_TEXT, _FLAG = {"type": "string"}, {"type": "boolean"}
_ERRORS = {
    "400": "malformed, or does not fit the network",
    "404": "no such model or version",
    "413": "too large",
    "415": "a content coding that is not known here",
    "503": "not ready, or no room: see Retry-After",
    "504": "not answered in time",
}
_INFER_ERRORS = tuple(_ERRORS)


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(*, required: bool = True, **properties: Any) -> dict[str, Any]:
    names = list(properties) if required else []
    return {"type": "object", "properties": properties, "required": names}


def _content(schema: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}, "required": True, **rest}


def _operation(summary: str, schema: dict[str, Any], *errors: str) -> dict[str, Any]:
    # A probe that is not ready says so in the words of one that is.
    said = {"anyOf": [schema, _object(error=_TEXT)]}
    answers = {code: {"description": _ERRORS[code], **_body(said)} for code in errors}
    return {"summary": summary, "responses": {"200": {"description": "Done", **_body(schema)}, **answers}}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _parameters(path: str, signature: Signature) -> list[dict[str, Any]]:
    known = {"model": signature.name, "version": VERSION}
    return [
        {"name": name, "in": "path", "required": True, "schema": {"enum": [value]}}
        for name, value in known.items()
        if "{" + name + "}" in path
    ]


def _request(signature: Signature) -> dict[str, Any]:
    each = [_tensor(tensor) for tensor in signature.inputs]
    inputs = {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}
    outputs = _list(_object(name={"enum": [tensor.name for tensor in signature.outputs]}))
    parameters = _object(
        required=False, timeout={"type": "integer", "minimum": 0}, binary_data_output={"const": False}
    )
    properties = {"id": _TEXT, "inputs": inputs, "outputs": outputs, "parameters": parameters}
    return {"type": "object", "properties": properties, "required": ["inputs"]}


def _tensor(tensor: NamedTensor) -> dict[str, Any]:
    extents = [{"type": "integer", "minimum": 1}, *({"const": extent} for extent in tensor.spec.shape[1:])]
    shape = {"type": "array", "prefixItems": extents, "minItems": len(extents), "maxItems": len(extents)}
    kind = {"bool": "boolean", "float": "number"}.get(tensor.spec.dtype.rstrip("0123456789"), "integer")
    return _object(
        name={"const": tensor.name},
        datatype={"const": tensor.datatype},
        shape=shape,
        data=_list({"type": kind}),
    )
