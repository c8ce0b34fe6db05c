"""What goes out comes back: five formats, both engines, a history of two experts, and a real smear."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from al_loop.export import WRITERS, export, file_names
from al_loop.formats.detect import detect_format, read_source
from al_loop.import_images import import_images
from al_loop.labelled_files import read_labelled
from backend.errors import NotEnoughData, SettingRefused, StoredFileCorrupt
from backend.store import FileStore
from db.exports import Scope
from db.models import Image
from db.session import Database
from tests.al_loop.hand_made_record import AWKWARD, BEFORE_BOB, TAKEN, labels_of, make_record, polygon
from tests.builders import add_cell, add_image, say

ALL = Scope()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


@pytest.fixture
def new_database(_migrated_sqlite: Path, tmp_path: Path) -> Iterator[Callable[[str], Database]]:
    """A function that makes an empty record of this name."""
    made: list[Database] = []

    def make(name: str) -> Database:
        made.append(Database(f"sqlite:///{shutil.copy(_migrated_sqlite, tmp_path / f'{name}.db')}"))
        return made[-1]

    yield make
    for database in made:
        database.dispose()


@pytest.fixture
def record(new_database: Callable[[str], Database], store: FileStore) -> Database:
    database = new_database("record")
    make_record(database, store)
    return database


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def facts_of(database: Database) -> dict[str, tuple[Any, ...]]:
    with database.session(read_only=True) as session:
        return {
            image.sha256: (image.split, image.group, image.dataset, image.patient, image.taken_at)
            for image in session.scalars(select(Image))
        }


@pytest.mark.parametrize("format", WRITERS)
def test_labels_come_back(
    record: Database, store: FileStore, new_database: Callable[[str], Database], tmp_path: Path, format: str
) -> None:
    report = export(record, store, format, tmp_path / "out", ALL)
    assert report.images == {"test": 1, "train": 1, "validation": 2}
    assert detect_format(tmp_path / "out") == format
    again, other_store = new_database("again"), FileStore(tmp_path / "other files")
    imported = import_images(again, other_store, tmp_path / "out")
    assert imported.problems == {}
    expected = labels_of(record)
    assert sum(map(len, expected.values())) == 6
    if format == "bbbc041":
        assert report.not_carried["outlines that experts drew"] == 3
        expected = {
            sha256: sorted(((label, box, None, "rectangle") for label, box, _, _ in said), key=repr)
            for sha256, said in expected.items()
        }
    assert labels_of(again) == expected
    if format != "bbbc041":
        everything = facts_of(record)
        assert facts_of(again) == {sha256: everything[sha256] for sha256 in expected}
        export(record, store, "coco", tmp_path / "before", ALL)
        export(again, other_store, "coco", tmp_path / "after", ALL)
        assert bytes_below(tmp_path / "before") == bytes_below(tmp_path / "after")


def test_both_engines_read_and_write_the_same(
    record: Database, store: FileStore, database: Database, tmp_path: Path
) -> None:
    export(record, store, "parquet", tmp_path / "out", ALL)
    import_images(database, store, tmp_path / "out")
    assert labels_of(database) == labels_of(record)
    for name, source in (("one", record), ("other", database)):
        export(source, store, "bbbc041", tmp_path / name, ALL)
    assert bytes_below(tmp_path / "one")["test.json"] == bytes_below(tmp_path / "other")["test.json"]
    one, other = (read_source(tmp_path / name) for name in ("one", "other"))
    assert [image.objects for image in one] == [image.objects for image in other]


@pytest.mark.parametrize("format", WRITERS)
def test_the_same_labels_give_the_same_bytes(record: Database, store: FileStore, tmp_path: Path, format: str) -> None:
    steps: list[tuple[int, int, str]] = []
    for name in "ab":
        export(record, store, format, tmp_path / name, ALL, on_progress=lambda *step: steps.append(step))
    first = bytes_below(tmp_path / "a")
    assert first == bytes_below(tmp_path / "b")
    assert sum(name.startswith("images/") for name in first) == 4
    assert [step[:2] for step in steps[:4]] == [(n, 4) for n in range(1, 5)]


def test_everything_left_out_is_said(record: Database, store: FileStore, tmp_path: Path) -> None:
    report = export(record, store, "coco", tmp_path / "out", ALL)
    assert report.cells == {"gametocyte": 1, "ring": 1, "schizont": 2, "difficult": 2}
    assert report.left_out == {
        "images labelled in part": 1,
        "labels on such images": 1,
        "images without labels": 2,
        "rejected cells": 1,
        "earlier answers": 4,
    }
    assert report.not_carried == {"who said it and when": 6, "keys of cells": 6}
    assert report.altered == {"renamed files": 2}
    lines = "\n".join(report.lines())
    assert all(what in lines for part in (report.left_out, report.not_carried, report.altered) for what in part)


def test_labels_as_of_a_moment(record: Database, store: FileStore, tmp_path: Path) -> None:
    scope = Scope(split=None, group="P1/S1", as_of=BEFORE_BOB)
    report = export(record, store, "csv", tmp_path / "out", scope)
    (image,) = read_source(tmp_path / "out")
    assert [(thing.key, thing.label, thing.expert) for thing in sorted(image.objects, key=lambda t: str(t.key))] == [
        (f"{number}-of-two", label, "ada@example.org")
        for number, label in enumerate(("ring", "trophozoite", "gametocyte", "red blood cell", "ring"))
    ]
    assert (image.patient, image.group, image.taken_at) == ("P1", "P1/S1", TAKEN)
    drawn = next(thing for thing in image.objects if thing.label == "gametocyte")
    assert drawn.mask == polygon()
    assert AWKWARD in [thing.box for thing in image.objects]
    assert report.left_out == {"earlier answers": 1, "later answers": 3}
    assert report.as_of == BEFORE_BOB.isoformat()
    assert export(record, store, "csv", tmp_path / "test", Scope.of("test", None, None)).images == {"test": 1}
    with pytest.raises(NotEnoughData, match="found none"):
        export(record, store, "csv", tmp_path / "none", Scope.of("test", "P1/S1", None))


def test_names_and_hashes_only_need_the_images_beside_them(
    record: Database, store: FileStore, new_database: Callable[[str], Database], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = export(record, store, "csv", out, ALL, with_images=False)
    assert set(bytes_below(out)) == {"labels.csv"}
    assert "needs the images beside" in report.lines()[0]
    again = new_database("again")
    assert import_images(again, FileStore(tmp_path / "other"), out).problems == {"missing image": 4}
    export(record, store, "coco", tmp_path / "whole", ALL)
    shutil.copytree(tmp_path / "whole" / "images", out / "images")
    shutil.copy(out / "images" / "empty.png", out / "images" / "field.png")
    report_again = import_images(again, FileStore(tmp_path / "other"), out)
    assert report_again.problems == {"checksum mismatch": 1}
    assert sum(report_again.added.values()) == 3


def test_what_was_exported_can_be_evaluated_where_it_lies(record: Database, store: FileStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(record, store, "parquet", out, ALL)
    for files, problems in (read_labelled(out), read_labelled(out / "images", out / "labels.parquet", "parquet")):
        assert problems == []
        assert sum(len(file.labelled.cells) for file in files) == 6
        assert sum(cell.mask is not None for file in files for cell in file.labelled.cells) == 3


def test_a_folder_is_whole_or_not_there(record: Database, store: FileStore, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(SettingRefused, match="a new or an empty folder"):
        export(record, store, "coco", place, ALL)
    with record.session(read_only=True) as session:
        file = session.scalars(select(Image.file).where(Image.name == "field.png")).one()
    (store.root / file).write_bytes(b"rotten")
    with pytest.raises(StoredFileCorrupt):
        export(record, store, "coco", place / "out", ALL)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]
    export(record, store, "coco", place / "out", ALL, with_images=False)
    assert (place / "out" / "annotations.json").is_file()


def test_file_names_are_safe_and_differ(sqlite_database: Database) -> None:
    names = ["a.png", "A.PNG", "../up.png", ".hidden", "labels.csv", "ü" * 200 + ".jpg", "slash/line\n.png", "..."]
    with sqlite_database.session() as session:
        images = [add_image(session, name, dataset="coco") for name in names]
    found = list(file_names(images).values())
    assert found[0].startswith("a-")
    assert found[1].startswith("A-")
    assert found[2:5] == ["_up.png", "hidden.png", "labels.csv.png"]
    assert found[6] == "slash_line_.png"
    assert found[7] == f"{images[7].sha256[:16]}.png"
    assert len({name.casefold() for name in found}) == len(found)
    assert all(len(name.encode()) <= 255 for name in found)


@pytest.mark.realdata
def test_a_real_smear_goes_through_its_own_format(
    sqlite_database: Database,
    store: FileStore,
    new_database: Callable[[str], Database],
    data_root: Path,
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    there = {path.name for path in (data_root / "bbbc041" / "images").iterdir()}
    for name in ("training.json", "test.json"):
        records = json.loads((data_root / "bbbc041" / name).read_text())
        chosen = [r for r in records if r["image"]["pathname"].rsplit("/", 1)[-1] in there][:2]
        for each in chosen:
            file = each["image"]["pathname"].rsplit("/", 1)[-1]
            (source / "images" / file).symlink_to(data_root / "bbbc041" / "images" / file)
        (source / name).write_text(json.dumps(chosen))
    import_images(sqlite_database, store, source)
    report = export(sqlite_database, store, "bbbc041", tmp_path / "out", ALL)
    assert report.altered == {}
    again = new_database("again")
    assert import_images(again, store, tmp_path / "out").problems == {}
    assert labels_of(again) == labels_of(sqlite_database)
    told = {image.name: (image.checksum, image.objects) for image in read_source(source)}
    for image in read_source(tmp_path / "out"):
        checksum, objects = told[image.name]
        assert checksum in (None, image.checksum)
        assert sorted(image.objects, key=repr) == sorted(objects, key=repr)


def test_what_a_format_has_no_place_for_and_what_an_import_changes_is_said(
    record: Database, store: FileStore, tmp_path: Path
) -> None:
    with record.session() as session:
        image = session.scalars(select(Image).where(Image.name == "empty.png")).one()
        for number, box in enumerate([(-3.0, 5.0, 20.0, 20.0), (5.0, 5.0, 6.5, 20.0)]):
            say(session, add_cell(session, image), "ring", f"ls:1:{number + 50}", 40, box=box)
    report = export(record, store, "bbbc041", tmp_path / "out", ALL)
    assert report.not_carried == {
        "outlines that experts drew": 3,
        "shapes other than rectangles": 3,
        "who said it and when": 8,
        "keys of cells": 8,
        "groups of images": 4,
        "data sets of images": 4,
        "patients of images": 2,
        "moments images were taken": 1,
    }
    assert report.altered == {"renamed files": 2, "boxes an import cuts": 1, "boxes an import leaves out": 1}
