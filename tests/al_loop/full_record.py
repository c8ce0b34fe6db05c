"""An installation with something in every table and files behind the rows, to be backed up and compared."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy.orm import Session

from backend.store import FileStore
from db import backup as record
from db import versions
from db.evaluations import MetricRow, add_evaluation
from db.models import (
    ApiToken,
    Base,
    CanaryCheck,
    Cell,
    CellTask,
    DriftCheck,
    Forgetting,
    ForgottenImage,
    FrozenSplit,
    Image,
    ImageStain,
    Import,
    InboxEvent,
    LabelRevision,
    ModelPair,
    PredictedCell,
    Prediction,
    PredictionRequest,
    Project,
    Push,
    RankedCell,
    Ranking,
    ReviewItem,
    RunEvent,
    RunStatus,
    Schedule,
    Suspicion,
    Task,
    TrainingImage,
    TrainingRun,
    Way,
    Worker,
)
from db.session import Database
from tests import builders
from tests.builders import BOX, add_image, add_prediction, add_projects, add_version, say

COLOURS = ("mean_red", "mean_green", "mean_blue", "sd_red", "sd_green", "sd_blue")
PECULIAR = {"text": "Anophèles \\ \t\n '\" 🦟", "empty": [], "nothing": None, "number": 1e-7, "deep": [{"a": [1, 2.5]}]}


def fill(database: Database, store: FileStore) -> None:
    """Rows in every table; images and weights in the store. Two trainings are under way."""
    with database.session() as session:
        image, other = (_stored_image(session, store, name) for name in ("a smear", "another smear"))
        pair = _stored_pair(session, store)
        prediction = add_prediction(session, image, pair, (BOX, (100.0, 10.0, 140.0, 50.0)), mask=bytes(range(256)))
        seen = session.query(PredictedCell).filter_by(prediction_id=prediction.id).order_by(PredictedCell.id).all()
        first, second = (session.get_one(Cell, each.cell_id) for each in seen)
        say(session, first, "ring", "ls:1:1", minute=1)
        say(session, first, "trophozoite", "ls:1:2", minute=3, expert="bob@example.org")
        say(session, first, None, "ls:1:2", minute=4, action="withdrawn")
        say(session, second, None, "ls:1:1", minute=2)
        say(session, builders.add_cell(session, other), "schizont", "ls:1:3", minute=5, way=Way.cell)
        _add_queue(session, image, pair, prediction, seen[0])
        _add_trainings(session, pair, image)
        _add_operations(session, pair)
        session.add(ImageStain(image_id=image.id, **dict.fromkeys(COLOURS, 0.1)))
        session.add(Import(source="/smears", dataset="rendered", report=PECULIAR))
        session.add(FrozenSplit(name="test", sha256="1" * 64, content=PECULIAR))
        session.add(InboxEvent(action="ANNOTATION_CREATED", payload=PECULIAR))
        session.add(PredictionRequest(image_id=other.id))
        session.add(TrainingImage(version_id=pair.infected_id, image_id=image.id, complete=False))
        forgetting = Forgetting(patient_sha256="2" * 64, reason="asked", versions=[1], removed={"cells": 3})
        session.add(forgetting)
        session.flush()
        gone = {"image_id": builders.NOBODY, "sha256": "3" * 64, "file": "images/33/3.png"}
        session.add(ForgottenImage(forgetting_id=forgetting.id, **gone))


def _stored_image(session: Session, store: FileStore, content: str) -> Image:
    stored = store.put_bytes("images", content.encode(), ".png")
    return add_image(session, content, sha256=stored.sha256, file=stored.file, patient="patient 7")


def _stored_pair(session: Session, store: FileStore) -> ModelPair:
    for role in ("all_cells", "infected"):
        weights = store.put_bytes("weights", role.encode(), ".safetensors")
        version = add_version(session, role, weights_sha256=weights.sha256, config=PECULIAR)
        versions.activate(session, version.id, kind="first", reasons=["for a test"])
    pair = versions.active_pair(session)
    assert pair is not None
    return pair


def _add_queue(session: Session, image: Image, pair: ModelPair, prediction: Prediction, seen: PredictedCell) -> None:
    add_projects(session)
    fields, cells = session.query(Project).order_by(Project.id)
    ranking = Ranking(pair_id=pair.id, config={"way": "field"})
    session.add(ranking)
    session.flush()
    asked = {"ranking_id": ranking.id, "predicted_cell_id": seen.id, "score": 0.5, "terms": PECULIAR}
    item = ReviewItem(**asked, way=Way.cell, image_id=image.id, cell_id=seen.cell_id, readers=["ada@example.org"])
    session.add_all([RankedCell(**asked, reason="ring 0.5 or trophozoite 0.4?"), item])
    session.add(
        Task(project_id=fields.id, ls_task_id=5, image_id=image.id, pushed_prediction_id=prediction.id, placed=[7])
    )
    session.flush()
    session.add(CellTask(project_id=cells.id, ls_task_id=6, item_id=item.id, image_id=image.id, cell_id=seen.cell_id))
    session.add(Push(project_id=fields.id, pair_id=pair.id, ranking_id=ranking.id, predictions=1, rescored=0))
    doubt = {"pair_id": pair.id, "cell_id": seen.cell_id, "image_id": image.id, "kind": "label", "score": 0.5}
    newest = session.query(LabelRevision).order_by(LabelRevision.id.desc()).first()
    session.add(Suspicion(**doubt, revision_id=newest.id if newest else None, reason="a ring?"))


def _add_trainings(session: Session, pair: ModelPair, image: Image) -> None:
    rows = [MetricRow("ap50", 0.5, 3, "ring", 0.4, 0.6), MetricRow("ap50", None, 0, "schizont")]
    add_evaluation(session, pair.id, "test", "0" * 64, PECULIAR, rows)
    retried: int | None = None
    for role, status in (
        ("infected", "succeeded"),
        ("infected", "running"),
        ("all_cells", "queued"),
    ):
        training = {"trigger": "person", "detail": {}, "config": PECULIAR, "newest_revision_id": 3}
        run = TrainingRun(
            role=role, status=RunStatus(status), version_id=pair.infected_id, retry_of=retried, **training
        )
        session.add(run)
        session.flush()
        retried = run.id


def _add_operations(session: Session, pair: ModelPair) -> None:
    worker = Worker(name="host-1", host="host", pid=1, queues=["train"], ended="died")
    session.add(worker)
    session.flush()
    [run] = session.query(TrainingRun).filter_by(status=RunStatus.succeeded)
    session.add(RunEvent(run_id=run.id, worker_id=worker.id, stage="train", level="info", message="100 steps"))
    session.add(
        Schedule(role="infected", retrain_after=25, cron="0 3 * * *", on_drift=True, cooldown_s=1, set_by="ada")
    )
    told = {"reasons": ["too much corrected"], "numbers": PECULIAR, "pair_id": pair.id}
    session.add(DriftCheck(drifted=True, **told))
    session.add(CanaryCheck(predecessor_id=pair.id, kind="live", verdict="rolled_back", **told))
    session.add(ApiToken(name="a script", scope="read", token_sha256="4" * 64))


def content(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, equal on both engines; without what a restore must change: runs that were under way."""
    found = {}
    with database.session(read_only=True) as session:
        connection = session.connection()
        for table in record.kept_tables():
            json_at = [index for index, column in enumerate(table.columns) if record.kind_of(column) == "json"]
            rows = [list(row) for batch in record.rows(connection, table) for row in batch]
            for row in rows:
                for index in json_at:
                    row[index] = json.loads(row[index])
            found[table.name] = [tuple(row) for row in rows]
    words = ("succeeded", "failed", "cancelled")
    found["training_runs"] = [row for row in found["training_runs"] if any(word in row for word in words)]
    return found


def derived(database: Database) -> dict[str, set[tuple[Any, ...]]]:
    """What the triggers keep: current labels, and counts that are not 0."""
    found = {}
    with database.session(read_only=True) as session:
        for table in Base.metadata.sorted_tables:
            if table.info.get("derived"):
                found[table.name] = {tuple(row) for row in session.execute(table.select()) if row[-1] != 0}
    return found
