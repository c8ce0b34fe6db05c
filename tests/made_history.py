"""A short history made by hand, whose answers are written down in the tests that ask it.

Minute 0   two cells of S1-f1.png come labelled: a red blood cell and a ring (patient P1, slide S1)
      5    versions 1 (all_cells) and 2 (infected) serve: pair A
     10    A sees one cell in S2-f1.png (patient P2, slide S2): "the cell", a ring at 0.6
     11    ranked and queued by itself: "ring 0.60 or trophozoite 0.30?"
     20    ada: trophozoite, in 8 s
     21    suspected: "Labelled trophozoite; the models say ring 0.60"
     30    bob, second reading: ring, in 7 s
     34    a run asked for by the clock begins
     35    version 3 (infected) is trained on what was recorded by then; the cell is a ring
     40    ada thinks again: schizont, in 5 s
     50    pair B (1, 3) sees nothing there
     55    the gate promotes version 3: infected recall 0.50 -> 0.60
     60    bob withdraws
     65    a canary: B is corrected no more than A
     70    carol's answer of minute 15 arrives late: difficult
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from db import labels, reviews, versions
from db.models import (
    Action,
    CanaryCheck,
    Cell,
    Evaluation,
    Image,
    Metric,
    ModelPair,
    PredictedCell,
    Prediction,
    PromotionDecision,
    RankedCell,
    Ranking,
    ReviewItem,
    RunStatus,
    Slot,
    Suspicion,
    TrainingRun,
    VersionStatus,
    Way,
)
from tests.builders import BOX, add_cell, add_image, add_review, add_version, at, dated

PROBABILITIES = [0.05, 0.3, 0.6, 0.03, 0.01, 0.01]
REASON = "ring 0.60 or trophozoite 0.30?"


@dataclass(frozen=True)
class MadeHistory:
    """What was made. cell: "the cell"; labelled, pool: the images; a, b: the pairs; versions: 1, 2 and 3 of above."""

    cell: Cell
    labelled: Image
    pool: Image
    a: ModelPair
    b: ModelPair
    versions: tuple[int, int, int]


def make_history(session: Session) -> MadeHistory:
    """Write it down."""
    labelled = add_image(session, "S1-f1.png", group="S1", patient="P1", taken_at=at(-60))
    pool = add_image(session, "S2-f1.png", group="S2", patient="P2")
    _import(session, labelled)
    one, two = add_version(session, "all_cells").id, add_version(session, "infected").id
    a = ModelPair(name="A", all_cells_id=one, infected_id=two, fusion={"x": 1}, created_at=at(5))
    session.add(a)
    session.flush()
    for version in (one, two):
        _decide(session, version, 5, "first", ["nothing to compare with"])
    cell = Cell(image_id=pool.id, key="thecell", created_at=at(10))
    session.add(cell)
    session.flush()
    prediction, seen = _predict(session, a, cell)
    _queue(session, a, cell, seen)
    common: dict[str, Any] = {"way": Way.cell, "prediction_id": prediction.id}
    ada = _say(session, cell, "ls:2:1", 20, "ada", 8.0, Action.relabelled, "trophozoite", seen, **common)
    doubt: dict[str, Any] = {"kind": "label", "score": 0.6, "reason": "Labelled trophozoite; the models say ring 0.60"}
    session.add(
        Suspicion(
            pair_id=a.id, cell_id=cell.id, image_id=pool.id, revision_id=ada, predicted_cell_id=seen.id,
            created_at=at(21), **doubt,
        )
    )  # fmt: skip
    bob = _say(session, cell, "ls:2:2", 30, "bob", 7.0, Action.accepted, "ring", seen, **common)
    manifest = {
        "role": "infected",
        "newest_revision_id": bob,
        "images": [
            {"sha256": labelled.sha256, "cells": [], "partial": None},
            {"sha256": pool.sha256, "cells": [], "partial": {"background": [], "unreviewed": []}},
        ],
    }
    with dated(session, at(35)):
        three = add_version(session, "infected", manifest=manifest).id
    _say(session, cell, "ls:2:1", 40, "ada", 5.0, Action.relabelled, "schizont", seen, **common)
    b = ModelPair(name="B", all_cells_id=one, infected_id=three, fusion={"x": 1}, created_at=at(45))
    session.add(b)
    session.flush()
    _predict(session, b, None, pool)
    evaluations = [_evaluate(session, pair, minute, recall) for pair, minute, recall in ((a, 53, 0.5), (b, 54, 0.6))]
    _decide(session, three, 55, "gate", ["recall 0.50 -> 0.60: not worse"], two, evaluations[1])
    _say(session, cell, "ls:2:2", 60, "bob", None, Action.withdrawn, None, None, **common)
    _say(session, cell, "ls:2:3", 15, "carol", 9.0, Action.relabelled, "difficult", seen, **common)
    _run(session, a, b)
    return MadeHistory(cell, labelled, pool, a, b, (one, two, three))


def _run(session: Session, a: ModelPair, b: ModelPair) -> None:
    """The run that made B's version, as if it were not known which it made, and the canary."""
    moments = {"created_at": at(34), "started_at": at(34), "finished_at": at(55), "updated_at": at(55)}
    why = {"triggers": ["cron"], "cron": {"cron": "0 3 * * *"}}
    run = {"role": "infected", "trigger": "cron", "detail": why, "config": {}, "newest_revision_id": 3}
    session.add(TrainingRun(**run, **moments, status=RunStatus.succeeded, message="promoted"))
    told = {"kind": "live", "verdict": "passed", "reasons": ["no more corrections"], "numbers": {"p": 0.4}}
    session.add(CanaryCheck(pair_id=b.id, predecessor_id=a.id, created_at=at(65), **told))
    session.flush()


