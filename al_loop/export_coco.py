"""Labels as COCO: annotations.json, as `al_loop/formats/coco.py` reads it.

Beside COCO's own keys, an image has "sha256", "dataset", "slide", "patient", "split", and an annotation its "shape",
and its "corners" (xyxy) where x + width does not give the right edge back to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from al_loop.export_json import JsonList, dump
from al_loop.export_report import ExportedCell, ExportedImage
from backend.instances import CLASSES, DIFFICULT
from backend.masks import area

LACKS = ("who said it and when", "keys of cells")
CATEGORIES = (*CLASSES, DIFFICULT)


def write(folder: Path, images: Iterable[ExportedImage]) -> None:
    """Write annotations.json into the folder."""
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
    told: list[dict[str, Any]] = []
    number = 0
    with (folder / "annotations.json").open("w", encoding="utf-8") as handle:
        handle.write(f'{{"info": {dump({"description": "labels of cellloop"})},\n"categories": {dump(categories)},\n')
        handle.write('"annotations": ')
        annotations = JsonList(handle)
        for image in images:
            told.append(_image(len(told) + 1, image))
            for cell in image.cells:
                number += 1
                annotations.add(_annotation(number, len(told), cell, image))
        annotations.end()
        handle.write(',\n"images": ')
        listed = JsonList(handle)
        for each in told:
            listed.add(each)
        listed.end()
        handle.write("}\n")


def _image(number: int, image: ExportedImage) -> dict[str, Any]:
    said = {
        "id": number,
        "file_name": image.file,
        "width": image.width,
        "height": image.height,
        "sha256": image.checksum,
        "dataset": image.dataset,
        "slide": image.group,
        "split": image.split,
        "patient": image.patient,
        "date_captured": image.taken_at.isoformat() if image.taken_at else None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _annotation(number: int, image_number: int, cell: ExportedCell, image: ExportedImage) -> dict[str, Any]:
    x1, y1, x2, y2 = cell.box
    width, height = x2 - x1, y2 - y1
    said: dict[str, Any] = {
        "id": number,
        "image_id": image_number,
        "category_id": CATEGORIES.index(cell.label) + 1,
        "bbox": [x1, y1, width, height],
        "area": width * height,
        "iscrowd": 0,
    }
    if (x1 + width, y1 + height) != (x2, y2):
        said["corners"] = list(cell.box)
    if cell.shape is not None:
        said["shape"] = cell.shape
    if cell.mask is not None:
        size = [image.height, image.width]
        said["segmentation"] = {"size": size, "counts": cell.mask}
        said["area"] = area({"size": size, "counts": cell.mask.encode("ascii")})
    return said
