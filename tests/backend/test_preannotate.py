from dataclasses import replace

import numpy as np
import pytest

from backend.detect import Detector, DetectorConfig, build_detector
from backend.fuse import FusionConfig, fuse
from backend.preannotate import Pair, preannotate


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
