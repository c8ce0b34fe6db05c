"""The active pair as the server serves it: read from SQL, loaded once, another when a promotion changed the rows.

Nothing here imports torch before a pair is really needed: a server that only repeats stored predictions never
loads it, and /health and /setup answer before it could.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.embed import codes
from backend.errors import NoTrainedModel
from backend.instances import CLASSES, SOURCES
from backend.label_studio.regions import RegionCell
from backend.logs import about
from backend.stain import stain_of
from backend.store import FileStore, weights_file
from db import predictions, versions
from db.answers import Answer, ServingPair, answers, serving_pair
from db.drift import add_stain
from db.errors import NotFound
from db.models import Image, Prediction
from db.predictions import CellRow
from db.session import Database

if TYPE_CHECKING:
    from backend.detect import Detector
    from backend.preannotate import Pair, PreAnnotation

log = logging.getLogger(__name__)

KEPT_PAIRS = 2


class Served(NamedTuple):
    """A pair's row and the pair itself; they never come apart while somebody uses them."""

    row: ServingPair
    pair: Pair


PairLoader = Callable[[ServingPair], "Pair"]


def active_pair(database: Database) -> ServingPair | None:
    """The pair that serves now, or None before both roles have an active version. Milliseconds, no model."""
    with database.session(read_only=True) as session:
        row = serving_pair(session)
        if row is not None or any(versions.active(session, role) is None for role in ("all_cells", "infected")):
            return row
    with database.session() as session:  # two active versions that no pair row names yet
        versions.active_pair(session)
        return serving_pair(session)


class WeightsLoader:
    """Loads pairs from the file store. Keeps the last pair's detectors: a promotion usually changes one of two."""

    def __init__(self, store: FileStore, device: str) -> None:
        self.store = store
        self.device = device
        self._detectors: dict[str, Detector] = {}

    def __call__(self, row: ServingPair) -> Pair:
        """The pair of this row. Raises WeightsCorrupt, StoredFileCorrupt. Not thread-safe: PairCache locks."""
        from backend.detect import load_detector, pick_device  # imports torch
        from backend.fuse import FusionConfig
        from backend.preannotate import Pair

        device = pick_device(self.device)
        kept = {}
        for sha256 in (row.all_cells_sha256, row.infected_sha256):
            path = self.store.verify(weights_file(sha256), sha256)
            kept[sha256] = self._detectors.get(sha256) or load_detector(path, sha256, device)
        self._detectors = kept
        return Pair(
            name=row.name,
            all_cells=kept[row.all_cells_sha256],
            infected=kept[row.infected_sha256],
            fusion=FusionConfig.from_json(row.fusion),
        )


