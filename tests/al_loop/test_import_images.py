"""Importing: every problem is counted and spoils nothing else, again adds nothing, groups stay whole."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import struct
import zlib
from collections import defaultdict
from pathlib import Path

import pytest
from sqlalchemy import func, select

from al_loop.formats.records import PROBLEMS
from al_loop.import_images import import_images
from al_loop.rendered import write_coco_folder
from al_loop.ruler import load_ruler
from backend.errors import UnusableAnnotations
from backend.store import FileStore, sha256_of
from db.images import by_split, imports
from db.labels import class_counts, current_labels, labelled_images
from db.models import Action, Base, Image, Import, Review
from db.session import Database
from tests.al_loop.sources import SIZE, bbbc041_record, iml_object, write_bbbc041, write_image, write_iml, zip_folder


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def png_of(width: int, height: int) -> bytes:
    """A small PNG file that unpacks to this many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj()
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def rows(database: Database) -> dict[str, int]:
    """Number of rows in every table but the log of imports."""
    with database.session(read_only=True) as session:
        tables = [table for table in Base.metadata.sorted_tables if table.name != Import.__tablename__]
        return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def test_images_labels_and_files_arrive(database: Database, store: FileStore, tmp_path: Path) -> None:
    source = write_bbbc041(tmp_path / "set", 4, [("ring", (10, 10, 30, 30)), ("RBC", (40, 5, 60, 25))])
    steps: list[tuple[int, int, str]] = []
    report = import_images(database, store, source, on_progress=lambda *step: steps.append(step))
    assert (report.listed, report.already_there, sum(report.added.values())) == (4, 0, 4)
    assert report.cells == {"ring": 4, "red blood cell": 4}
    assert report.problems == {}
    assert steps[0][:2] == (1, 4)
    assert steps[-1][:2] == (4, 4)
    with database.session(read_only=True) as session:
        images = labelled_images(session)
        assert {image.name for image in images} == {"0000.png", "0001.png", "0002.png", "0003.png"}
        for image in images:
            assert store.verify(image.file, image.sha256).read_bytes() == (source / "images" / image.name).read_bytes()
            assert (image.width, image.height, image.dataset) == (SIZE[1], SIZE[0], "bbbc041")
        labels = current_labels(session)
        assert len(labels) == 8
        assert {label.action for label in labels} == {Action.imported}
        assert {label.expert for label in labels} == {"import"}
        assert {label.box for label in labels} == {(10, 10, 30, 30), (40, 5, 60, 25)}
        assert len({label.key for label in labels}) == 8
        (log,) = imports(session)
        assert log.report == json.loads(json.dumps(report.to_json()))


def test_importing_again_adds_nothing(database: Database, store: FileStore, tmp_path: Path) -> None:
    source = write_bbbc041(tmp_path / "set", 5)
    first = import_images(database, store, source, label_share=0.5)
    before, files = rows(database), sorted(store.root.rglob("*"))
    damaged, lost, *_ = (path for path in files if path.is_file())
    damaged.write_bytes(b"damaged")
    lost.unlink()
    again = import_images(database, store, source)
    zipped = import_images(database, store, zip_folder(source, tmp_path / "set.zip", "top/"))
    for report in (again, zipped):
        assert (report.added, report.labelled, report.cells, report.already_there) == ({}, {}, {}, 5)
        assert report.ruler_sha256 == first.ruler_sha256
    assert rows(database) == before
    assert sorted(store.root.rglob("*")) == files
    assert sha256_of(damaged) == damaged.stem


