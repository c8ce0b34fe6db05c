"""Credentials: generated once, unreadable to others, never silently replaced."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.credentials import credentials_file, load_credentials
from backend.errors import CredentialsUnusable


def test_generated_once_and_only_the_owner_reads(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = load_credentials(home)
    assert stat.S_IMODE(credentials_file(home).stat().st_mode) == 0o600
    assert load_credentials(home) == first
    assert re.fullmatch(r"[0-9a-f]{40}", first.label_studio_token)
    assert [p.name for p in home.iterdir()] == ["credentials.json"], "no temporary file stays behind"


def test_two_homes_share_no_secret(tmp_path: Path) -> None:
    one, two = load_credentials(tmp_path / "one"), load_credentials(tmp_path / "two")
    for name in (
        "label_studio_password",
        "label_studio_token",
        "basic_password",
        "webhook_secret",
        "crop_secret",
        "session_secret",
    ):
        assert getattr(one, name) != getattr(two, name)


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_credentials(tmp_path), range(16)))
    assert all(credentials == found[0] for credentials in found)


def test_refuses_a_file_others_can_read(tmp_path: Path) -> None:
    load_credentials(tmp_path)
    credentials_file(tmp_path).chmod(0o640)
    with pytest.raises(CredentialsUnusable, match=r"0640.*chmod 600"):
        load_credentials(tmp_path)


def test_refuses_a_damaged_file_and_keeps_it(tmp_path: Path) -> None:
    path = credentials_file(tmp_path)
    path.write_text('{"label_studio_email": ')
    path.chmod(0o600)
    with pytest.raises(CredentialsUnusable, match="backup"):
        load_credentials(tmp_path)
    assert path.read_text() == '{"label_studio_email": '
    path.write_text("{}")
    with pytest.raises(CredentialsUnusable, match="label_studio_token"):
        load_credentials(tmp_path)


def test_secrets_are_not_in_the_repr(tmp_path: Path) -> None:
    credentials = load_credentials(tmp_path)
    assert credentials.basic_password not in repr(credentials)


def test_an_older_file_loses_its_plain_token_and_nothing_else(tmp_path: Path) -> None:
    new = json.loads(_generated(tmp_path).read_text())
    kept = {name: new[name] for name in new if name not in ("crop_secret", "session_secret", "former_token_sha256")}
    path = credentials_file(tmp_path)
    path.write_text(json.dumps(kept | {"api_token": "the old token"}))
    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(lambda _: load_credentials(tmp_path), range(8))
    assert others == [first] * 7, "processes that start together agree"
    assert "the old token" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {name: getattr(first, name) for name in kept} == kept
    assert first.former_token_sha256 == hashlib.sha256(b"the old token").hexdigest()
    # Label Studio's tasks hold addresses that were signed with this key.
    assert first.crop_key == hmac.new(b"the old token", b"cellloop crops", hashlib.sha256).digest()
    assert first.session_key != hmac.new(b"the old token", b"cellloop sessions", hashlib.sha256).digest()


def _generated(home: Path) -> Path:
    load_credentials(home)
    return credentials_file(home)
