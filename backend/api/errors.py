"""The one place where errors get HTTP status codes. Clients see one line of text, never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError
from starlette.exceptions import HTTPException

from backend import errors
from backend.api.routes import described
from backend.logs import current
from db import errors as record_errors

log = logging.getLogger(__name__)


class Unauthorized(errors.CellloopError):
    """A request without the secret its route asks for."""

    challenge = 'Basic realm="cellloop"'


class TokenExpected(Unauthorized):
    """A request to our own API without its token. Asked for Basic auth, a browser would open a window of its own."""

    challenge = 'Bearer realm="cellloop"'


class NotSignedIn(TokenExpected):
    """A page of the dashboard was asked for without a session."""


class ScopeTooSmall(errors.CellloopError):
    """A request with a token, or a session, that is good for less than its route does."""


class FormRefused(errors.CellloopError):
    """A form of the dashboard that another page, or nobody's page, has sent."""


class BodyTooLarge(errors.CellloopError):
    """A request body over the limit."""


class MalformedRequest(errors.CellloopError):
    """A request body that is not what the protocol says."""


# The nearest class in an error's ancestry decides; what is not listed is our own fault: 500.
STATUS: dict[type[Exception], int] = {
    MalformedRequest: 400,
    record_errors.UnusableQuestion: 400,
    Unauthorized: 401,
    ScopeTooSmall: 403,
    FormRefused: 403,
    errors.ImageOutsideRoots: 403,
    record_errors.NotFound: 404,
    record_errors.IllegalTransition: 409,
    BodyTooLarge: 413,
    errors.ImageRefused: 422,
    errors.UnusableLabelConfig: 422,
    errors.UnusableAnnotations: 422,
    errors.LabelStudioRefused: 502,
    errors.LabelStudioUnavailable: 502,
    errors.NoTrainedModel: 503,
    errors.FileStoreUnavailable: 503,
}


def status_of(error: Exception) -> int:
    """HTTP status code of an expected error."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_response(error: Exception) -> JSONResponse:
    """The reply to an expected error: its text, in one line."""
    headers = {"WWW-Authenticate": error.challenge} if isinstance(error, Unauthorized) else None
    return said(str(error), status_of(error), headers)


def failed_response(what: str) -> JSONResponse:
    """The reply to a bug of ours. The log has the traceback, the client does not."""
    return said(f"{what} failed; see the backend's log", 500)


def said(text: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error's text, and under which id the log tells more: {"error", "request"}."""
    return JSONResponse({"error": text, "request": current().get("request", "")}, status, headers)


def install(app: FastAPI) -> None:
    """Teach the app every answer above."""

    @app.exception_handler(errors.CellloopError)
    @app.exception_handler(record_errors.RecordError)
    def expected(request: Request, error: Exception) -> JSONResponse:
        log.warning("%s refused: %s", described(request.scope), error)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        # Where and what, without the input itself: it may be a whole project, or a password.
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        log.warning("%s: %s: %s", described(request.scope), place, first["msg"])
        return said(f"{place}: {first['msg']}", 422)

    @app.exception_handler(HTTPException)
    def http(_request: Request, error: HTTPException) -> JSONResponse:
        return said(error.detail, error.status_code, error.headers)

    @app.exception_handler(DataError)
    def unstorable(request: Request, error: DataError) -> JSONResponse:
        log.warning("%s: a value the database cannot hold: %s", described(request.scope), error.orig)
        return said("expected values that the database can hold, got one it cannot", 422)

    @app.exception_handler(DBAPIError)
    def record(request: Request, error: DBAPIError) -> JSONResponse:
        log.error("%s: the database failed: %s", described(request.scope), error.orig)
        return said("the database does not answer; see the backend's log", 503)
