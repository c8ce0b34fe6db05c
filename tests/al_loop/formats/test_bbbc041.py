"""BBBC041: rows are y and columns are x, the test file is the test split, damaged records cost only themselves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from al_loop.formats import bbbc041
from al_loop.formats.detect import detect_format, read_source
from al_loop.formats.opener import FolderOpener
from al_loop.formats.records import SourceImage
from tests.al_loop.sources import bbbc041_record, write_bbbc041, zip_folder


def read(root: Path, *records: object, file: str = "training.json") -> list[SourceImage]:
    assert bbbc041.matches(list(records))
    return bbbc041.read({file: list(records)}, FolderOpener(root))


def test_a_record_is_read_with_rows_as_y(tmp_path: Path) -> None:
    root = write_bbbc041(tmp_path, images=1, objects=[("trophozoite", (5, 7, 25, 37)), ("difficult", (1, 2, 31, 42))])
    (image,) = read_source(root)
    assert (image.name, image.file, image.width, image.height) == ("0000.png", "images/0000.png", 80, 60)
    assert [(thing.label, thing.box) for thing in image.objects] == [
        ("trophozoite", (5, 7, 25, 37)),
        ("difficult", (1, 2, 31, 42)),
    ]
    assert image.group is None
    assert image.official_split == "train"
    assert image.checksum is None


def test_the_test_file_promises_test_and_gives_md5(tmp_path: Path) -> None:
    (image,) = read(tmp_path, bbbc041_record("a.jpg", md5="A" * 32), file="test.json")
    assert image.official_split == "test"
    assert image.checksum == "a" * 32
    assert image.file is None


@pytest.mark.parametrize(
    "record", [{}, {"image": {}}, {"image": {"pathname": 3}}, {"image": {"pathname": ""}}, 7, {"image": "a.png"}]
)
def test_a_record_without_an_image_is_a_problem_of_its_own(tmp_path: Path, record: object) -> None:
    unnamed, good = read(tmp_path, record, bbbc041_record("a.png"))
    assert [problem.kind for problem in unnamed.problems] == ["unnamed image"]
    assert good.name == "a.png"


def test_damaged_parts_of_a_record_do_no_harm(tmp_path: Path) -> None:
    record = bbbc041_record("a.png", [("ring", (1, 1, 9, 9))])
    record["image"] |= {"shape": None, "checksum": 5}
    record["objects"] += [
        {"category": "ring"},
        {"category": "platelet", "bounding_box": record["objects"][0]["bounding_box"]},
    ]
    (image,) = read(tmp_path, record)
    assert (image.width, image.checksum, len(image.objects)) == (None, None, 1)
    assert [problem.kind for problem in image.problems] == ["unreadable box", "unknown category"]


def test_a_zip_with_a_top_folder_reads_the_same(tmp_path: Path) -> None:
    root = write_bbbc041(tmp_path / "set", images=2)
    archive = zip_folder(root, tmp_path / "malaria.zip", prefix="malaria/")
    assert detect_format(archive) == "bbbc041"
    plain, zipped = read_source(root), read_source(archive)
    assert [image.objects for image in plain] == [image.objects for image in zipped]
    assert [image.sha256() for image in plain] == [image.sha256() for image in zipped]


@pytest.mark.realdata
def test_the_real_set_as_far_as_it_is_here(data_root: Path) -> None:
    images = read_source(data_root / "bbbc041")
    assert Counter(image.official_split for image in images) == {"train": 1208, "test": 120}
    here = [image for image in images if image.file is not None]
    assert Counter(image.official_split for image in here) == {"train": 59, "test": 1}
    assert not any(image.problems for image in images)
    assert sum(image.checksum is not None for image in images) == 120
    cells = Counter(thing.label for image in images if image.official_split == "train" for thing in image.objects)
    assert cells == {
        "red blood cell": 77420, "trophozoite": 1473, "ring": 353, "difficult": 441, "schizont": 179, "gametocyte": 144,
        "leukocyte": 103,
    }  # fmt: skip
