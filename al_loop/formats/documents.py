"""The annotation files of a source, parsed by what their names end in; which format they are in is asked later."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from al_loop.formats import csv_table, parquet_table
from al_loop.formats.opener import ANNOTATIONS, MAX_ANNOTATION_BYTES, Opener, is_annotation
from backend.errors import ImageRefused, UnusableAnnotations

# In the order of ANNOTATIONS. Each raises ValueError or RecursionError for a file that is none of its kind.
_PARSERS: tuple[Callable[[BinaryIO], Any], ...] = (json.load, csv_table.parse, parquet_table.parse)
PARSERS: dict[str, Callable[[BinaryIO], Any]] = dict(zip(ANNOTATIONS, _PARSERS, strict=True))


def read_documents(opener: Opener) -> tuple[dict[str, Any], dict[str, str]]:
    """Every annotation file up to two folders deep: ({name: content}, {name: why it cannot be read})."""
    documents: dict[str, Any] = {}
    broken: dict[str, str] = {}
    for name in opener.names():
        if not is_annotation(name) or name.count("/") > 2:
            continue
        try:
            with opener.open(name, MAX_ANNOTATION_BYTES) as handle:
                documents[name] = parse(name, handle)
        except (ImageRefused, UnusableAnnotations) as error:
            broken[name] = str(error)
    return documents, broken


def parse(name: str, handle: BinaryIO) -> Any:
    """What one annotation file holds; JSON whatever its name, unless it ends like a table's.

    Raises UnusableAnnotations when it is not what its name says.
    """
    suffix = PurePosixPath(name).suffix.lower()
    suffix = suffix if suffix in PARSERS else ".json"
    try:
        return PARSERS[suffix](handle)
    except (ValueError, RecursionError) as error:
        raise UnusableAnnotations(f"{name} is no {suffix.removeprefix('.').upper()} ({error})") from error
