"""`cellloop token`: shown once, on stdout alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.tokens import holder_of
from db.session import Database
from db.tokens import Scope
from scripts import cli


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run one command on a migrated home: what it prints; nothing goes to stderr."""
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CELLLOOP_DATABASE_URL", sqlite_url)

    def command(*arguments: str) -> str:
        with pytest.raises(SystemExit) as left:
            cli.main(("token", *arguments))
        printed = capsys.readouterr()
        assert (left.value.code or 0, printed.err) == (0, "")
        return printed.out

    return command


def test_created_listed_revoked(run: Callable[..., str], sqlite_database: Database) -> None:
    token = run("create", "--name", "ada", "--scope", "operate", "--expires-days", "90").strip()
    holder = holder_of(sqlite_database, token)
    assert holder is not None
    assert holder.scope == Scope.operate
    other = json.loads(run("create", "--name", "ben", "--scope", "read", "--json"))
    assert holder_of(sqlite_database, other["token"]) is not None
    shown = run("list")
    assert "ada" in shown
    assert "good until 20" in shown
    assert token not in shown
    assert run("revoke", str(holder.token_id)).split()[:2] == ["id", str(holder.token_id)]
    assert holder_of(sqlite_database, token) is None
    states = [row["state"][:8] for row in json.loads(run("list", "--json"))["tokens"]]
    assert states == ["revoked ", "good unt"]
