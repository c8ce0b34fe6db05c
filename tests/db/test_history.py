"""Each question, asked of a history made by hand whose answers are written down here, on both engines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.orm import Session

from db.definitions import VIEWS
from db.errors import NotFound, UnusableQuestion
from db.history import Answer, moment
from db.questions import QUESTIONS
from db.session import Database
from tests.builders import START, at
from tests.made_history import PROBABILITIES, REASON, MadeHistory, make_history

ASKED = {question.name: question for question in QUESTIONS}


@pytest.fixture
def made(database: Database) -> tuple[Database, MadeHistory]:
    with database.session() as session:
        return database, make_history(session)


Made = tuple[Database, MadeHistory]


def ask(session: Session, question: str, /, **given: Any) -> list[dict[str, Any]]:
    """All rows of an answer, by column."""
    answer = ASKED[question].ask(session, given)
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def short(rows: list[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


def minute(row: dict[str, Any], column: str = "at") -> float | None:
    """Minutes since the history began."""
    return None if row[column] is None else (row[column] - START).total_seconds() / 60


def test_the_life_of_a_cell(made: Made) -> None:
    database, history = made
    with database.session(read_only=True) as session:
        life = ask(session, "cell", cell="thecell")
    trained = [row for row in life if row["event"] == "trained"]  # when is the clock's of this test
    life = [row for row in life if row["event"] != "trained"]
    assert [(minute(row), row["event"], row["expert"], row["label"]) for row in life] == [
        (10, "predicted", None, "ring"),
        (11, "queued", None, None),
        (11, "ranked", None, None),
        (15, "answered", "carol", "difficult"),
        (20, "answered", "ada", "trophozoite"),
        (21, "suspected", None, None),
        (30, "answered", "bob", "ring"),
        (40, "answered", "ada", "schizont"),
        (50, "not seen", None, None),
        (60, "answered", "bob", None),
    ]
    predicted, queued, ranked = life[:3]
    assert (predicted["pair"], predicted["probabilities"], predicted["source"]) == ("A", PROBABILITIES, "both")
    assert (queued["way"], queued["slot"], queued["reason"], ranked["reason"]) == (
        "cell",
        "acquisition",
        REASON,
        REASON,
    )
    said = [row for row in life if row["event"] == "answered"]
    assert short(said, "expert", "action", "reading", "seconds") == [
        ("carol", "relabelled", 3, 9.0),  # recorded last: two had read it
        ("ada", "relabelled", 1, 8.0),
        ("bob", "accepted", 2, 7.0),
        ("ada", "relabelled", 2, 5.0),
        ("bob", "withdrawn", 2, None),
    ]
    assert short(trained, "version_id", "label", "source") == [(history.versions[2], "ring", "infected")]
    assert life[8]["pair"] == "B"


def test_the_life_of_an_image(made: Made) -> None:
    database, _ = made
    with database.session(read_only=True) as session:
        life = ask(session, "image", image="S2-f1.png")
    fixed = [row for row in life if row["event"] not in ("imported", "trained")]
    assert [(minute(row), row["event"], row["pair"], row["expert"], row["status"]) for row in fixed] == [
        (10, "predicted", "A", None, None),
        (11, "queued", None, None, "pending"),
        (15, "reviewed", "A", "carol", "submitted"),
        (20, "reviewed", "A", "ada", "submitted"),
        (30, "reviewed", "A", "bob", "submitted"),
        (40, "reviewed", "A", "ada", "submitted"),
        (50, "predicted", "B", None, None),
        (60, "reviewed", "A", "bob", "withdrawn"),
    ]
    assert {row["event"] for row in life} - {row["event"] for row in fixed} == {"imported", "trained"}


@pytest.mark.parametrize(
    ("when", "label", "expert"),
    [(14, None, None), (16, "difficult", "carol"), (25, "trophozoite", "ada"), (30, "ring", "bob"), (39, "ring", "bob"),
     (45, "schizont", "ada"), (65, "schizont", "ada")],
)  # fmt: skip
def test_the_label_of_a_cell_at_any_moment(made: Made, when: float, label: str | None, expert: str | None) -> None:
    database, _ = made
    with database.session(read_only=True) as session:
        found = ask(session, "labels", cell="thecell", as_of=at(when))
    assert short(found, "label", "expert") == ([] if label is None else [(label, expert)])


def test_the_labels_of_now(made: Made) -> None:
    database, _ = made
    with database.session(read_only=True) as session:
        assert short(ask(session, "labels"), "image", "patient", "label", "expert", "imported") == [
            ("S1-f1.png", "P1", "red blood cell", "import", True),
            ("S1-f1.png", "P1", "ring", "import", True),
            ("S2-f1.png", "P2", "schizont", "ada", False),
        ]
        assert short(ask(session, "labels", imported=False), "label") == [("schizont",)]
        assert short(ask(session, "labels", slide="S1", label="ring"), "label") == [("ring",)]
        assert ask(session, "labels", patient="P1", until=at(0)) == []


def test_metrics_versions_decisions_and_who_served(made: Made) -> None:
    database, history = made
    one, two, three = history.versions
    with database.session(read_only=True) as session:
        recall = ask(session, "metrics", name="infected_recall_at_0.5fp")
        assert short(recall, "pair", "value", "n", "split", "protocol", "candidate", "promoted") == [
            ("A", 0.5, 40, "test", "coco-iou50.v1", None, None),
            ("B", 0.6, 40, "test", "coco-iou50.v1", three, True),
        ]
        assert len(ask(session, "metrics", version=one)) == 4
        assert short(ask(session, "metrics", version=three, class_name="ring"), "name", "value") == [("ap50", 0.5)]
        assert short(ask(session, "versions", role="infected"), "version_id", "status", "decision", "reasons") == [
            (two, "retired", "first", ["nothing to compare with"]),
            (three, "active", "gate", ["recall 0.50 -> 0.60: not worse"]),
        ]
        assert [(row["version_id"], minute(row, "served_from"), minute(row, "served_to"))
                for row in ask(session, "serving")] == [(one, 5, None), (two, 5, 55), (three, 55, None)]  # fmt: skip
        assert short(ask(session, "serving", at=at(54)), "version_id") == [(one,), (two,)]
        assert short(ask(session, "decisions", version=three), "kind", "replaced_version") == [("gate", two)]


def test_training_set(made: Made) -> None:
    database, history = made
    with database.session(read_only=True) as session:
        found = ask(session, "training-set", version=history.versions[2])
        assert short(found, "image", "complete") == [("S1-f1.png", True), ("S2-f1.png", False)]
        assert ask(session, "training-set", version=history.versions[0]) == []


def test_experts_and_corrections(made: Made) -> None:
    database, _ = made
    with database.session(read_only=True) as session:
        work = short(
            ask(session, "experts"), "expert", "day", "submitted", "withdrawn", "edits", "answers", "images", "seconds"
        )
        corrected = ask(session, "corrections")
        assert ask(session, "experts", since=datetime(2026, 1, 2, tzinfo=UTC)) == []
    assert work == [
        ("ada", "2026-01-01", 2, 0, 1, 2, 1, 13.0),
        ("bob", "2026-01-01", 1, 1, 1, 2, 1, 7.0),
        ("carol", "2026-01-01", 1, 0, 0, 1, 1, 9.0),
    ]
    assert short(corrected, "pair", "way", "answers", "accepted", "moved", "relabelled", "deleted", "added") == [
        ("A", "cell", 3, 1, 0, 2, 0, 0)
    ]


def test_the_queue(made: Made) -> None:
    database, history = made
    with database.session(read_only=True) as session:
        (waits,) = ask(session, "queue", way="cell")
        assert ask(session, "queue", slot="random") == []
    assert (waits["cell_id"], waits["reason"], waits["predicted"], minute(waits, "waiting_since")) == (
        history.cell.id,
        REASON,
        "ring",
        11,
    )


def test_pages_follow_one_another_and_miss_nothing(made: Made) -> None:
    database, _ = made
    for name, given in (("cell", {"cell": "thecell"}), ("experts", {}), ("labels", {}), ("queue", {})):
        with database.session(read_only=True) as session:
            whole = ASKED[name].ask(session, given)
            pages: list[Answer] = [ASKED[name].ask(session, given, limit=2)]
            while pages[-1].next:
                pages.append(ASKED[name].ask(session, given, limit=2, cursor=pages[-1].next))
        assert [row for page in pages for row in page.rows] == list(whole.rows), name
        assert all(len(page.rows) == 2 for page in pages[:-1])


def test_unusable_questions_say_what_was_expected(made: Made) -> None:
    database, _ = made
    with database.session(read_only=True) as session:
        more = ASKED["labels"].ask(session, {}, limit=1).next
        for name, given, options, message in (
            ("labels", {"colour": "red"}, {}, "expected filters among image"),
            ("cell", {}, {}, r"expected cell \(id"),
            ("labels", {}, {"limit": 0}, "expected a limit from 1"),
            ("labels", {}, {"cursor": "x"}, "expected the `next` of an earlier answer"),
            ("labels", {"label": "ring"}, {"cursor": more}, "expected the same question and filters"),
            ("image", {"image": "nowhere.png"}, {}, "there is none such"),
            ("cell", {"cell": "999999"}, {}, "there is none such"),
        ):
            with pytest.raises((UnusableQuestion, NotFound), match=message):
                ASKED[name].ask(session, given, **options)


def test_a_moment_without_a_zone_is_utc() -> None:
    assert moment("2026-11-26") == datetime(2026, 11, 26, tzinfo=UTC)
    assert moment("2026-11-26T10:00:00+02:00") == datetime(2026, 11, 26, 8, tzinfo=UTC)
    with pytest.raises(UnusableQuestion, match="expected a moment in ISO 8601"):
        moment("yesterday")


def test_every_view_answers_and_its_key_is_one(made: Made) -> None:
    database, _ = made
    with database.session(read_only=True) as session:
        for view in VIEWS:
            rows = session.execute(view.table.select()).mappings().all()
            keys = [tuple(row[name] for name in view.key) for row in rows]
            assert len(set(keys)) == len(keys), view.name
            assert rows, view.name
