"""The two benchmarks on tiny fields: both sides see the same, and the reference is torchvision's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from al_loop.benchmark_detect import Seconds, benchmark_detect, rendered_fields
from al_loop.benchmark_reference import cells_of_same_pixels, detect_plainly, one_per_cell, with_weights
from al_loop.benchmark_train import benchmark_train, load_plainly
from al_loop.labelled_files import read_labelled, training_samples
from al_loop.rendered import write_coco_folder
from backend.detect import Detector, DetectorConfig, build_detector, save_detector
from backend.errors import CellloopError, NoTrainedModel
from backend.fuse import FusionConfig
from backend.overlap import iou_matrix
from backend.pairs import save_pair

SMALL = DetectorConfig(short_side=96, max_side=160, proposals=40, detections_per_image=20)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained pair with one trunk."""
    folder = tmp_path_factory.mktemp("pair")
    for role in ("all_cells", "infected"):
        torch.manual_seed(len(role))
        config = replace(SMALL, role=role)
        save_detector(folder / role, config, build_detector(config).state_dict())
    save_pair(folder / "pair", folder / "all_cells", folder / "infected", FusionConfig(), "untrained")
    return folder / "pair"


def test_the_reference_is_torchvisions_and_finds_what_ours_finds() -> None:
    torch.manual_seed(0)
    config = replace(SMALL, detections_per_image=400, nms_iou=0.9, nms_sigma=0.0)
    state = build_detector(config).state_dict()
    plain = with_weights(config, state, "cpu")
    assert (type(plain), type(plain.roi_heads), type(plain.transform)) == (MaskRCNN, RoIHeads, GeneralizedRCNNTransform)
    image = rendered_fields(1, 0, (96, 128), 5)[0].image  # at the detector's size: nothing is resized on either side
    answer, masks = detect_plainly(plain, image)
    theirs = one_per_cell(answer, config, (96, 128))
    assert len(answer["boxes"]) == len(masks) > len(theirs) > 5, "several classes per box, one cell"
    ours = _detector(config, state).detect(image)
    iou = iou_matrix(theirs.boxes, ours.boxes)
    best = iou.argmax(axis=1)
    assert (iou.max(axis=1) > 0.99).mean() > 0.9
    again = cells_of_same_pixels(plain, image, config)
    np.testing.assert_allclose(again.boxes[:5], ours.boxes[:5], atol=0.1)
    same = iou.max(axis=1) > 0.99
    np.testing.assert_allclose(theirs.probabilities[same], ours.probabilities[best[same]], atol=0.05)


def _detector(config: DetectorConfig, state: dict[str, torch.Tensor]) -> Detector:
    model = build_detector(config, pretrained=False)
    model.load_state_dict(state)
    return Detector(config, model)


def test_detecting_is_measured_on_both_sides(weights: Path) -> None:
    done = []
    report = benchmark_detect(weights, rendered_fields(2, 7, (96, 128), 6), CPU, lambda *step: done.append(step))
    assert done == [(1, 2), (2, 2)]
    assert {"speedup", "speedup_rectangles", "ap50_delta", "ap50_delta_own_resize", "device"} <= report.keys()
    assert report["device"] == "cpu"
    assert report["shared_trunk"] is True
    assert report["seconds"].keys() == {"torchvision", "ours", "ours_rectangles"}
    assert min(report["seconds"].values()) > 0
    assert report["ap50_delta"] == pytest.approx(
        report["ap50"]["ours/fused"]["mean"] - report["ap50"]["torchvision_same_pixels/fused"]["mean"], abs=1e-3
    )


def test_ratios_are_taken_field_by_field() -> None:
    wall = {"torchvision": np.array([2.0, 20.0, 9.0]), "ours": np.array([1.0, 2.0, 3.0])}
    wall["ours_rectangles"] = wall["ours"] / 2
    told = Seconds(wall, wall).to_json()
    assert (told["speedup"], told["speedup_rectangles"]) == (3.0, 6.0)
    assert told["speedup_quartiles"] == [2.5, 6.5]
    assert told["seconds"]["torchvision"] == 9.0


def test_nothing_to_measure_is_said(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CellloopError, match="at least one field"):
        benchmark_detect(weights, [], CPU)
    with pytest.raises(NoTrainedModel):
        benchmark_detect(tmp_path, rendered_fields(1, 0, (64, 64), 1), CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco_folder(tmp_path_factory.mktemp("fields"), 2, size=(96, 128), cells=6, infected=0.5)


def test_training_is_measured_on_both_sides(folder: Path, tmp_path: Path) -> None:
    report = benchmark_train(folder, None, 2, SMALL, 1, CPU, tmp_path, roles=["infected"])
    assert report["fields_per_second"].keys() == {"torchvision", "whole fields", "crops"}
    speeds = report["fields_per_second"]
    assert report["speedup"] == pytest.approx(speeds["whole fields"] / speeds["torchvision"], abs=0.05)
    assert report["field_px"] == [96, 128]
    assert report["device"] == "cpu"


def test_mirrored_fields_keep_their_masks_in_their_boxes(folder: Path) -> None:
    sample = training_samples(read_labelled(folder)[0], "all_cells")[0]
    image, target = load_plainly(sample, "all_cells", mirrored=True)
    straight, _ = load_plainly(sample, "all_cells", mirrored=False)
    torch.testing.assert_close(image.flip(-1), straight)
    assert len(target["boxes"]) == len(sample.boxes) > 0
    for box, mask in zip(target["boxes"].numpy(), target["masks"].numpy(), strict=True):
        ys, xs = np.nonzero(mask)
        assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == pytest.approx(box, abs=1.5)
