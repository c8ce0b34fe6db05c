from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from backend.backbones import LITE_TENSORS, LiteBackbone, fold_batch_norm, lite_imagenet_state
from backend.checkpoints import save_weights
from backend.detect import (
    Detector,
    DetectorConfig,
    build_detector,
    load_detector,
    pick_device,
    resize_image,
    save_detector,
)
from backend.detector_model import CellMaskRCNN
from backend.errors import WeightsCorrupt, WeightsUnavailable
from backend.instances import CLASSES, INFECTED_INDEX
from backend.masks import bounding_box
from backend.overlap import iou_matrix
from tests.threads import one_thread

SMALL = DetectorConfig(short_side=128, max_side=256, proposals=100, score_threshold=0.0)
# Spread of the trunk's three levels on a grey ramp; random weights give 1.9, 7.5 and 5.2.
LITE_SPREADS = [7.0135, 5.6926, 1.6933]
SMALL_INFECTED = replace(SMALL, role="infected")


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    with one_thread():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(SMALL_INFECTED, build_detector(SMALL_INFECTED))


def _noise(height: int = 150, width: int = 200) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def _smear(seed: int, cells: int = 3, size: int = 192) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round cells on a bright ground; every second one carries a dark dot. (image, boxes, infected)."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), (235, 228, 232), dtype=np.uint8)
    places = rng.permutation([(x, y) for x in (48, 140) for y in (48, 140)])[:cells]
    boxes, sick = [], []
    for index, place in enumerate(places):
        x, y = (int(value) for value in place + rng.integers(-8, 9, 2))
        radius = int(rng.integers(24, 31))
        cv2.circle(image, (x, y), radius, (196, 140, 150), -1)
        if index % 2:
            cv2.circle(image, (x + 5, y - 4), 10, (70, 30, 110), -1)
        boxes.append((x - radius, y - radius, x + radius + 1, y + radius + 1))
        sick.append(bool(index % 2))
    noisy = image.astype(np.int16) + rng.integers(-6, 7, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), np.array(boxes, dtype=np.float32), np.array(sick)


def test_lite_weights_map_one_to_one_and_are_really_loaded() -> None:
    state = lite_imagenet_state()
    assert len(state) == LITE_TENSORS
    assert next(iter(state)) == "conv_stem.weight"
    trunk = LiteBackbone(64, pretrained=True).trunk
    torch.testing.assert_close(trunk.conv_stem.weight, state["conv_stem.weight"])
    last = next(name for name in state if name.startswith("blocks.6"))
    torch.testing.assert_close(trunk.state_dict()[last], state[last])


def test_lite_features_are_those_of_a_trained_network() -> None:
    """Known statistics of the trunk on a fixed input: a wrong order of tensors gives numbers far from these."""
    ramp = torch.linspace(-1, 1, 128).expand(1, 3, 128, 128)
    with torch.inference_mode():
        levels = LiteBackbone(64, pretrained=True).eval().trunk(ramp)
    assert [tuple(level.shape) for level in levels] == [(1, 40, 16, 16), (1, 112, 8, 8), (1, 320, 4, 4)]
    spreads = [float(level.std()) for level in levels]
    assert spreads == pytest.approx(LITE_SPREADS, rel=0.01)


def test_folding_batch_norm_changes_no_answer() -> None:
    backbone = LiteBackbone(64, pretrained=True).eval()
    image = torch.rand(1, 3, 96, 96) * 2 - 1
    with torch.inference_mode():
        before = backbone(image)
        tensors = len(backbone.state_dict())
        fold_batch_norm(backbone)
        after = backbone(image)
    assert len(backbone.state_dict()) < tensors
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-3)


def test_answers_carry_the_whole_distribution_of_the_role(detector: Detector) -> None:
    found = detector.detect(_noise())
    assert found.image_size == (150, 200)
    assert len(found) > 5
    assert len(found.masks) == 0
    assert (np.diff(found.scores) <= 0).all()
    healthy = np.setdiff1d(np.arange(len(CLASSES)), INFECTED_INDEX)
    assert (found.probabilities[:, healthy] == 0).all()
    assert (found.probabilities[:, INFECTED_INDEX] > 0).all()
    np.testing.assert_allclose(found.probabilities.sum(axis=1), found.scores, rtol=1e-4)
    np.testing.assert_array_equal(found.labels, found.probabilities.argmax(axis=1))


def test_masks_come_only_when_asked_for_and_leave_the_rest_as_it_was(detector: Detector) -> None:
    plain, masked = detector.detect(_noise()), detector.detect(_noise(), masks=True)
    np.testing.assert_array_equal(masked.boxes, plain.boxes)
    assert len(masked.masks) == len(masked)
    for box, rle in zip(masked.boxes, masked.masks, strict=True):
        tight = bounding_box(rle)
        if tight.any():
            assert (tight[:2] >= np.floor(box[:2])).all()
            assert (tight[2:] <= np.ceil(box[2:])).all()


def test_the_mask_head_does_not_run_for_boxes(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the mask head ran")

    monkeypatch.setattr(detector.model.roi_heads.mask_head, "forward", refuse)
    detector.detect(_noise())
    with pytest.raises(AssertionError, match="the mask head ran"):
        detector.detect(_noise(), masks=True)


def test_threads_that_ask_for_different_things_get_them(detector: Detector) -> None:
    small = _noise(64, 80)
    with ThreadPoolExecutor(4) as pool:
        wishes = [index % 2 == 0 for index in range(12)]
        answers = list(pool.map(lambda wish: detector.detect(small, masks=wish), wishes))
    assert [len(answer.masks) > 0 for answer in answers] == wishes


def test_detecting_many_equals_detecting_one_by_one(detector: Detector) -> None:
    images = [_noise(), _noise(130, 160)]
    for together, alone in zip(detector.detect_many(images), [detector.detect(image) for image in images], strict=True):
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-3)
    with pytest.raises(ValueError, match="uint8 RGB"):
        detector.detect(_noise().astype(np.float32))