def test_every_problem_is_counted_and_the_rest_goes_in(
    sqlite_database: Database, store: FileStore, tmp_path: Path
) -> None:
    root = write_bbbc041(tmp_path / "set", 3, [("ring", (10, 10, 30, 30))])
    images = root / "images"
    shutil.copy(images / "0000.png", images / "double.png")
    (images / "text.png").write_text("not an image")
    (images / "cut.png").write_bytes((images / "0001.png").read_bytes()[:-400])
    write_image(images / "small.png", 90, (30, 40))
    good_md5 = hashlib.md5(write_image(images / "sum.png", 91).read_bytes()).hexdigest()
    write_image(images / "wrong.png", 92)
    box = (10.0, 10.0, 30.0, 30.0)
    records = [
        *json.loads((root / "training.json").read_text()),
        bbbc041_record("absent.png"),
        bbbc041_record("double.png", [("ring", box)]),
        bbbc041_record("0002.png", [("ring", box)]),
        bbbc041_record("text.png", [("ring", box)]),
        bbbc041_record("cut.png", [("ring", box)]),
        bbbc041_record("small.png", [("ring", box)]),
        bbbc041_record("wrong.png", [("ring", box)], md5="0" * 32),
        bbbc041_record(
            "sum.png",
            [
                ("ring", (-5, 10, 30, 30)),
                ("ring", (10, 10, 11, 30)),
                ("platelet", box),
                ("platelet", box),
                ("schizont", box),
            ],
            md5=good_md5.upper(),
        ),
        {"image": {}},
    ]
    records[-2]["objects"].append({"category": "ring", "bounding_box": {}})
    (root / "training.json").write_text(json.dumps(records))
    report = import_images(sqlite_database, store, root)
    assert report.problems == {
        "duplicate image": 2,
        "unknown category": 2,
        "unreadable image": 2,
        "missing image": 1,
        "size mismatch": 1,
        "checksum mismatch": 1,
        "box outside the image": 1,
        "degenerate box": 1,
        "unreadable box": 1,
        "unnamed image": 1,
    }
    assert set(report.problems) <= set(PROBLEMS)
    assert report.unknown_categories == {"platelet": 2}
    assert sum(report.added.values()) == 4
    assert report.cells == {"ring": 4, "schizont": 1}
    assert any("absent.png" in example for example in report.examples["missing image"])
    assert any("expected md5 000" in example for example in report.examples["checksum mismatch"])
    lines = "\n".join(report.lines())
    assert "unknown categories: 'platelet' (2)" in lines
    assert all(kind in lines for kind in report.problems)


def test_a_gigantic_image_is_refused_without_decoding(
    sqlite_database: Database, store: FileStore, tmp_path: Path
) -> None:
    source = write_bbbc041(tmp_path / "set", 1)
    (source / "images" / "huge.png").write_bytes(png_of(20_000, 20_000))
    records = json.loads((source / "training.json").read_text())
    (source / "training.json").write_text(json.dumps([*records, bbbc041_record("huge.png")]))
    report = import_images(sqlite_database, store, source)
    assert report.problems == {"unreadable image": 1}
    assert "megapixels" in report.examples["unreadable image"][0]
    assert sum(report.added.values()) == 1


def test_groups_stay_whole_also_across_imports(sqlite_database: Database, store: FileStore, tmp_path: Path) -> None:
    cell = [iml_object("ring", "5", "5", "20", "20")]
    import_images(sqlite_database, store, write_iml(tmp_path / "one", range(1000, 1100, 2), cell))
    import_images(sqlite_database, store, write_iml(tmp_path / "two", range(1001, 1160, 2), cell))
    with sqlite_database.session(read_only=True) as session:
        images = session.scalars(select(Image)).all()
    splits: dict[str, set[str]] = defaultdict(set)
    for image in images:
        splits[image.group].add(image.split)
    assert len(images) == 130
    assert len(splits) == 8
    assert all(len(split) == 1 for split in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}


def test_the_ruler_is_frozen_once_and_later_test_images_stay_out(
    sqlite_database: Database, store: FileStore, tmp_path: Path
) -> None:
    first = import_images(sqlite_database, store, write_bbbc041(tmp_path / "one", 20))
    assert first.ruler_sha256 is not None
    with sqlite_database.session(read_only=True) as session:
        before = load_ruler(session)
    assert len(before.images) == first.added["test"] == 5
    cell = [iml_object("ring", 5, 5, 20, 20)]
    second = import_images(sqlite_database, store, write_iml(tmp_path / "two", range(0, 300, 10), cell))
    assert second.added["test"] >= 5
    assert second.ruler_sha256 == first.ruler_sha256
    with sqlite_database.session(read_only=True) as session:
        assert load_ruler(session) == before
        assert len(by_split(session, "test")) == 5 + second.added["test"]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_only_a_share_of_the_train_images_gets_its_labels(
    sqlite_database: Database, store: FileStore, tmp_path: Path, share: float
) -> None:
    report = import_images(sqlite_database, store, write_bbbc041(tmp_path / "set", 20), label_share=share)
    assert report.added == {"train": 12, "validation": 3, "test": 5}
    assert report.labelled.get("train", 0) == 12 * share
    assert report.labelled["test"] == 5
    assert report.labelled["validation"] == 3
    with sqlite_database.session(read_only=True) as session:
        assert class_counts(session, "train").get("ring", 0) == 12 * share
        assert session.scalar(select(func.count()).select_from(Review)) == 8 + 12 * share


