"""What experts changed in fields that chance put before them."""

from __future__ import annotations

from db import canaries, labels, versions
from db.models import Action, Slot
from db.session import Database
from tests.builders import add_active_pair, add_cell, add_review, add_version
from tests.random_slots import PLACES, answer


def test_only_answered_random_fields_count_by_the_pair_that_was_shown(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        chosen = [answer(session, pair, corrected) for corrected in (0, 3)]
        answer(session, pair, 5, slot=Slot.acquisition)
        versions.activate(session, add_version(session).id, kind="gate", reasons=[])
        new = versions.active_pair(session)
        assert new is not None
        chosen.append(answer(session, new, 1))
        found = canaries.random_fields(session, 10)
        assert [(field.image_id, field.pair_id, field.corrected) for field in found] == [
            (chosen[2].id, new.id, 1),
            (chosen[1].id, pair.id, 3),
            (chosen[0].id, pair.id, 0),
        ]
        assert [field.corrected for field in canaries.random_fields(session, 1, pair.id)] == [3]


def test_a_cell_that_is_changed_twice_is_one_and_a_withdrawn_answer_is_none(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        image = answer(session, pair, 2)
        again = add_review(session, image, f"ls:1:{image.id}", 5)
        touched = labels.thread_labels(session, again.thread)[0].cell_id
        rows = [
            labels.revision(again, touched, Action.moved, "ring", (21.0, 21.0, 61.0, 61.0)),
            labels.revision(again, add_cell(session, image).id, Action.added, "ring", (300.0, 300.0, 340.0, 340.0)),
        ]
        labels.add_revisions(session, rows)
        empty = answer(session, pair, 0, boxes=())
        gone = answer(session, pair, 4)
        add_review(session, gone, f"ls:1:{gone.id}", 9, status="withdrawn")
        found = canaries.random_fields(session, 10)
        assert [(field.image_id, field.corrected) for field in found] == [(empty.id, 0), (image.id, 3)]
    assert len(PLACES) == 8


def test_the_newest_check_of_a_kind_counts(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        assert canaries.newest_check(session, pair.id, "live") is None
        for kind, verdict in (("live", "watching"), ("replayed", "refused"), ("live", "passed")):
            canaries.add_check(session, pair.id, pair.id, kind=kind, verdict=verdict, reasons=[kind], numbers={})
        newest = [canaries.newest_check(session, pair.id, kind) for kind in ("live", "replayed")]
        assert [check.verdict for check in newest if check is not None] == ["passed", "refused"]
        decision = canaries.newest_activation(session)
        assert decision is not None
        assert decision.version_id == pair.infected_id
        assert canaries.known_pair(session, pair.all_cells_id, pair.infected_id) is pair
        assert canaries.known_pair(session, pair.all_cells_id, add_version(session).id) is None
