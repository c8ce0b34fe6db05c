"""Forgetting a patient, the one lawful removal: images, crops, labels and everything said about them go for good.

The tombstone is written first. Then each step leaves the record whole and may be repeated: what JSON keeps is struck
out, images go one by one with all their rows, then files, caches, and the tasks in Label Studio. Killed anywhere and
begun again, it goes on. Weights stay: they hold no image, and the tombstone says which versions learned from them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Sequence

from al_loop.context import Loop
from al_loop.forget_report import ForgetReport, look, outcome
from al_loop.ruler import take_out
from backend.crop_cache import CropCache
from backend.errors import CellloopError
from backend.label_studio.client import LabelStudio
from db import forget as tombstones
from db import projects, runs, struck
from db.models import ForgottenImage

OnProgress = Callable[[int, int, str], None]  # images done, images in all, what is going on

TASKS_PER_REQUEST = 500
_SHA256 = re.compile(r"[0-9a-f]{64}")


def forget(
    loop: Loop, patient: str, reason: str, on_progress: OnProgress = lambda done, total, what: None
) -> ForgetReport:
    """Remove everything about this patient, and say what was removed and which versions had learned from it.

    Where Label Studio or a far file store does not answer, the report says so; the same again finishes it. Of a patient
    who is forgotten already, files that came back (a mirror's, a backup's) are removed. reason: kept, without the
    patient's id. Raises NotFound for a patient that nobody named, PatientInUse while a training uses the images.
    """
    before = look(loop, patient)
    learned = [each.version for each in before.versions]
    with loop.database.session() as session:
        tombstones.begin(session, patient, struck.strike([patient], reason), learned)
    with loop.database.session(read_only=True) as session:
        found = tombstones.tombstones(session, patient)
        images = {row.id: tombstones.images_of(session, [row.id]) for row in found}
    trouble = None
    try:
        for row in found:
            if row.finished_at is None:
                _strike(loop, patient, row.id, images[row.id], row.versions)
                _remove_rows(loop, row.id, on_progress)
            for image in images[row.id]:
                loop.store.remove(image.file)
        _clear_caches(loop)
        for row in found:
            if row.finished_at is None:
                _remove_from_label_studio(loop, row.id, {image.sha256 for image in images[row.id]})
    except CellloopError as error:
        trouble = str(error)
    return outcome(loop, before, [row.id for row in found if row.finished_at is None], trouble)


def _strike(
    loop: Loop, patient: str, forgetting_id: int, images: Sequence[ForgottenImage], versions: Sequence[int]
) -> None:
    """Strike the images out of what is kept as JSON and text; a version at a time, their manifests are large."""
    hashes = {image.sha256 for image in images}
    for version_id in versions:
        with loop.database.session() as session:
            struck.manifest(session, forgetting_id, version_id, hashes)
    with loop.database.session() as session:
        tombstones.count_more(session, forgetting_id, "images_of_the_ruler", take_out(session, hashes))
        names = tombstones.names(session, forgetting_id)
        struck.errors_of_runs(session, forgetting_id, hashes | names)
        struck.imports(session, forgetting_id, {patient} | names)


def _remove_rows(loop: Loop, forgetting_id: int, on_progress: OnProgress) -> None:
    """An image at a time, so that nobody waits long. Meanwhile nothing is pushed, so every task is known."""
    with loop.alone("push"):
        with loop.database.session(read_only=True) as session:
            waiting = tombstones.waiting(session, forgetting_id)
        for done, image_id in enumerate(waiting, start=1):
            with loop.database.session() as session:
                tombstones.remove_image(session, forgetting_id, image_id)
            on_progress(done, len(waiting), "removing images")


def _clear_caches(loop: Loop) -> None:
    """Crops and a trunk's maps do not tell whose they are, so all of them go; so do ended trainings' checkpoints,
    which are weights that no version, and no tombstone, speaks of."""
    CropCache(loop.settings.crops).clear()
    shutil.rmtree(loop.features, ignore_errors=True)
    with loop.database.session(read_only=True) as session:
        ended = [run.id for run in runs.runs(session) if run.finished_at is not None]
    for run_id in ended:
        shutil.rmtree(loop.run_folder(run_id), ignore_errors=True)


def _remove_from_label_studio(loop: Loop, forgetting_id: int, hashes: Collection[str]) -> None:
    """The tasks we know, those that people or a push cut short made of the same images, and the calls that spoke of
    them. The last step: the forgetting is finished."""
    studio = loop.label_studio()
    with loop.database.session(read_only=True) as session:
        known = projects.projects(session, studio.url)
    ours = [project for project in known if studio.has_project(project.ls_project_id)]
    found = [(project.id, task) for project in ours for task in _tasks_with(studio, project.ls_project_id, hashes)]
    with loop.database.session() as session:
        tasks = tombstones.add_tasks(session, forgetting_id, found)
    for project in ours:
        there = [task for project_id, task in tasks if project_id == project.id]
        for start in range(0, len(there), TASKS_PER_REQUEST):
            studio.delete_tasks(project.ls_project_id, there[start : start + TASKS_PER_REQUEST])
    with loop.database.session(read_only=True) as session:
        events = struck.events_about(session, tasks)
    with loop.database.session() as session:
        struck.remove_events(session, forgetting_id, events)
        tombstones.finish(session, forgetting_id, {project.id for project in known})


def _tasks_with(studio: LabelStudio, ls_project_id: int, hashes: Collection[str]) -> list[int]:
    """Ids of a project's tasks whose data name one of these images."""
    return [
        task.id
        for task in studio.tasks_since(ls_project_id)
        if not set(_SHA256.findall(json.dumps(task.data))).isdisjoint(hashes)
    ]
