import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backend.masks import (
    area,
    bounding_box,
    box_to_rle,
    decode,
    decode_crop,
    ellipse_to_rle,
    encode,
    encode_crop,
    mask_from_box,
    mask_iou,
    paste,
    polygon_to_rle,
    rle_to_polygon,
)

SIZE = (37, 53)
dense = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
corner = st.floats(-4, 45, width=32)
length = st.floats(1.5, 30, width=32)


@given(dense)
def test_encoding_round_trips(mask: np.ndarray) -> None:
    rle = encode(mask)
    assert rle["size"] == list(mask.shape)
    np.testing.assert_array_equal(decode(rle), mask)
    assert area(rle) == mask.sum()


@settings(max_examples=300)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.data())
def test_a_window_is_cut_from_a_mask_without_decoding_all_of_it(mask: np.ndarray, data: st.DataObject) -> None:
    y1, y2 = sorted(data.draw(st.tuples(*[st.integers(0, mask.shape[0])] * 2)))
    x1, x2 = sorted(data.draw(st.tuples(*[st.integers(0, mask.shape[1])] * 2)))
    np.testing.assert_array_equal(decode_crop(encode(mask), (x1, y1, x2, y2)), mask[y1:y2, x1:x2])


@given(dense, st.data())
def test_a_crop_encodes_to_the_bytes_of_the_whole_image(crop: np.ndarray, data: st.DataObject) -> None:
    height = crop.shape[0] + data.draw(st.integers(0, 3))
    width = crop.shape[1] + data.draw(st.integers(0, 3))
    y, x = data.draw(st.integers(0, height - crop.shape[0])), data.draw(st.integers(0, width - crop.shape[1]))
    image = np.zeros((height, width), dtype=bool)
    image[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    assert encode_crop(crop, (x, y), (height, width)) == encode(image)


@given(corner, corner, length, length, st.integers(0, 2**31))
def test_pasted_masks_stay_inside_their_boxes(x: float, y: float, w: float, h: float, seed: int) -> None:
    box = np.array([x, y, x + w, y + h])
    pasted = decode(paste(np.random.default_rng(seed).random((28, 28)) * 1.5, box, SIZE))
    assert pasted.shape == SIZE
    ys, xs = np.nonzero(pasted)
    assert ((xs + 0.5 >= box[0]) & (xs + 0.5 <= box[2]) & (ys + 0.5 >= box[1]) & (ys + 0.5 <= box[3])).all()


@pytest.mark.parametrize("box", [(3.2, 4.7, 31.9, 30.1), (-6, 2, 24, 34), (23, 10, 53, 37)])
def test_pasting_agrees_with_torchvision(box: tuple[float, ...]) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    yy, xx = np.mgrid[:28, :28]
    blob = np.exp(-(((xx - 14) / 9) ** 2) - ((yy - 12) / 7) ** 2).astype(np.float32)
    theirs = paste_masks_in_image(torch.from_numpy(blob)[None, None], torch.tensor([box]), SIZE)[0, 0].numpy() >= 0.5
    ours = decode(paste(blob, np.array(box), SIZE))
    # They round the box to whole pixels first; we do not. Only the rim may differ.
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.85


def test_a_full_mask_fills_its_box_and_box_to_rle_agrees() -> None:
    box = np.array([2.0, 3.0, 12.0, 9.0])
    assert bounding_box(box_to_rle(box, SIZE)).tolist() == box.tolist()
    inner = decode(paste(np.ones((28, 28)), box, SIZE))
    assert inner.sum() == area(box_to_rle(box, SIZE)) == 60


@given(st.floats(12, 40), st.floats(12, 25), st.floats(3, 10), st.floats(3, 10), st.floats(-180, 180))
def test_ellipses_have_the_area_of_ellipses(cx: float, cy: float, rx: float, ry: float, angle: float) -> None:
    rle = ellipse_to_rle((cx, cy), (rx, ry), SIZE, angle)
    assert area(rle) == pytest.approx(np.pi * rx * ry, rel=0.15)


def test_rotation_turns_clockwise_on_the_screen() -> None:
    tilted = decode(ellipse_to_rle((26, 18), (14, 3), SIZE, 45))
    assert tilted[18 + 7, 26 + 7]  # y points down: the long axis runs to the lower right
    assert not tilted[18 - 7, 26 + 7]


@given(st.floats(12, 40), st.floats(14, 22), st.floats(6, 11), st.floats(6, 11))
def test_outlines_come_back_as_the_same_cell(cx: float, cy: float, rx: float, ry: float) -> None:
    rle = ellipse_to_rle((cx, cy), (rx, ry), SIZE)
    outline = rle_to_polygon(rle, tolerance_px=0.5)
    assert 6 <= len(outline) <= 60
    assert mask_iou(polygon_to_rle(outline, SIZE), rle) > 0.88


def test_polygons_follow_pixel_edges() -> None:
    square = np.array([[3, 2], [7, 2], [7, 5], [3, 5]])
    rle = polygon_to_rle(square, (10, 12))
    assert bounding_box(rle).tolist() == [3, 2, 7, 5]
    assert area(rle) == 12
    outside = polygon_to_rle(np.array([[-5, -5], [6, -5], [6, 4], [-5, 4]]), (10, 12))
    assert bounding_box(outside).tolist() == [0, 0, 6, 4]
    with pytest.raises(ValueError, match="at least 3 corners, got 2"):
        polygon_to_rle(square[:2], (10, 12))


def test_the_outline_of_nothing_is_empty() -> None:
    assert rle_to_polygon(encode(np.zeros((5, 5), dtype=bool))).shape == (0, 2)


def _smear() -> np.ndarray:
    image = np.full((60, 80, 3), (235, 225, 230), dtype=np.uint8)
    cv2.ellipse(image, (30, 30), (14, 10), 0, 0, 360, (190, 130, 150), -1)
    cv2.ellipse(image, (30, 30), (4, 3), 0, 0, 360, (235, 225, 230), -1)  # pale centre, to be filled
    return image


def test_otsu_finds_the_cell_and_fills_its_pale_centre() -> None:
    box = np.array([16, 20, 45, 41])
    rle, source = mask_from_box(_smear(), box)
    assert source == "otsu"
    assert mask_iou(rle, ellipse_to_rle((30.5, 30.5), (14.2, 10.2), (60, 80))) > 0.9


@pytest.mark.parametrize("box", [(50, 5, 75, 25), (10, 5, 78, 58), (5, 5, 7, 7)])
def test_an_implausible_otsu_mask_becomes_an_ellipse(box: tuple[int, ...]) -> None:
    rle, source = mask_from_box(_smear(), np.array(box))  # blank ground; mostly ground; too small to threshold
    assert source == "ellipse"
    assert area(rle) == pytest.approx(np.pi / 4 * (box[2] - box[0]) * (box[3] - box[1]), rel=0.3)


@settings(max_examples=60)
@given(corner, corner, length, length, st.integers(0, 2**31))
def test_masks_from_boxes_stay_inside_them(x: float, y: float, w: float, h: float, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    rle, _ = mask_from_box(image, np.array([x, y, x + w, y + h]))
    if area(rle):
        x1, y1, x2, y2 = bounding_box(rle)
        assert x1 + 0.5 >= x
        assert y1 + 0.5 >= y
        assert x2 - 0.5 <= x + w
        assert y2 - 0.5 <= y + h
