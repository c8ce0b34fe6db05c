"""How an engine means to answer a question: which tables it would read from end to end.

The statements are those that were really executed, whoever made them; none is written down a second time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event

# Nodes of PostgreSQL's plans that need all of what is below them before they give anything.
BLOCKING = ("Sort", "Aggregate", "Hash", "WindowAgg", "Materialize", "SetOp")
# Steps of SQLite's programs that decide by a value.
COMPARISONS = ("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "If", "IfNot", "IsNull", "NotNull")


@dataclass(frozen=True)
class Statement:
    """SQL as the driver got it, with its parameters."""

    sql: str
    parameters: Any


def settle(engine: Engine) -> None:
    """Do at once what PostgreSQL's autovacuum does by itself after a load. SQLite plans without statistics."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


@contextmanager
def watched() -> Iterator[list[Statement]]:
    """Every SELECT that any engine of this process executes meanwhile, in order."""
    seen: list[Statement] = []

    def note(_c: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, _many: bool) -> None:
        if sql.lstrip().upper().startswith(("SELECT", "WITH")):
            seen.append(Statement(sql, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def full_scans(connection: Connection, statement: Statement, tables: Collection[str]) -> list[str]:
    """Those of these tables that the plan reads from end to end, by themselves or by an index; none: all is well.

    A reading that stops after the first rows, as a LIMIT or a maximum lets it, is none, unless it passes rows over in
    search of them; nor is one of a partial index.
    """
    found = (_sqlite if connection.dialect.name == "sqlite" else _postgresql)(connection, statement)
    return sorted(found & set(tables))


def _sqlite(connection: Connection, statement: Statement) -> set[str]:
    """From the virtual machine's program: a cursor that goes from the first (Rewind) or last row step by step.

    "EXPLAIN QUERY PLAN" names aliases instead of tables, and does not say what a LIMIT stops.
    """
    trees = connection.exec_driver_sql(
        "SELECT rootpage, tbl_name FROM sqlite_master WHERE sql IS NULL OR type = 'table' OR sql NOT LIKE '% WHERE %'"
    )
    owner = {root: table for root, table in trees}
    program = connection.exec_driver_sql(f"EXPLAIN {statement.sql}", statement.parameters).all()
    tables: dict[int, str] = {}
    scans = set()
    for address, opcode, p1, p2, *_ in program:
        if opcode == "OpenRead":
            tables[p1] = owner.get(p2, "")
        elif opcode == "Count" or (opcode in ("Rewind", "Last") and _goes_on(program, address, p1)):
            scans.add(tables.get(p1, ""))
    return scans


def _goes_on(program: Any, start: int, cursor: int) -> bool:
    """Whether the loop that starts here may come back for the next row until there is none.

    It does not when something in it leaves for good, and nothing in it passes rows over.
    """
    for address, opcode, p1, *_ in program[start + 1 :]:
        if opcode in ("Next", "Prev") and p1 == cursor:
            body = [(step[1], step[3]) for step in program[start + 1 : address]]
            leaves = any(name in ("Goto", "DecrJumpZero") and target > address for name, target in body)
            passes_over = any(name in COMPARISONS and target == address for name, target in body)
            return passes_over or not leaves
    return False


def _postgresql(connection: Connection, statement: Statement) -> set[str]:
    partial = connection.exec_driver_sql("SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL")
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement.sql}", statement.parameters).scalar_one()
    return set(_read_whole(plan[0]["Plan"], set(partial.scalars()), stops=False))


def _read_whole(node: Mapping[str, Any], partial: Collection[str], stops: bool) -> Iterator[str]:
    """stops: whether whoever asks this node for rows stops after the first ones."""
    kind = node["Node Type"]
    by_condition = "Index Cond" in node or "Bitmap" in kind or node.get("Index Name") in partial
    if "Relation Name" in node and not by_condition and (not stops or "Filter" in node):
        yield node["Relation Name"]
    stops = (stops or kind == "Limit") and kind not in BLOCKING
    for below in node.get("Plans", ()):
        # Not what is asked again for each row.
        same = below["Parent Relationship"] in ("Outer", "Member", "Subquery") or kind == "Merge Join"
        yield from _read_whole(below, partial, stops and same)
