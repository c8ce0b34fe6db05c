"""A real Label Studio takes what we export, and gives it back as exact as it came."""

from __future__ import annotations

import json
from pathlib import Path

from al_loop.export import export
from al_loop.formats.detect import read_source
from backend.store import FileStore
from db.exports import Scope
from db.session import Database
from tests.al_loop.hand_made_record import make_record
from tests.label_studio_fixture import RunningLabelStudio


def test_labels_survive_a_project_of_label_studios(
    label_studio: RunningLabelStudio, sqlite_database: Database, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "files")
    make_record(sqlite_database, store)
    out = tmp_path / "out"
    export(sqlite_database, store, "label-studio", out, Scope())
    studio = label_studio.client()
    project = studio.create_project("exported labels", (out / "config.xml").read_text())
    tasks = json.loads((out / "tasks.json").read_text())
    answer = studio.transport.post(f"/api/projects/{project.id}/import", tasks)
    assert (answer["task_count"], answer["annotation_count"]) == (4, 4)
    before = sorted(read_source(out), key=lambda image: image.name)
    exported = studio.transport.get(f"/api/projects/{project.id}/export", exportType="JSON")
    (out / "tasks.json").write_text(json.dumps(exported))
    after = sorted(read_source(out), key=lambda image: image.name)
    assert sum(len(image.objects) for image in before) == 6
    assert after == before
    assert all(image.problems == () and image.file is not None for image in after)
