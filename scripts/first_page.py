"""The dashboard's first page as a browser gets it, from a server inside this process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from fastapi.testclient import TestClient

from backend.api.app import create_app
from backend.settings import Settings
from backend.tokens import issue
from db.models import now
from db.tokens import Scope


def first_page(url: str, home: Path) -> Callable[[], object]:
    """A server of the record at this address, and somebody signed in: each call of the answer fetches the page.

    home: a folder for the server's secrets. Nothing listens anywhere.
    """
    app = create_app(Settings(home=home, database_url=url))
    token = issue(app.state.server.database, "first page", Scope.read, now() + timedelta(days=1))
    client = TestClient(app)
    client.post("/dashboard/login", data={"token": token.text}).raise_for_status()

    def fetch() -> str:
        return client.get("/dashboard").raise_for_status().text

    return fetch
