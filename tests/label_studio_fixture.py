"""A real Label Studio for tests: one per test session, from `.venv-label-studio`, on a free loopback port.

CELLLOOP_LABEL_STUDIO_BIN names another executable. Without one the tests that need it fail; they are never skipped,
because a green run must mean that the real server was asked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from backend.label_studio.client import LabelStudio
from backend.label_studio.expert import ExpertSession
from backend.label_studio.server import LabelStudioConfig, LabelStudioServer

EMAIL = "expert@cellloop.test"
SECOND_EMAIL = "second@cellloop.test"
PASSWORD = "a-password-for-tests"
TOKEN = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class RunningLabelStudio:
    """The session's Label Studio. Tests make projects of their own in it, and restart it only with `server`."""

    server: LabelStudioServer
    home: Path
    email: str = EMAIL
    password: str = PASSWORD
    token: str = TOKEN

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.server.url

    @property
    def images(self) -> Path:
        """Folder of images it may show: `d=images/<name>`."""
        return self.home / "files" / "images"

    def client(self) -> LabelStudio:
        """What the loop uses."""
        return LabelStudio(self.url, self.token)

    def expert(self) -> ExpertSession:
        """What an expert does."""
        return ExpertSession(self.url, self.token)

    def second_expert(self) -> ExpertSession:
        """Somebody else, who came by the invitation link."""
        with httpx.Client(base_url=self.url, trust_env=False) as http:
            self._post(http, "/user/login/", {"email": SECOND_EMAIL, "password": self.password})
            if not http.get("/api/current-user/token").is_success:
                link = self.client().transport.get("/api/invite")["invite_url"]
                self._post(http, link, {"email": SECOND_EMAIL, "password": self.password, "allow_newsletters": "false"})
            return ExpertSession(self.url, http.get("/api/current-user/token").json()["token"])

    def _post(self, http: httpx.Client, page: str, form: dict[str, str]) -> None:
        http.get(page)
        http.post(page, data={**form, "csrfmiddlewaretoken": http.cookies["csrftoken"]}, headers={"Referer": self.url})


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def executable() -> Path:
    """The label-studio command for tests; fails the test when there is none."""
    beside = Path(__file__).resolve().parents[1] / ".venv-label-studio" / "bin" / "label-studio"
    path = Path(os.environ.get("CELLLOOP_LABEL_STUDIO_BIN") or beside)
    if not path.is_file():
        pytest.fail(
            f"{path}: expected a real Label Studio for this test, found none. Make it with `bash scripts/test.sh`, or "
            f"name one: CELLLOOP_LABEL_STUDIO_BIN=/path/to/label-studio"
        )
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the fixture, so that `-m "not label_studio"` leaves them out."""
    for item in items:
        if "label_studio" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.label_studio)


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLabelStudio]:
    """A real Label Studio with one user, stopped with all its processes at the end."""
    home = tmp_path_factory.mktemp("label-studio-home").resolve()
    config = LabelStudioConfig(executable(), home, EMAIL, PASSWORD, TOKEN, port=free_port())
    with LabelStudioServer(config) as server:
        yield RunningLabelStudio(server, home)
