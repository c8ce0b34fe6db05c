"""The README tells the truth: every command, option, file, link and picture in it exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from backend.settings import Settings
from scripts import cli

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
LINES = [part.strip() for block in BLOCKS for line in block.splitlines() for part in line.split("&&")]
CODE = re.findall(r"`([^`\n]+)`", README) + LINES
COMMANDS = sorted({code for code in CODE if code.startswith("cellloop ") and "<" not in code})
SCRIPTS = sorted({code for code in CODE if code.startswith("bash ")})
FILES = sorted({code for code in CODE if re.fullmatch(r"[\w.-]+(/[\w.-]+)+|[\w-]+\.(?:yml|toml|md)", code)})
LINKS = sorted({link for link in re.findall(r"\]\(([^)\s]+)\)", README) if "://" not in link})


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """What `cellloop <command> --help` prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--help"])
    assert not left.value.code, command
    return capsys.readouterr().out


def test_something_was_found() -> None:
    assert len(COMMANDS) >= 10
    assert {"bash scripts/demo.sh", "bash scripts/test.sh"} <= set(SCRIPTS)
    assert len(FILES) >= 15
    assert any(link.endswith(".png") for link in LINKS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_with_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, verb, *arguments = shlex.split(command)
    assert verb in cli.VERBS
    family = arguments[:1] if getattr(cli.verb_module(verb), "app", None) else []
    shown = help_of(capsys, verb, *family)
    assert [word for word in arguments if word.startswith("--") and word not in shown] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_exists_with_its_options(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, file, *arguments = shlex.split(script)
    assert (REPOSITORY / file).is_file()
    if file == "scripts/demo.sh":  # hands its options to `cellloop demo`
        shown = help_of(capsys, "demo")
        assert [word for word in arguments if word.startswith("--") and word not in shown] == []


def test_every_verb_is_told_of() -> None:
    told = {shlex.split(command)[1] for command in COMMANDS} | {"demo"}  # as scripts/demo.sh
    assert set(cli.VERBS) - told == set()


@pytest.mark.parametrize("file", FILES)
def test_every_file_exists(file: str) -> None:
    assert (REPOSITORY / file).exists()


@pytest.mark.parametrize("link", LINKS)
def test_every_local_link_leads_somewhere(link: str) -> None:
    target, _, anchor = link.partition("#")
    assert (REPOSITORY / target).exists()
    if anchor and not target:
        headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pictures_are_pictures() -> None:
    for link in LINKS:
        if link.endswith(".png"):
            assert (REPOSITORY / link).read_bytes().startswith(b"\x89PNG\r\n\x1a\n"), link


def test_every_setting_named_exists() -> None:
    named = set(re.findall(r"CELLLOOP_([A-Z_]+[A-Z])", README))
    assert named - {name.upper() for name in Settings.model_fields} == set()
