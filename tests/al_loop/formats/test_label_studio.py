"""label-studio: what Label Studio exports comes in, whoever drew it; every region that cannot be read is named."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from al_loop.formats import label_studio
from al_loop.formats.detect import detect_format, read_source
from al_loop.formats.opener import FolderOpener
from al_loop.formats.records import SourceImage
from backend.label_studio.label_config import default_config, parse
from backend.label_studio.regions import RegionCell, to_regions
from backend.masks import encode
from tests.al_loop.formats.test_coco import mask_of
from tests.al_loop.sources import SIZE, write_image

CONFIG = parse(default_config(outlines=True))


def region(kind: Any = "rectangle", label: str = "ring", key: str = "a", **changes: Any) -> dict[str, Any]:
    cell = RegionCell(key, (10.0, 12.0, 40.0, 36.0), label, 1.0, mask=encode(mask_of(1)))
    return to_regions([cell], CONFIG, SIZE, kind)[0] | changes


def task(*regions: Any, image: str = "/data/local-files/?d=smears/a.png", **changes: Any) -> dict[str, Any]:
    return {"data": {"image": image}, "annotations": [{"result": list(regions)}], **changes}


def read(root: Path, *tasks: Any) -> list[SourceImage]:
    return label_studio.read({"tasks.json": list(tasks)}, FolderOpener(root))


def kinds(image: SourceImage) -> list[str]:
    return [problem.kind for problem in image.problems]


def test_a_project_of_anybody_is_read(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", 1)
    renamed = region(label="schizont", key="b") | {"from_name": "box", "to_name": "picture"}
    choice = {"id": "a", "type": "choices", "from_name": "quality", "value": {"choices": ["good"]}}
    (tmp_path / "export.json").write_text(json.dumps([task(renamed, region("brush"), choice)]))
    assert detect_format(tmp_path) == "label-studio"
    (image,) = read_source(tmp_path)
    assert (image.file, image.problems) == ("images/a.png", ())
    assert [(thing.label, thing.shape, thing.key) for thing in image.objects] == [
        ("schizont", "rectangle", "b"),
        ("ring", "brush", "a"),
    ]
    assert image.objects[0].box == pytest.approx((10, 12, 40, 36))
    assert image.objects[1].mask == encode(mask_of(1))


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("/data/local-files/?d=smears/sub/a%20b.png", "a b.png"),
        ("http://studio.example/data/upload/3/0a1b-c.JPG", "0a1b-c.JPG"),
        ("images/c.tif", "c.tif"),
        ("s3://smears/x/d.png", "d.png"),
    ],
)
def test_images_are_found_in_addresses_of_every_kind(tmp_path: Path, image: str, name: str) -> None:
    by_key, by_value = read(tmp_path, task(image=image), {**task(), "data": {"note": "x", "smear": image}})
    assert by_key.name == by_value.name == name


def test_who_did_not_answer_has_labelled_nothing(tmp_path: Path) -> None:
    skipped = task(annotations=[{"result": [region()], "was_cancelled": True}])
    twice = task(
        annotations=[
            {"result": [region(label="ring")], "updated_at": "2026-01-02T00:00:00Z"},
            {"result": [region(label="schizont")], "updated_at": "2026-01-03T00:00:00Z"},
            {"result": [], "updated_at": "2026-01-01T00:00:00Z"},
        ]
    )
    nothing, none, empty, newest = read(tmp_path, task(annotations=[]), skipped, task(), twice)
    assert [image.labelled for image in (nothing, none, empty, newest)] == [False, False, True, True]
    assert kinds(nothing) == kinds(none) == ["unlabelled image"]
    assert kinds(empty) == []
    assert [thing.label for thing in newest.objects] == ["schizont"]
    assert kinds(newest) == ["several annotations"]


def test_every_bad_region_is_a_problem_of_its_own(tmp_path: Path) -> None:
    bad = [
        region(label="platelet", key="1"),
        region(key="2", value={"rectanglelabels": ["ring"], "x": "left"}),
        region(key="3", value={}),
        region(key="3.5", value=7),
        region("brush", key="4", value={"format": "rle", "rle": [1, 2], "brushlabels": ["ring"]}),
        "nonsense",
        {"id": 5, "type": ["x"], "cellloop": {"value_sha256": 5}, "value": 7},
        region(key="good"),
        region(key="good"),
    ]
    (image,) = read(tmp_path, task(*bad))
    assert kinds(image) == ["unreadable region"] * 6 + ["unknown category"]
    assert [thing.key for thing in image.objects] == ["good"]


@pytest.mark.parametrize("broken", [7, {}, {"data": {}}, {"data": {"image": 5}}, {"data": {"image": "notes.txt"}}])
def test_a_task_without_an_image_is_a_problem_of_its_own(tmp_path: Path, broken: Any) -> None:
    unnamed, good = read(tmp_path, broken, task())
    assert kinds(unnamed) == ["unnamed image"]
    assert good.name == "a.png"


def test_regions_of_an_image_of_unknown_size_are_told(tmp_path: Path) -> None:
    (image,) = read(tmp_path, task(region(original_width=None)))
    assert kinds(image) == ["unreadable region"]
    assert image.objects == ()


def test_what_a_region_was_drawn_from_counts_until_somebody_moves_it(tmp_path: Path) -> None:
    drawn = region(key="x")
    drawn["cellloop"] = {
        "value_sha256": label_studio.value_sha256(drawn["value"]),
        "box": [10.0, 12.0, 40.0, 36.000000001],
        "shape": "ellipse",
        "mask": encode(mask_of(2))["counts"].decode(),
        "expert": "ada",
    }
    moved = copy.deepcopy(drawn)
    moved["value"]["x"] += 1
    broken = copy.deepcopy(drawn)
    broken["cellloop"]["mask"] = "broken"
    images = read(tmp_path, task(drawn), task(moved), task(broken))
    (kept,), (redrawn,), (other,) = (image.objects for image in images)
    assert (kept.box[3], kept.shape, kept.mask, kept.expert) == (36.000000001, "ellipse", encode(mask_of(2)), "ada")
    assert (redrawn.shape, redrawn.mask, redrawn.expert) == ("rectangle", None, None)
    assert redrawn.box == pytest.approx((10.8, 12, 40.8, 36))
    assert (other.shape, other.mask) == ("rectangle", None)
