"""Write rendered smears as a COCO data set, so that they come in through the same door as real ones."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from al_loop.formats.detect import RENDERED
from al_loop.render import render_smear
from backend.instances import CLASSES, DIFFICULT
from backend.masks import area

CATEGORIES = (*CLASSES, DIFFICULT)
FIELDS_PER_SLIDE = 4


def write_coco_folder(
    out: Path,
    count: int,
    seed: int = 0,
    *,
    size: tuple[int, int] = (480, 640),
    cells: int | tuple[int, int] = 40,
    infected: float = 0.15,
    leukocytes: float = 0.03,
    difficult: float = 0.03,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render `count` fields of `size` (h, w) px into out/images and write out/annotations.json; gives `out`.

    cells: per field; a pair is a range to draw from. infected, leukocytes, difficult: shares of the cells.
    FIELDS_PER_SLIDE fields share a slide: its stain, light and focus, and later its split. on_progress(done, total).
    The same arguments write the same bytes.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        slide = seed * 10_000 + index // FIELDS_PER_SLIDE
        number = seed * 10_000 + index
        drawn = cells if isinstance(cells, int) else int(np.random.default_rng([number, 3]).integers(*cells))
        smear = render_smear(
            number, size, drawn, infected=infected, leukocytes=leukocytes, difficult=difficult, slide_seed=slide
        )
        name = f"field-{seed:03d}-{index:05d}.png"
        if not cv2.imwrite(str(out / "images" / name), smear.image[..., ::-1]):
            raise OSError(f"expected to write {out / 'images' / name}, but could not; is the disk full?")
        height, width = size
        images.append(
            {"id": index + 1, "file_name": name, "width": width, "height": height, "slide": f"slide-{slide:07d}"}
        )
        for row, rle in enumerate(smear.cells.masks):
            segmentation = {"size": list(size), "counts": rle["counts"].decode("ascii")}
            annotations.append(
                _annotation(len(annotations) + 1, index + 1, smear.cells.class_names()[row], smear.cells.boxes[row])
                | {"segmentation": segmentation, "area": area(rle)}
            )
        for box in smear.difficult:
            annotations.append(_annotation(len(annotations) + 1, index + 1, DIFFICULT, box))
        if on_progress is not None:
            on_progress(index + 1, count)
    document = {
        "info": {"description": "rendered Giemsa-like smears", "dataset": RENDERED, "seed": seed},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)],
    }
    (out / "annotations.json").write_text(json.dumps(document))
    return out


def write_training_fields(
    out: Path, count: int, seed: int, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """`count` fields to train on beside real ones: as large, as crowded and as often infected as those of BBBC041.

    A real field has some two infected cells and one ambiguous one; were rendered fields sicker, crops centred on rare
    cells would mostly be rendered ones, whatever the share of fields. Leukocytes are drawn in half of them: the real
    ones are too few to learn from. Gives `out`, as `write_coco_folder`.
    """
    return write_coco_folder(
        out,
        count,
        seed,
        size=(1200, 1600),
        cells=(30, 150),
        infected=0.025,
        leukocytes=0.006,
        difficult=0.006,
        on_progress=on_progress,
    )


def _annotation(number: int, image: int, label: str, box: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return {
        "id": number,
        "image_id": image,
        "category_id": CATEGORIES.index(label) + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
    }


def write_once(folder: Path, write: Callable[[Path], Path]) -> Path:
    """A folder of fields, made by `write` at the first call and whole when it appears; processes may ask at once."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = write(Path(temporary) / "fields")
        try:
            os.rename(made, folder)
        except OSError:  # another process was first; the same seed, hence the same fields
            if not folder.exists():
                raise
    return folder
