"""Small data sets in each format, written to disk for the tests of reading and importing."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIZE = (60, 80)  # h, w
Box = tuple[float, float, float, float]


def write_image(path: Path, seed: int, size: tuple[int, int] = SIZE) -> Path:
    """A small image that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def bbbc041_record(name: str, objects: Sequence[tuple[str, Box]] = (), md5: str | None = None) -> dict[str, Any]:
    """One record as BBBC041 writes it; boxes xyxy."""
    header = {"pathname": f"/images/{name}", "shape": {"r": SIZE[0], "c": SIZE[1], "channels": 3}}
    return {
        "image": header | ({"checksum": md5} if md5 else {}),
        "objects": [
            {
                "bounding_box": {"minimum": {"r": y1, "c": x1}, "maximum": {"r": y2, "c": x2}},
                "category": category,
            }
            for category, (x1, y1, x2, y2) in objects
        ],
    }


def write_bbbc041(
    root: Path, images: int = 4, objects: Sequence[tuple[str, Box]] = (("ring", (10, 10, 30, 30)),)
) -> Path:
    """A BBBC041 folder of `images` training images, all with the same objects."""
    names = [f"{index:04d}.png" for index in range(images)]
    for index, name in enumerate(names):
        write_image(root / "images" / name, index)
    (root / "training.json").write_text(json.dumps([bbbc041_record(name, objects) for name in names]))
    return root


def write_iml(root: Path, numbers: Sequence[int], objects: Sequence[dict[str, Any]] = ()) -> Path:
    """An IML folder with images of these file numbers, all with the same objects."""
    names = [f"PA{number}.JPG" for number in numbers]
    for number, name in zip(numbers, names, strict=True):
        write_image(root / "images" / name, number)
    records = [{"image_name": name, "objects": list(objects)} for name in names]
    (root / "annotations.json").write_text(json.dumps(records))
    return root


def iml_object(category: str, x: Any, y: Any, w: Any, h: Any) -> dict[str, Any]:
    return {"type": category, "bbox": {"x": x, "y": y, "w": w, "h": h}}


def zip_folder(folder: Path, archive: Path, prefix: str = "") -> Path:
    """The folder's files in a zip archive, below `prefix`."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                out.write(path, prefix + path.relative_to(folder).as_posix())
    return archive
