"""Cells to regions and back: within 0.01 px, under the same key, whatever the shape."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import masks
from backend.errors import UnusableLabelConfig
from backend.instances import CLASSES
from backend.label_studio.brush import encode_brush
from backend.label_studio.label_config import Kind, LabelConfig, default_config, parse
from backend.label_studio.regions import ParsedRegion, RegionCell, from_regions, to_regions
from tests.backend.label_studio.test_label_config import config

SIZE = (480, 640)
ALL = parse(config("RectangleLabels", "EllipseLabels", "PolygonLabels", "BrushLabels"))


@st.composite
def fields(draw: st.DrawFn) -> tuple[tuple[int, int], list[RegionCell]]:
    """An image size and up to ten cells inside it."""
    height, width = draw(st.integers(16, 4000)), draw(st.integers(16, 4000))
    cells = []
    for number in range(draw(st.integers(0, 10))):
        x1 = draw(st.floats(0, width - 2))
        y1 = draw(st.floats(0, height - 2))
        x2 = draw(st.floats(x1 + 1, width))
        y2 = draw(st.floats(y1 + 1, height))
        label, score = draw(st.sampled_from(CLASSES)), draw(st.floats(0, 1))
        cells.append(RegionCell(f"key{number}", (x1, y1, x2, y2), label, score, draw(st.none() | st.text(max_size=9))))
    return (height, width), cells


def one(result: list[dict[str, Any]], settings: LabelConfig = ALL) -> ParsedRegion:
    """The only region of a result, through JSON as Label Studio stores it."""
    parsed = from_regions(json.loads(json.dumps(result)), settings, SIZE)
    assert parsed.problems == []
    (region,) = parsed.regions
    return region


def region(kind: Kind, value: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A region of one ring as the editor stores it."""
    names = {"rectangle": "rect", "ellipse": "elli", "polygon": "poly", "brush": "brus"}
    return {
        "id": "abc",
        "type": f"{kind}labels",
        "from_name": names[kind],
        "to_name": "image",
        "original_width": SIZE[1],
        "original_height": SIZE[0],
        "image_rotation": 0,
        "value": value | {f"{kind}labels": ["ring"]},
    } | changes


@settings(max_examples=200, deadline=None)
@given(fields(), st.sampled_from(["rectangle", "ellipse"]))
def test_boxes_survive_within_a_hundredth_of_a_pixel(
    field: tuple[tuple[int, int], list[RegionCell]], kind: Kind
) -> None:
    size, cells = field
    result = json.loads(json.dumps(to_regions(cells, ALL, size, kind)))
    parsed = from_regions(result, ALL, size)
    assert parsed.problems == []
    assert [r.key for r in parsed.regions] == [c.key for c in cells]
    for cell, back in zip(cells, parsed.regions, strict=True):
        assert np.abs(np.subtract(back.box, cell.box)).max() < 0.01
        assert (back.label, back.shape) == (cell.label, kind)
        assert (back.mask is None) == (kind == "rectangle")


def test_what_a_prediction_looks_like() -> None:
    cell = RegionCell("k3y", (64.0, 48.0, 128.0, 96.0), "ring", 0.123456, "both models disagree")
    (made,) = to_regions([cell], parse(default_config()), SIZE)
    assert made == {
        "id": "k3y",
        "type": "rectanglelabels",
        "from_name": "cell",
        "to_name": "image",
        "original_width": 640,
        "original_height": 480,
        "image_rotation": 0,
        "value": {"x": 10, "y": 10, "width": 10, "height": 10, "rotation": 0, "rectanglelabels": ["ring"]},
        "score": 0.1235,
        "meta": {"text": ["both models disagree"]},
    }
    assert "meta" not in to_regions([RegionCell("k", (0, 0, 9, 9), "ring", 0.5)], ALL, SIZE)[0]


def test_labels_are_written_as_the_project_spells_them() -> None:
    settings = parse(config("RectangleLabels", labels=tuple(name.replace(" ", "_").title() for name in CLASSES)))
    (made,) = to_regions([RegionCell("k", (0, 0, 9, 9), "red blood cell", 0.5)], settings, SIZE)
    assert made["value"]["rectanglelabels"] == ["Red_Blood_Cell"]
    assert one([made], settings).label == "red blood cell"


def test_an_outline_goes_as_a_polygon_and_comes_back() -> None:
    mask = masks.ellipse_to_rle((200, 150), (40, 25), SIZE, 30)
    x1, y1, x2, y2 = (float(v) for v in masks.bounding_box(mask))
    cell = RegionCell("k", (x1, y1, x2, y2), "ring", 0.5, mask=mask)
    back = one(to_regions([cell], ALL, SIZE))
    assert back.shape == "polygon"
    assert back.mask is not None
    assert masks.mask_iou(back.mask, mask) > 0.93
    assert np.abs(np.subtract(back.box, cell.box)).max() <= 1.5


def test_a_cell_without_outline_becomes_an_ellipse_of_corners_where_there_are_only_polygons() -> None:
    cell = RegionCell("k", (100, 100, 180, 160), "ring", 0.5)
    back = one(to_regions([cell], parse(config("PolygonLabels")), SIZE), parse(config("PolygonLabels")))
    assert np.abs(np.subtract(back.box, cell.box)).max() < 0.01
    assert back.mask is not None
    assert masks.area(back.mask) == pytest.approx(math.pi * 40 * 30, rel=0.03)


