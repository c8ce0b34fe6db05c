"""House rules that no linter knows. Each test names every place at fault."""

from __future__ import annotations

import ast
import re
import sys

from tests.house import tree

# One page of all tables is worth more than short pages (see docs/decisions and the file's first line).
LONG_BY_DECISION = {"db/models.py"}
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:work|farm|root|tmp|home|Users)/\w")
BINARY = {".png", ".jpg", ".jpeg", ".gif", ".ico", ".woff2", ".safetensors", ".zip"}


def test_no_path_of_somebodys_machine() -> None:
    found = [
        f"{tree.relative(path)}:{number}: {line.strip()}"
        for path in tree.files()
        if path.suffix not in BINARY
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_no_python_file_over_300_lines() -> None:
    lengths = {tree.relative(p): len(p.read_text(encoding="utf-8").splitlines()) for p in tree.sources()}
    assert {name: n for name, n in lengths.items() if n > 300 and name not in LONG_BY_DECISION} == {}


def test_no_function_over_70_lines() -> None:
    found = [
        f"{tree.relative(path)}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in tree.sources()
        for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
        if node.end_lineno - node.lineno + 1 > 70
    ]
    assert found == []


def test_packages_re_export_nothing() -> None:
    def only_docstring(path_body: list[ast.stmt]) -> bool:
        return all(isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in path_body)

    found = [
        tree.relative(path)
        for path in tree.sources()
        if path.name == "__init__.py" and not only_docstring(tree.parsed(path).body)
    ]
    assert found == []


def test_no_import_only_to_be_imported_again() -> None:
    found = [
        f"{tree.relative(path)}:{node.lineno}"
        for path in tree.sources(*tree.PACKAGES)
        for node in ast.walk(tree.parsed(path))
        if (isinstance(node, ast.ImportFrom) and node.level > 0)
        or (isinstance(node, ast.Name) and node.id == "__all__" and isinstance(node.ctx, ast.Store))
    ]
    assert found == []


def test_no_script_bears_the_name_of_a_standard_module() -> None:
    names = {path.stem for path in tree.sources("scripts")}
    assert names & (sys.stdlib_module_names - {"__init__"}) == set()


def test_no_room_for_everything() -> None:
    assert [tree.relative(p) for p in tree.sources() if p.stem in {"utils", "util", "helpers", "common", "misc"}] == []


def test_no_error_is_swallowed() -> None:
    def broad(handler: ast.ExceptHandler) -> bool:
        return handler.type is None or getattr(handler.type, "id", "") in {"Exception", "BaseException"}

    found = [
        f"{tree.relative(path)}:{node.lineno}"
        for path in tree.sources()
        for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.ExceptHandler) and broad(node)
        if all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
    ]
    assert found == []


def test_nothing_is_unpickled() -> None:
    """Pickles run code. Weights are safetensors; PyTorch's own files are read by its loader that runs none."""
    found = [
        f"{tree.relative(path)}:{node.lineno}"
        for path in tree.sources(*tree.PACKAGES)
        for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
        if re.search(r"\b(pickle|dill|joblib|shelve|marshal)\b|allow_pickle=True", ast.unparse(node).split("\n")[0])
        or (re.match(r"torch\.load\(", ast.unparse(node)) and "weights_only=True" not in ast.unparse(node))
    ]
    assert found == []


def test_settings_are_read_at_two_places_only() -> None:
    found = {
        tree.relative(path)
        for path in tree.sources(*tree.PACKAGES)
        for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Settings"
        and not node.args
        and not node.keywords
    }
    assert found <= {"scripts/composition.py", "backend/api/app.py"}


def test_tests_sleep_only_between_two_looks_at_a_condition() -> None:
    def sleeps(node: ast.AST) -> set[int]:
        calls = [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]
        return {call.lineno for call in calls if ast.unparse(call.func) in {"time.sleep", "sleep"}}

    found = {}
    for path in tree.sources("tests"):
        polling = [sleeps(node) for node in ast.walk(tree.parsed(path)) if isinstance(node, ast.While)]
        if bare := sleeps(tree.parsed(path)).difference(*polling):
            found[tree.relative(path)] = sorted(bare)
    assert found == {}


def test_every_test_can_fail() -> None:
    def checks(node: ast.AST) -> bool:
        if isinstance(node, ast.Assert):
            return True
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        return bool(re.match(r"_?(assert|check|expect|raises|warns|fail|wait)", name))

    found = [
        f"{tree.relative(path)}:{node.lineno}: {node.name}"
        for path in tree.sources("tests")
        for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
        if not any(checks(inner) for inner in ast.walk(node))
    ]
    assert found == []
