"""The files that the house rules are about."""

from __future__ import annotations

import ast
import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("al_loop", "backend", "db", "scripts")


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file that is committed or would be: tracked ones, and new ones that git does not ignore."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(path for name in listing.splitlines() if (path := ROOT / name).is_file())


def relative(path: Path) -> str:
    """The path as people write it, from the repository's root."""
    return path.relative_to(ROOT).as_posix()


def sources(*folders: str) -> list[Path]:
    """The Python files below these top folders (all of them when none is named)."""
    return [p for p in files() if p.suffix == ".py" and (not folders or relative(p).split("/")[0] in folders)]


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
