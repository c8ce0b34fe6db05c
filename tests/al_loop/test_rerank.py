"""Labels move the waiting batch in place; a new one is made when that is not enough."""

from __future__ import annotations

import dataclasses

import pytest

from al_loop.batch import BatchConfig
from al_loop.rank import RankConfig, rank
from al_loop.rerank import rerank
from db import images, queue
from db.models import Slot, Way
from db.session import Database
from tests import builders
from tests.al_loop.test_rank import cell, disputed, distribution, predict, review_one


def test_a_label_changes_the_waiting_order_without_a_new_ranking(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        builders.add_projects(session)
        for number in range(30):
            torn = {"ring": 0.5, "trophozoite": 0.45} if number % 2 else {"schizont": 0.5, "gametocyte": 0.45}
            label = "ring" if number % 2 else "schizont"
            predict(session, pair, cell(0), cell(1, label, probabilities=distribution(torn), score_infected=0.9))
        for name, count in (("red blood cell", 40), ("ring", 8)):
            image = builders.add_image(session)
            for n in range(count):
                place = builders.add_cell(session, image)
                builders.say(session, place, name, f"import:{name}{n}", way=Way.field)
    summary = rank(database, config=RankConfig(batch=BatchConfig(size=20, random_share=0)))
    assert summary.left_out > 0
    with database.session() as session:
        before = {item.id: item.score for item in queue.pending(session)}
        alone = [i for i in queue.pending(session, Way.cell) if i.slot == Slot.acquisition]
        [item, *_] = [i for i in alone if i.terms["cell"]["probabilities"][3] > 0.4]
        for n in range(6):
            image = builders.add_image(session)
            builders.say(session, builders.add_cell(session, image), "schizont", f"import:s{n}")
        review_one(session, item, "schizont")
    done = rerank(database)
    assert done is not None
    assert done.ranking_id == summary.ranking_id
    assert done.rescored > 0
    with database.session() as session:
        waiting = queue.pending(session)
        assert [item.score for item in waiting] == sorted((item.score for item in waiting), reverse=True)
        for item in waiting:
            assert item.score == pytest.approx(item.terms["value"] / item.terms["seconds"])
            if item in alone and item.terms["cell"]["probabilities"][3] > 0.4:
                assert item.score < before[item.id], "schizonts are less rare now"
        after = {item.id: item.score for item in waiting if item.slot == Slot.acquisition}
    fresh = rank(database, config=RankConfig(batch=BatchConfig(size=20, random_share=0)))
    with database.session() as session:
        assert fresh.ranking_id > summary.ranking_id
        again = {item.id: item.score for item in queue.pending(session)}
        shared = after.keys() & again.keys()
        assert len(shared) > 10
        assert {i: again[i] for i in shared} == pytest.approx({i: after[i] for i in shared}), "as a full ranking would"


def test_a_difficult_answer_waits_for_its_second_reader_at_once(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        builders.add_projects(session)
        for _ in range(30):
            predict(session, pair, cell(0), disputed(1))
    rank(database, config=RankConfig(batch=BatchConfig(size=20)))
    with database.session() as session:
        [item, *_] = [i for i in queue.pending(session, Way.cell) if i.slot == Slot.acquisition]
        review_one(session, item, "difficult")
    done = rerank(database)
    assert done is not None
    assert done.added == 1
    assert rerank(database) == dataclasses.replace(done, rescored=0, added=0)
    with database.session() as session:
        [again] = [i for i in queue.pending(session) if i.slot == Slot.second_reading]
        assert (again.cell_id, again.readers) == (item.cell_id, ["ada@example.org"])


def test_a_new_batch_is_due_when_half_is_gone_or_another_pair_serves(database: Database) -> None:
    assert rerank(database) is None
    with database.session() as session:
        pair = builders.add_active_pair(session)
        for _ in range(12):
            predict(session, pair, disputed(0))
    rank(database, config=RankConfig(batch=BatchConfig(size=6)))
    assert rerank(database) is not None
    with database.session() as session:
        for item in queue.pending(session)[:4]:
            builders.add_review(session, images.get(session, item.image_id), f"ls:1:{item.id}")
            queue.close(session, item.image_id, "done")
    assert rerank(database) is None
    rank(database, config=RankConfig(batch=BatchConfig(size=6)))
    assert rerank(database) is not None
    with database.session() as session:
        builders.add_active_pair(session)
    assert rerank(database) is None