def test_an_official_test_image_is_test(sqlite_database: Database, store: FileStore, tmp_path: Path) -> None:
    root = write_bbbc041(tmp_path / "set", 30)
    write_image(root / "images" / "official.png", 99)
    (root / "test.json").write_text(json.dumps([bbbc041_record("official.png", [("ring", (1, 1, 20, 20))])]))
    report = import_images(sqlite_database, store, root)
    assert report.added["test"] == 8
    with sqlite_database.session(read_only=True) as session:
        assert "official.png" in {image.name for image in by_split(session, "test")}


def test_an_import_killed_halfway_goes_on(
    sqlite_database: Database, store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_bbbc041(tmp_path / "set", 12)
    monkeypatch.setattr("al_loop.import_images.IMAGES_PER_TRANSACTION", 5)

    class Killed(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if what == "recording labels":
            raise Killed

    with pytest.raises(Killed):
        import_images(sqlite_database, store, source, on_progress=stop)
    with sqlite_database.session(read_only=True) as session:
        half = {image.sha256: image.split for image in session.scalars(select(Image))}
    assert len(half) == 5
    report = import_images(sqlite_database, store, source)
    assert (report.already_there, sum(report.added.values())) == (5, 7)
    with sqlite_database.session(read_only=True) as session:
        whole = {image.sha256: image.split for image in session.scalars(select(Image))}
        assert len(labelled_images(session)) == 12
        load_ruler(session)
    assert half.items() <= whole.items()


def test_experts_masks_come_with_coco(sqlite_database: Database, store: FileStore, tmp_path: Path) -> None:
    source = write_coco_folder(tmp_path / "set", 2, size=(120, 160), cells=5)
    report = import_images(sqlite_database, store, source)
    assert report.dataset == "rendered"
    with sqlite_database.session(read_only=True) as session:
        for label in current_labels(session):
            assert (label.mask is None) == (label.label == "difficult")
            assert label.shape == ("rectangle" if label.mask is None else "brush")


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_an_impossible_share_is_refused(
    sqlite_database: Database, store: FileStore, tmp_path: Path, share: float
) -> None:
    with pytest.raises(UnusableAnnotations, match="from 0 to 1"):
        import_images(sqlite_database, store, write_bbbc041(tmp_path / "set", 1), label_share=share)


@pytest.mark.realdata
def test_real_bbbc041(sqlite_database: Database, store: FileStore, data_root: Path) -> None:
    report = import_images(sqlite_database, store, data_root / "bbbc041", label_share=0.5)
    assert report.added == {"train": 36, "validation": 9, "test": 15}
    assert report.problems == {"missing image": 1268}
    assert report.labelled["train"] == 18
    with sqlite_database.session(read_only=True) as session:
        ruler = load_ruler(session)
        stages = class_counts(session, "test")
    assert len(ruler.images) == 15
    assert {"ring", "trophozoite", "schizont", "gametocyte"} <= set(stages)


@pytest.mark.realdata
def test_real_iml(sqlite_database: Database, store: FileStore, data_root: Path, tmp_path: Path) -> None:
    """Every sixth image of each block, so that the test takes seconds; all blocks are there."""
    records = json.loads((data_root / "iml" / "annotations.json").read_text())[::6]
    (tmp_path / "images").mkdir()
    for record in records:
        (tmp_path / "images" / record["image_name"]).symlink_to(data_root / "iml" / "images" / record["image_name"])
    (tmp_path / "annotations.json").write_text(json.dumps(records))
    report = import_images(sqlite_database, store, tmp_path / "annotations.json")
    assert sum(report.added.values()) == len(records) == 41
    assert report.problems.keys() == {"box outside the image"}
    with sqlite_database.session(read_only=True) as session:
        images = session.scalars(select(Image).order_by(Image.name)).all()
        assert len(load_ruler(session).images) == report.added["test"]
    assert len({image.group for image in images}) == 17
    assert sum(a.split != b.split for a, b in itertools.pairwise(images)) <= 16  # only where a block ends