def test_no_cap_below_a_crowded_field() -> None:
    config = DetectorConfig(short_side=320, score_threshold=0.0, nms_iou=1.0)
    assert len(Detector(config, build_detector(config)).detect(_noise(320, 420))) == 400


def test_resizing_keeps_the_aspect_and_the_limits() -> None:
    config = DetectorConfig()
    assert resize_image(_noise(1200, 1600), config).shape == (640, 853, 3)
    assert resize_image(_noise(300, 1200), config).shape == (320, 1280, 3)
    exact = _noise(640, 700)
    assert resize_image(exact, config) is exact


def test_saved_detectors_come_back_the_same(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    sha256 = save_detector(path, detector.config, detector.model.state_dict(), half=False)
    loaded = load_detector(path, sha256)
    assert loaded.config == detector.config
    before, after = detector.detect(_noise()), loaded.detect(_noise())
    np.testing.assert_allclose(after.scores[:10], before.scores[:10], atol=1e-3)


def test_weights_that_do_not_fit_are_refused(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = detector.model.state_dict()
    save_weights(state, path, {"role": "infected"})
    with pytest.raises(WeightsCorrupt, match="a detector's configuration"):
        load_detector(path)
    save_weights(state, path, {"detector": detector.config.to_json(), "classes": ["ring"]})
    with pytest.raises(WeightsCorrupt, match="expected classes"):
        load_detector(path)
    save_detector(path, replace(detector.config, role="all_cells"), state)
    with pytest.raises(WeightsCorrupt, match="of another shape"):
        load_detector(path)
    save_detector(path, detector.config, {name: value for name, value in state.items() if "mask" not in name})
    with pytest.raises(WeightsCorrupt, match="missing"):
        load_detector(path)


def test_configurations_are_checked_and_round_trip() -> None:
    assert DetectorConfig.from_json(SMALL.to_json()) == SMALL
    with pytest.raises(ValueError, match="lite"):
        DetectorConfig(preset="yolo")
    with pytest.raises(ValueError, match="colour"):
        DetectorConfig.from_json({"colour": "blue"})


def test_resnet50_has_the_same_behaviour_without_its_weights() -> None:
    config = replace(SMALL, preset="resnet50", short_side=96)
    found = Detector(config, build_detector(config, pretrained=False)).detect(_noise(96, 96), masks=True)
    assert found.probabilities.shape == (len(found), len(CLASSES))


def test_resnet50_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("backend.backbones.maskrcnn_resnet50_fpn_v2", offline)
    with pytest.raises(WeightsUnavailable, match="use the preset lite"):
        build_detector(replace(SMALL, preset="resnet50"))


def test_the_device_is_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu").type == "cpu"
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr("torch.cuda.is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda mps=mps: mps)
        assert pick_device().type == expected


def _target(boxes: np.ndarray, sick: np.ndarray) -> dict[str, torch.Tensor]:
    yy, xx = np.mgrid[:192, :192]
    masks = [(xx >= b[0]) & (xx < b[2]) & (yy >= b[1]) & (yy < b[3]) for b in boxes]
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(np.where(sick, 3, 1).astype(np.int64)),
        "masks": torch.from_numpy(np.stack(masks).astype(np.uint8)),
    }


def _train(model: CellMaskRCNN, steps: int) -> list[float]:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    totals = []
    for step in range(steps):
        image, boxes, sick = _smear(step)
        losses = model([torch.from_numpy(image).permute(2, 0, 1).float() / 255], [_target(boxes, sick)])
        parts = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
        assert losses.keys() == parts
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    return totals


def test_it_learns_to_find_cells() -> None:
    config = DetectorConfig(short_side=192, max_side=192, nms_iou=0.8)
    model = build_detector(config)
    totals = _train(model, 30)
    assert np.mean(totals[-3:]) < 0.5 * np.mean(totals[:3])
    image, boxes, _ = _smear(10_000)
    found = Detector(config, model).detect(image)
    overlap = iou_matrix(found.boxes, boxes).max(axis=1)
    on_cells, on_ground = found.scores[overlap > 0.5], found.scores[overlap < 0.1]
    assert len(on_cells) >= len(boxes)
    assert on_cells.max() > 0.5
    assert len(on_ground) == 0 or on_cells.mean() > on_ground.mean() + 0.2


@pytest.mark.parametrize("kind", ["bf16", "empty"])
def test_losses_stay_finite_and_float32(kind: str) -> None:
    model = build_detector(SMALL).train()
    image, boxes, _ = _smear(0)
    n = 0 if kind == "empty" else len(boxes)
    target = {
        "boxes": torch.from_numpy(boxes[:n]).reshape(-1, 4),
        "labels": torch.ones(n, dtype=torch.int64),
        "masks": torch.ones((n, 192, 192), dtype=torch.uint8),
        "ignore_boxes": torch.from_numpy(boxes[n:]).reshape(-1, 4),
    }
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
        losses = model([torch.from_numpy(image).permute(2, 0, 1).float() / 255], [target])
    total = torch.stack(list(losses.values())).sum()
    assert total.dtype == torch.float32
    total.backward()
    assert torch.isfinite(total)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
