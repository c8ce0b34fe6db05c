"""Batches: slots, shares, one way per image, different cells, many slides."""

from __future__ import annotations

import numpy as np
import pytest

from al_loop.acquisition import PoolCells, rank_images, score_cells
from al_loop.batch import BatchConfig, Offer, Place, candidates, compose
from al_loop.diversity import diverse
from db.models import Slot, Way
from tests.al_loop.pools import WEIGHTS, cells, certain_reds, joined, unit

BOTH = frozenset({Way.field, Way.cell})
CONFIG = BatchConfig(size=40)


def offer(known: PoolCells, ways: frozenset[Way] = BOTH, slides: int = 3, **changes: object) -> Offer:
    scores = score_cells(known, WEIGHTS)
    images = sorted(set(known.image.tolist()))
    fields = rank_images(images, known, scores)
    return Offer(known, scores, known.image % slides, fields, 4.0, ways, **changes)  # type: ignore[arg-type]


def batch(given: Offer, config: BatchConfig = CONFIG, seed: int = 0, second: tuple[Place, ...] = ()) -> list[Place]:
    among = candidates(given, config)
    return compose(given, among, unit(9, len(given.cells))[among], config, np.random.default_rng(seed), second)


def again(cell: int, value: float = 1.0) -> Place:
    return Place(Way.cell, Slot.second_reading, 1000 + cell, value, 4.0, (cell,))


def test_slots_ways_and_order() -> None:
    given = offer(cells(1, 3000, 100))
    places = batch(given, second=tuple(again(n) for n in range(9)))
    assert len(places) == 40
    slots = [place.slot for place in places]
    assert slots.count(Slot.random) == round(0.12 * 40)
    assert slots.count(Slot.second_reading) == round(0.13 * 40)
    chosen = [place for place in places if place.slot == Slot.acquisition]
    least = round(0.25 * len(chosen))
    assert {way: sum(place.way == way for place in chosen) >= least for way in Way} == dict.fromkeys(Way, True)
    assert [place.score for place in places] == sorted((place.score for place in places), reverse=True)
    assert len({(place.way, place.image if place.way == Way.field else place.cells) for place in places}) == 40


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("images", [3, 12, 200])
def test_an_image_is_reviewed_in_one_way_at_a_time(seed: int, images: int) -> None:
    places = batch(offer(cells(seed, 600, images)), seed=seed)
    fields = {place.image for place in places if place.way == Way.field}
    singles = {place.image for place in places if place.way == Way.cell}
    assert singles
    assert not fields & singles
    assert len(places) == len({(place.way, place.image, place.cells) for place in places})


def test_images_in_hand_stay_in_their_way() -> None:
    known = cells(3, 600, 8)
    pinned = {0: Way.field, 1: Way.cell, 2: Way.field, 3: Way.field}
    earlier = tuple(np.flatnonzero(known.image == 0)[:3].tolist())
    places = batch(offer(known, pinned=pinned, drawn=(earlier, ())))
    assert {place.slot for place in places} == {Slot.acquisition, Slot.random}
    for place in places:
        assert pinned.get(place.image, place.way) == place.way
    assert {0, 2, 3} & {place.image for place in places if place.way == Way.field}


def test_a_second_reading_keeps_its_field_from_waiting_and_waits_for_a_field_in_hand() -> None:
    known = cells(3, 600, 8)
    second = tuple(Place(Way.cell, Slot.second_reading, image, 9.0, 4.0, (image,)) for image in (1, 2))
    places = batch(offer(known, pinned={2: Way.field}), second=second)
    assert [place.image for place in places if place.slot == Slot.second_reading] == [1]
    assert 1 not in {place.image for place in places if place.way == Way.field}
    assert 2 in {place.image for place in places if place.way == Way.field}


def test_without_a_project_of_cells_only_fields_wait_every_image_of_a_small_pool() -> None:
    known = joined(cells(4, 100, 5), certain_reds(20, image=77))
    places = batch(offer(known, frozenset({Way.field})))
    assert {place.way for place in places} == {Way.field}
    assert sorted(place.image for place in places) == [0, 1, 2, 3, 4, 77]


