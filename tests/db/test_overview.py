"""What pages ask: the newest of a hand-made record, on both engines."""

from __future__ import annotations

from db import evaluations, labels, overview, versions
from db.evaluations import MetricRow
from db.models import Action, Way
from db.session import Database
from tests import builders


def test_only_candidates_measured_by_the_newest_ruler_make_a_curve(database: Database) -> None:
    with database.session() as session:
        builders.add_active_pair(session)
        made = []
        for ruler in ("old", "new", "new"):
            version = builders.add_version(session)
            pair = versions.active_pair(session)
            assert pair is not None
            measured = evaluations.add_evaluation(
                session, pair.id, "test", builders.sha256(ruler), {}, [MetricRow("ap50", 0.5, 3, "ring")]
            )
            versions.reject(session, version.id, reasons=["worse"], evaluation_id=measured.id)
            made.append(measured.id)
        evaluations.add_evaluation(session, pair.id, "test", builders.sha256("other"), {}, [])  # decided nothing
        assert overview.newest_evaluations(session, 10) == made[1:]
        assert overview.newest_evaluations(session, 1) == made[2:]
        (row, _) = overview.metrics(session, made[1:])
        assert (row["evaluation_id"], row["class_name"], row["promoted"]) == (made[1], "ring", False)
        assert [row["evaluation_id"] for row in overview.decisions(session, 2)] == [made[2], made[1]]
        assert [row["version_id"] for row in overview.versions(session, 1)] == [version.id]


def test_work_and_answers_since_a_moment(database: Database) -> None:
    with database.session() as session:
        image = builders.add_image(session)
        cells = [builders.add_cell(session, image) for _ in range(3)]
        builders.say(session, cells[0], "ring", "ls:1:1", minute=-60)
        builders.say(session, cells[0], "schizont", "ls:1:0", minute=-1440)
        builders.say(session, cells[0], "ring", "ls:1:9", minute=-2880)
        builders.say(session, cells[1], "ring", "ls:1:2", minute=5)
        builders.say(session, cells[2], None, "ls:1:3", minute=6, way=Way.cell)
        builders.add_review(session, image, "ls:1:4", minute=7, status="skipped")
        builders.add_review(session, image, "import:x", minute=8, expert="import")
        assert overview.work(session, builders.at(0)) == [
            {
                "expert": "ada@example.org",
                "way": Way.field,
                "submitted": 1,
                "skipped": 1,
                "answers": 1,
                "seconds": None,
            },
            {"expert": "ada@example.org", "way": Way.cell, "submitted": 1, "skipped": 0, "answers": 1, "seconds": None},
        ]
        rows = overview.labels_per_day(session, builders.at(0).date(), 2)
        assert sorted((row["day"], str(row["label"]), row["answers"]) for row in rows) == [
            ("2025-12-31", "schizont", 1), ("2026-01-01", "None", 1), ("2026-01-01", "ring", 2),
        ]  # fmt: skip


def test_slides_come_newest_first_and_go_on_where_a_page_ended(database: Database) -> None:
    with database.session() as session:
        made = {group: builders.add_image(session, group=group).id for group in ("a", "b", "c")}
        made["a"] = builders.add_image(session, group="a").id
        assert overview.newest_slides(session, 2) == [("a", made["a"]), ("c", made["c"])]
        assert overview.newest_slides(session, 2, before=made["c"]) == [("b", made["b"])]
        made["d"] = builders.add_image(session, group="d", patient="p").id
        made["e"] = builders.add_image(session, group="e", patient="p").id
        assert overview.patients_of(session, ["a", "d"]) == ["p"]
        assert sorted(overview.images_of(session, ["b", "d"], ["p"])) == [made["b"], made["d"], made["e"]]


def test_corrections_are_those_of_the_newest_pairs(database: Database) -> None:
    with database.session() as session:
        image = builders.add_image(session)
        first = builders.add_active_pair(session)
        versions.activate(session, builders.add_version(session).id, kind="gate", reasons=["better"])
        second = versions.active_pair(session)
        assert second is not None
        for pair in (first, second):
            prediction = builders.add_prediction(session, image, pair)
            review = builders.add_review(session, image, f"ls:1:{pair.id}", prediction_id=prediction.id)
            cell = builders.add_cell(session, image)
            row = labels.revision(review, cell.id, Action.accepted, "ring", builders.BOX)
            labels.add_revisions(session, [row])
        shown = [(row["pair_id"], int(row["accepted"])) for row in overview.corrections(session, 5)]
        assert shown == [(first.id, 1), (second.id, 1)]
        assert [row["pair_id"] for row in overview.corrections(session, 1)] == [second.id]
