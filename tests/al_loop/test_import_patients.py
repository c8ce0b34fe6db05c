"""Imports that know patients: one split each, learnt later, never changed, and every contradiction counted."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from al_loop.import_images import import_images
from al_loop.import_report import ImportReport
from backend.errors import SettingRefused
from backend.store import FileStore
from db.models import Image
from db.session import Database
from tests.al_loop.sources import SIZE, bbbc041_record, write_image

PATTERN = r"(?P<patient>P\d+)_(?P<slide>S\d+)_(?P<taken>\d{8})"


def write_fields(root: Path, names: list[str], file: str = "training.json", first: int = 0) -> Path:
    """A BBBC041 folder of images of these names; `first`: of the seeds of their pixels."""
    for seed, name in enumerate(names, start=first):
        write_image(root / "images" / name, seed)
    (root / file).write_text(json.dumps([bbbc041_record(name, [("ring", (10, 10, 30, 30))]) for name in names]))
    return root


def images_of(database: Database) -> list[Image]:
    with database.session(read_only=True) as session:
        return list(session.scalars(select(Image).order_by(Image.name)))


def splits_of(database: Database) -> dict[str | None, set[str]]:
    """The splits in which each patient's images lie."""
    found: dict[str | None, set[str]] = defaultdict(set)
    for image in images_of(database):
        found[image.patient].add(image.split.value)
    return found


def run(database: Database, folder: Path, source: Path, pattern: str | None = PATTERN) -> ImportReport:
    return import_images(database, FileStore(folder / "files"), source, name_pattern=pattern)


def test_a_patients_slides_share_a_split_also_across_imports(sqlite_database: Database, tmp_path: Path) -> None:
    names = [f"P{number % 8}_S{number // 8}_20260105.png" for number in range(32)]
    report = run(sqlite_database, tmp_path, write_fields(tmp_path / "one", [*names[:24], "nameless.png"]))
    assert report.problems == {"name that does not fit": 1}
    run(sqlite_database, tmp_path, write_fields(tmp_path / "two", names[24:], first=100))
    splits = splits_of(sqlite_database)
    assert {patient: len(found) for patient, found in splits.items() if patient} == {f"P{n}": 1 for n in range(8)}
    assert set.union(*splits.values()) == {"train", "validation", "test"}
    image = images_of(sqlite_database)[0]
    assert (image.patient, image.group) == ("P0", "bbbc041:P0/S0")
    assert image.taken_at == datetime(2026, 1, 5, tzinfo=UTC)


def test_an_official_division_of_a_patient_is_not_kept(sqlite_database: Database, tmp_path: Path) -> None:
    source = write_fields(tmp_path / "set", [f"P1_S{n}_20260105.png" for n in range(4)])
    write_fields(source, ["P1_S9_20260105.png"], "test.json", first=50)
    write_fields(source, [f"P2_S{n}_20260105.png" for n in range(4)], "more.json", first=60)
    report = run(sqlite_database, tmp_path, source)
    assert splits_of(sqlite_database) == {"P1": {"test"}, "P2": {"train"}}
    assert report.problems == {}


def test_images_that_were_there_learn_their_patient_once(database: Database, tmp_path: Path) -> None:
    names = [f"P{n % 2}_S{n}_20260105.png" for n in range(12)]
    source = write_fields(tmp_path / "set", names)
    run(database, tmp_path, source, None)
    before = {image.sha256: image.split for image in images_of(database)}
    report = run(database, tmp_path, source)
    assert (report.already_there, report.learned) == (12, 12)
    assert report.problems == {"patient in several splits": 2}
    assert "12 of which now know" in report.lines()[1]
    assert {image.patient for image in images_of(database)} == {"P0", "P1"}
    again = run(database, tmp_path, source, r"S(?P<patient>\d+)_(?P<taken>\d{8})")
    assert again.learned == 0
    assert again.problems == {"another patient": 12}
    assert {image.sha256: image.split for image in images_of(database)} == before


def test_coco_names_patients_slides_and_days(sqlite_database: Database, tmp_path: Path) -> None:
    told = [
        {"patient": "A", "slide": "1", "date_captured": "2026-01-05 08:30:00"},
        {"patient": "B", "slide": "1", "date_captured": "some day"},
        {"patient": 7, "group": "2", "date_captured": 0, "split": "test"},
    ]
    images = [
        {"id": n, "file_name": write_image(tmp_path / "set" / f"{n}.png", n).name, "width": SIZE[1], "height": SIZE[0]}
        | said
        for n, said in enumerate(told)
    ]
    (tmp_path / "set" / "labels.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    report = run(sqlite_database, tmp_path, tmp_path / "set", None)
    assert report.problems == {"unreadable moment": 1, "slide of several patients": 1}
    a, b, c = images_of(sqlite_database)
    assert (a.patient, a.group, a.taken_at) == ("A", "coco:1", datetime(2026, 1, 5, 8, 30, tzinfo=UTC))
    assert (b.patient, b.group, b.taken_at, b.split) == ("B", "coco:1", None, a.split)
    assert (c.patient, c.group, c.taken_at, c.split) == ("7", "coco:2", None, "test")


def test_a_patient_of_another_data_set_is_the_same_person(sqlite_database: Database, tmp_path: Path) -> None:
    run(sqlite_database, tmp_path, write_fields(tmp_path / "one", [f"P{n}_S0_20260105.png" for n in range(12)]))
    table = ["image,label,x1,y1,x2,y2,patient"]
    for n in range(12):
        write_image(tmp_path / "two" / f"{n}.png", 300 + n)
        table.append(f"{n}.png,ring,1,1,20,20,P{n}")
    (tmp_path / "two" / "labels.csv").write_text("\n".join(table))
    report = run(sqlite_database, tmp_path, tmp_path / "two", None)
    assert report.added == {"train": 7, "validation": 2, "test": 3}
    assert all(len(splits) == 1 for splits in splits_of(sqlite_database).values())


def test_a_pattern_that_says_nothing_stops_the_import(sqlite_database: Database, tmp_path: Path) -> None:
    with pytest.raises(SettingRefused, match="named groups of patient, slide, taken, got none"):
        run(sqlite_database, tmp_path, write_fields(tmp_path / "set", ["a.png"]), r"P\d+")
    assert images_of(sqlite_database) == []
