"""Labels in doubt are found in the record by honest predictions, kept there, and asked about."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from al_loop.suspect import honest_predictions, suspect
from backend.instances import CLASSES
from db import labels, predictions, reviews, versions
from db.models import Action, Image, ModelPair, Suspicion
from db.second_readings import questions
from db.session import Database
from tests import builders

CELLS = 6


def place(number: int) -> tuple[float, float, float, float]:
    return (20.0 + 70 * number, 20.0, 60.0 + 70 * number, 60.0)


def sure(number: int, label: str) -> predictions.CellRow:
    """A cell both models are sure of."""
    shares = [0.97 if name == label else 0.004 for name in CLASSES]
    return builders.cell_row(place(number), label, probabilities=shares, score=0.97, score_infected=0.9, pair_iou=0.9)


def labelled(session: Session, pair: ModelPair, names: list[str | None], **image: object) -> Image:
    """An image whose every cell the models see right, imported with these labels; None: without one."""
    added = builders.add_image(session, **image)
    truth = ["ring" if number % 3 == 2 else "red blood cell" for number in range(CELLS)]
    seen = predictions.add_prediction(session, added.id, pair.id, [sure(n, t) for n, t in enumerate(truth)], 0.1)
    cells = [cell.cell_id for cell, _ in predictions.predicted_cells(session, seen.id)]
    review = builders.add_review(session, added, f"import:{added.sha256}", expert=reviews.IMPORT_EXPERT)
    rows = [
        labels.revision(review, cell, Action.imported, name, place(number))
        for number, (cell, name) in enumerate(zip(cells, names, strict=True))
        if name is not None
    ]
    labels.add_revisions(session, rows)
    return added


RIGHT: list[str | None] = ["red blood cell", "red blood cell", "ring"] * 2


def test_wrong_and_missing_labels_are_found_once_and_asked_about(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        for _ in range(8):
            labelled(session, pair, RIGHT)
        wrong = labelled(session, pair, ["red blood cell", "red blood cell", "trophozoite", *RIGHT[3:]])
        missing = labelled(session, pair, [*RIGHT[:5], None])
        labelled(session, pair, ["ring"] * CELLS, split="test")  # the ruler is nobody's question
    report = suspect(database)
    assert (report.images, report.found, report.added) == (10, {"label": 1, "overlooked": 1}, 2)
    assert suspect(database).added == 0
    with database.session() as session:
        asked = {question.kind: question for question in questions(session, pair.id)}
        assert asked.keys() == {"label", "overlooked"}
        assert (asked["label"].image_id, asked["label"].label, asked["label"].predicted) == (
            wrong.id,
            "trophozoite",
            "ring",
        )
        assert asked["label"].reason == "Labelled trophozoite; the models say ring 0.97"
        assert (asked["overlooked"].image_id, asked["overlooked"].label) == (missing.id, None)
        assert all(0.5 <= row.score <= 1 for row in session.scalars(select(Suspicion)))


def test_a_pair_that_trained_on_an_image_does_not_judge_its_labels(database: Database) -> None:
    with database.session() as session:
        manifest = {"images": [{"sha256": builders.sha256("learned.png")}]}
        infected = builders.add_version(session, "infected", manifest=manifest)
        pair = versions.pair_of(session, builders.add_version(session, "all_cells").id, infected.id)
        labelled(session, pair, RIGHT, name="learned.png")
        other = labelled(session, pair, RIGHT)
        assert honest_predictions(session).keys() == {other.id}


def test_a_record_without_labels_has_nothing_in_doubt(database: Database) -> None:
    report = suspect(database)
    assert (report.images, report.found, report.added) == (0, {}, 0)
