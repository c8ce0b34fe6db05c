"""IML_Malaria: numbers as strings, x and y before w and h, and neighbours in file number share a group."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from al_loop.formats.detect import detect_format, read_source
from al_loop.formats.iml import BLOCK, block_of
from tests.al_loop.sources import iml_object, write_iml


def test_numbers_are_strings_and_boxes_become_corners(tmp_path: Path) -> None:
    objects = [
        iml_object("ring", "10", "20", "30", "40"),
        iml_object("ring", "10", "20", "wide", "40"),
        iml_object("platelet", "1", "2", "3", "4"),
        {"type": "ring"},
    ]
    (image,) = read_source(write_iml(tmp_path, [171690], objects))
    assert detect_format(tmp_path) == "iml"
    assert [(thing.label, thing.box) for thing in image.objects] == [("ring", (10, 20, 40, 60))]
    assert Counter(problem.kind for problem in image.problems) == {"unreadable box": 2, "unknown category": 1}
    assert image.file == "images/PA171690.JPG"
    assert (image.width, image.height, image.official_split) == (None, None, None)


def test_neighbours_share_a_block() -> None:
    assert block_of("PA171699.JPG") == block_of("PA171680.JPG") == "PA171680+20"
    assert block_of("PA171700.JPG") != block_of("PA171699.JPG")
    assert block_of("QB171699.JPG") != block_of("PA171699.JPG")
    assert block_of("slide-a.jpg") is None
    assert BLOCK == 20


@pytest.mark.realdata
def test_the_real_set(data_root: Path) -> None:
    images = read_source(data_root / "iml")
    assert len(images) == 245
    assert all(image.file is not None for image in images)
    assert not any(image.problems for image in images)
    found = [image.usable_objects(1280, 960) for image in images]
    labels = Counter(thing.label for objects, _ in found for thing in objects)
    assert labels == {
        "red blood cell": 27003, "gametocyte": 186, "ring": 117, "trophozoite": 55, "schizont": 19, "difficult": 15,
    }  # fmt: skip
    assert Counter(problem.kind for _, problems in found for problem in problems) == {"box outside the image": 897}
    groups: dict[str, list[int]] = {}
    for image in images:
        assert image.group is not None
        groups.setdefault(image.group, []).append(int(image.name[2:8]))
    assert max(max(numbers) - min(numbers) for numbers in groups.values()) < BLOCK
    assert len(groups) == 17
