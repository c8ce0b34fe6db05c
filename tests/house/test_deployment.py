"""Compose file, Dockerfile and constraints, checked without an engine and without a network."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.tree import ROOT

BIN = Path(sys.executable).parent
CONSTRAINTS = ("scripts/constraints.txt", "scripts/constraints-label-studio.txt")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return content


def _pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins), "expected name==version on every line"
    return {canonicalize_name(name): version for name, version in pins}


def test_compose_file_fits_the_schema() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_dockerfile_passes_hadolint() -> None:
    checked = subprocess.run([BIN / "hadolint", ROOT / "scripts/Dockerfile"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_compose_has_every_part_and_publishes_on_loopback_only(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", "migrate", "label-studio", "backend", "worker"}
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_has_no_secret_and_no_default_for_one(compose: dict[str, Any]) -> None:
    checked = 0
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD$|_TOKEN$|SECRET|DATABASE_URL$", name) and not name.endswith("LEGACY_API_TOKEN"):
                assert re.search(r"\$\{\w+:\?[^}]+\}", value), f"{name} must come from the environment"
                checked += 1
    assert checked >= 8


def test_compose_waits_for_health_and_reserves_a_gpu_for_the_worker_alone(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed]
    assert services["backend"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["restart"] == "no"
    (device,) = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "deploy" not in services["backend"]


def test_compose_uses_declared_volumes_and_existing_commands(compose: dict[str, Any]) -> None:
    from scripts.cli import VERBS

    mounts = [m.split(":")[0] for s in compose["services"].values() for m in s.get("volumes", [])]
    assert set(mounts) == set(compose["volumes"])
    ours = ("migrate", "backend", "worker")
    assert {compose["services"][name]["command"][0] for name in ours} <= set(VERBS)


def test_compose_gives_every_expert_the_keys_of_a_cell(compose: dict[str, Any]) -> None:
    from backend.label_studio.cell_config import editor_keymap

    assert compose["services"]["label-studio"]["environment"]["LABEL_STUDIO_EDITOR_KEYMAP"] == editor_keymap()


def test_compose_settings_are_settings(compose: dict[str, Any]) -> None:
    from backend.settings import Settings

    names = {n for s in compose["services"].values() for n in s.get("environment", {}) if n.startswith("CELLLOOP_")}
    assert names
    assert {name.removeprefix("CELLLOOP_").lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize("file", CONSTRAINTS)
def test_constraints_are_plain_versions(file: str) -> None:
    pins = _pins(file)
    assert all(re.fullmatch(r"[A-Za-z0-9.!+]+", version) for version in pins.values())
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert "cellloop" not in pins


def test_constraints_fit_what_we_ask_for_and_what_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = _pins(CONSTRAINTS[0])
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(text)
        pinned = pins[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(pinned, prereleases=True), f"{text} does not allow {pinned}"
        assert importlib.metadata.version(wanted.name) == pinned


def test_label_studio_is_pinned_to_the_version_the_notes_are_about() -> None:
    assert _pins(CONSTRAINTS[1])["label-studio"] == "1.23.2"
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert "cellloop-label-studio:1.23.2" in compose
