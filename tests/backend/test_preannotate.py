from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import roi_align

from al_loop.render import render_smear
from backend.detect import (
    Detector,
    DetectorConfig,
    build_detector,
    load_detector,
    resize_image,
    save_detector,
    trunk_sha256,
)
from backend.embed import EMBEDDING_SIZE
from backend.fuse import FusionConfig, fuse
from backend.look import MIDDLE, Sight, middle_features
from backend.masks import bounding_box
from backend.overlap import iou_matrix
from backend.preannotate import Pair, look_twice, preannotate, signed, with_masks
from backend.serving import cell_rows


@pytest.fixture(scope="module")
def pair() -> Pair:
    detectors = {}
    for role in ("all_cells", "infected"):
        config = DetectorConfig(role=role, short_side=96, max_side=128, proposals=50)
        detectors[role] = Detector(config, build_detector(config))
    return Pair("cellloop-1.2", detectors["all_cells"], detectors["infected"], FusionConfig())


def test_both_detectors_are_asked_and_fused(pair: Pair) -> None:
    image = np.random.default_rng(0).integers(0, 255, (100, 120, 3), dtype=np.uint8)
    proposed = preannotate(image, pair)
    everything = fuse(pair.all_cells.detect(image), pair.infected.detect(image), pair.fusion)
    likely = everything.cells.probabilities.sum(axis=1) >= pair.fusion.show_threshold
    assert likely.any()
    expected = everything.select(likely)
    np.testing.assert_array_equal(proposed.fused.cells.boxes, expected.cells.boxes)
    np.testing.assert_array_equal(proposed.fused.sources, expected.sources)
    assert proposed.fused.cells.image_size == (100, 120)
    assert len(proposed.fused) > 0
    assert proposed.seconds > 0
    assert len(proposed.fused.cells.masks) == 0


def test_masks_come_on_request(pair: Pair) -> None:
    image = np.random.default_rng(1).integers(0, 255, (100, 120, 3), dtype=np.uint8)
    proposed = preannotate(image, pair, masks=True)
    assert len(proposed.fused.cells.masks) == len(proposed.fused) > 0


def test_what_is_hardly_a_cell_is_not_shown(pair: Pair) -> None:
    image = np.random.default_rng(2).integers(0, 255, (100, 120, 3), dtype=np.uint8)
    everything = preannotate(image, replace(pair, fusion=FusionConfig(show_threshold=0.0))).fused
    present = everything.cells.probabilities.sum(axis=1)
    threshold = float(np.median(present))
    shown = preannotate(image, replace(pair, fusion=FusionConfig(show_threshold=threshold))).fused
    assert 0 < len(shown) < len(everything)
    assert shown.cells.probabilities.sum(axis=1).min() >= threshold


def _on_disk(folder: Path, trunk_noise: float = 0.0, **changes: Any) -> Pair:
    """A pair from weight files with untrained heads; the trunks are the same unless there is noise."""
    detectors = []
    for role in ("all_cells", "infected"):
        torch.manual_seed(len(role))
        config = DetectorConfig(role=role, short_side=128, max_side=192, proposals=60, **changes)
        state = build_detector(config).state_dict()
        if role == "infected":
            state["backbone.trunk.conv_stem.weight"] += trunk_noise
        save_detector(folder / role, config, state)
        detectors.append(load_detector(folder / role))
    return Pair("shared", *detectors, FusionConfig(show_threshold=0.0, keep_threshold=0.0))


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return _on_disk(tmp_path_factory.mktemp("pair"))


IMAGE = render_smear(5, (150, 200), 6).image


def test_a_shared_trunk_runs_once_and_changes_nothing(sharing: Pair) -> None:
    shared = look_twice(IMAGE, sharing)
    alone = sharing.infected.look(IMAGE)
    assert shared[1].trunk is shared[0].trunk
    assert alone.trunk is not shared[0].trunk
    np.testing.assert_array_equal(shared[1].cells.boxes, alone.cells.boxes)
    np.testing.assert_array_equal(shared[1].cells.probabilities, alone.cells.probabilities)
    assert len(alone.cells) > 0


def test_only_the_same_trunk_at_the_same_size_is_shared(sharing: Pair, tmp_path: Path) -> None:
    other = _on_disk(tmp_path, trunk_noise=0.01)
    assert other.all_cells.trunk_sha256 == sharing.all_cells.trunk_sha256 != other.infected.trunk_sha256
    sights = look_twice(IMAGE, other)
    assert sights[0].trunk is not sights[1].trunk
    smaller = Detector(replace(sharing.infected.config, short_side=96), sharing.infected.model, "cpu", "the same")
    assert smaller.look(IMAGE, beside=replace(sights[0], eyes=("the same", 128))).trunk is not sights[0].trunk


def test_minus_nought_is_nought_to_a_trunk() -> None:
    signs = [{"backbone.trunk.w": torch.tensor([sign * 0.0, 1.0])} for sign in (1, -1)]
    assert trunk_sha256(signs[0]) == trunk_sha256(signs[1]) != trunk_sha256({"backbone.trunk.w": torch.ones(2)})


