"""Rendered smears: the truth is exact, everything follows from the seed, and a stage looks like no other."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_loop.render import Smear, render_smear
from al_loop.render_cells import RADII
from backend.instances import CLASSES, DIFFICULT, INFECTED
from backend.masks import bounding_box, decode, mask_from_box, mask_iou

EVERY_KIND = [*CLASSES, DIFFICULT]


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(90, 260), st.integers(90, 260)),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.2, 1.0]),
)
def test_boxes_are_the_tight_boxes_of_the_masks(seed: int, size: tuple[int, int], cells: int, infected: float) -> None:
    smear = render_smear(seed, size, cells, infected=infected)
    assert smear.image.shape == (*size, 3)
    assert smear.image.dtype == np.uint8
    assert len(smear.cells) + len(smear.difficult) == cells
    assert len(smear.cells.masks) == len(smear.cells)
    for box, rle in zip(smear.cells.boxes, smear.cells.masks, strict=True):
        np.testing.assert_array_equal(box, bounding_box(rle))
    everywhere = np.concatenate([smear.cells.boxes, smear.difficult])
    assert everywhere.min() >= 0
    assert everywhere[:, 2].max() <= size[1]
    assert everywhere[:, 3].max() <= size[0]


def test_the_seed_decides_everything() -> None:
    one, again, other = render_smear(3, cells=15), render_smear(3, cells=15), render_smear(4, cells=15)
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.cells.boxes, again.cells.boxes)
    assert [m["counts"] for m in one.cells.masks] == [m["counts"] for m in again.cells.masks]
    assert not np.array_equal(one.image, other.image)


def test_exactly_the_kinds_asked_for_are_drawn() -> None:
    smear = render_smear(0, kinds=EVERY_KIND)
    assert sorted(smear.cells.class_names()) == sorted(CLASSES)
    assert smear.difficult.shape == (1, 4)
    assert render_smear(1, cells=20, infected=0).cells.class_names().count("red blood cell") >= 17
    sick = render_smear(2, cells=20, infected=0.5, leukocytes=0, difficult=0).cells.class_names()
    assert sum(name in INFECTED for name in sick) == 10
    assert any(name in INFECTED for name in render_smear(5, cells=3, infected=0.01, difficult=0).cells.class_names())


def alone(kind: str, seed: int) -> Smear:
    return render_smear(seed, (240, 240), kinds=[kind], slide_seed=seed)


def brightness(smear: Smear) -> tuple[float, float]:
    """Mean green inside and outside of the only cell."""
    box = np.concatenate([smear.cells.boxes, smear.difficult])[0].astype(int)
    inside = np.zeros(smear.image.shape[:2], dtype=bool)
    if len(smear.cells):
        inside = decode(smear.cells.masks[0])
    else:
        inside[box[1] : box[3], box[0] : box[2]] = True
    return float(smear.image[inside, 1].mean()), float(np.median(smear.image[~inside, 1]))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_is_darker_than_the_ground(kind: str) -> None:
    for seed in range(5):
        cell, ground = brightness(alone(kind, seed))
        assert cell < ground - 12, (kind, seed)


def test_the_mask_lies_where_the_stain_is() -> None:
    """Otsu, which sees nothing but the image, finds the outline of a healthy cell again."""
    for seed in range(6):
        smear = alone("red blood cell", seed)
        found, source = mask_from_box(smear.image, smear.cells.boxes[0])
        assert source == "otsu"
        assert mask_iou(found, smear.cells.masks[0]) > 0.9, seed


def test_stages_differ_in_what_can_be_seen() -> None:
    """Chromatin and pigment: the darkest tenth of a parasite is far darker than that of a healthy cell."""

    def darkest(kind: str) -> float:
        values = []
        for seed in range(6):
            smear = alone(kind, seed)
            pixels = smear.image[decode(smear.cells.masks[0]), 1]
            values.append(np.percentile(pixels, 5))
        return float(np.mean(values))

    healthy = darkest("red blood cell")
    for stage in INFECTED:
        assert darkest(stage) < healthy - 25, stage
    areas = {kind: np.mean([decode(alone(kind, s).cells.masks[0]).sum() for s in range(6)]) for kind in CLASSES}
    assert areas["leukocyte"] > 1.5 * areas["red blood cell"]
    assert areas["gametocyte"] > areas["red blood cell"]
    assert set(RADII) == set(EVERY_KIND)


def test_cells_overlap_and_are_cut_by_the_border() -> None:
    overlapping = cut = 0
    for seed in range(4):
        smear = render_smear(seed, cells=40)
        cover = sum(decode(rle).astype(int) for rle in smear.cells.masks)
        overlapping += int((np.asarray(cover) > 1).sum() > 30)
        boxes = smear.cells.boxes
        height, width = smear.cells.image_size
        cut += int(((boxes[:, 0] == 0) | (boxes[:, 1] == 0) | (boxes[:, 2] == width) | (boxes[:, 3] == height)).sum())
    assert overlapping >= 3
    assert cut >= 4


def test_slides_differ_in_stain_and_fields_of_one_slide_do_not() -> None:
    def ground(seed: int, slide: int) -> np.ndarray:
        return np.median(render_smear(seed, (200, 200), 6, slide_seed=slide).image.reshape(-1, 3), axis=0)

    same = [ground(seed, 7) for seed in range(3)]
    others = np.array([ground(0, slide) for slide in range(8)])
    assert np.ptp(np.array(same), axis=0).max() < 8
    assert np.ptp(others, axis=0).max() > 8


def test_a_field_takes_less_than_a_third_of_a_second() -> None:
    render_smear(0)
    spent = []
    for seed in range(3):
        began = time.process_time()
        render_smear(seed, (480, 640), 40)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.3


def test_a_large_field_with_a_hundred_cells_takes_half_a_second() -> None:
    spent = []
    for seed in range(3):
        began = time.process_time()
        smear = render_smear(seed, (1200, 1600), 100)
        spent.append(time.process_time() - began)
        sides = smear.cells.boxes[:, 2:] - smear.cells.boxes[:, :2]
        assert 75 < np.median(sides) < 140  # px, as in BBBC041
    assert min(spent) < 0.8  # 0.35 s where nothing else runs


def test_stains_reach_from_pale_violet_to_dark_slate() -> None:
    """Red cells of different slides differ as those of real slides do."""
    shades = []
    for seed in range(24):
        smear = render_smear(seed, (160, 160), kinds=["red blood cell"], slide_seed=seed)
        shades.append(float(smear.image[decode(smear.cells.masks[0]), 1].mean()))
    assert min(shades) < 80
    assert max(shades) > 140


def test_a_gametocyte_fills_its_cell_and_a_ring_does_not() -> None:
    def filled(kind: str) -> float:
        """Share of the cell that is stained much more strongly than its palest tenth, over some slides."""
        shares = []
        for seed in range(8):
            smear = alone(kind, seed)
            green = smear.image[decode(smear.cells.masks[0]), 1].astype(float)
            ground = float(np.median(smear.image[..., 1]))
            shares.append(float((green < 0.5 * np.percentile(green, 95) + 0.1 * ground).mean()))
        return float(np.mean(shares))

    assert filled("gametocyte") > 2 * filled("ring")
