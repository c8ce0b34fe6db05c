"""COCO: x, y, w, h; polygons and both kinds of RLE; hostile run lengths never reach the decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from hypothesis import given
from hypothesis import strategies as st

from al_loop.formats import coco
from al_loop.formats.coco import read_counts, read_mask
from al_loop.formats.detect import detect_format, read_source
from al_loop.formats.opener import FolderOpener
from al_loop.formats.records import SourceImage
from backend.masks import decode, encode
from tests.al_loop.sources import SIZE, write_image

HEIGHT, WIDTH = SIZE


def document(annotations: list[Any], **image: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT} | image],
        "annotations": [{"id": i, "image_id": 7, "category_id": 1} | a for i, a in enumerate(annotations)],
        "categories": [{"id": 1, "name": "Ring"}, {"id": 2, "name": "platelet"}, {"id": 3, "name": "RBC"}],
    }


def read_one(root: Path, *annotations: Any, **image: Any) -> SourceImage:
    (found,) = coco.read({"annotations.json": document(list(annotations), **image)}, FolderOpener(root))
    return found


def test_a_folder_is_read(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", 1)
    annotations = [
        {"bbox": [10, 20, 30, 15]},
        {"bbox": [1, 2, 3, 4], "category_id": 3},
        {"bbox": [1, 2, 3, 4], "category_id": 2},
        {"bbox": [1, 2, 3, 4], "category_id": 99},
        {"bbox": [1, 2, 30, 40], "iscrowd": 1, "category_id": 3},
        {"bbox": None},
    ]
    (tmp_path / "test.json").write_text(json.dumps(document(annotations, slide="s1")))
    assert detect_format(tmp_path) == "coco"
    (image,) = read_source(tmp_path)
    assert image.file == "images/a.png"
    assert (image.group, image.official_split, image.width) == ("s1", "test", WIDTH)
    assert [(thing.label, thing.box) for thing in image.objects] == [
        ("ring", (10, 20, 40, 35)),
        ("red blood cell", (1, 2, 4, 6)),
        ("difficult", (1, 2, 31, 42)),
    ]
    assert [(p.kind, p.detail) for p in image.problems[:2]] == [
        ("unknown category", "platelet"),
        ("unknown category", "category 99"),
    ]
    assert [p.kind for p in image.problems[2:]] == ["unreadable box"]


def mask_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros(SIZE, dtype=bool)
    mask[10 : 10 + rng.integers(3, 40), 20 : 20 + rng.integers(3, 50)] = True
    mask[12:14, 22:24] = rng.random() < 0.5
    return mask


def test_both_kinds_of_rle_and_polygons_give_masks(tmp_path: Path) -> None:
    mask = mask_of(0)
    packed = encode(mask)["counts"].decode()
    unpacked = read_counts(packed)
    for counts in (packed, unpacked):
        image = read_one(tmp_path, {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}})
        assert not image.problems
        (thing,) = image.objects
        assert thing.mask is not None
        np.testing.assert_array_equal(decode(thing.mask), mask)
        rows, columns = np.nonzero(mask)
        assert thing.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    squares = [[10, 10, 20, 10, 20, 20, 10, 20], [30, 30, 40, 30, 40, 40, 30, 40]]
    (thing,) = read_one(tmp_path, {"segmentation": squares, "bbox": [10, 10, 30, 30]}).objects
    assert thing.mask is not None
    assert coco_mask.area(thing.mask) == 200


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [HEIGHT, WIDTH], "counts": [5, 10**9]},  # more pixels than the image has
        {"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]},
        {"size": [HEIGHT, WIDTH], "counts": "zzzzzzzzzz"},
        {"size": [HEIGHT, WIDTH], "counts": "\x00\x7f"},
        {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]},  # empty
        {"size": [10, 10], "counts": [0, 100]},  # of another image
        {"size": [HEIGHT, WIDTH]},
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, "x"]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [7],
        "nonsense",
    ],
)
def test_an_unreadable_mask_costs_only_the_mask(tmp_path: Path, segmentation: Any) -> None:
    image = read_one(tmp_path, {"segmentation": segmentation, "bbox": [1, 2, 3, 4]})
    assert [problem.kind for problem in image.problems] == ["unreadable mask"]
    assert [(thing.box, thing.mask) for thing in image.objects] == [((1, 2, 4, 6), None)]


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=30))
def test_run_lengths_are_read_as_the_reference_writes_them(rows: list[list[bool]]) -> None:
    mask = np.array(rows, dtype=bool)
    counts = read_counts(encode(mask)["counts"].decode())
    assert counts is not None
    values = np.zeros(len(counts), dtype=bool)
    values[1::2] = True
    np.testing.assert_array_equal(np.repeat(values, counts).reshape(mask.shape, order="F"), mask)


@given(st.text(max_size=40))
def test_no_text_makes_the_reader_fall_over(text: str) -> None:
    found = read_mask({"size": [HEIGHT, WIDTH], "counts": text}, SIZE)
    assert found is None or decode(found).shape == SIZE


@pytest.mark.parametrize("image", [None, {}, {"file_name": 5}, {"file_name": ""}])
def test_an_image_without_a_name_is_a_problem_of_its_own(tmp_path: Path, image: Any) -> None:
    broken = document([]) | {"images": [image, {"id": 1, "file_name": "b.png"}], "categories": None}
    unnamed, good = coco.read({"a.json": broken}, FolderOpener(tmp_path))
    assert [problem.kind for problem in unnamed.problems] == ["unnamed image"]
    assert (good.name, good.width) == ("b.png", None)


def test_ids_of_any_type_do_no_harm(tmp_path: Path) -> None:
    broken = document([{"bbox": [1, 2, 3, 4], "category_id": [1]}, {"bbox": [1, 2, 3, 4], "image_id": {}}])
    broken["categories"] += [{"id": [1], "name": "platelet"}, 5]
    broken["images"].append({"id": [7], "file_name": "b.png"})
    one, other = coco.read({"a.json": broken}, FolderOpener(tmp_path))
    assert [(problem.kind, problem.detail) for problem in one.problems] == [("unknown category", "platelet")]
    assert other.objects == one.objects == ()
