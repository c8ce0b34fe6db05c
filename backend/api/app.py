"""The server's composition root: reads the settings once and hands every route its collaborators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.datastructures import Headers

from backend.api import (
    auth,
    crops,
    errors,
    health,
    history,
    live,
    openapi,
    operations,
    predict,
    review_queue,
    status,
    webhook,
)
from backend.api.dashboard.app import Beside, create_dashboard
from backend.api.deps import Server
from backend.api.headers import API, SafeHeaders
from backend.api.limits import BodyLimit
from backend.api.metrics_record import RecordCollector
from backend.api.requests import Requests
from backend.api.task_images import TaskImages
from backend.crop_cache import CropCache
from backend.decoded_images import DecodedImages
from backend.errors import DatabaseNotMigrated
from backend.far_store import open_store
from backend.home import prepare_home
from backend.label_studio.uploads import LabelStudioUploads
from backend.rotation import CurrentCredentials
from backend.serving import PairCache, PairLoader
from backend.settings import Settings
from backend.tokens import adopt_former
from db.migrate import pending
from db.session import Database


def create_app(settings: Settings | None = None, *, loader: PairLoader | None = None) -> FastAPI:
    """The backend as an ASGI application.

    settings: default from the environment. loader: how a pair's row becomes detectors, default from our files.

    Raises HomeUnusable, DatabaseNotMigrated and CredentialsUnusable. Loads no model: a server starts in about a second.
    """
    settings = settings or Settings()
    prepare_home(settings.home)
    database = Database(settings.database_url)
    if pending(settings.database_url):
        shown = database.engine.url.render_as_string(hide_password=True)
        raise DatabaseNotMigrated(f"{shown}: expected today's tables, got older ones or none; run: cellloop migrate")
    secrets = CurrentCredentials(settings.home)
    adopt_former(database, secrets.read().former_token_sha256)
    store = open_store(settings.files, settings.files_url)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        database.dispose()

    # No /docs: an open schema page is one more thing to guard. /api/v1/openapi.json wants the token.
    app = FastAPI(title="cellloop", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    server = Server(
        settings=settings,
        secrets=secrets,
        database=database,
        store=store,
        pairs=PairCache(database, store, settings.device, loader),
        images=TaskImages(
            database,
            store,
            roots=settings.image_roots,
            label_studio_url=settings.label_studio_url,
            uploads=LabelStudioUploads(
                settings.label_studio_url,
                lambda: settings.label_studio_token or secrets.read().label_studio_token,
            ),
            max_bytes=settings.max_image_bytes,
        ),
        crops=CropCache(settings.crops),
        decoded=DecodedImages(store),
    )
    server.metrics.registry.register(RecordCollector(database, settings.home))
    app.state.server = server
    app.add_middleware(Beside, dashboard=create_dashboard(server))
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        known=lambda scope: auth.is_label_studio(Headers(scope=scope), server.credentials),
    )
    app.add_middleware(Requests, metrics=server.metrics)  # around the others: what they answer is named, too
    app.add_middleware(SafeHeaders, headers=API)
    errors.install(app)
    for module in (operations, health, predict, webhook, status, live, review_queue, history, openapi, crops):
        app.include_router(module.router)
    return app
