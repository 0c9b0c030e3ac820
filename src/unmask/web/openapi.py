"""The HTTP API as an OpenAPI document, for clients and for generators of clients."""

from __future__ import annotations

from typing import Any

from unmask import __version__
from unmask.web.limits import Limits

_ERRORS = {
    "401": "the token is missing or wrong",
    "403": "a foreign host name, or another site",
    "408": "the request did not arrive in time",
    "413": "the request is too large",
    "415": "a form, where the file itself is the body",
    "422": "not a readable image or setting",
    "429": "too many requests",
    "501": "there is no detector",
    "503": "no answer in time",
}
_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
_PROBABILITIES = {"type": "object", "additionalProperties": {"type": "number"}}
_FACE = {
    "type": "object",
    "properties": {
        "box": {"type": "array", "items": _NUMBER, "minItems": 4, "maxItems": 4},
        "label": _TEXT,
        "score": _NUMBER,
        "probabilities": _PROBABILITIES,
    },
}


def document(limits: Limits, *, token: bool) -> dict[str, Any]:
    """Return the API's description, OpenAPI 3.1.

    Args:
        limits: of requests.
        token: whether clients must give one.
    """
    threshold = _query("threshold", {**_NUMBER, "exclusiveMinimum": 0, "maximum": 1})
    smallest = _query("smallest", {**_NUMBER, "minimum": 1, "default": 10})
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Unmask",
            "version": __version__,
            "description": f"A request has at most {limits.size:,} bytes and an image at most "
            f"{limits.pixels:,} pixels.",
        },
        "paths": {
            "/api/health": {
                "get": _call("whether the server is up", {"status": _TEXT, "version": _TEXT})
            },
            "/api/detect": {
                "post": _call(
                    "the faces in an image",
                    {
                        "width": _NUMBER,
                        "height": _NUMBER,
                        "faces": {"type": "array", "items": _FACE},
                    },
                    threshold,
                    smallest,
                )
            },
            "/api/classify": {
                "post": _call(
                    "the class of an image",
                    {"class": _TEXT, "probability": _NUMBER, "probabilities": _PROBABILITIES},
                    _query("model", {**_TEXT, "default": "mnist"}),
                )
            },
        },
    }
    if token:
        schemes = {"bearer": {"type": "http", "scheme": "bearer"}}
        found["components"] = {"securitySchemes": schemes}
        found["security"] = [{"bearer": []}]
    return found


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _call(summary: str, answer: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    call: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": _content("as it was asked", {"type": "object", "properties": answer}),
            **{
                status: _content(why, {"type": "object", "properties": {"error": _TEXT}})
                for status, why in _ERRORS.items()
            },
        },
    }
    if "image" in summary:
        call["parameters"] = list(parameters)
        call["requestBody"] = {
            "required": True,
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        }
    return call


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
