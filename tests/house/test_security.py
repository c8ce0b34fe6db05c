"""`docs/security.md` names tests: each of them exists."""

from __future__ import annotations

import ast
import re

from tests.house import tree

TEXT = (tree.ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_every_test_that_is_said_to_show_something_exists() -> None:
    there = {
        node.name for path in tree.sources("tests") for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.FunctionDef)
    }  # fmt: skip
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) >= 30
    assert named - there == set()
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT))
    assert {name for name in files if not (tree.ROOT / name).is_file()} == set()


def test_every_row_is_shown_by_a_test() -> None:
    table = TEXT.split("## To replace a secret")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| who |")]
    assert len(rows) >= 15
    assert [row for row in rows if "test_" not in row.rsplit("|", 2)[1]] == []