def test_a_brush_mask_on_request_survives_exactly() -> None:
    mask = masks.ellipse_to_rle((200, 150), (40, 25), SIZE, 30)
    cell = RegionCell("k", (0, 0, 9, 9), "ring", 0.5, mask=mask)
    back = one(to_regions([cell], ALL, SIZE, kind="brush"))
    assert back.mask is not None
    assert (masks.decode(back.mask) == masks.decode(mask)).all()
    assert back.box == tuple(masks.bounding_box(mask))
    with pytest.raises(UnusableLabelConfig, match="brush control"):
        to_regions([cell], parse(default_config()), SIZE, kind="brush")


def test_a_rotated_rectangle_turns_clockwise_about_its_top_left_corner() -> None:
    # 100 x 40 px with its corner at (320, 240), turned by 90 degrees: it now reaches 40 px left and 100 px down.
    value = {"x": 50.0, "y": 50.0, "width": 100 / 6.4, "height": 40 / 4.8, "rotation": 90}
    back = one([region("rectangle", value)])
    assert back.box == pytest.approx((280, 240, 320, 340), abs=1e-6)
    assert back.mask is not None
    assert masks.area(back.mask) == pytest.approx(4000, rel=0.02)
    tilted = one([region("rectangle", value | {"rotation": 30})])
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    assert tilted.box == pytest.approx((320 - 40 * sin, 240, 320 + 100 * cos, 240 + 100 * sin + 40 * cos), abs=1e-6)
    upright = one([region("rectangle", value | {"rotation": 360})])
    assert upright.mask is None


def test_a_rotated_ellipse() -> None:
    value = {"x": 50.0, "y": 50.0, "radiusX": 100 / 6.4, "radiusY": 40 / 4.8, "rotation": 90}
    back = one([region("ellipse", value)])
    assert back.box == pytest.approx((280, 140, 360, 340), abs=1e-6)
    assert back.mask is not None
    assert masks.area(back.mask) == pytest.approx(math.pi * 4000, rel=0.01)


def test_what_reaches_outside_is_cut_off() -> None:
    back = one([region("rectangle", {"x": -5.0, "y": 95.0, "width": 10.0, "height": 10.0})])
    assert back.box == pytest.approx((0, 456, 32, 480))


def test_origin_tells_who_drew_it() -> None:
    value = {"x": 1.0, "y": 1.0, "width": 10.0, "height": 10.0}
    assert one([region("rectangle", value)]).origin == "manual"
    assert one([region("rectangle", value, origin="prediction-changed")]).origin == "prediction-changed"


def test_a_region_without_usable_id_gets_the_same_key_every_time() -> None:
    value = {"x": 1.0, "y": 1.0, "width": 10.0, "height": 10.0}
    keys = {one([region("rectangle", value, id=id_)]).key for id_ in (None, None)}
    assert len(keys) == 1
    assert len(one([region("rectangle", value, id="x" * 65)]).key) == 10
    assert one([region("rectangle", value, id="x" * 64)]).key == "x" * 64
    assert one([region("rectangle", value | {"x": 2.0}, id=None)]).key not in keys


def test_results_of_other_controls_pass_silently() -> None:
    choice = {"id": "abc", "type": "choices", "from_name": "quality", "to_name": "image", "value": {"choices": ["ok"]}}
    per_region = {"id": "abc", "type": "textarea", "from_name": "rect", "to_name": "image", "value": {"text": ["hm"]}}
    parsed = from_regions([choice, per_region], ALL, SIZE)
    assert (parsed.regions, parsed.problems) == ([], [])


GOOD = {"x": 1.0, "y": 1.0, "width": 10.0, "height": 10.0}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("text", "expected an object"),
        (region("rectangle", GOOD | {"width": 0.0}), "expected an area"),
        (region("rectangle", GOOD | {"x": 120.0}), "expected an area"),
        (region("rectangle", GOOD | {"x": math.nan}), "expected a finite number"),
        (region("rectangle", GOOD | {"x": "left"}), "could not convert"),
        (region("rectangle", {"x": 1.0}), "no 'y'"),
        (region("rectangle", GOOD) | {"value": GOOD}, "expected one label"),
        (region("rectangle", GOOD) | {"value": GOOD | {"rectanglelabels": ["ring", "schizont"]}}, "expected one label"),
        (region("rectangle", GOOD, image_rotation=90), "turn it back"),
        (region("polygon", {"points": [[1, 1], [2, 2]]}), "three finite pairs"),
        (region("polygon", {"points": [[1, 1], [2], [3, 3]]}), "inhomogeneous"),
        (region("brush", {"rle": [1, 2, 3]}), "truncated"),
        (region("brush", {"rle": encode_brush(np.zeros(SIZE, dtype=bool))}), "expected an area"),
        (region("brush", {"rle": []}, original_width=10), "expected"),
        (region("rectangle", GOOD, id="good"), "got a second"),
    ],
)
def test_one_bad_region_is_named_and_spoils_no_other(bad: Any, message: str) -> None:
    parsed = from_regions([region("rectangle", GOOD, id="good"), bad], ALL, SIZE)
    assert [r.key for r in parsed.regions] == ["good"]
    (problem,) = parsed.problems
    assert "region 2" in problem
    assert message in problem
