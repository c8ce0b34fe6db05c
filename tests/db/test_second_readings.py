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


def test_a_fair_sample_has_as_many_of_each_label_and_stays_until_it_is_read(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        cells = [predicted(session, pair)[1] for _ in range(14)]
        for number, cell in enumerate(cells):
            label = "ring" if number < 3 else "difficult" if number == 3 else "red blood cell"
            expert = "import" if number > 10 else "ada@example.org"
            say(session, cell, label, f"ls:1:{number}", expert=expert)
        sample = second_readings.fair_sample(session, pair.id, 4)
        assert [q.label for q in sample].count("ring") == 2
        assert {q.cell_id for q in sample} <= {cell.id for n, cell in enumerate(cells) if n < 11 and n != 3}
        assert all((q.kind, q.readers, q.score) == ("agreement", ("ada@example.org",), 0) for q in sample)
        assert second_readings.fair_sample(session, pair.id, 4) == sample
        read = session.get_one(Cell, sample[0].cell_id)
        say(session, read, sample[0].label, "ls:2:1", 1, expert="ben@example.org", way=Way.cell)
        assert read.id not in {q.cell_id for q in second_readings.fair_sample(session, pair.id, 14)}