def spare_the_collector() -> None:
    """Let Python's garbage collector look only at what is made from now on. For processes that serve for long.

    A million objects (torch, SQL's statements, detectors) live as long as the process; looking at all of them took 60
    to 120 ms, in which nobody was answered and, in a transaction, nobody else wrote.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class PairCache:
    """The pair that serves and the one before it, loaded, shared by all threads; SQL says which one is asked for.

    Two, so that a rollback is instant, and a request that began with the old pair ends with it without a reload.
    """

    def __init__(
        self, database: Database, store: FileStore, device: str = "auto", loader: PairLoader | None = None
    ) -> None:
        self.database = database
        self._store = store
        self._load = loader or WeightsLoader(store, device)
        self._lock = threading.Lock()
        self._kept: tuple[Served, ...] = ()  # replaced, never changed: read without the lock
        self._verified: frozenset[str] = frozenset()

    def current(self) -> Served:
        """The active pair, loaded.

        Raises NoTrainedModel before the first promotion, WeightsCorrupt, StoredFileCorrupt.
        """
        row = active_pair(self.database)
        if row is None:
            raise NoTrainedModel(
                "expected an active version of both all_cells and infected, found none; "
                "run: cellloop train --role all_cells, then --role infected"
            )
        return self.of(row)

    def of(self, row: ServingPair) -> Served:
        """The pair of this row, loaded unless it is at hand. Others that need one wait while it loads."""
        with self._lock:
            served = self._at_hand(row)
            fresh = served is None
            if served is None:
                started = time.monotonic()
                served = Served(row, self._load(row))
                log.info("pair %s loaded in %.1f s", row.name, time.monotonic() - started)
            self._kept = (served, *(other for other in self._kept if other is not served))[:KEPT_PAIRS]
            if fresh and gc.get_freeze_count():  # a process that asked for it: much has come since, and a pair has gone
                spare_the_collector()
            return served

    def verify(self, row: ServingPair) -> None:
        """Return when this pair is loaded, or its files have the bytes they had; looks at each file once.

        Raises StoredFileCorrupt, FileStoreUnavailable.
        """
        if self._at_hand(row) is not None:
            return
        for sha256 in {row.all_cells_sha256, row.infected_sha256} - self._verified:
            self._store.verify(weights_file(sha256), sha256)
            self._verified |= {sha256}

    def _at_hand(self, row: ServingPair) -> Served | None:
        return next((served for served in self._kept if served.row == row), None)


def predict_and_store(
    database: Database, store: FileStore, served: Served, image: Image, *, masks: bool = False
) -> int:
    """Id of this pair's prediction of this image, detected now unless it is stored already.

    Raises ImageRefused or StoredFileCorrupt when the file cannot be read. Detecting happens outside any transaction.
    """
    with database.session(read_only=True) as session:
        stored = predictions.get_prediction(session, image.id, served.row.id)
    if stored is not None:
        return stored.id

    from backend.images import read_image
    from backend.preannotate import preannotate

    with about(image=image.id):
        pixels = read_image(store.read(image.file, image.sha256))
        result = preannotate(pixels, served.pair, masks=masks)
        with database.session() as session:
            add_stain(session, image.id, stain_of(pixels))
            return predictions.add_prediction(session, image.id, served.row.id, cell_rows(result), result.seconds).id


def cell_rows(found: PreAnnotation) -> list[CellRow]:
    """The proposed cells as rows of the record, with what they look like; keys are resolved there."""
    fused, cells = found.fused, found.fused.cells
    kinds = codes(found.embeddings) + 1  # 0 is "no kind": predicted before embeddings were kept
    return [
        CellRow(
            key=None,
            box=_box(cells.boxes[i]),
            label=CLASSES[cells.labels[i]],
            score=float(cells.scores[i]),
            probabilities=[float(p) for p in cells.probabilities[i]],
            score_all_cells=_number(fused.score_all_cells[i]),
            score_infected=_number(fused.score_infected[i]),
            source=SOURCES[fused.sources[i]],
            pair_iou=_number(fused.pair_iou[i]),
            disputed=bool(fused.disputed[i]),
            mask=cells.masks[i]["counts"] if len(cells.masks) else None,
            code=int(kinds[i]),
            embedding=found.embeddings[i],
        )
        for i in range(len(fused))
    ]


def _box(corners: NDArray[np.float32]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in corners)
    return x1, y1, x2, y2


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)


def region_cells(session: Session, prediction_id: int) -> list[RegionCell]:
    """The cells of one stored prediction, ready for Label Studio. Raises NotFound."""
    prediction = session.get(Prediction, prediction_id)
    if prediction is None:
        raise NotFound(f"expected a prediction with id {prediction_id}, found none")
    image = session.get_one(Image, prediction.image_id)
    return regions_of(answers(session, prediction.pair_id, [image.id])[image.id], (image.height, image.width))


def regions_of(answer: Answer, image_size: tuple[int, int]) -> list[RegionCell]:
    """The cells of an answer, ready for Label Studio: our cell key, score, reason. image_size: (h, w) px.

    Those with a reason go first: they are the top of the expert's list of regions.
    """
    return [
        RegionCell(
            key=cell.key,
            box=cell.box,
            label=cell.label,
            score=cell.score,
            reason=cell.reason or None,
            mask=None if cell.mask is None else {"size": list(image_size), "counts": cell.mask},
        )
        for cell in sorted(answer.cells, key=lambda cell: not cell.reason)
    ]
