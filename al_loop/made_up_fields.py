"""Made-up fields: images, their cells, and what two generations of model pairs saw in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from operator import add

import numpy as np
from numpy.typing import NDArray

from al_loop.made_up_rows import Ingest, Pool, moments, rows, spread, where
from backend.instances import CLASS_INDEX, CLASSES
from db.cells import KEY_ALPHABET, KEY_RANDOM, key_minute
from db.models import Cell, Image, PackedPrediction, PredictedCell, Prediction, Split

CELLS_PER_FIELD = 100
FIELDS_PER_SLIDE, FIELDS_PER_PATIENT = 50, 200
SHARES = np.array([0.97, 0.008, 0.012, 0.002, 0.002, 0.006])  # of the classes, in their order
AGAIN = 0.2 / 0.98  # of the images that a later pair looks at, so that 12 cells are predicted for 10
MISSED = 0.02  # of the cells that the later pair does not see
_ALPHABET = np.frombuffer(KEY_ALPHABET.encode(), dtype="S1")


class Reading(IntEnum):
    """How the labels of an image come to be."""

    none = 0
    imported = 1  # with the data set: complete
    field = 2  # by an expert, all of the field: complete
    cells = 3  # by experts, some cells


KINDS = [  # of images, with their shares
    (Split.test, Reading.imported, 0.01),
    (Split.validation, Reading.imported, 0.01),
    (Split.train, Reading.imported, 0.03),
    (Split.train, Reading.field, 0.10),
    (Split.train, Reading.cells, 0.20),
    (Split.train, Reading.none, 0.65),
]


@dataclass(frozen=True)
class Fields:
    """All images of a history. counts, first: (I,) int64, cells of each and the id of its first cell.

    labels: (N,) int64 into CLASSES, what is true of each cell. reading: (I,) int64 of `Reading`. Ids begin at 1.
    """

    counts: NDArray[np.int64]
    first: NDArray[np.int64]
    labels: NDArray[np.int64]
    reading: NDArray[np.int64]
    splits: list[Split]

    @classmethod
    def drawn(cls, cells: int, rng: np.random.Generator) -> Fields:
        """So many cells in images of about a hundred."""
        images = max(1, round(cells / CELLS_PER_FIELD))
        counts = rng.multinomial(cells, np.full(images, 1 / images))
        places = rng.permutation(images) / images
        kinds = np.searchsorted(np.cumsum([share for *_, share in KINDS]), places, side="right")
        return cls(
            counts=counts,
            first=1 + np.cumsum(counts) - counts,
            labels=rng.choice(len(CLASSES), cells, p=SHARES),
            reading=np.array([reading for _, reading, _ in KINDS])[kinds],
            splits=[KINDS[kind][0] for kind in kinds],
        )

    def cells(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids of all cells of these images (ids), image by image."""
        counts = self.counts[images - 1]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        found: NDArray[np.int64] = np.repeat(self.first[images - 1], counts) + within
        return found


def sha256_of(image: int) -> str:
    """The sha256 that stands for an image's file."""
    return hashlib.sha256(f"image {image}".encode()).hexdigest()