def test_random_items_are_uniform_stay_and_are_met_on_the_way() -> None:
    known = joined(cells(5, 300, 10), *[certain_reds(30, image=100 + n) for n in range(100)])
    given = offer(known)
    first = batch(given)
    drawn = [place.cells[0] for place in first if place.slot == Slot.random]
    assert len(drawn) == 5
    assert sum(known.image[row] >= 100 for row in drawn) >= 3  # as most of the pool: certain red cells
    kept = batch(offer(known, drawn=(tuple(drawn), ())), seed=1)
    assert {place.cells[0] for place in kept if place.slot == Slot.random} == set(drawn)
    positions = [n for n, place in enumerate(first) if place.slot == Slot.random]
    assert positions[0] < 10
    assert positions[-1] >= 25  # spread over the order, neither all first nor all last
    worth = [place.terms["worth"] for place in first if place.slot == Slot.random]
    assert min(worth) == 0  # their own value stays on record
    many = [p.cells[0] for s in range(60) for p in batch(given, seed=s) if p.slot == Slot.random]
    share = np.mean(known.image[many] < 100)
    assert share == pytest.approx(300 / len(known), abs=0.06)


def test_readings_that_only_measure_are_met_on_the_way() -> None:
    given = offer(cells(8, 2000, 80))
    config = BatchConfig(size=100)
    second = [again(n) for n in range(30)] + [again(100 + n, 0.0) for n in range(30)]
    places = batch(given, config, second=tuple(second))
    kinds = [place for place in places if place.slot == Slot.second_reading]
    assert len(places) == 100
    assert len(kinds) == 13
    fair = [n for n, place in enumerate(places) if place.slot == Slot.second_reading and place.cells[0] >= 100]
    assert len(fair) == 3
    assert fair[0] < 40
    assert all(places[n].terms["worth"] == 0 for n in fair)


def test_no_slide_takes_more_than_its_share_unless_places_stay_free() -> None:
    rng = np.random.default_rng(0)
    utilities, labels, slides = rng.uniform(0.5, 1, 400), rng.integers(0, 3, 400), np.zeros(400, dtype=np.int64)
    slides[300:] = 1 + np.arange(100) % 5
    chosen = diverse(utilities, labels, unit(0, 400), 40, slides, 8)
    assert len(chosen) == len(set(chosen)) == 40
    assert np.bincount(slides[chosen]).max() <= 8
    alone = diverse(utilities, labels, unit(0, 400), 40, np.zeros(400, dtype=np.int64), 8)
    assert len(alone) == 40


def test_cells_of_a_batch_differ_from_each_other() -> None:
    n = 300
    points, utilities = unit(4, n), np.random.default_rng(4).uniform(0.9, 1, n)
    chosen = diverse(utilities, np.zeros(n, dtype=np.int64), points, 10)
    best = np.argsort(-utilities)[:10]

    def spread(rows: object) -> float:
        some = points[rows]
        return float(np.linalg.norm(some[:, None] - some[None], axis=2)[np.triu_indices(10, 1)].min())

    assert spread(chosen) > 2 * spread(best)
    assert utilities[chosen].min() > 0


def test_cells_that_are_worth_nothing_are_never_chosen_by_worth() -> None:
    places = batch(offer(certain_reds(500)))
    assert {place.slot for place in places if place.way == Way.cell} <= {Slot.random}
    assert diverse(np.zeros(9), np.zeros(9, dtype=np.int64), unit(0, 9), 5) == []


def test_the_order_of_the_pool_does_not_matter() -> None:
    known = cells(6, 400, 20)
    order = np.lexsort((np.random.default_rng(1).permutation(400), known.image))  # images together, cells shuffled
    config = BatchConfig(size=30, random_share=0)

    def named(given: PoolCells, rows: np.ndarray) -> list[tuple[str, int, float]]:
        cell_offer = offer(given)
        among = candidates(cell_offer, config)
        points = unit(9, 400)[rows][among]
        places = compose(cell_offer, among, points, config, np.random.default_rng(0))
        return sorted((p.way.value, p.image, round(p.score, 9)) for p in places)

    assert named(known, np.arange(400)) == named(known.take(order), order)


def test_a_hundred_certain_red_cells_change_nothing_but_the_cost() -> None:
    known = cells(7, 200, 5)
    before, after = offer(known), offer(joined(known, certain_reds(100, image=2)))
    assert np.array_equal(after.scores.score[:200], before.scores.score)
    plain, crowded = ({field.image: field for field in each.fields} for each in (before, after))
    for image, field in plain.items():
        assert crowded[image].terms["value"] == field.terms["value"]
        assert crowded[image].best == field.best
        assert (crowded[image].terms["seconds"] > field.terms["seconds"]) == (image == 2)
