"""Web application of a model: REST routes of TensorFlow Serving, and a page for a browser.

GET   /v1/models/NAME                  states of the versions
GET   /v1/models/NAME/metadata         signatures
POST  /v1/models/NAME:predict          outputs of a signature, see `keras_unet.serving.tensors`
GET   /                                page
POST  /segment                         labels of an image file, for the page

/versions/NUMBER or /labels/LABEL may follow NAME. An error is `{"error": REASON}`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Template
from starlette.applications import Starlette
from starlette.datastructures import URL
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from keras_unet.serving.cells import FILE_INPUT, segment_file
from keras_unet.serving.queue import Limits, Queue
from keras_unet.serving.sizes import count_pixels
from keras_unet.serving.tensors import inputs_of, parse_request, write_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from starlette.types import ASGIApp, Receive, Scope, Send

    from keras_unet.serving.models import Model, Version

PAGE = Path(__file__).with_name("page.html")
FILE_TYPE = "application/octet-stream"
"""Content type of the page's requests, which pages of other sites cannot send unasked."""

_SPEC = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_PREDICT = re.compile(_SPEC + ":predict", re.IGNORECASE)
_STATUS = re.compile(_SPEC + "(/metadata)?", re.IGNORECASE)
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_CODES = {ValueError: 400, MemoryError: 429, RuntimeError: 500}


def application(model: Model, limits: Limits, queue: Queue, hosts: Collection[str]) -> Starlette:
    """Returns the application of a model.

    Args:
        model: The model.
        limits: Bounds of requests.
        queue: Queue of the requests, with these bounds.
        hosts: Names by which clients may address the server; empty for any. Others are refused, so
            that a page of another site cannot read answers by a name of its own for this machine.
    """
    routes = _Routes(model, limits, queue)
    handlers: dict[Any, Any] = dict.fromkeys([HTTPException, ClientDisconnect, *_CODES], _refuse)
    return Starlette(
        routes=[
            Route("/", routes.show_page),
            Route("/segment", routes.segment, methods=["POST"]),
            Route("/v1/{path:path}", routes.predict, methods=["POST"]),
            Route("/v1/{path:path}", routes.describe),
        ],
        middleware=[Middleware(_KnownHosts, hosts=hosts)] if hosts else [],
        exception_handlers=handlers | {Exception: _refuse},
    )


class _Routes:
    def __init__(self, model: Model, limits: Limits, queue: Queue) -> None:
        self._model, self._limits, self._queue = model, limits, queue
        html = Template(PAGE.read_text(encoding="utf-8"), autoescape=True).render(
            name=model.name, most_pixels=limits.max_pixels
        )
        self._page = html, _HEADERS | {"Content-Security-Policy": content_policy(html)}

    async def show_page(self, _: Request) -> Response:
        html, headers = self._page
        return HTMLResponse(html, headers=headers)

    async def describe(self, request: Request) -> Response:
        name, number, label, metadata = _parts(_STATUS, request)
        if metadata:
            version = self._version(name, number, label)
            spec = {"name": name, "signature_name": "", "version": str(version.number)}
            signatures = {"signature_def": version.describe_signatures()}
            content: dict[str, Any] = {
                "model_spec": spec,
                "metadata": {"signature_def": signatures},
            }
        else:
            content = {"model_version_status": self._states(name, number, label)}
        return JSONResponse(content, headers=_HEADERS)

    def _states(self, name: str, number: str | None, label: str | None) -> list[dict[str, Any]]:
        if name != self._model.name:
            raise HTTPException(404, f"Could not find any versions of model {name}")
        is_one = number is not None or label is not None
        versions = [self._version(name, number, label).number] if is_one else self._model.versions
        status = {"error_code": "OK", "error_message": ""}
        return [
            {"version": str(version), "state": "AVAILABLE", "status": status}
            for version in sorted(versions, reverse=True)
        ]

    def _version(self, name: str, number: str | None, label: str | None) -> Version:
        found = self._model.version(number, label) if name == self._model.name else None
        if found is None:
            spec = f"Specific({name}, {number})" if number else f"Latest({name})"
            raise HTTPException(404, f"Servable not found for request: {spec}")
        return found

    async def predict(self, request: Request) -> Response:
        spec = _parts(_PREDICT, request)

        def compute(body: bytes) -> bytes:
            version = self._version(*spec)
            content = parse_request(body)
            inputs = inputs_of(content, version.input_dtypes(content.signature))
            self._check_pixels(inputs)
            outputs = version.run(content.signature, inputs)
            return write_response(outputs, by_rows=content.by_rows)

        body = await self._queue.answer(request, compute)
        return Response(body, media_type="application/json", headers=_HEADERS)

    async def segment(self, request: Request) -> Response:
        if request.headers.get("Content-Type") != FILE_TYPE:
            raise HTTPException(
                415, f"Content-Type must be {FILE_TYPE}, and the body a PNG or JPEG file"
            )

        def compute(body: bytes) -> bytes:
            self._check_pixels({FILE_INPUT: np.array([body], object)})
            return json.dumps(segment_file(self._model.newest, body)).encode()

        body = await self._queue.answer(request, compute)
        return Response(body, media_type="application/json", headers=_HEADERS)

    def _check_pixels(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        pixels = count_pixels(inputs)
        if pixels > self._limits.max_pixels:
            raise HTTPException(
                413,
                f"The images of the request have {pixels:.0f} pixels, more than "
                f"{self._limits.max_pixels}; send smaller or fewer images",
            )


class _KnownHosts:
    """Refuses requests to names of this machine that are not known."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        respond: ASGIApp = self._app
        if scope["type"] == "http" and _host_of(scope) not in self._hosts:
            respond = _error(403, f"The host of the address must be {' or '.join(self._hosts)}")
        await respond(scope, receive, send)


def _host_of(scope: Scope) -> str | None:
    try:
        return URL(scope=scope).hostname
    except ValueError:  # malformed
        return None


def _parts(route: re.Pattern[str], request: Request) -> Any:
    """Returns name, version number, label and further parts of a path."""
    path = request.scope["path"]
    found = route.fullmatch(path)
    if found is None:
        raise HTTPException(400, f"Malformed request: {request.method} {path}")
    return found.groups()


async def _refuse(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _error(error.status_code, error.detail, error.headers)
    if isinstance(error, ClientDisconnect):
        return _error(400, "The client has gone")
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return _error(code, str(error) or kind.__name__)
    return _error(500, f"Internal error: {type(error).__name__}")


def _error(code: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": reason}, code, headers=_HEADERS | dict(headers or {}))


def content_policy(html: str) -> str:
    """Returns the Content Security Policy of a page: its own script and style, and nothing else."""
    hashes = {tag: _hash(text) for tag, text in _INLINE.findall(html)}
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "img-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
