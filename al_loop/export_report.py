"""What an export wrote, and everything it could not: counted while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from al_loop.formats.records import clip_box
from backend.instances import DIFFICULT

LEFT_OUT: dict[str, str] = {
    "images labelled in part": "only some of their cells were reviewed",
    "labels on such images": "they say nothing about the cells beside them",
    "images without labels": "nobody has answered",
    "rejected cells": "an expert said that there is no cell",
    "cells without a box": "the record does not say where they are",
    "earlier answers": "replaced since, withdrawn, or outvoted by a newer one; they stay in the record",
    "later answers": "given after the moment asked for",
}
ALTERED: dict[str, str] = {
    "renamed files": "two images have one name, or it cannot be a file's",
    "boxes an import cuts": "they reach outside of the image",
    "boxes an import leaves out": "less than 2 px of them are inside of the image",
}


@dataclass(frozen=True)
class ExportedCell:
    """One current label. box: xyxy px. mask: COCO counts of the whole image, where an expert drew an outline."""

    key: str
    label: str
    box: tuple[float, float, float, float]
    shape: str | None
    mask: str | None
    expert: str
    decided_at: datetime


@dataclass(frozen=True)
class ExportedImage:
    """One completely labelled image. file: its name below images/. checksum: sha256, or md5 where the format wants it.

    width, height: px. group: its name without that of the data set.
    """

    file: str
    checksum: str
    width: int
    height: int
    dataset: str
    group: str
    patient: str | None
    taken_at: datetime | None
    split: str
    cells: tuple[ExportedCell, ...]


# What a record holds that a format may have no place for: how often an image has it.
FACTS: dict[str, Callable[[ExportedImage], int]] = {
    "outlines that experts drew": lambda image: sum(cell.mask is not None for cell in image.cells),
    "shapes other than rectangles": lambda image: sum(cell.shape not in (None, "rectangle") for cell in image.cells),
    "who said it and when": lambda image: len(image.cells),
    "keys of cells": lambda image: len(image.cells),
    "groups of images": lambda image: 1,
    "data sets of images": lambda image: 1,
    "patients of images": lambda image: image.patient is not None,
    "moments images were taken": lambda image: image.taken_at is not None,
}


@dataclass(frozen=True)
class ExportReport:
    """One export. images: per split; cells: per label, difficult ones included.

    left_out: {key of LEFT_OUT: count}; not_carried: {key of FACTS that the format has no place for: count};
    altered: {key of ALTERED: count}. as_of: the moment asked for, ISO 8601, None for now.
    """

    format: str
    out: str
    as_of: str | None
    with_images: bool
    images: dict[str, int]
    cells: dict[str, int]
    left_out: dict[str, int]
    not_carried: dict[str, int]
    altered: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for programs."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for a person, a line each."""
        splits = ", ".join(f"{n} {split}" for split, n in self.images.items())
        labels = ", ".join(f"{n} {label}" for label, n in self.cells.items()) or "none"
        files = "" if self.with_images else "; names and sha256 only, an import needs the images beside them"
        found = [
            f"{sum(self.images.values())} images ({splits}) in {self.out} ({self.format}{files})",
            f"{sum(self.cells.values())} labels as of {self.as_of or 'now'}: {labels}",
        ]
        found += [f"left out: {n} {what} ({LEFT_OUT[what]})" for what, n in self.left_out.items()]
        found += [f"{self.format} has no place for {what}: {n}" for what, n in self.not_carried.items()]
        found += [f"changed: {n} {what} ({ALTERED[what]})" for what, n in self.altered.items()]
        return found


@dataclass
class Tally:
    """Counts while an export runs. lacks: keys of FACTS that its format has no place for."""

    lacks: Collection[str]
    images: Counter[str] = field(default_factory=Counter)
    cells: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    not_carried: Counter[str] = field(default_factory=Counter)
    altered: Counter[str] = field(default_factory=Counter)

    def add(self, image: ExportedImage) -> None:
        """Count one image that was exported."""
        self.images[image.split] += 1
        self.cells.update(cell.label for cell in image.cells)
        for fact in self.lacks:
            self.not_carried[fact] += FACTS[fact](image)
        for cell in image.cells:
            again, _ = clip_box(cell.box, image.width, image.height)
            self.altered["boxes an import leaves out"] += again is None
            self.altered["boxes an import cuts"] += again not in (None, cell.box)

    def report(self, format: str, out: str, as_of: datetime | None, with_images: bool) -> ExportReport:
        """The finished report."""
        return ExportReport(
            format=format,
            out=out,
            as_of=as_of.isoformat() if as_of else None,
            with_images=with_images,
            images=dict(sorted(self.images.items())),
            cells=dict(sorted(self.cells.items(), key=lambda item: (item[0] == DIFFICULT, -item[1], item[0]))),
            left_out={what: self.left_out[what] for what in LEFT_OUT if self.left_out[what]},
            not_carried={what: self.not_carried[what] for what in FACTS if self.not_carried[what]},
            altered={what: self.altered[what] for what in ALTERED if self.altered[what]},
        )
