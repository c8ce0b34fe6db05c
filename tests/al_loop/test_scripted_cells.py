"""The scripted expert at single cells says what the truth says."""

from __future__ import annotations

from pathlib import Path

from al_loop.formats.opener import FolderOpener
from al_loop.formats.records import SourceImage, SourceObject
from al_loop.scripted_cells import review_next_cell
from db import images
from db.session import Database
from tests.al_loop.cell_workshop import cells_project, entries_of, open_cells, pool, push_both, queue_up, sync_both
from tests.al_loop.workshop import said


def test_cells_are_answered_with_the_truth_until_none_is_left(tmp_path: Path, sqlite_database: Database) -> None:
    workshop = open_cells(tmp_path, sqlite_database)
    image_id = pool(workshop)[0]
    queue_up(workshop, entries_of(workshop, image_id))
    push_both(workshop)
    with sqlite_database.session(read_only=True) as session:
        image = images.get(session, image_id)
    objects = [
        SourceObject("ring", (22.0, 20.0, 60.0, 60.0)),
        SourceObject("red blood cell", (100.0, 20.0, 140.0, 60.0)),
    ]
    truth = {image.sha256: SourceImage(image.name, None, FolderOpener(tmp_path), objects=tuple(objects))}
    while review_next_cell(workshop, workshop.expert, cells_project(workshop), truth) is not None:
        pass
    sync_both(workshop)
    assert said(workshop) == {("ring", (20, 20, 60, 60)), ("red blood cell", (100, 20, 140, 60))}
