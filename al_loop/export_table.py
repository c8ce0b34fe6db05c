"""Labels as a table of cells: labels.csv or labels.parquet, with the columns of `al_loop/formats/table.py`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from al_loop.export_report import ExportedImage
from al_loop.formats.parquet_table import SCHEMA
from al_loop.formats.table import COLUMNS

ROWS_PER_GROUP = 65_536


def write_csv(folder: Path, images: Iterable[ExportedImage]) -> None:
    """Write labels.csv into the folder: UTF-8, commas, a line of column names."""
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as handle:
        out = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        out.writeheader()
        for row in chain.from_iterable(map(_rows, images)):
            out.writerow({name: _text(value) for name, value in row.items()})


def write_parquet(folder: Path, images: Iterable[ExportedImage]) -> None:
    """Write labels.parquet into the folder, a row group at a time."""
    rows = chain.from_iterable(map(_rows, images))
    with pq.ParquetWriter(folder / "labels.parquet", SCHEMA) as out:
        while group := list(islice(rows, ROWS_PER_GROUP)):
            out.write_table(pa.Table.from_pylist(group, SCHEMA))


def _rows(image: ExportedImage) -> Iterator[dict[str, Any]]:
    """A row per cell; an image without cells has one that says nothing of any."""
    said = {
        "image": image.file,
        "sha256": image.checksum,
        "width": image.width,
        "height": image.height,
        "dataset": image.dataset,
        "group": image.group,
        "patient": image.patient,
        "taken_at": image.taken_at,
        "split": image.split,
    }
    if not image.cells:
        yield said
    for cell in image.cells:
        corners = dict(zip(("x1", "y1", "x2", "y2"), cell.box, strict=True))
        yield (
            said
            | corners
            | {
                "cell": cell.key,
                "label": cell.label,
                "shape": cell.shape,
                "mask": cell.mask,
                "expert": cell.expert,
                "decided_at": cell.decided_at,
            }
        )


def _text(value: Any) -> Any:
    """A value as csv has it: moments in ISO 8601; numbers are written with all their digits anyway."""
    return value.isoformat() if isinstance(value, datetime) else value
