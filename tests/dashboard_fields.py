"""Fields whose truth is known, real or rendered, and what a model sees in them, for a made-up record."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from al_loop.render import render_smear
from backend.images import read_image
from backend.instances import CLASSES, DIFFICULT
from backend.pairs import load_pair
from backend.preannotate import preannotate
from backend.serving import cell_rows
from db.models import PredictedCell
from db.predictions import CellRow
from tests import builders

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Field:
    """A field with what is true of it. pixels: the bytes of its file. cells: (xyxy px, label)."""

    name: str
    slide: str
    patient: str
    pixels: bytes
    suffix: str
    size: tuple[int, int]  # width, height px
    cells: Sequence[tuple[Box, str]]


See = Callable[[Field, int], list[CellRow]]


def guess(field: Field, number: int) -> list[CellRow]:
    """What version `number` might say of this field: mostly the truth, less and less wrong."""
    rng = np.random.default_rng([number, len(field.cells)])
    rows = []
    for (x1, y1, x2, y2), label in field.cells:
        if rng.uniform() < 0.08 / number:
            continue
        dx, dy = rng.normal(0, 1.5, 2)
        share = float(rng.uniform(0.55, 0.98))
        probabilities = np.full(len(CLASSES), (1 - share) / (len(CLASSES) - 1))
        wrong = rng.uniform() < 0.1 / number
        probabilities[CLASSES.index("ring") if wrong or label == DIFFICULT else CLASSES.index(label)] = share
        box = (x1 + dx, y1 + dy, x2 + dx, y2 + dy)
        said = CLASSES[int(probabilities.argmax())]
        rows.append(builders.cell_row(box, said, score=share, probabilities=probabilities.tolist()))
    return rows


def truth_at(field: Field, cell: PredictedCell) -> tuple[Box, str] | None:
    """The true cell around the middle of this one."""
    x, y = (cell.x1 + cell.x2) / 2, (cell.y1 + cell.y2) / 2
    around = [true for true in field.cells if true[0][0] < x < true[0][2] and true[0][1] < y < true[0][3]]
    return min(around, key=lambda true: abs(true[0][0] + true[0][2] - 2 * x), default=None)


def rendered(count: int, first_slide: str) -> list[Field]:
    """Small fields; the first one lies on a slide that is called so."""
    fields = []
    for number in range(count):
        smear = render_smear(number, (240, 320), 14)
        boxes = [tuple(float(corner) for corner in box) for box in smear.cells.boxes]
        names = [CLASSES[label] for label in smear.cells.labels]
        png = cv2.imencode(".png", smear.image[..., ::-1])[1].tobytes()
        slide = first_slide if number == 0 else f"slide-{number // 3 + 1}"
        cells = list(zip(boxes, names, strict=True))
        fields.append(Field(f"field-{number}.png", slide, f"patient-{number // 6 + 1}", png, ".png", (320, 240), cells))
    return fields


def real(root: Path, count: int) -> list[Field]:
    """Fields of BBBC041, the ones richest in infected cells first."""
    folder = root / "bbbc041"
    records = json.loads((folder / "training.json").read_text())
    here = [record for record in records if (folder / record["image"]["pathname"].lstrip("/")).is_file()]
    here.sort(key=lambda record: -sum(each["category"] != CLASSES[0] for each in record["objects"]))
    fields = []
    for number, record in enumerate(here[:count]):
        path, shape = folder / record["image"]["pathname"].lstrip("/"), record["image"]["shape"]
        slide, patient = f"slide-{number // 3 + 1:02d}", f"patient-{number // 6 + 1}"
        cells = [(_corners(each["bounding_box"]), each["category"]) for each in record["objects"]]
        name = f"{slide}-field-{number % 3 + 1}{path.suffix}"
        fields.append(Field(name, slide, patient, path.read_bytes(), path.suffix, (shape["c"], shape["r"]), cells))
    return fields


def _corners(box: dict[str, Any]) -> tuple[float, float, float, float]:
    low, high = box["minimum"], box["maximum"]
    return float(low["c"]), float(low["r"]), float(high["c"]), float(high["r"])


class Starter:
    """What the starter weights see, each field once."""

    def __init__(self) -> None:
        self.pair = load_pair()
        self.seen: dict[str, list[CellRow]] = {}

    def __call__(self, field: Field, _number: int) -> list[CellRow]:
        if field.name not in self.seen:
            self.seen[field.name] = cell_rows(preannotate(read_image(field.pixels), self.pair))
        return self.seen[field.name]
