"""Credentials: generated once, unreadable to others, never silently replaced."""

from __future__ import annotations

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
    for name in ("label_studio_password", "label_studio_token", "api_token", "basic_password", "webhook_secret"):
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
    assert credentials.api_token not in repr(credentials)
