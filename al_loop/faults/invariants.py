"""What must hold once everything is healed: asked of SQL, of Label Studio and of the expert's diary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy.orm import Session

from al_loop.faults.diary import Diary, Entry
from al_loop.faults.installation import Installation
from al_loop.faults.violation import Violation
from backend.errors import StoredFileCorrupt
from backend.label_studio.cell_config import NOT_A_CELL, answer_of, parse_cells
from backend.label_studio.label_config import parse
from backend.label_studio.protocol import Annotation, Task, priority_to_score
from backend.label_studio.regions import from_regions
from backend.store import weights_file
from db import cell_tasks, images, inbox, labels, placed, projects, queue, reviews, runs, versions
from db.models import Project, ReviewStatus, Split, Way

SAME_SCORE = 1e-5
Said = Counter[tuple[Any, ...]]  # (label, box in whole px) of a field's cells; (label,) of one cell; empty for a skip


def unrest(installation: Installation) -> list[Violation]:
    """Only what is still open: cheap, to be asked again and again until it is worth asking for everything."""
    with installation.loop.database.session(read_only=True) as session:
        return list(_quiet(session))


def violations(installation: Installation, diary: Diary) -> list[Violation]:
    """Everything that does not hold now. Empty: quiet and right."""
    found: list[Violation] = []
    for project in installation.projects:
        tasks = {task.id: task for task in installation.studio.client.tasks_after(project.ls_project_id, 0)}
        with installation.loop.database.session(read_only=True) as session:
            found += _truth(session, project, tasks, diary)
            if project.way == Way.field:
                found += _order(session, project, tasks, installation)
            else:
                found += _cells_order(session, project, tasks)
    with installation.loop.database.session(read_only=True) as session:
        found += _counted(session)
        found += _serving(session, installation)
        found += _quiet(session)
    return found


# --- one truth ---------------------------------------------------------------------------------------------


def _truth(session: Session, project: Project, tasks: dict[int, Task], diary: Diary) -> Iterator[Violation]:
    """Label Studio holds what the diary says, and SQL what Label Studio holds; each once."""
    rows: Sequence[Any] = (
        cell_tasks.tasks(session, project.id, deleted=True)
        if project.way == Way.cell
        else projects.tasks(session, project.id, deleted=True)
    )
    ours = {row.ls_task_id: row for row in rows}
    held = {
        annotation.id: (task, annotation)
        for task in tasks.values()
        for annotation in task.annotations
        if not (task.id in ours and placed.is_placed(ours[task.id], annotation))
    }
    expected = {number: diary.entries[number] for number in diary.live(project.ls_project_id)}
    for number in expected.keys() - held.keys():
        yield Violation("lost", f"annotation {number} of the diary is not in Label Studio")
    for number in held.keys() - expected.keys():
        yield Violation("doubled", f"annotation {number} in Label Studio is not in the diary")
    live = reviews.live_threads(session, project.ls_project_id)
    threads = {reviews.annotation_thread(project.ls_project_id, number): number for number in held}
    for thread in threads.keys() - live.keys():
        yield Violation("lost", f"{thread} is in Label Studio and not in SQL")
    for thread in live.keys() - threads.keys():
        yield Violation("doubled", f"{thread} counts in SQL and is gone in Label Studio")
    for thread in threads.keys() & live.keys():
        task, annotation = held[threads[thread]]
        yield from _thread(session, project, thread, task, annotation)
        if annotation.id in expected:
            yield from _states(session, thread, annotation, expected[annotation.id])


def _thread(session: Session, project: Project, thread: str, task: Task, annotation: Annotation) -> Iterator[Violation]:
    """SQL's labels of one annotation are those that it holds."""
    there, here = _said(project, task, annotation), _said_in_sql(session, project, thread)
    if missing := there - here:
        yield Violation("lost", f"{thread}: Label Studio has {dict(missing)}, SQL has not")
    if surplus := here - there:
        yield Violation("doubled", f"{thread}: SQL has {dict(surplus)}, Label Studio has not")


def _said(project: Project, task: Task, annotation: Annotation) -> Said:
    if annotation.was_cancelled:
        return Counter()
    if project.way == Way.cell:
        answer = answer_of(annotation.result, parse_cells(project.label_config))
        return Counter([(None if answer == NOT_A_CELL else answer,)])
    size = (int(task.data["height"]), int(task.data["width"]))
    parsed = from_regions(annotation.result, parse(project.label_config), size)
    return Counter((region.label, tuple(round(v) for v in region.box)) for region in parsed.regions)


def _said_in_sql(session: Session, project: Project, thread: str) -> Said:
    live = labels.thread_labels(session, thread)
    if project.way == Way.cell:
        return Counter((label.label,) for label in live)
    drawn = [label for label in live if label.label is not None and label.box is not None]
    return Counter((label.label, tuple(round(v) for v in label.box or ())) for label in drawn)


def _states(session: Session, thread: str, annotation: Annotation, entry: Entry) -> Iterator[Violation]:
    """No state of an annotation is recorded twice, and none that the expert never gave it."""
    last = entry.states[-1]
    if (last is None) != annotation.was_cancelled or (last is not None and last != annotation.result):
        yield Violation("lost", f"{thread}: Label Studio holds another state than the diary's last one")
    history = [review for review in reviews.history(session, thread) if review.status != ReviewStatus.withdrawn]
    if len(history) > len(entry.states):
        yield Violation("doubled", f"{thread}: {len(history)} states in SQL, the diary has {len(entry.states)}")


