"""Units, alerts and the runbook: what they name exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from backend.api.app import create_app
from backend.settings import Settings
from backend.tokens import issue
from db import inbox, runs
from db.models import now
from db.session import Database
from db.tokens import Scope
from scripts import cli
from tests import builders
from tests.house.tree import ROOT

UNITS = sorted((ROOT / "scripts/systemd").iterdir())
RUNBOOK = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
OF_PROMETHEUS = {"up"}  # made by Prometheus itself


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load((ROOT / "scripts/alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def test_every_metric_of_an_alert_is_there_with_its_labels(
    rules: list[dict[str, Any]], tmp_path: Path, sqlite_url: str
) -> None:
    settings = Settings(home=tmp_path, database_url=sqlite_url)
    database = Database(sqlite_url)
    with database.session() as session:
        builders.add_projects(session)
        inbox.receive(session, "PING", {})
        runs.open_run(session, "infected", "person", {}, {})
    token = issue(database, "prometheus", Scope.read).text
    database.dispose()
    (tmp_path / "last-backup").write_text(now().isoformat())
    with TestClient(create_app(settings)) as client:
        client.get("/health/live")
        text = client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    labels = {sample.name: set(sample.labels) for sample in samples}
    assert len(rules) >= 10
    for rule in rules:
        bare = re.sub(r'"[^"]*"', '""', rule["expr"])
        named = {n for n in re.findall(r"[a-z_]{2,}", bare) if n.startswith(("cellloop_", "process_")) or n == "up"}
        assert named, rule["alert"]
        assert named - OF_PROMETHEUS - set(labels) == set(), rule["alert"]
        for name, selectors in re.findall(r"(cellloop_\w+)\{([^}]*)\}", bare):
            assert set(re.findall(r"(\w+)\s*(?:=|!)", selectors)) <= labels[name], rule["alert"]


def test_every_alert_says_what_happened_and_has_its_section(rules: list[dict[str, Any]]) -> None:
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    for rule in rules:
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
    assert re.findall(r"^### (Cellloop\w+)$", RUNBOOK, re.MULTILINE) == names, "a section each, in the same order"


def test_the_runbook_names_verbs_files_and_settings_that_exist() -> None:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", RUNBOOK, re.DOTALL))
    spoken = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", RUNBOOK, flags=re.DOTALL))
    commands = set(
        re.findall(r"^(?:\S+/|sudo .*/)?cellloop ([a-z][a-z-]+)", "\n".join([blocks, *spoken]), re.MULTILINE)
    )
    assert len(commands) >= 8
    assert commands - set(cli.VERBS) == set()
    assert set(re.findall(r"CELLLOOP_([A-Z_]+[A-Z])", RUNBOOK)) <= {name.upper() for name in Settings.model_fields}
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", RUNBOOK) if "://" not in link}
    assert [link for link in links if link and not (ROOT / "docs" / link).exists()] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_run_verbs_that_exist_without_privileges(unit: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    if unit.suffix == ".timer":
        assert unit.with_suffix(".service") in UNITS
        return
    commands = [line for line in text.splitlines() if line.startswith("ExecStart")]
    verbs = re.findall(r"bin/cellloop ([a-z-]+)", "\n".join(commands))
    assert verbs
    assert set(verbs) <= set(cli.VERBS)
    for wanted in ("User=cellloop", "NoNewPrivileges=yes", "ProtectSystem=strict", "UMask=0077"):
        assert wanted in text, wanted
    assert not re.search(r"(?i)(token|password|secret)\s*=", text), "secrets come from the environment's file"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here: units are only parsed, above")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    program = tmp_path / "opt/.venv/bin/cellloop"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/cellloop/", f"{tmp_path}/opt/")
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / unit.name) for unit in UNITS]
    checked = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False)
    assert (checked.returncode, [line for line in checked.stderr.splitlines() if "cellloop" in line]) == (0, [])
