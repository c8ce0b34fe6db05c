"""The command: a reason is due, it asks first at a terminal, and tombstones are listed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from al_loop.context import Loop
from backend.credentials import load_credentials
from backend.settings import Settings
from backend.store import FileStore
from db.session import Database
from scripts import cli
from tests import builders

Run = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    """Somebody who types this."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """`cellloop forget-patient` in a home with one image of a patient: exit status, stdout, stderr."""
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CELLLOOP_DATABASE_URL", sqlite_url)
    settings = Settings(home=tmp_path / "home", database_url=sqlite_url)
    loop = Loop(settings, Database(sqlite_url), FileStore(settings.files), load_credentials(settings.home))
    with loop.database.session() as session:
        builders.say(session, builders.add_cell(session, builders.add_image(session, patient="P-1")), "ring")

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main(["forget-patient", *arguments])
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return command


def test_a_patient_is_forgotten_and_listed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ((), ("P-1", "--list", "--reason", "x"), ("P-1",), ("P-9", "--reason", "asked to")):
        status, out, err = run(*wrong)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "expected" in err
    status, out, _ = run("P-1", "--dry-run", "--json")
    planned = json.loads(out)
    assert (status, planned["images"], planned["labels"], planned["removed"]) == (0, 1, 1, False)
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    status, out, _ = run("P-1", "--reason", "consent withdrawn")
    assert (status, json.loads(run("--list", "--json")[1])) == (1, {"forgettings": []})
    assert "Remove all of this for good?" in out
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    status, out, _ = run("P-1", "--reason", "consent withdrawn")
    assert (status, "finished" in out) == (0, True)
    status, out, _ = run("--list", "--json")
    [row] = json.loads(out)["forgettings"]
    assert (row["reason"], row["images"], row["removed"]["rows"]["label_revisions"]) == ("consent withdrawn", 1, 1)
    assert "consent withdrawn" in run("--list")[1]