def _import(session: Session, image: Image) -> None:
    review = add_review(session, image, f"import:{image.sha256}", expert=reviews.IMPORT_EXPERT, ls_project_id=None)
    for label in ("red blood cell", "ring"):
        labels.add_revisions(
            session, [labels.revision(review, add_cell(session, image).id, Action.imported, label, BOX)]
        )


def _predict(
    session: Session, pair: ModelPair, cell: Cell | None, image: Image | None = None
) -> tuple[Prediction, PredictedCell]:
    image_id = cell.image_id if cell else image.id if image else 0
    prediction = Prediction(image_id=image_id, pair_id=pair.id, seconds=0.5, created_at=at(10) if cell else at(50))
    session.add(prediction)
    session.flush()
    seen = PredictedCell(
        prediction_id=prediction.id, cell_id=cell.id if cell else 0, x1=BOX[0], y1=BOX[1], x2=BOX[2], y2=BOX[3],
        label="ring", score=0.6, probabilities=PROBABILITIES, score_all_cells=0.4, score_infected=0.7, source="both",
        pair_iou=0.8, disputed=True,
    )  # fmt: skip
    if cell:
        session.add(seen)
        session.flush()
    return prediction, seen


def _queue(session: Session, pair: ModelPair, cell: Cell, seen: PredictedCell) -> None:
    ranking = Ranking(pair_id=pair.id, config={}, created_at=at(11))
    session.add(ranking)
    session.flush()
    session.add(
        RankedCell(ranking_id=ranking.id, predicted_cell_id=seen.id, score=2.5, terms={"doubt": 1}, reason=REASON)
    )
    session.add(
        ReviewItem(
            ranking_id=ranking.id, way=Way.cell, slot=Slot.acquisition, image_id=cell.image_id, cell_id=cell.id,
            predicted_cell_id=seen.id, score=2.5, terms={"doubt": 1}, reason=REASON, created_at=at(11),
        )
    )  # fmt: skip
    session.flush()


def _say(
    session: Session,
    cell: Cell,
    thread: str,
    minute: float,
    expert: str,
    seconds: float | None,
    action: Action,
    label: str | None,
    seen: PredictedCell | None,
    **review: Any,
) -> int:
    image = session.get_one(Image, cell.image_id)
    status = "withdrawn" if action is Action.withdrawn else "submitted"
    said = add_review(session, image, thread, minute, status, expert, lead_time_s=seconds, ls_project_id=2, **review)
    row = labels.revision(
        said, cell.id, action, label, BOX if label else None, predicted_cell_id=seen.id if seen else None
    )
    labels.add_revisions(session, [row])
    return labels.newest_revision_id(session)


def _evaluate(session: Session, pair: ModelPair, minute: float, recall: float) -> int:
    evaluation = Evaluation(pair_id=pair.id, split="test", split_sha256="0" * 64, report={}, created_at=at(minute))
    session.add(evaluation)
    session.flush()
    session.add_all(
        Metric(
            evaluation_id=evaluation.id, name=name, class_name=label, value=value, low=value - 0.1, high=value + 0.1,
            n=40,
        )
        for name, label, value in (("infected_recall_at_0.5fp", "", recall), ("ap50", "ring", recall - 0.1))
    )  # fmt: skip
    session.flush()
    return evaluation.id


def _decide(
    session: Session,
    version: int,
    minute: float,
    kind: str,
    reasons: list[str],
    replaced: int | None = None,
    evaluation: int | None = None,
) -> None:
    if replaced is not None:
        versions.get(session, replaced).status = VersionStatus.retired
        session.flush()
    versions.get(session, version).status = VersionStatus.active
    session.add(
        PromotionDecision(
            version_id=version, replaced_id=replaced, kind=kind, promote=True, reasons=reasons,
            evaluation_id=evaluation, decided_at=at(minute),
        )
    )  # fmt: skip
    session.flush()
