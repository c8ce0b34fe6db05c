"""The next batch: fields and single cells competing for the expert's seconds, in three slots.

An image is reviewed in one way at a time: while some of its cells wait one by one its field does not wait, and the
other way round, so no cell is ever open in two places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.acquisition import CellScores, PoolCells, RankedImage
from al_loop.diversity import diverse
from db.models import Slot, Way

RANDOM_REASON = "Drawn at random, to know what the ranking misses"


@dataclass(frozen=True)
class BatchConfig:
    """What a batch is made of.

    size: items. random_share, second_share: of them, drawn uniformly, and read by a second expert; of the latter,
    fair_share doubt nothing and measure how far experts agree. The rest is chosen by the ranking. least_share: of
    these, at least for each way of reviewing, so that neither project is ever empty. per_slide: at most this share of
    the chosen cells from one slide. oversample: cells chosen among, per place.
    """

    size: int = 200
    random_share: float = 0.12
    second_share: float = 0.13
    fair_share: float = 0.25
    least_share: float = 0.25
    per_slide: float = 0.25
    oversample: int = 5


@dataclass(frozen=True)
class Place:
    """One item of a batch. score = value / seconds. cells: rows in the pool, best first; of a cell, that one."""

    way: Way
    slot: Slot
    image: int
    value: float
    seconds: float
    cells: tuple[int, ...]
    terms: Mapping[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Expected value per second of the expert's time."""
        return self.value / self.seconds


@dataclass(frozen=True)
class Offer:
    """All that may enter a batch.

    cells, scores: the pool. slides: (N,) int64. fields: every image, ranked. seconds: of one cell by itself.
    ways: in which experts review here. pinned: images in an expert's hands, and how.
    drawn: rows of cells and images drawn at random before and still waiting.
    """

    cells: PoolCells
    scores: CellScores
    slides: NDArray[np.int64]
    fields: Sequence[RankedImage]
    seconds: float
    ways: frozenset[Way]
    pinned: Mapping[int, Way] = field(default_factory=dict)
    drawn: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


def candidates(offer: Offer, config: BatchConfig) -> NDArray[np.int64]:
    """Rows of the cells a batch chooses among, the best first: only these need embeddings."""
    score = offer.scores.score
    wanted = min(config.oversample * config.size, int((score > 0).sum()))
    if not wanted:
        return np.zeros(0, dtype=np.int64)
    rows = np.argpartition(-score, wanted - 1)[:wanted]
    # Of equal cells at the border the first ones, and not those that the partition happens to leave there.
    border = score[rows].min()
    sure, equal = np.flatnonzero(score > border), np.flatnonzero(score == border)
    rows = np.concatenate([sure, equal[: wanted - len(sure)]])
    return rows[np.lexsort((rows, -score[rows]))]


def compose(
    offer: Offer,
    among: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    config: BatchConfig,
    rng: np.random.Generator,
    second: Sequence[Place] = (),
) -> list[Place]:
    """The batch, best first. among, embeddings: `candidates` and the (K, D) embeddings of these rows.

    second: what may be read again, best first; used where cells are reviewed one by one.
    """
    both = Way.cell in offer.ways
    elsewhere = [place for place in second if offer.pinned.get(place.image) != Way.field]
    doubted, fair = _second(elsewhere, config) if both else ([], [])
    again = [*doubted, *fair]
    drawn = _drawn(offer, config, rng, both)
    free = config.size - len(again) - len(drawn)
    mode: dict[int, Way] = {**offer.pinned, **{place.image: place.way for place in (*again, *drawn)}}
    singles = _singles(offer, among, embeddings, config, free, mode, drawn) if both else []
    chosen = _compete(offer, singles, config, free, mode, {place.image for place in drawn if place.way == Way.field})
    placed = [*chosen, *_beside(chosen, drawn), *_beside(chosen, fair)]
    return sorted([*placed, *doubted], key=lambda place: (-place.score, place.image, place.cells))


def _second(second: Sequence[Place], config: BatchConfig) -> tuple[list[Place], list[Place]]:
    """Labels in doubt, the most valuable first, and those that only measure; one fills the places the other leaves."""
    places = round(config.second_share * config.size)
    doubted = [place for place in second if place.value > 0]
    fair = [place for place in second if place.value <= 0][: round(config.fair_share * places)]
    return doubted[: places - len(fair)], fair


