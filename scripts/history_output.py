"""How an answer of the record is shown: a table for people; JSON, CSV or Parquet, of any length, for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import console

if TYPE_CHECKING:
    from db.history import Answer, Question

HIDDEN = (
    "probabilities",
    "terms",
    "stages",
    "ref",
    "weights_sha256",
    "manifest_sha256",
    "split_sha256",
)  # not for people
WIDEST = 60


@dataclass(frozen=True)
class Output:
    """What was asked for; a table when nothing was."""

    as_json: bool = False
    as_csv: bool = False
    parquet: Path | None = None

    def __post_init__(self) -> None:
        if sum((self.as_json, self.as_csv, self.parquet is not None)) > 1:
            console.fail("expected one of --json, --csv and --parquet, got several")

    @property
    def for_people(self) -> bool:
        """Whether a person reads it."""
        return not (self.as_json or self.as_csv or self.parquet)


def write(question: Question, pages: Iterator[Answer], output: Output) -> None:
    """Write all pages; only Parquet and JSON know the end before they begin, so nothing is held in memory for CSV."""
    if output.as_json:
        _write_json(pages)
    elif output.as_csv:
        _write_csv(question, pages)
    elif output.parquet is not None:
        print(f"{_write_parquet(question, pages, output.parquet)} rows in {output.parquet}")
    else:
        _show(question, list(pages))


def _write_json(pages: Iterator[Answer]) -> None:
    """{"rows": [...], "next": null}, row by row; `next` says where a limit cut it off."""
    print('{"rows": [', end="")
    between, last = "", None
    for page in pages:
        last = page.next
        for row in page.to_json()["rows"]:
            print(between + json.dumps(row, ensure_ascii=False), end="")
            between = ",\n"
    print(f'], "next": {json.dumps(last)}}}')


def _write_csv(question: Question, pages: Iterator[Answer]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(question.types())
    for page in pages:
        writer.writerows([_text(value) for value in row] for row in page.rows)


def _text(value: Any) -> Any:
    """A value in CSV: empty for NULL, ISO 8601 for a moment, JSON for what has parts."""
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _write_parquet(question: Question, pages: Iterator[Answer], file: Path) -> int:
    """Rows written; the file is whole or not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, _arrow(kind)) for name, kind in question.types().items()])
    part, rows = file.with_name(f".{file.name}.part"), 0
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for page in pages:
                columns = list(zip(*page.rows, strict=True)) if page.rows else [()] * len(schema)
                arrays = [pa.array(_plain(c), kind) for c, kind in zip(columns, schema.types, strict=True)]
                writer.write_table(pa.table(arrays, schema=schema))
                rows += len(page.rows)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return rows


def _plain(values: Iterable[Any]) -> list[Any]:
    return [json.dumps(value) if isinstance(value, list | dict) else value for value in values]


def _arrow(kind: Any) -> Any:
    """The Parquet type of a column; JSON is text."""
    import pyarrow as pa
    from sqlalchemy import Boolean, Float, Integer, Numeric

    from db.models import UtcDateTime

    if isinstance(kind, UtcDateTime):
        return pa.timestamp("us", tz="UTC")
    if isinstance(kind, Boolean):
        return pa.bool_()
    if isinstance(kind, Integer):
        return pa.int64()
    return pa.float64() if isinstance(kind, Float | Numeric) else pa.string()


def _show(question: Question, pages: list[Answer]) -> None:
    """A table of the columns that differ; what all rows share is said above it, and what is left out below."""
    names = list(question.types())
    rows = [row for page in pages for row in page.rows]
    if not rows:
        print("no rows")
        return
    filled = [k for k in range(len(names)) if any(row[k] is not None for row in rows)]
    left_out = [names[k] for k in filled if names[k] in HIDDEN]
    same = [k for k in filled if len(rows) > 1 and names[k] not in HIDDEN and len({str(row[k]) for row in rows}) == 1]
    shown = [k for k in filled if k not in same and names[k] not in HIDDEN]
    title = [f"{len(rows)} row{'' if len(rows) == 1 else 's'}"] + [f"{names[k]} {_short(rows[0][k])}" for k in same]
    more = ["there are more: --limit"] if pages[-1].next else []
    console.table(
        [names[k] for k in shown],
        [[_short(row[k]) for k in shown] for row in rows],
        title=", ".join(title + more),
    )
    if left_out:
        print(f"Not shown: {', '.join(left_out)}; they are in --json, --csv and --parquet.")


def _short(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return value
    text = str(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