# --- what follows from it ----------------------------------------------------------------------------------


def _counted(session: Session) -> Iterator[Violation]:
    """What triggers keep is what all revisions say, and a trigger counts every label once."""
    newest = labels.newest_revision_id(session)
    kept = {label.cell_id: label.revision_id for label in labels.current_labels(session)}
    worked_out = labels.current_labels(session, newest_revision_id=newest)
    if kept != {label.cell_id: label.revision_id for label in worked_out}:
        yield Violation("wrong", "the current labels that triggers keep are not those that the revisions give")
    by_label = Counter(label.label for label in worked_out if label.expert != reviews.IMPORT_EXPERT)
    counted = labels.new_infected_since(session, 0)
    if counted != {label: by_label[label] for label in counted}:
        yield Violation("doubled", f"retraining would count {counted}, there are {dict(by_label)}")


def _serving(session: Session, installation: Installation) -> Iterator[Violation]:
    """One active version per role, whose file has its bytes; and every stored image has."""
    for role in ("all_cells", "infected"):
        active = [version for version in versions.versions(session, role) if version.status == "active"]
        if len(active) != 1:
            yield Violation("wrong", f"{role}: {len(active)} active versions")
        for version in active:
            try:
                installation.loop.store.verify(weights_file(version.weights_sha256), version.weights_sha256)
            except StoredFileCorrupt as error:
                yield Violation("wrong", str(error))
    for image in (image for split in Split for image in images.by_split(session, split)):
        try:
            installation.loop.store.verify(image.file, image.sha256)
        except StoredFileCorrupt as error:
            yield Violation("wrong", str(error))


def _quiet(session: Session) -> Iterator[Violation]:
    """Nothing is open that should have ended."""
    for run in runs.all_open(session):
        yield Violation("stuck", f"training run {run.id} is {run.status}: {run.message}")
    if waiting := len(inbox.unhandled(session)):
        yield Violation("stuck", f"{waiting} webhook calls are not handled")


# --- the queue ---------------------------------------------------------------------------------------------


def _order(
    session: Session, project: Project, tasks: dict[int, Task], installation: Installation
) -> Iterator[Violation]:
    """Every field has one task, with one prediction of the pair that serves; those that wait, with their score."""
    shown = Counter(str(task.data.get("sha256")) for task in tasks.values())
    for sha256, count in shown.items():
        if count > 1:
            yield Violation("doubled", f"image {sha256[:12]} has {count} tasks")
    ours = {task.image_id: task.ls_task_id for task in projects.tasks(session, project.id)}
    if lost := set(tasks) - set(ours.values()):
        yield Violation("lost", f"tasks {sorted(lost)} are in Label Studio and not in SQL")
    if gone := set(ours.values()) - set(tasks):
        yield Violation("stuck", f"tasks {sorted(gone)} are gone in Label Studio and live in SQL")
    pair = versions.active_pair(session)
    if pair is None:
        yield Violation("wrong", "no pair serves")
        return
    scores: dict[int, list[float]] = {
        task.id: [held.score or 0.0 for held in task.predictions if held.model_version == pair.name]
        for task in tasks.values()
    }
    for task_id, found in scores.items():
        if len(found) > 1:
            yield Violation("doubled", f"task {task_id} has {len(found)} predictions of {pair.name}")
    waiting = queue.pending(session, Way.field)
    served = installation.studio.client.project(project.ls_project_id).model_version
    if waiting and served != pair.name:
        yield Violation("stuck", f"Label Studio shows {served}, {pair.name} serves")
    for item in waiting:
        task_id = ours.get(item.image_id, 0)
        wanted, found = priority_to_score(item.score), scores.get(task_id, [])
        if not found or abs(found[0] - wanted) > SAME_SCORE:
            yield Violation("stuck", f"image {item.image_id} waits with score {wanted:.6f}, task {task_id} has {found}")
    listed = {ours.get(item.image_id, 0) for item in queue.pending(session)}  # whole, or some of its cells
    if forgotten := set(ours.values()) - listed - {task.id for task in tasks.values() if task.annotations}:
        yield Violation("lost", f"tasks {sorted(forgotten)} are not answered and not in the queue")


def _cells_order(session: Session, project: Project, tasks: dict[int, Task]) -> Iterator[Violation]:
    """Every waiting cell has one task, with its score."""
    for item_id, count in Counter(task.data.get("item") for task in tasks.values()).items():
        if count > 1:
            yield Violation("doubled", f"the cell of item {item_id} has {count} tasks")
    ours = {task.item_id: task.ls_task_id for task in cell_tasks.tasks(session, project.id)}
    for item in queue.pending(session, Way.cell):
        task = tasks.get(ours.get(item.id, 0))
        wanted = priority_to_score(item.score)
        found = [held.score or 0.0 for held in task.predictions] if task is not None else []
        if len(found) != 1 or abs(found[0] - wanted) > SAME_SCORE:
            yield Violation("stuck", f"cell of item {item.id} waits with score {wanted:.6f}, Label Studio has {found}")
