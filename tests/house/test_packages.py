"""Packages called `backend` and `scripts` could be anybody's: these are ours, and the wheel carries all of them."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house import tree


@pytest.mark.parametrize("package", tree.PACKAGES)
def test_package_resolves_inside_this_repository(package: str) -> None:
    outside = [sys.executable, "-c", f"import {package}; print({package}.__file__)"]
    # From another folder: so that the installation answers, not the current directory.
    found = subprocess.run(outside, cwd=Path(sys.prefix), check=True, capture_output=True, text=True).stdout.strip()
    assert Path(found) == tree.ROOT / package / "__init__.py"
    assert Path(importlib.import_module(package).__file__ or "") == tree.ROOT / package / "__init__.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The built wheel. Built from a copy: setuptools would otherwise leave its build folder among the sources."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for path in tree.files():
        name = tree.relative(path)
        if "/" not in name or name.split("/")[0] in tree.PACKAGES:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    built = subprocess.run([*pip, "--wheel-dir", str(out), str(copy)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (file,) = out.glob("*.whl")
    return zipfile.ZipFile(file)


def test_wheel_holds_every_module_and_migration(wheel: zipfile.ZipFile) -> None:
    expected = {tree.relative(p) for p in tree.sources(*tree.PACKAGES)}
    brought = {"starter", "static"}
    expected |= {tree.relative(p) for p in tree.files() if p.suffix in (".mako", ".j2") or p.parent.name in brought}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert any(name.startswith("db/migrations/versions/") for name in packed - {"db/migrations/versions/__init__.py"})


def test_wheel_is_kept_off_public_indexes_and_brings_the_command(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    (entry_points,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert "Classifier: Private :: Do Not Upload" in wheel.read(metadata).decode()
    assert "cellloop = scripts.cli:main" in wheel.read(entry_points).decode()
