"""Which labels should be read again, and by whom not."""

from __future__ import annotations

from sqlalchemy.orm import Session

from db import predictions, second_readings
from db.models import Cell, Image, ModelPair, Suspicion, Way
from db.session import Database
from tests.builders import add_active_pair, add_image, add_review, cell_row, say


def predicted(session: Session, pair: ModelPair, **image: object) -> tuple[Image, Cell]:
    """An image with one predicted ring."""
    added = add_image(session, **image)
    stored = predictions.add_prediction(session, added.id, pair.id, [cell_row(label="ring")], 0.1)
    [(cell, _)] = predictions.predicted_cells(session, stored.id)
    return added, session.get_one(Cell, cell.cell_id)


def kinds(session: Session, pair: ModelPair, among: list[int] | None = None) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(q.cell_id, q.kind, q.readers) for q in second_readings.questions(session, pair.id, among)]


def test_difficult_until_somebody_else_has_read_it(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        _, cell = predicted(session, pair)
        _, elsewhere = predicted(session, pair, split="test")
        assert kinds(session, pair) == []
        for each in (cell, elsewhere):
            say(session, each, "difficult", f"ls:1:{each.id}")
        assert kinds(session, pair) == [(cell.id, "difficult", ("ada@example.org",))]
        assert kinds(session, pair, [elsewhere.id]) == []
        [question] = second_readings.questions(session, pair.id)
        assert (question.label, question.predicted) == ("difficult", "ring")
        say(session, cell, "difficult", "ls:2:1", 1, expert="ben@example.org", way=Way.cell)
        assert kinds(session, pair) == [], "confirmed"
        say(session, cell, "ring", "ls:2:1", 2, expert="ben@example.org", way=Way.cell)
        assert kinds(session, pair) == [(cell.id, "disagreement", ("ada@example.org", "ben@example.org"))]
        say(session, cell, "ring", "ls:2:2", 3, expert="cyd@example.org", way=Way.cell)
        assert kinds(session, pair) == [], "three have read it"


def test_suspicions_of_current_labels_that_one_has_read(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        cells = [predicted(session, pair)[1] for _ in range(3)]
        for score, cell in zip((0.4, 0.9, 0.7), cells, strict=True):
            revision = say(session, cell, "trophozoite", f"import:{cell.id}", expert="import")
            session.add(
                Suspicion(
                    revision_id=revision,
                    pair_id=pair.id,
                    cell_id=cell.id,
                    image_id=cell.image_id,
                    kind="label",
                    score=score,
                    reason="the models say ring 0.97",
                )
            )
        session.flush()
        low, high, middle = (cell.id for cell in cells)
        assert kinds(session, pair) == [(high, "label", ()), (middle, "label", ()), (low, "label", ())]
        say(session, cells[1], "ring", "ls:2:9", 1, expert="ben@example.org", way=Way.cell)
        assert [cell for cell, *_ in kinds(session, pair)] == [middle, low], "an import is no dissenting expert"


def test_an_overlooked_cell_is_not_for_those_who_reviewed_its_field(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        image, cell = predicted(session, pair)
        add_review(session, image)
        doubt = {"pair_id": pair.id, "cell_id": cell.id, "image_id": image.id, "reason": "No label here"}
        session.add(Suspicion(kind="overlooked", score=0.8, **doubt))
        session.flush()
        assert kinds(session, pair) == [(cell.id, "overlooked", ("ada@example.org",))]
        say(session, cell, None, "ls:2:1", 1, expert="ben@example.org", way=Way.cell)
        assert kinds(session, pair) == [], "it was no cell"
