"""The demonstration's scripted expert: reviews what Label Studio serves until a retraining has been decided."""

from __future__ import annotations

import time
from pathlib import Path

from al_loop import scripted_cells, scripted_expert, sync, trigger
from al_loop.context import Loop
from al_loop.formats.detect import truth_by_sha256
from backend.errors import CellloopError
from backend.label_studio.expert import ExpertSession
from backend.label_studio.label_config import parse
from db import images, projects, runs
from db.models import Project, RunStatus, TrainingRun, Way
from scripts import console
from scripts.processes import Child


def scripted_reviews(loop: Loop, project: Project, source: Path, worker: Child) -> TrainingRun:
    """Review what Label Studio serves next until a retraining is under way, then wait for its decision."""
    truth = truth_by_sha256(source)
    config = parse(project.label_config)
    expert = ExpertSession(loop.settings.label_studio_url, loop.label_studio_token)
    with loop.database.session(read_only=True) as session:
        before = runs.latest(session, "infected")
        cells = projects.project(session, project.url, way=Way.cell)
        waiting = images.counts(session)["pool"]
    last = before.id if before else 0
    reviewed = 0
    with console.told("the scripted expert reviews"), console.progress("reviewing") as advance:
        while (run := _newer_run(loop, last)) is None:
            worker.check()
            found = scripted_cells.review_next_cell(loop, expert, cells, truth) if cells is not None else None
            if found is None and scripted_expert.review_next(expert, project, config, truth) is None:
                _ask_unless_due(loop, project)
                continue
            reviewed += 1
            advance(reviewed, waiting, "")
    with console.told(f"retraining (run {run.id}, {run.trigger})"), console.progress("retraining") as advance:
        while run.status in (RunStatus.queued, RunStatus.running):
            worker.check()
            advance(run.step, run.steps, run.message)
            time.sleep(0.5)
            with loop.database.session(read_only=True) as session:
                run = runs.get(session, run.id)
    if run.status is not RunStatus.succeeded:
        raise CellloopError(f"retraining ended as {run.status.value}: {run.error or run.message}; see {worker.log}")
    return run


def _ask_unless_due(loop: Loop, project: Project) -> None:
    """Every image is reviewed: once all of it is in SQL, the worker finds a retraining due, or a person asks."""
    with loop.database.session(read_only=True) as session:
        known = projects.projects(session, project.url)
    for connected in known:
        sync.sync(loop, loop.label_studio(), connected)
    with loop.database.session(read_only=True) as session:
        reason = trigger.due(session, "infected", trigger.trigger_config(session, loop.settings, "infected"))
    if reason is None:
        trigger.ask_for_retraining(loop, "the scripted expert has reviewed every image")
    time.sleep(0.5)


def _newer_run(loop: Loop, last: int) -> TrainingRun | None:
    with loop.database.session(read_only=True) as session:
        run = runs.latest(session, "infected")
    return run if run is not None and run.id > last else None
