"""Secrets are replaced while the server serves: old and new ones are good until Label Studio knows the new ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from al_loop import rotate as rotating
from al_loop.context import Loop
from backend.credentials import Credentials, credentials_file, load_credentials
from backend.errors import NotConnected
from backend.label_studio.client import LabelStudio
from tests.backend.label_studio.recorder import Recorder, recording
from tests.backend.server import Bench

NEW_TOKEN = "f" * 40
TOKEN_PATH = "/api/current-user/reset-token/"


@dataclass
class Meeting:
    """A server of ours that runs, the loop of its home, and a Label Studio that gives new tokens."""

    bench: Bench
    client: TestClient
    loop: Loop
    label_studio: Recorder

    def accepts(self, known: Credentials) -> tuple[bool, bool]:
        """Whether the server takes this Basic password, and this webhook secret."""
        basic = self.client.get("/health", auth=(known.basic_user, known.basic_password))
        called = self.client.post("/webhook", json={"action": "PING"}, **self.bench.bearer(known.webhook_secret))
        return basic.status_code == 200, called.status_code == 202


@pytest.fixture
def meeting(tmp_path: Path, sqlite_url: str) -> Iterator[Meeting]:
    with recording({TOKEN_PATH: (201, {"token": NEW_TOKEN})}) as studio:
        bench = Bench(tmp_path / "home", sqlite_url, label_studio_url=studio.url)
        with bench.client() as client:
            loop = Loop(bench.settings, bench.database, bench.store, bench.credentials)
            yield Meeting(bench, client, loop, studio)
        bench.database.dispose()


def test_both_are_good_while_label_studio_is_told(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    old, told = meeting.bench.credentials, []

    def connect(loop: Loop, _studio: LabelStudio) -> None:
        told.append(loop.credentials)
        assert meeting.accepts(old) == (True, True)
        assert meeting.accepts(loop.credentials) == (True, True)

    monkeypatch.setattr(rotating, "connect", connect)
    replaced = rotating.rotate(meeting.loop, meeting.loop.label_studio())
    [new] = told
    assert not {new.basic_password, new.webhook_secret} & {old.basic_password, old.webhook_secret}
    assert meeting.accepts(new) == (True, True)
    assert meeting.accepts(old) == (False, False)
    assert replaced == ["basic_password", "webhook_secret", "label_studio_token"]
    now = load_credentials(meeting.bench.settings.home)
    assert (now.label_studio_token, now.crop_key, now.session_key) == (NEW_TOKEN, old.crop_key, old.session_key)
    assert (now.former_basic_password, now.former_webhook_secret) == ("", "")


def test_a_rotation_that_broke_off_is_finished_and_nothing_ends_before(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, told = meeting.bench.credentials, []

    def connect(loop: Loop, _studio: LabelStudio) -> None:
        told.append(loop.credentials)
        if len(told) == 1:
            raise NotConnected("Label Studio does not reach our backend")

    monkeypatch.setattr(rotating, "connect", connect)
    with pytest.raises(NotConnected):
        rotating.rotate(meeting.loop, meeting.loop.label_studio())
    assert meeting.accepts(old) == (True, True)
    assert meeting.accepts(told[0]) == (True, True), "Label Studio may have been told a part of it"
    rotating.rotate(meeting.loop, meeting.loop.label_studio())
    assert told[1] == told[0], "no third set"
    assert meeting.accepts(old) == (False, False)


def test_a_running_worker_takes_the_new_token_when_the_old_is_refused(meeting: Meeting) -> None:
    whoami = "/api/current-user/whoami"
    studio = meeting.loop.label_studio()
    meeting.label_studio.answers[whoami] = (401, {"detail": "Invalid token."})
    with pytest.raises(Exception, match="refuses our legacy token"):
        studio.whoami()
    assert len(meeting.label_studio.to(whoami)) == 1, "the same token is not tried again"
    rotating.change_credentials(meeting.bench.settings.home, lambda _known: {"label_studio_token": NEW_TOKEN})
    with pytest.raises(Exception, match="refuses our legacy token"):
        studio.whoami()
    sent = [call.headers["Authorization"] for call in meeting.label_studio.to(whoami)]
    assert sent[1:] == [sent[0], f"Token {NEW_TOKEN}"]


def test_a_file_that_became_unusable_changes_nothing_for_who_is_served(meeting: Meeting) -> None:
    path = credentials_file(meeting.bench.settings.home)
    good = path.read_text()
    for break_it in (lambda: path.write_text("{"), lambda: path.chmod(0o644), path.unlink):
        break_it()
        assert meeting.accepts(meeting.bench.credentials) == (True, True)
    path.write_text(good.replace(meeting.bench.credentials.basic_password, "another password"))
    path.chmod(0o600)
    assert meeting.accepts(meeting.bench.credentials) == (False, True)