def boxes_of(cells: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(N, 4) xyxy px: a cell's place follows from its id, and is found again to a few px."""
    place = np.stack([cells * 37 % 1500, cells * 53 % 1100], axis=1)
    corners = np.concatenate([place, place + 60 + cells[:, None] % 20], axis=1) + rng.normal(0, 2, (len(cells), 4))
    return corners.astype(np.float32).astype(np.float64)


class FieldWriter:
    """Adds images and predictions, in order; remembers the first predicted cell of every image."""

    def __init__(self, fields: Fields, pool: Pool, ingest: Ingest, rng: np.random.Generator) -> None:
        self.fields, self.pool, self.ingest, self.rng = fields, pool, ingest, rng
        self.shown = np.zeros(len(fields.counts), dtype=np.int64)  # predicted_cells.id of each image's first cell
        self.prediction = np.zeros(len(fields.counts), dtype=np.int64)  # its first
        self.pair = np.zeros(len(fields.counts), dtype=np.int64)  # the last that looked at it
        self._predictions = self._predicted = 0

    def add_images(self, images: NDArray[np.int64], start: datetime) -> None:
        """New images and their cells, as the import and the first prediction find them."""
        listed = images.tolist()
        when = moments(start, np.sort(self.rng.uniform(0, 0.5, len(images))))
        hashes = [sha256_of(image) for image in listed]
        self.ingest.add(
            Image,
            rows(
                Image,
                len(images),
                id=listed,
                sha256=hashes,
                file=[f"images/{name[:2]}/{name}.png" for name in hashes],
                name=[f"field-{image:07}.png" for image in listed],
                width=1600,
                height=1200,
                group=[f"slide {image // FIELDS_PER_SLIDE}" for image in listed],
                split=[self.fields.splits[image - 1] for image in listed],
                dataset="rendered",
                patient=[f"patient {image // FIELDS_PER_PATIENT}" for image in listed],
                taken_at=when,
                created_at=when,
            ),
        )
        cells, counts = self.fields.cells(images), self.fields.counts[images - 1]
        drawn = _ALPHABET[self.rng.integers(0, len(_ALPHABET), (len(cells), KEY_RANDOM))]
        letters = drawn.view(f"S{KEY_RANDOM}").ravel().astype(str).tolist()
        keys = list(map(add, spread([key_minute(moment) for moment in when], counts), letters))
        owner = np.repeat(images, counts).tolist()
        row = rows(Cell, len(cells), id=cells.tolist(), image_id=owner, key=keys, created_at=spread(when, counts))
        self.ingest.add(Cell, row)

    def add_predictions(self, images: NDArray[np.int64], pair_id: int, start: datetime, missed: float = 0.0) -> None:
        """What this pair saw in these images; missed: the share of cells it does not see."""
        if not len(images):
            return
        counts, cells = self.fields.counts[images - 1], self.fields.cells(images)
        seen = self.rng.random(len(cells)) >= missed
        owner = np.repeat(np.arange(len(images)), counts)[seen]
        cells, counts = cells[seen], np.bincount(owner, minlength=len(images))
        predictions = self._predictions + 1 + np.arange(len(images))
        ids = self._predicted + 1 + np.arange(len(cells))
        self._predictions, self._predicted = int(predictions[-1]), int(ids[-1])
        self.pair[images - 1] = pair_id
        if not missed:
            self.shown[images - 1] = ids[0] + np.cumsum(counts) - counts
            self.prediction[images - 1] = predictions
        self.ingest.add(
            Prediction,
            rows(
                Prediction,
                len(images),
                id=predictions.tolist(),
                image_id=images.tolist(),
                pair_id=pair_id,
                seconds=0.4,
                created_at=moments(start, np.sort(self.rng.uniform(0.5, 1, len(images)))),
            ),
        )
        places = self._add_predicted(cells, ids, predictions[owner])
        packed = self.pool.packed(places, ids, cells)
        ends = np.cumsum(counts).tolist()
        parts = [packed[end - n : end].tobytes() for end, n in zip(ends, counts.tolist(), strict=True)]
        row = rows(
            PackedPrediction, len(images), prediction_id=predictions.tolist(), count=counts.tolist(), cells=parts
        )
        self.ingest.add(PackedPrediction, row)

    def _add_predicted(
        self, cells: NDArray[np.int64], ids: NDArray[np.int64], predictions: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The cells of predictions; (N,) the place of each in the pool."""
        labels = self.fields.labels[cells - 1].copy()
        wrong = self.rng.random(len(cells)) < 0.02
        labels[wrong] = self.rng.integers(0, len(CLASSES), int(wrong.sum()))
        places, boxes = self.pool.take(labels, self.rng), boxes_of(cells, self.rng).T.tolist()
        scores = self.pool.probabilities[places].max(axis=1).astype(float).tolist()
        both = (labels != CLASS_INDEX["red blood cell"]).tolist()
        self.ingest.add(
            PredictedCell,
            rows(
                PredictedCell,
                len(cells),
                id=ids.tolist(),
                prediction_id=predictions.tolist(),
                cell_id=cells.tolist(),
                **dict(zip(("x1", "y1", "x2", "y2"), boxes, strict=True)),
                label=np.array(CLASSES, dtype=object)[labels].tolist(),
                score=scores,
                probabilities=self.pool.texts[places].tolist(),
                score_all_cells=scores,
                score_infected=where(both, scores),
                source=["both" if each else "all_cells" for each in both],
                pair_iou=where(both, 0.875),
                disputed=wrong.tolist(),
                mask=self.pool.masks[places].tolist(),
            ),
        )
        return places
