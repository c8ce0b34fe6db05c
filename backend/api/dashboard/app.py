"""The dashboard as an application of its own beside the API: pages instead of JSON, errors included."""

from __future__ import annotations

import logging

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.api import auth
from backend.api.dashboard import (
    assets,
    cells,
    experts,
    images,
    login,
    models,
    operate,
    overview,
    pictures,
    review_queue,
    smears,
)
from backend.api.dashboard.view import render
from backend.api.deps import Server
from backend.api.errors import NotSignedIn, status_of
from backend.api.headers import DASHBOARD, SafeHeaders
from backend.api.routes import described
from backend.errors import CellloopError
from backend.logs import current
from db.errors import RecordError

log = logging.getLogger(__name__)

TITLES = {401: "Sign in first", 403: "Not allowed", 404: "Not here", 422: "Not understood"}


class Beside:
    """ASGI middleware: the dashboard answers what lies below /dashboard, the API everything else."""

    def __init__(self, app: ASGIApp, dashboard: ASGIApp) -> None:
        self.app = app
        self.dashboard = dashboard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        ours = scope["type"] == "http" and (path == login.HOME or path.startswith(f"{login.HOME}/"))
        await (self.dashboard if ours else self.app)(scope, receive, send)


def create_dashboard(server: Server) -> ASGIApp:
    """The dashboard's pages over the server's collaborators."""
    app = FastAPI(title="cellloop dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.server = server
    for module in (assets, login, pictures):
        app.include_router(module.router, prefix=login.HOME)
    app.include_router(operate.router, prefix=login.HOME)
    for page in (overview, models, experts, review_queue, images, cells, smears):
        app.include_router(page.router, prefix=login.HOME, dependencies=[Depends(auth.page)])
    _answer_errors(app)
    return SafeHeaders(app, DASHBOARD)


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(NotSignedIn)
    def to_sign_in(request: Request, _error: NotSignedIn) -> Response:
        return RedirectResponse(login.sign_in_address(request.url.path), 303)

    @app.exception_handler(CellloopError)
    @app.exception_handler(RecordError)
    def expected(request: Request, error: Exception) -> Response:
        log.warning("%s refused: %s", described(request.scope), error)
        return _problem(request, str(error), status_of(error))

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _problem(request, f"{first['loc'][-1]}: {first['msg']}", 422)

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        return _problem(request, f"{request.url.path}: {error.detail}", error.status_code)

    @app.exception_handler(DBAPIError)
    def record(request: Request, error: DBAPIError) -> Response:
        log.error("%s: the database failed: %s", described(request.scope), error.orig)
        return _problem(request, "The database does not answer; see the backend's log", 503)

    @app.exception_handler(Exception)
    def unexpected(request: Request, _error: Exception) -> Response:
        return _problem(request, f"{request.url.path} failed; see the backend's log", 500)


def _problem(request: Request, text: str, status: int) -> Response:
    title = TITLES.get(status, "This did not work")
    return render(request, "problem.html.j2", status, title=title, text=text, request_id=current().get("request", ""))
