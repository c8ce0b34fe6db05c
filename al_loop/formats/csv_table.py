"""csv: the table of `table.py` as UTF-8 text with a line of column names, between commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
from typing import Any, BinaryIO

from al_loop.formats.opener import MAX_ANNOTATION_BYTES, Opener
from al_loop.formats.records import SourceImage
from al_loop.formats.table import EXTRA, REQUIRED, Table, read_tables

KIND = "csv"


def parse(handle: BinaryIO) -> Table:
    """The table in a file; its rows are read only when it has the columns of one of cells. Raises ValueError."""
    csv.field_size_limit(MAX_ANNOTATION_BYTES)  # else 128 KiB, and a large outline would cost the whole file
    try:
        text = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
        head = text.readline()
        separator = max(",;\t", key=head.count)
        columns = tuple(name.strip() for name in next(csv.reader([head], delimiter=separator), []))
        rows = csv.DictReader(text, columns, restkey=EXTRA, delimiter=separator)
        return Table(KIND, columns, list(rows) if set(columns) >= REQUIRED else ())
    except csv.Error as error:
        raise ValueError(str(error)) from error


def matches(document: Any) -> bool:
    """Whether a parsed file looks like this format."""
    return isinstance(document, Table) and document.usable(KIND)


def read(documents: dict[str, Any], opener: Opener) -> list[SourceImage]:
    """Every image of every table, in order."""
    return read_tables(documents, opener, matches)
