"""A forgotten patient leaves nothing but a tombstone, however often it was killed, and nobody else is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from al_loop.dataset import DatasetManifest
from al_loop.forget import forget
from al_loop.forget_report import look
from al_loop.snapshot import snapshot
from db import forget as tombstones
from db import projects, removal, runs, versions
from db.errors import ImageForgotten, PatientInUse
from db.models import Base
from db.session import Database
from tests import builders
from tests.al_loop.patients import ONE, OTHER, Rows, Traces, add_patient, dump, fill, of_patient, tasks_of, traces
from tests.al_loop.workshop import Workshop, open_workshop

STRUCK = {
    "model_versions",
    "frozen_splits",
    "training_runs",
    "inbox_events",
    "imports",
}  # rows or parts of them go, by other rules
TOMBSTONES = {"forgettings", "forgotten_images"}
POINTS = [
    *("INSERT INTO forgotten_images", "UPDATE model_versions", "UPDATE frozen_splits", "UPDATE training_runs"),
    "UPDATE imports",
    *(f"DELETE FROM {table.name}" for table in removal.TABLES),
    "DELETE FROM inbox_events",
]


class Killed(Exception):
    """The process ended here."""


@contextmanager
def killed_at(database: Database, statement: str, time: int = 1) -> Iterator[None]:
    """End at the `time`-th such statement; what its transaction did so far is rolled back, as after any crash."""
    left = [time]

    def kill(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        if sql.startswith(statement):
            left[0] -= 1
            if left[0] == 0:
                raise Killed(statement)

    event.listen(database.engine, "before_cursor_execute", kill)
    try:
        with pytest.raises(Killed):
            yield
    finally:
        event.remove(database.engine, "before_cursor_execute", kill)


def about(rows: Rows, image_ids: set[int]) -> Rows:
    """Of a dump, the rows that any chain of foreign keys leads to these images."""
    owned: dict[str, set[Any]] = {"images": set(image_ids)}
    found: Rows = {}
    for table in Base.metadata.sorted_tables:
        names = [column.name for column in table.columns]
        keys = [(names.index(key.parent.name), key.column.table.name) for key in table.foreign_keys]
        mine = [
            row
            for row in rows[table.name]
            if any(row[place] in owned.get(parent, set()) for place, parent in keys)
            or (table.name == "images" and row[0] in image_ids)
        ]
        owned.setdefault(table.name, {row[names.index("id")] for row in mine} if "id" in names else set())
        found[table.name] = mine
    return found


def assert_nothing_left(after: Rows, left: Traces) -> None:
    """No column of no table holds a trace, but for the sha256 by which an image is known again."""
    for name, rows in after.items():
        for row in rows:
            if name == "forgotten_images":
                row = row[:2]
            for value in row:
                if name == "model_versions" and isinstance(value, dict):
                    value = [image for image in value.get("images", ()) if set(image) != {"sha256", "forgotten"}]
                assert value not in left, (name, value)


def test_nothing_is_left_however_often_it_was_killed(tmp_path: Path, database: Database) -> None:
    workshop = fill(tmp_path, database)
    fields = of_patient(database, ONE)
    ids, hashes = [image.id for image in fields], {image.sha256 for image in fields}
    left, tasks, kept_tasks = traces(database, ONE), tasks_of(workshop, ids), set(workshop.fake.tasks)
    workshop.fake.import_tasks(workshop.project.ls_project_id, [{"image": f"/data/local-files/?d={fields[1].file}"}])
    fields_of_other = of_patient(database, OTHER)
    before = dump(database)
    gone = about(before, set(ids))
    assert {table.name for table in removal.TABLES} == {name for name, rows in gone.items() if rows}  # of every kind
    planned = look(workshop, ONE)
    assert planned.rows == {table.name: len(gone[table.name]) for table in removal.TABLES}

    for point in POINTS:
        with killed_at(database, point):
            forget(workshop, ONE, f"{ONE} asked for it")
        with database.session(read_only=True) as session:
            if point != "DELETE FROM inbox_events":
                assert removal.count(session, ids) == planned.rows  # an image goes whole, or not yet
            else:
                assert not any(removal.count(session, ids).values())
    report = forget(workshop, ONE, "again")

    after = dump(database)
    assert_nothing_left(after, left)
    for name in set(before) - STRUCK - TOMBSTONES:
        assert after[name] == sorted((row for row in before[name] if row not in gone[name]), key=repr), name
    assert len(after["inbox_events"]) == 1
    error = list(Base.metadata.tables["training_runs"].columns.keys()).index("error")
    assert [row[:error] + row[error + 1 :] for row in after["training_runs"]] == [
        row[:error] + row[error + 1 :] for row in before["training_runs"]
    ]
    with pytest.raises(IntegrityError, match="kept for good"), database.session() as session:
        session.execute(text("DELETE FROM label_revisions"))
    assert set(workshop.fake.tasks) == kept_tasks - tasks
    assert not any(workshop.store.path(image.file).exists() for image in fields)
    assert all(workshop.store.path(image.file).exists() for image in fields_of_other)
    assert not list(workshop.settings.crops.glob("*/*.jpg"))
    assert not workshop.features.exists()
    assert not list((tmp_path / "runs").iterdir())

    assert (report.rows, report.finished, report.removed, report.trouble) == (planned.rows, True, True, None)
    assert report.versions == planned.versions
    [learned] = report.versions
    with database.session(read_only=True) as session:
        [tombstone] = tombstones.tombstones(session)
        version = versions.get(session, learned.version)
    assert (tombstone.reason, tombstone.versions) == ("[forgotten] asked for it", [learned.version])
    assert tombstone.removed["files"] == len(fields)
    assert tombstone.removed["label_studio_tasks"] == len(tasks) + 1
    assert [tombstone.removed[name] for name in ("inbox_events", "errors_of_runs", "imports")] == [1, 1, 1]
    struck, kept = sorted(after["imports"], key=lambda row: row[0])  # `dump` sorts by text: there 10 comes before 9
    assert (struck[1], struck[3]["examples"]) == (
        "/smears/[forgotten]",
        {"degenerate box": ["[forgotten]", "another.png: ring (5, 1, 1, 1)"]},
    )
    assert kept in before["imports"]
    manifest = DatasetManifest.from_json(version.manifest)
    assert {image.sha256 for image in manifest.images}.isdisjoint(hashes)
    assert (manifest.sha256, len(manifest.images)) == (version.manifest_sha256, 1)
    if database.engine.dialect.name == "sqlite":
        database.dispose()  # nobody has the file open: everything is in it
        held = Path(str(database.engine.url.database)).read_bytes()
        assert [field.name.encode() in held for field in (fields[0], *fields_of_other)] == [False, *[True] * 5]


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    return open_workshop(tmp_path, sqlite_database)


def test_it_waits_for_label_studio_and_goes_on(workshop: Workshop) -> None:
    image_ids = add_patient(workshop)
    project = workshop.project.ls_project_id
    (task,) = workshop.fake.import_tasks(project, [{"image": "/data/upload/1/smear.png"}])
    with workshop.database.session() as session:
        deleted = project + 100  # in Label Studio
        for url, number, ls_task_id in (
            (workshop.fake.url, project, task),
            (workshop.fake.url, deleted, 7),
            ("http://retired", project, 7),
        ):
            ours = projects.upsert_project(session, url=url, ls_project_id=number, title="t", label_config="<View/>")
            projects.add_tasks(session, ours.id, [(ls_task_id, image_ids[0])])
    workshop.fake.down = True
    report = forget(workshop, ONE, "asked to")
    assert (report.finished, report.rows["images"]) == (False, 2)
    assert next(report.advice()).startswith("unfinished: http://label-studio.test: expected an answer")
    with workshop.database.session(read_only=True) as session:
        assert [row.finished_at for row in tombstones.tombstones(session)] == [None]
    workshop.fake.down = False
    workshop.fake.crash_after = {"delete_tasks"}
    assert not forget(workshop, ONE, "asked to").finished
    report = forget(workshop, ONE, "asked to")
    assert (report.finished, report.rows["images"], report.elsewhere) == (True, 2, 1)
    assert task not in workshop.fake.tasks
    with workshop.database.session(read_only=True) as session:
        [tombstone] = tombstones.tombstones(session)
    assert (tombstone.removed["label_studio_tasks"], tombstone.removed[tombstones.ELSEWHERE]) == (2, 1)


def test_of_somebody_who_is_forgotten_files_that_came_back_go(workshop: Workshop) -> None:
    add_patient(workshop, images=1)
    first = forget(workshop, ONE, "asked to")
    back = workshop.store.put_bytes("images", f"{ONE} 0".encode(), ".png")  # from a backup of the files
    again = forget(workshop, ONE, "asked to")
    assert not workshop.store.path(back.file).exists()
    assert (again.rows, again.forgettings, again.finished) == (first.rows, first.forgettings, True)


def test_a_patient_who_is_back_is_forgotten_once_more(workshop: Workshop) -> None:
    add_patient(workshop, images=1)
    first = forget(workshop, ONE, "asked to")
    with workshop.database.session() as session:
        assert tombstones.returned(session, [ONE, OTHER]) == []
        for patient in (ONE, OTHER):
            builders.add_image(session, patient=patient)
        assert tombstones.returned(session, [ONE, OTHER]) == [ONE]
    second = forget(workshop, ONE, "once more")
    assert (second.rows["images"], second.forgettings) == (1, (first.forgettings[0] + 1,))


def test_a_training_that_uses_the_images_comes_first(tmp_path: Path, database: Database) -> None:
    workshop = open_workshop(tmp_path, database)
    image_ids = add_patient(workshop)
    with database.session() as session:
        run = runs.open_run(session, "infected", "person", {}, {})
        assert run is not None
        runs.start_run(session, run.id)
    with pytest.raises(PatientInUse, match=rf"run {run.id} \(infected\) does; nothing was removed: wait"):
        forget(workshop, ONE, "asked to")
    with database.session() as session:
        assert removal.count(session, image_ids)["images"] == 2
        assert tombstones.tombstones(session) == []
        image = builders.add_image(session, "unreviewed.png", patient=OTHER)
    assert forget(workshop, OTHER, "asked to").rows["images"] == 1  # no training knows an image that nobody answered
    with database.session() as session:
        runs.cancel(session, run.id)
    assert forget(workshop, ONE, "asked to").finished
    with pytest.raises(ImageForgotten, match="it stays out"), database.session() as session:
        builders.add_image(session, "unreviewed.png", sha256=image.sha256, file=image.file)


def test_from_the_tombstone_on_an_image_teaches_nobody(workshop: Workshop) -> None:
    add_patient(workshop, OTHER)
    with workshop.database.session() as session:
        known = snapshot(session, "infected")
    add_patient(workshop)
    with workshop.database.session(read_only=True) as session:
        assert len(snapshot(session, "infected").images) == 4
    with killed_at(workshop.database, "DELETE FROM images"):
        forget(workshop, ONE, "asked to")
    with workshop.database.session(read_only=True) as session:
        assert snapshot(session, "infected").images == known.images
    with killed_at(workshop.database, "DELETE FROM images", time=2):  # between two images
        forget(workshop, ONE, "asked to")
    assert forget(workshop, ONE, "asked to").rows["label_revisions"] == 2
