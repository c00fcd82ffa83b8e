"""The web API as an ASGI application. It reads through the query gate alone and changes nothing.

URL --> parameters.parse --> Query, in a thread --> answers --> JSON

Queries run in threads, as the store waits for its disk; a few at a time, so that clients queue and the daemon's memory
does not. One event loop serves an application: that limit is not for several. Give it a Query of a read-only store of
its own: a store's connection serves one caller at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collectors.clock import Clock
from monitor.core.questions import BadQuery, Denied, Principal
from monitor.query import Query
from monitor.selfmetrics import DaemonSnapshot
from monitor.store.protocol import StoreUnavailable
from monitor.web import allocation, requests, status, windows
from monitor.web.answers import (
    AllocationAnswer,
    Answer,
    ErrorAnswer,
    Failure,
    Index,
    RequestsAnswer,
    StatusAnswer,
    WindowsAnswer,
)
from monitor.web.headers import HEADERS, SecurityHeaders
from monitor.web.openapi import Operation, document
from monitor.web.parameters import Asked, parse
from monitor.web.tables import ALLOCATION, REQUESTS, STATUS, WINDOWS

QUERIES_AT_ONCE: Final = 4
RETRY_SECONDS: Final = 10
LOCAL: Final = Principal(name="local", role="admin")
METHODS: Final = ("GET", "OPTIONS")  # starlette adds HEAD to GET

OPERATIONS: Final = (
    Operation(
        path="/v1/allocation",
        about="Who used how many joules: by model, team, label and more.",
        parameters=ALLOCATION,
        answer=AllocationAnswer,
    ),
    Operation(
        path="/v1/windows",
        about="The books of each host and window: measured against attributed, idle and unattributed.",
        parameters=WINDOWS,
        answer=WindowsAnswer,
    ),
    Operation(path="/v1/requests", about="What each request used.", parameters=REQUESTS, answer=RequestsAnswer),
    Operation(
        path="/v1/status",
        about="How the daemon does and how far its books are.",
        parameters=STATUS,
        answer=StatusAnswer,
    ),
)
DOCUMENT_PATH: Final = "/v1/openapi.json"

_Answering = Callable[[Query, Principal, Asked], Answer]


def local_admin(_request: Request) -> Principal:
    """Who asks on loopback could read the files as well."""
    return LOCAL


def build_app(
    query: Query,
    *,
    clock: Clock,
    daemon: Callable[[], DaemonSnapshot],
    principal_of: Callable[[Request], Principal] = local_admin,
) -> Starlette:
    """The application. `daemon` draws what /v1/status shows, in any thread; `principal_of` may raise Denied."""
    answering: dict[str, _Answering] = {
        "/v1/allocation": allocation.answer,
        "/v1/windows": windows.answer,
        "/v1/requests": requests.answer,
        "/v1/status": partial(status.answer, daemon=daemon),
    }
    limiter = CapacityLimiter(QUERIES_AT_ONCE)

    def route(operation: Operation) -> Route:
        async def endpoint(request: Request) -> Response:
            if request.method == "OPTIONS":
                return _options()
            asked = parse(operation.parameters, request.query_params.multi_items(), clock.now())
            principal = principal_of(request)
            answer = partial(_answer, answering[operation.path], query, principal, asked)
            return await to_thread.run_sync(answer, limiter=limiter)

        return Route(operation.path, endpoint, methods=METHODS)

    release = version("wattribute")
    index = Index(
        name="wattribute",
        version=release,
        addresses={**{each.path: each.about for each in OPERATIONS}, DOCUMENT_PATH: "This API as OpenAPI 3.1."},
    )
    return Starlette(
        routes=[
            *(route(operation) for operation in OPERATIONS),
            _constant("/", index),
            _constant(DOCUMENT_PATH, document(OPERATIONS, release)),
        ],
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={
            BadQuery: _bad_query,
            Denied: _denied,
            StoreUnavailable: _unavailable,
            HTTPException: _http,
            Exception: _ours,
        },
    )


def _answer(answering: _Answering, query: Query, principal: Principal, asked: Asked) -> Response:
    """Runs in a thread, encoding included: ten thousand lines take a while."""
    try:
        return _json(answering(query, principal, asked))
    except BadQuery as error:
        raise asked.in_its_words(error) from error


def _constant(path: str, content: object) -> Route:
    body = msgspec.json.encode(content)

    async def endpoint(request: Request) -> Response:
        if request.method == "OPTIONS":
            return _options()
        parse((), request.query_params.multi_items(), 0.0)
        return Response(body, media_type="application/json")

    return Route(path, endpoint, methods=METHODS)


def _json(content: object, code: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), code, headers, "application/json")


def _options() -> Response:
    return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": "GET, HEAD, OPTIONS"})


def _failure(code: int, reason: str, *, field: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    return _json(ErrorAnswer(error=Failure(field=field, reason=reason)), code, headers)


def _bad_query(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BadQuery)
    return _failure(HTTPStatus.BAD_REQUEST, error.reason, field=error.field)


def _denied(_request: Request, error: Exception) -> Response:
    return _failure(HTTPStatus.FORBIDDEN, str(error))


def _unavailable(_request: Request, _error: Exception) -> Response:
    # The error's own text names paths of this host; whoever runs the daemon finds it in `wattribute status`.
    reason = f"the store cannot be read now; ask again in {RETRY_SECONDS} s"
    return _failure(HTTPStatus.SERVICE_UNAVAILABLE, reason, headers={"Retry-After": str(RETRY_SECONDS)})


def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known: Sequence[str] = ("/", *(each.path for each in OPERATIONS), DOCUMENT_PATH)
    reasons = {
        HTTPStatus.NOT_FOUND: f"there is nothing here; addresses are {', '.join(known)}",
        HTTPStatus.METHOD_NOT_ALLOWED: "this only answers questions: GET, HEAD or OPTIONS",
    }
    reason = reasons.get(HTTPStatus(error.status_code), error.detail)
    return _failure(error.status_code, reason, headers=error.headers)


def _ours(_request: Request, _error: Exception) -> Response:
    # starlette raises it again behind this answer, so that the server logs it with its traceback. It is sent from
    # outside the middleware, so it brings the headers itself.
    reason = "a mistake of the daemon's own; its log says which"
    return _failure(HTTPStatus.INTERNAL_SERVER_ERROR, reason, headers=HEADERS)
