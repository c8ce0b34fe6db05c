from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from al_loop.crops import Augmentation, CachedImage, Crop, Focus, cache_image, choose_focus, cut, defocus, stain, turn
from al_loop.dataset import TrainingSample
from al_loop.trunk_features import anchors
from backend.detect import DetectorConfig
from backend.masks import encode

PLAIN = Augmentation(flips=False, scale=(1.0, 1.0), colour=0.0, blur=0.0)
NOWHERE = np.zeros((0, 4), dtype=np.float32)


def sample(tmp_path: Path) -> TrainingSample:
    """200 x 100 px, black; a white 40 x 20 px red cell at (20, 30), a grey 10 x 10 px ring."""
    pixels = np.zeros((100, 200, 3), dtype=np.uint8)
    pixels[30:50, 20:60] = 255
    pixels[70:80, 150:160] = 128
    path = tmp_path / "field.png"
    cv2.imwrite(str(path), pixels)
    mask = np.zeros((100, 200), dtype=bool)
    mask[30:50, 20:40] = True  # the left half of its box
    return TrainingSample(
        sha256="0" * 64,
        path=path,
        boxes=np.array([[20, 30, 60, 50], [150, 70, 160, 80]], dtype=np.float32),
        labels=("red blood cell", "ring"),
        masks=(encode(mask), None),
        mask_sources=("expert", "none"),
        ignore_boxes=np.array([[100, 0, 140, 40]], dtype=np.float32),
    )


def corner_image() -> CachedImage:
    """One asymmetric cell whose pixels are white exactly where its mask is."""
    pixels = np.full((60, 60, 3), 10, dtype=np.uint8)
    chip = np.zeros((10, 20), dtype=bool)
    chip[:, :7] = True
    chip[:4] = True
    pixels[5:15, 8:28][chip] = 255
    boxes = np.array([[8, 5, 28, 15]], dtype=np.float32)
    return CachedImage(pixels, boxes, np.array([1]), (chip,), NOWHERE)


def test_an_image_is_cached_at_training_size_with_its_masks(tmp_path):
    cached = cache_image(sample(tmp_path), DetectorConfig(short_side=50, max_side=1000))
    assert cached.pixels.shape == (50, 100, 3)
    assert cached.boxes.tolist() == [[10, 15, 30, 25], [75, 35, 80, 40]]
    assert cached.labels.tolist() == [1, 3]  # output channels of all_cells
    assert cached.ignore.tolist() == [[50, 0, 70, 20]]
    assert cached.chips[0].shape == (10, 20)
    assert cached.chips[0][:, :10].all()
    assert not cached.chips[0][:, 11:].any()
    assert 0.4 < cached.chips[1].mean() < 1  # a box without a mask becomes an ellipse


def test_a_detector_is_only_taught_the_cells_of_its_role(tmp_path):
    cached = cache_image(sample(tmp_path), DetectorConfig(role="infected", short_side=50))
    assert cached.boxes.tolist() == [[75, 35, 80, 40]]
    assert cached.labels.tolist() == [2]


def test_the_long_side_limits_the_scale(tmp_path):
    assert cache_image(sample(tmp_path), DetectorConfig(short_side=50, max_side=60)).pixels.shape == (30, 60, 3)


def test_a_crop_moves_boxes_and_masks_with_the_pixels(tmp_path):
    cached = cache_image(sample(tmp_path), DetectorConfig(role="all_cells", short_side=100, max_side=1000))
    crop = cut(cached, Focus(0, 40, 40), 90, PLAIN, np.random.default_rng(0))
    assert crop.pixels.shape == (90, 90, 3)
    assert crop.labels.tolist() == [1]
    x1, y1, x2, y2 = crop.boxes[0].astype(int)
    assert (crop.pixels[y1:y2, x1:x2] == 255).all()
    assert crop.pixels.sum() == crop.pixels[y1:y2, x1:x2].sum()
    assert crop.masks[0].sum() == crop.masks[0][y1:y2, x1:x2].sum() == 20 * 20


@pytest.mark.parametrize("orientation", range(8))
def test_every_orientation_keeps_boxes_and_masks_on_the_pixels(orientation):
    plain = cut(corner_image(), Focus(0, 0, 0), 0, PLAIN, np.random.default_rng(0))
    turned = turn(plain, orientation)
    assert np.array_equal(turned.pixels[..., 0] == 255, turned.masks[0].astype(bool))
    rows, columns = np.nonzero(turned.masks[0])
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert turned.boxes[0].tolist() == [float(value) for value in box]


def test_the_eight_orientations_differ():
    plain = cut(corner_image(), Focus(0, 0, 0), 0, PLAIN, np.random.default_rng(0))
    assert len({turn(plain, orientation).masks.tobytes() for orientation in range(8)}) == 8


@pytest.mark.parametrize("zoom", [0.7, 1.4])
def test_zoom_keeps_masks_on_the_pixels(zoom):
    crop = cut(corner_image(), Focus(0, 20, 10), 0, Augmentation(False, (zoom, zoom), 0.0), np.random.default_rng(0))
    assert crop.pixels.shape[0] == round(60 * zoom)
    agreement = (crop.pixels[..., 0] > 130) == crop.masks[0].astype(bool)
    assert agreement.mean() > 0.98


