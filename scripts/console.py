"""What every command shares: errors in one line, answers for people or programs, progress bars."""

from __future__ import annotations

import errno
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, Protocol

LINE_SECONDS = 30.0


class Advance(Protocol):
    """Moves a progress bar to `done` of `total`, with a word on what is being done."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def expected(error: BaseException) -> str | None:
    """The one-line text of an error that a person can mend, or None for one that is a bug of ours.

    Looks only at modules already imported: an error of SQLAlchemy cannot come up before SQLAlchemy is there.
    """
    from backend.errors import CellloopError
    from db.errors import RecordError

    if isinstance(error, CellloopError | RecordError):
        return _one_line(str(error))
    if "pydantic" in sys.modules and isinstance(error, sys.modules["pydantic"].ValidationError):
        faults = [
            f"CELLLOOP_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors() if fault["loc"]
        ]
        return _one_line("settings: " + "; ".join(faults)) if error.title == "Settings" else None
    if "sqlalchemy.exc" in sys.modules:
        exceptions = sys.modules["sqlalchemy.exc"]
        if isinstance(error, exceptions.OperationalError):
            return _one_line(f"database: {error.orig}; check CELLLOOP_DATABASE_URL, then run: cellloop doctor")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"{error.filename}: " if error.filename is not None else ""
        return _one_line(f"{where}expected room on the disk, there is none left; make some, then repeat the command")
    if isinstance(error, OSError) and error.filename is not None:
        return _one_line(f"{error.filename}: {error.strerror}")
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def fail(message: str) -> NoReturn:
    """Print the message in one line on stderr and leave with exit code 1."""
    print(f"error: {_one_line(message)}", file=sys.stderr)
    sys.exit(1)


def emit(report: dict[str, Any], as_json: bool) -> None:
    """Print an answer: JSON for a program, aligned lines for a person. Nested values are indented below their name."""
    if as_json:
        print(json.dumps(report, default=str, ensure_ascii=False))
        return
    _print_lines(report, "")


def write_json(report: dict[str, Any], target: str) -> bool:
    """Write an answer as JSON to the file `target`, or to stdout for "-"; does nothing for "".

    True when stdout is taken: whoever asked for JSON there wants nothing else.
    """
    if target == "-":
        emit(report, as_json=True)
    elif target:
        from backend.store import replace_atomically

        text = json.dumps(report, default=str, ensure_ascii=False, indent=2)
        replace_atomically(Path(target), (text.encode("utf-8"), b"\n"))
    return target == "-"


def _print_lines(report: dict[str, Any], indent: str) -> None:
    width = max((len(str(name)) for name in report), default=0)
    for name, value in report.items():
        if isinstance(value, dict) and value:
            print(f"{indent}{name}")
            _print_lines(value, indent + "  ")
        elif isinstance(value, list | tuple) and value:
            print(f"{indent}{name}")
            for entry in value:
                print(f"{indent}  - {entry}")
        else:
            shown = "none" if value is None or value in ([], (), {}) else value
            print(f"{indent}{name!s:<{width}}  {shown}")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str) -> None:
    """Print a table for people; moments to the minute, in UTC. It fits a terminal; elsewhere, nothing is cut off."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(*columns, title=title, title_justify="left")
    for row in rows:
        cells = [f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value) for value in row]
        shown.add_row(*(escape(cell) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 200).print(shown)


@contextmanager
def progress(title: str) -> Iterator[Advance]:
    """A progress bar on stderr; call what it yields as `advance(done, total, note)`. Silent when not a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    stderr = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(title, total=None, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance


def reporter(advance: Advance) -> Advance:
    """`advance` on a terminal; elsewhere a line on stderr now and then, as the work takes long."""
    return advance if sys.stderr.isatty() else _Lines()


class _Lines:
    """Progress as lines: one at each end of a stage, and one every half minute between."""

    last = 0.0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        if done >= total or time.monotonic() - self.last >= LINE_SECONDS:
            self.last = time.monotonic()
            print(f"{time.strftime('%H:%M:%S')} {note} ({done} of {total})", file=sys.stderr, flush=True)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    print(f"{what} ...", flush=True)
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)