def test_masks_are_the_surer_models_and_lie_in_the_boxes(sharing: Pair) -> None:
    asked: list[tuple[int, np.ndarray]] = []

    def recorded(model: int, sight: Sight) -> Sight:
        return replace(sight, masks=lambda boxes: asked.append((model, boxes)) or sight.masks(boxes))

    sights = look_twice(IMAGE, sharing)
    cells = [signed(sight.cells, model) for model, sight in enumerate(sights)]
    fused = fuse(*cells, sharing.fusion)
    shown = with_masks(fused.select(np.arange(0, len(fused), 2)), [recorded(*each) for each in enumerate(sights)])
    expected = [mask["model"] for mask in fused.cells.masks][::2]
    assert [len(boxes) for _, boxes in asked] == [expected.count(0), expected.count(1)]
    for box, mask, model in zip(shown.cells.boxes, shown.cells.masks, expected, strict=True):
        assert mask == sights[model].masks(box[None])[0]
        tight = bounding_box(mask)
        if tight.any():
            assert (tight[:2] >= np.floor(box[:2])).all()
            assert (tight[2:] <= np.ceil(box[2:])).all()


def test_the_mask_head_sees_only_what_is_shown(sharing: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for detector in (sharing.all_cells, sharing.infected):
        heads = detector.model.roi_heads
        original = heads.mask_logits
        monkeypatch.setattr(
            heads, "mask_logits", lambda f, b, s, original=original: seen.append(len(b[0])) or original(f, b, s)
        )
    everything = preannotate(IMAGE, sharing).fused
    assert seen == []
    threshold = float(np.median(everything.cells.probabilities.sum(axis=1)))
    picky = replace(sharing, fusion=replace(sharing.fusion, show_threshold=threshold))
    shown = preannotate(IMAGE, picky, masks=True).fused
    assert 0 < len(shown) == sum(seen) < len(everything)


def test_every_proposed_cell_has_an_embedding_as_all_cells_sees_it(sharing: Pair) -> None:
    found = preannotate(IMAGE, sharing)
    assert found.embeddings.dtype == np.float32
    assert found.embeddings.shape == (len(found.fused), EMBEDDING_SIZE)
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)
    expected = sharing.all_cells.look(IMAGE).embeddings(found.fused.cells.boxes)
    np.testing.assert_allclose(found.embeddings, expected, atol=1e-5)
    nothing = preannotate(IMAGE, replace(sharing, fusion=FusionConfig(show_threshold=1.1)))
    assert nothing.embeddings.shape == (0, EMBEDDING_SIZE)
    assert cell_rows(nothing) == []


@pytest.mark.parametrize("preset", ["lite", "resnet50"])
def test_an_embedding_describes_the_middle_of_its_box_at_stride_8(preset: str) -> None:
    """Against torchvision's own pooling, on maps of every level, for cells small and large."""
    torch.manual_seed(0)
    levels = {"lite": (8, 16, 32), "resnet50": (4, 8, 16, 32, 64)}[preset]
    maps = {str(i): torch.rand(1, 6, -(-640 // stride), -(-800 // stride)) for i, stride in enumerate(levels)}
    boxes = torch.tensor([[10.0, 20.0, 66.0, 76.0], [100.0, 300.0, 310.0, 510.0], [700.0, 5.0, 714.0, 40.0]])
    middles = (boxes.reshape(-1, 2, 2) - boxes.reshape(-1, 2, 2).mean(1, keepdim=True)) * MIDDLE
    middles = (middles + boxes.reshape(-1, 2, 2).mean(1, keepdim=True)).reshape(-1, 4)
    eight = maps[str(levels.index(8))]
    expected = roi_align(eight, [middles], 3, 1 / 8, sampling_ratio=2).mean(dim=(2, 3))
    np.testing.assert_allclose(middle_features(maps, boxes, (640, 800)), expected.numpy(), atol=1e-5)


def test_embeddings_in_bfloat16_are_nearly_the_same(sharing: Pair) -> None:
    boxes = preannotate(IMAGE, sharing).fused.cells.boxes
    detector = sharing.all_cells
    exact = detector.look(IMAGE).embeddings(boxes)
    half = Detector(detector.config, detector.model, "cpu", detector.trunk_sha256, bf16=True).look(IMAGE)
    assert ((half.embeddings(boxes) * exact).sum(axis=1) > 0.99).all()


@pytest.mark.parametrize("bf16", [False, True])
def test_the_fast_path_finds_what_torchvisions_forward_pass_finds(tmp_path: Path, bf16: bool) -> None:
    """Folded, fused, pooled by table, batched by ourselves: against the model as trained, called as a whole."""
    config = DetectorConfig(short_side=128, max_side=192, proposals=60, nms_sigma=0.0)
    torch.manual_seed(3)
    model = build_detector(config).eval()
    save_detector(tmp_path / "w", config, model.state_dict(), half=False)
    detector = load_detector(tmp_path / "w")
    detector.bf16 = bf16
    fast = detector.detect(IMAGE)
    small = resize_image(IMAGE, config)
    with torch.inference_mode():
        slow = model([torch.from_numpy(small).permute(2, 0, 1).float() / 255])[0]
    boxes = slow["boxes"].numpy() * np.array([200 / small.shape[1], 150 / small.shape[0]] * 2)
    best = iou_matrix(fast.boxes, boxes.astype(np.float32)).argmax(axis=1)
    near = np.abs(fast.boxes - boxes[best]).max(axis=1) < 0.5
    close = np.abs(fast.scores - slow["scores"].numpy()[best]) < 0.02
    assert len(fast) >= 5
    assert (near & close).mean() > (0.8 if bf16 else 0.99)
