"""`cellloop simulate`: its help, and one clear line for what it cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import cli


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["simulate", *arguments])
    return int(left.value.code or 0)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    for option in ("--data", "--strategies", "--seeds", "--error-rate", "--weights", "--json", "--report"):
        assert option in shown


def test_an_unknown_strategy_is_one_line_with_those_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--data", str(tmp_path), "--strategies", "ours,luck") == 1
    error = capsys.readouterr().err.strip()
    assert "'luck'" in error
    assert "core-set" in error
    assert "\n" not in error


def test_a_missing_folder_is_one_line_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "home"))
    assert run("--data", str(tmp_path / "nowhere")) == 1
    error = capsys.readouterr().err.strip()
    assert "nowhere" in error
    assert "\n" not in error
    assert not (tmp_path / "home" / "simulate").exists()
