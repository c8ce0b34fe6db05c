"""parquet: the table of `table.py` with typed columns."""

from __future__ import annotations

from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from al_loop.formats.opener import MAX_ANNOTATION_BYTES, Opener
from al_loop.formats.records import SourceImage
from al_loop.formats.table import COLUMNS, REQUIRED, Row, Table, read_tables

KIND = "parquet"
ROWS_AT_ONCE = 4096
TYPES: dict[str, pa.DataType] = {
    "width": pa.int32(),
    "height": pa.int32(),
    "taken_at": pa.timestamp("us", tz="UTC"),
    "decided_at": pa.timestamp("us", tz="UTC"),
    **dict.fromkeys(("x1", "y1", "x2", "y2"), pa.float64()),
}
SCHEMA = pa.schema([(name, TYPES.get(name, pa.string())) for name in COLUMNS])


def parse(handle: BinaryIO) -> Table:
    """The table in a file; its rows are read only when it has the columns of one of cells. Raises ValueError."""
    try:
        file = pq.ParquetFile(handle)
        columns = tuple(file.schema_arrow.names)
        if not set(columns) >= REQUIRED:
            return Table(KIND, columns)
        rows: list[Row] = []
        size = 0
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[name for name in COLUMNS if name in columns]):
            size += batch.nbytes  # unpacked: a small file can hold one text a million times
            if size > MAX_ANNOTATION_BYTES:
                raise ValueError(f"expected at most {MAX_ANNOTATION_BYTES >> 20} MiB unpacked, got more; split it")
            rows += batch.to_pylist()
        return Table(KIND, columns, rows)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def matches(document: Any) -> bool:
    """Whether a parsed file looks like this format."""
    return isinstance(document, Table) and document.usable(KIND)


def read(documents: dict[str, Any], opener: Opener) -> list[SourceImage]:
    """Every image of every table, in order."""
    return read_tables(documents, opener, matches)
