"""The one door: formats are recognised, others are refused with what was seen, and truth is found by content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from al_loop.formats.detect import detect_format, read_source, truth_by_sha256
from backend.errors import UnusableAnnotations
from tests.al_loop.sources import bbbc041_record, write_bbbc041, write_image, write_iml, zip_folder


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 1)
    with pytest.raises(UnusableAnnotations, match=r"got no annotation file and 1 other files"):
        read_source(tmp_path)


def test_unknown_and_broken_annotations_are_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"a": 1}')
    (tmp_path / "broken.json").write_text("[")
    with pytest.raises(UnusableAnnotations, match=r"settings\.json, broken\.json.*is no JSON"):
        detect_format(tmp_path)


def test_a_format_can_be_named_and_is_checked(tmp_path: Path) -> None:
    write_bbbc041(tmp_path)
    assert len(read_source(tmp_path, "bbbc041")) == 4
    with pytest.raises(UnusableAnnotations, match="format of iml"):
        read_source(tmp_path, "iml")
    with pytest.raises(
        UnusableAnnotations, match="expected one of bbbc041, iml, coco, label-studio, csv, parquet, rendered"
    ):
        read_source(tmp_path, "voc")


def test_one_annotation_file_can_be_chosen(tmp_path: Path) -> None:
    write_iml(tmp_path, [1, 2])
    (tmp_path / "training.json").write_text(json.dumps([bbbc041_record("PA1.JPG")]))
    assert detect_format(tmp_path / "annotations.json") == "iml"
    assert [image.name for image in read_source(tmp_path / "training.json")] == ["PA1.JPG"]


def test_truth_is_found_by_the_images_content(tmp_path: Path) -> None:
    root = write_bbbc041(tmp_path / "set", images=3)
    records = json.loads((root / "training.json").read_text())
    records[1]["objects"] = []
    (root / "training.json").write_text(json.dumps([*records, bbbc041_record("absent.png")]))
    archive = zip_folder(root, tmp_path / "set.zip")
    for source in (root, archive):
        truth = truth_by_sha256(source)
        assert len(truth) == 3
        by_name = {image.name: (sha256, image) for sha256, image in truth.items()}
        assert by_name["0001.png"][1].objects == ()
        assert len(by_name["0002.png"][1].objects) == 1
        assert all(image.sha256() == sha256 for sha256, image in truth.items())


@pytest.mark.realdata
def test_truth_of_the_real_smears(data_root: Path) -> None:
    truth = truth_by_sha256(data_root / "bbbc041")
    assert len(truth) == 60
    assert sum(len(image.objects) for image in truth.values()) == 4533
