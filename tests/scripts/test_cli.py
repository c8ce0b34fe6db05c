"""The frame of the command line: help, errors in one line, exit codes, and a start that loads no model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from al_loop.benchmark_history import ENGINES
from al_loop.export import WRITERS
from al_loop.formats.detect import FORMATS
from al_loop.judge import VIEWS
from backend.errors import ImageRefused
from backend.history.periods import PERIODS
from backend.instances import ROLES
from db import models, tokens
from db.errors import NotFound
from scripts import cli, console
from scripts.options import Engine, ExportFormat, Format, Period, Role, Scope, Split, View

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process on an empty home: exit status, stdout, stderr."""
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "home"))

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return command


def commands() -> list[tuple[str, ...]]:
    """Every command there is, those of families included."""
    found: list[tuple[str, ...]] = []
    for verb in cli.VERBS:
        family = getattr(cli.verb_module(verb), "app", None)
        members = [info.name or info.callback.__name__ for info in family.registered_commands] if family else []
        found += [(verb, member) for member in members] or [(verb,)]
    return found


def test_every_file_of_a_verb_is_registered() -> None:
    # A verb's file opens with the command it is; the others are what verbs share.
    files = set(Path(cli.__file__).parent.glob("*.py")) - {Path(cli.__file__)}
    written = {path.stem for path in files if path.read_text(encoding="utf-8").startswith('"""`cellloop ')}
    assert {cli.verb_module(verb).__name__.rpartition(".")[2] for verb in cli.VERBS} == written


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_of_every_command_shows_an_example(run: Run, command: tuple[str, ...]) -> None:
    status, shown, _ = run(*command, "--help")
    assert status == 0
    assert "Example:" in shown
    assert "cellloop" in shown.split("Example:")[1]


def test_help_lists_every_verb(run: Run) -> None:
    status, shown, _ = run("--help")
    assert status == 0
    assert [verb for verb in cli.VERBS if verb not in shown] == []


def test_starting_loads_neither_torch_nor_the_database() -> None:
    heavy = "{'torch', 'sqlalchemy', 'numpy', 'fastapi', 'cv2', 'label_studio_sdk'}"
    code = f"import sys, scripts.cli; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (started.returncode, started.stderr) == (0, "")


def test_roles_offered_are_the_roles_there_are() -> None:
    assert tuple(role.value for role in Role) == ROLES
    assert tuple(view.value for view in View) == VIEWS
    assert sorted(name.value for name in Format) == sorted(FORMATS)
    assert [name.value for name in ExportFormat] == list(WRITERS)
    assert [name.value for name in Split] == [split.value for split in models.Split]
    assert [period.value for period in Period] == list(PERIODS)
    assert [engine.value for engine in Engine] == list(ENGINES)
    assert [scope.value for scope in Scope] == [scope.value for scope in tokens.Scope]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ImageRefused("expected an image,\n got text"), "expected an image, got text"),
        (NotFound("expected version 7, found none"), "expected version 7, found none"),
        (FileNotFoundError(2, "No such file or directory", "smears.zip"), "smears.zip: No such file or directory"),
    ],
)
def test_expected_error_is_one_line(error: Exception, line: str) -> None:
    assert console.expected(error) == line


def test_unreachable_database_names_the_variable() -> None:
    message = console.expected(OperationalError("SELECT 1", {}, Exception("connection refused")))
    assert message is not None
    assert "connection refused" in message
    assert "CELLLOOP_DATABASE_URL" in message
    assert "\n" not in message


def test_bug_is_not_taken_for_an_expected_error() -> None:
    assert console.expected(KeyError("x")) is None
    assert console.expected(ValueError("x")) is None


def test_unusable_setting_names_the_variable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLLOOP_PORT", "many")
    status, out, err = run("migrate")
    assert (status, out) == (1, "")
    assert err.startswith("error: settings: CELLLOOP_PORT: ")
    assert err.count("\n") == 1


def test_command_before_migrating_says_to_migrate(run: Run) -> None:
    status, out, err = run("promote", "1")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert "cellloop migrate" in err
    assert err.count("\n") == 1


def test_migrate_reports_and_repeats(run: Run) -> None:
    assert run("migrate", "--check")[0] == 1
    status, out, _ = run("migrate", "--json")
    first = json.loads(out)
    assert status == 0
    assert first["before"] is None
    assert first["pending"] is False
    assert json.loads(run("migrate", "--json")[1])["before"] == first["now"]
    assert run("migrate", "--check")[0] == 0


def test_rollback_and_promotion_without_a_version_change_nothing(run: Run) -> None:
    run("migrate")
    for command in (("promote", "7"), ("rollback", "--role", "infected")):
        status, _, err = run(*command)
        assert status == 1
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_emit_prints_nested_reports_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit({"images": 3, "splits": {"train": 2, "test": 1}, "problems": ["a: b"], "nothing": None}, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "images    3",
        "splits",
        "  train  2",
        "  test   1",
        "problems",
        "  - a: b",
        "nothing   none",
    ]