def test_a_cell_mostly_outside_its_crop_is_ignored_and_not_taught():
    image = CachedImage(
        np.zeros((100, 200, 3), dtype=np.uint8),
        np.array([[0, 0, 20, 20], [190, 80, 200, 90], [20, 0, 60, 20]], dtype=np.float32),
        np.array([1, 1, 1]),
        (np.ones((20, 20), bool), np.ones((10, 10), bool), np.ones((20, 40), bool)),
        NOWHERE,
    )
    crop = cut(image, Focus(0, 0, 0), 40, PLAIN, np.random.default_rng(2))
    assert crop.boxes.tolist() == [[0, 0, 20, 20]]
    assert crop.ignore.tolist() == [[20, 0, 40, 20]]


def test_rare_cells_are_looked_at_as_often_as_asked():
    boxes = np.array([[x, 0, x + 10, 10] for x in range(0, 1000, 10)], dtype=np.float32)
    labels = np.ones(100, dtype=np.int64)
    labels[40] = 2  # one ring among 99 red cells
    image = CachedImage(np.zeros((10, 1000, 3), np.uint8), boxes, labels, (np.ones((10, 10), bool),) * 100, NOWHERE)
    rng = np.random.default_rng(0)
    looks = [choose_focus([image], rng, common=1, rare_share=0.5) for _ in range(400)]
    at_ring = sum(look.x == 405 and look.y == 5 for look in looks)
    assert 150 < at_ring < 250


def test_frequent_and_rare_stages_are_met_by_the_root_of_their_number():
    boxes = np.array([[x, 0, x + 10, 10] for x in range(0, 500, 10)], dtype=np.float32)
    labels = np.array([1] * 45 + [2] * 5)
    image = CachedImage(np.zeros((10, 500, 3), np.uint8), boxes, labels, (np.ones((10, 10), bool),) * 50, NOWHERE)
    rng = np.random.default_rng(0)
    looks = [choose_focus([image], rng, common=None, rare_share=1.0) for _ in range(800)]
    of_second = np.mean([look.x > 450 for look in looks])
    assert of_second == pytest.approx(5**0.5 / (45**0.5 + 5**0.5), abs=0.05)


def test_a_crop_depends_on_its_generator_alone():
    def draw(seed: int) -> Crop:
        return cut(corner_image(), Focus(0, 20, 10), 40, Augmentation(), np.random.default_rng(seed))

    assert np.array_equal(draw(5).pixels, draw(5).pixels)
    assert not np.array_equal(draw(5).pixels, draw(6).pixels)


def test_stain_changes_colour_a_little_and_strength_zero_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    assert np.array_equal(stain(pixels, 0.0, np.random.default_rng(0)), pixels)
    changed = stain(pixels, 1.0, np.random.default_rng(0)).astype(int) - pixels
    assert 1 < np.abs(changed).mean() < 60


def test_a_stronger_stain_darkens_cells_and_leaves_the_background_to_the_lamp():
    pixels = np.full((40, 40, 3), 200, dtype=np.uint8)
    pixels[10:20, 10:20] = 100
    ratios = []
    for seed in range(40):
        changed = stain(pixels, 1.0, np.random.default_rng(seed)).astype(float)
        ratios.append(changed[12, 12] / np.maximum(changed[0, 0], 1))
    assert np.std(ratios) > 0.03  # cells against background: the stain
    assert abs(np.log(np.mean(ratios) / 0.5)) < 0.2  # centred on the stain as it is


def test_defocus_blurs_sometimes_and_keeps_the_light():
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[::2] = 200
    seen = [defocus(pixels, 1.0, np.random.default_rng(seed)) for seed in range(30)]
    blurred = [each for each in seen if not np.array_equal(each, pixels)]
    assert 3 <= len(blurred) <= 20
    assert all(abs(float(each[5:35].mean()) - 100) < 5 and each.std() < pixels.std() for each in blurred)
    assert defocus(pixels, 0.0, np.random.default_rng(0)) is pixels


def test_an_image_known_in_part_is_drawn_by_its_share_and_looked_at_where_experts_looked():
    boxes = np.array([[0, 0, 10, 10], [300, 80, 310, 90]], dtype=np.float32)
    whole = CachedImage(
        np.zeros((100, 400, 3), np.uint8), boxes, np.array([1, 1]), (np.ones((10, 10), bool),) * 2, NOWHERE
    )
    part = replace(whole, reviewed=np.array([[100, 40, 120, 60], [200, 40, 220, 60]], dtype=np.float32), known=0.25)
    rng = np.random.default_rng(0)
    drawn = [choose_focus([whole, part], rng, common=1, rare_share=0.5) for _ in range(2000)]
    at_part = [focus for focus in drawn if focus.image == 1]
    assert len(at_part) == pytest.approx(2000 * 0.25 / 1.25, rel=0.15)
    assert {(focus.x, focus.y) for focus in at_part} == {(110, 50), (210, 50)}
    ours, theirs = (
        choose_focus([whole, whole], np.random.default_rng(7), common=1, rare_share=share) for share in (0.0, 0.5)
    )
    assert ours == theirs  # nothing rare: the same place, drawn as ever


def test_views_of_an_image_known_in_part_lie_where_experts_looked():
    image = replace(corner_image(), reviewed=np.array([[10, 20, 30, 40], [50, 50, 60, 60]], dtype=np.float32))
    assert anchors(image, 30, 1)[0].tolist() == [[20, 30], [55, 55]]
    assert anchors(corner_image(), 30, 1)[0].tolist() == []
