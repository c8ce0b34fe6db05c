"""Labels in BBBC041's own layout, as `al_loop/formats/bbbc041.py` reads it: training.json, validation.json, test.json.

The data set itself has no validation.json; the split of ours that has no name there gets a file of the same kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from al_loop.export_json import JsonList, json_list
from al_loop.export_report import FACTS, ExportedCell, ExportedImage

LACKS = tuple(FACTS)
FILES = {"train": "training.json", "validation": "validation.json", "test": "test.json"}


def write(folder: Path, images: Iterable[ExportedImage]) -> None:
    """Write a file per split that has images into the folder. Checksums are md5."""
    with ExitStack() as files:
        lists: dict[str, JsonList] = {}
        for image in images:
            if image.split not in lists:
                lists[image.split] = files.enter_context(json_list(folder / FILES[image.split]))
            lists[image.split].add(_record(image))


def _record(image: ExportedImage) -> dict[str, Any]:
    return {
        "image": {
            "checksum": image.checksum,
            "pathname": f"/images/{image.file}",
            "shape": {"r": image.height, "c": image.width, "channels": 3},
        },
        "objects": [_object(cell) for cell in image.cells],
    }


def _object(cell: ExportedCell) -> dict[str, Any]:
    x1, y1, x2, y2 = (int(value) if value.is_integer() else value for value in cell.box)
    return {
        "bounding_box": {"minimum": {"r": y1, "c": x1}, "maximum": {"r": y2, "c": x2}},
        "category": cell.label,
    }
