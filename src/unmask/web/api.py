"""The HTTP API: POST an image, get JSON."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unmask import __version__
from unmask.errors import UserError
from unmask.models.classifier import shipped
from unmask.web.limits import RefusedError
from unmask.web.models import Models
from unmask.web.openapi import document

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
Answer = Callable[[Request], Awaitable[Response]]


def routes(models: Models, *, token: bool = False) -> list[Route]:
    """Return GET /api/health and /api/openapi.json, POST /api/detect and /api/classify.

    An image is the body itself. Every answer is JSON; one that isn't 200 has "error", in one line.

    Args:
        models: the models behind the API.
        token: whether clients must give one, for the description.
    """

    async def health(request: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "detector": models.detector is not None,
                "classifiers": shipped(),
            }
        )

    async def detect(request: Request) -> Response:
        if models.detector is None:
            raise RefusedError(501, models.no_detector)
        threshold = _number(request, "threshold", None)
        smallest = _number(request, "smallest", 10.0)
        data = await _image(request)
        return JSONResponse(await models.work(models.detect, data, threshold, smallest))

    async def classify(request: Request) -> Response:
        name = request.query_params.get("model", "mnist")
        return JSONResponse(await models.work(models.classify, await _image(request), name))

    async def described(request: Request) -> Response:
        return JSONResponse(document(models.limits, token=token))

    async def nothing(request: Request) -> Response:
        raise RefusedError(
            404, "there are /api/health, /api/detect, /api/classify and /api/openapi.json"
        )

    return [
        Route("/api/health", _as_json(health), methods=["GET"]),
        Route("/api/detect", _as_json(_posted(detect)), methods=["GET", "POST"]),
        Route("/api/classify", _as_json(_posted(classify)), methods=["GET", "POST"]),
        Route("/api/openapi.json", _as_json(described), methods=["GET"]),
        Route("/api/{path:path}", _as_json(nothing), methods=["GET", "POST"]),
    ]


def _as_json(answer: Answer) -> Answer:
    """Return the handler with its errors as JSON."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 422)
        except RefusedError as refused:
            return JSONResponse({"error": str(refused)}, refused.status)

    return answered


def _posted(answer: Answer) -> Answer:
    async def posted(request: Request) -> Response:
        if request.method != "POST":
            raise RefusedError(405, "send a POST with an image as its body")
        return await answer(request)

    return posted


async def _image(request: Request) -> bytes:
    kind = request.headers.get("content-type", "")
    if kind.startswith("multipart/"):
        raise RefusedError(
            415, "forms are not accepted; send the file itself (curl --data-binary @image.jpg)"
        )
    return await request.body()


def _number(request: Request, name: str, default: float | None) -> Any:
    text = request.query_params.get(name)
    if text is None:
        return default
    # float() also accepts "nan", "1_0" and digits of other scripts, none of which is a setting.
    if len(text) > 40 or not _NUMBER.fullmatch(text):
        raise UserError(f"{name} is not a number", got=repr(text[:40]))
    return float(text)