def _drawn(offer: Offer, config: BatchConfig, rng: np.random.Generator, both: bool) -> list[Place]:
    """The random slot: earlier draws that still wait, and new ones. Fields only where cells are not reviewed alone.

    Never a cell of a field in somebody's hands: it would be open in two places.
    """
    offered = len(offer.fields) + (int((offer.scores.score > 0).sum()) if both else 0)
    wanted = round(config.random_share * min(config.size, offered))  # of a small pool not all, but its share
    if both:
        busy = [image for image, way in offer.pinned.items() if way == Way.field]
        free = np.flatnonzero(~np.isin(offer.cells.image, busy))
        rows = [row for row in offer.drawn[0] if int(offer.cells.image[row]) not in busy][:wanted]
        left = np.setdiff1d(free, rows)
        fresh = rng.choice(left, min(wanted - len(rows), len(left)), replace=False).tolist()
        return [_single(offer, row, Slot.random) for row in [*rows, *fresh]]
    by_id = {ranked.image: ranked for ranked in offer.fields}
    images = [image for image in offer.drawn[1] if image in by_id][:wanted]
    left = np.array(sorted(by_id.keys() - set(images)), dtype=np.int64)
    fresh = rng.choice(left, min(wanted - len(images), len(left)), replace=False).tolist()
    return [_field(by_id[image], Slot.random) for image in [*images, *fresh]]


def _single(offer: Offer, row: int, slot: Slot) -> Place:
    value = float(offer.scores.score[row])
    return Place(Way.cell, slot, int(offer.cells.image[row]), value, offer.seconds, (row,))


def _field(ranked: RankedImage, slot: Slot) -> Place:
    value, seconds = float(ranked.terms["value"]), float(ranked.terms["seconds"])
    return Place(Way.field, slot, ranked.image, value, seconds, ranked.best, {"cells": ranked.terms["cells"]})


def _singles(
    offer: Offer,
    among: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    config: BatchConfig,
    free: int,
    mode: dict[int, Way],
    drawn: Sequence[Place],
) -> list[Place]:
    """Cells worth a look by themselves, different from each other, from many slides."""
    taken = {place.cells[0] for place in drawn}
    usable = np.array(
        [row not in taken and mode.get(int(offer.cells.image[row])) != Way.field for row in among.tolist()], dtype=bool
    )
    rows, vectors = among[usable], embeddings[usable]
    labels = np.asarray(offer.cells.probabilities[rows]).argmax(axis=1) if len(rows) else np.zeros(0, dtype=np.int64)
    cap = max(1, round(config.per_slide * free))
    picked = diverse(offer.scores.score[rows], labels, vectors, free, offer.slides[rows], cap, config.oversample)
    return [_single(offer, int(rows[index]), Slot.acquisition) for index in picked]


def _compete(
    offer: Offer, singles: Sequence[Place], config: BatchConfig, free: int, mode: dict[int, Way], busy: set[int]
) -> list[Place]:
    """Fields and cells by value per second, each way with its least share, each image in one way."""
    fields = [_field(each, Slot.acquisition) for each in offer.fields if each.image not in busy]
    fields = [place for place in fields if mode.get(place.image) != Way.cell] if Way.field in offer.ways else []
    if not singles:
        return fields[:free]
    least = round(config.least_share * free)
    # Never more than half of the images: in a small pool the cells would have none left.
    reserved = fields[: min(least, (len(fields) + 1) // 2)]
    mode = mode | {place.image: Way.field for place in reserved}
    rest = sorted([*fields[len(reserved) :], *singles], key=lambda place: (-place.score, place.image, place.cells))
    chosen = list(reserved)
    for place in rest:
        if len(chosen) >= free:
            break
        if mode.setdefault(place.image, place.way) == place.way:
            chosen.append(place)
    return chosen


def _beside(chosen: Sequence[Place], drawn: Sequence[Place]) -> list[Place]:
    """Each drawn item with the score of the chosen one it is put beside, evenly over their order.

    Its own value would send it to the end: it was drawn to be seen, whatever it is worth.
    """
    order = sorted(chosen, key=lambda place: (-place.score, place.image, place.cells))
    placed = []
    for number, place in enumerate(drawn):
        beside = order[int((number + 0.5) / len(drawn) * len(order))] if order else place
        value = beside.score * place.seconds
        terms = {**place.terms, "worth": place.value}
        placed.append(Place(place.way, place.slot, place.image, value, place.seconds, place.cells, terms))
    return placed
