"""A list in a JSON file, written item by item: an export need not fit into memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


class JsonList:
    """A list that is being written; `end` closes its bracket, not the file."""

    def __init__(self, handle: TextIO) -> None:
        self.handle = handle
        self._before = "[\n"

    def add(self, item: Any) -> None:
        """Write one more item. Raises ValueError for a number that JSON has no word for (NaN)."""
        self.handle.write(self._before + dump(item))
        self._before = ",\n"

    def end(self) -> None:
        """No more items."""
        self.handle.write("[]" if self._before == "[\n" else "\n]")


def dump(item: Any) -> str:
    """One value as JSON on one line; floats with all their digits."""
    return json.dumps(item, ensure_ascii=False, allow_nan=False)


@contextmanager
def json_list(path: Path) -> Iterator[JsonList]:
    """A file that is one list."""
    with path.open("w", encoding="utf-8") as handle:
        written = JsonList(handle)
        yield written
        written.end()
        handle.write("\n")
