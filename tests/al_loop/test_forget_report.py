"""What a forgetting says: what goes, who learned from it, and what is left for people to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from al_loop.forget import forget
from al_loop.forget_report import look
from al_loop.seen_images import trained_on
from db import forget as tombstones
from db import versions
from db.errors import NotFound
from db.images import by_ids
from db.models import ModelVersion
from db.session import Database
from tests import builders
from tests.al_loop.patients import ONE, OTHER, add_patient
from tests.al_loop.workshop import Workshop, open_workshop


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    return open_workshop(tmp_path, sqlite_database)


def test_a_patient_nobody_named_is_refused_with_those_who_are(workshop: Workshop) -> None:
    with pytest.raises(NotFound, match="got 'P-9'; 0 are named: imports tell who"):
        look(workshop, "P-9")
    add_patient(workshop, OTHER)
    with pytest.raises(NotFound, match="got 'P-9'; 1 are named, the first are 'P-2'"):
        forget(workshop, "P-9", "asked to")


def test_it_says_which_models_learned_and_what_is_left_to_do(workshop: Workshop) -> None:
    image_ids = add_patient(workshop, dataset="label-studio")
    with workshop.database.session() as session:
        pair = builders.add_active_pair(session)
        hashes = [image.sha256 for image in by_ids(session, image_ids).values()]
        seen = builders.add_version(session, manifest={"images": [], "trained_on": hashes})
        versions.activate(session, seen.id, kind="person", reasons=["for a test"])
        assert versions.active_pair(session) is not pair
        old = builders.add_version(session, "all_cells", manifest={"images": [{"sha256": hashes[0], "cells": [1]}]})
    report = look(workshop, ONE)
    assert [(each.version, each.status, each.images, each.base) for each in report.versions] == [
        (seen.id, "active", 2, True),
        (old.id, "candidate", 1, False),
    ]
    assert report.pair == f"cellloop-{pair.all_cells_id}.{seen.id}"
    said = forget(workshop, ONE, "asked to").to_json()
    assert [line.split(":")[0] for line in said["advice"]] == [
        "the infected version that serves learned from these images; train another",
        "the weights that training begins with had seen them",
        "delete the originals in Label Studio's media folder, or where its tasks found them",
        "what was imported from, exported to or backed up elsewhere is not touched",
    ]
    assert {name: said[name] for name in ("images", "cells", "labels", "files")} == dict.fromkeys(
        ("images", "cells", "labels", "files"), 2
    )
    with workshop.database.session(read_only=True) as session:
        assert session.get_one(ModelVersion, old.id).manifest == {"images": [{"sha256": hashes[0], "forgotten": 1}]}
        assert trained_on(versions.get(session, old.id)) == {hashes[0]}
        assert [row.versions for row in tombstones.tombstones(session)] == [[seen.id, old.id]]
