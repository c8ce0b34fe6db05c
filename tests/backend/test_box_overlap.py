import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from backend.box_overlap import intersections, pairwise_iou
from backend.detect import DetectorConfig, build_detector


def _boxes(seed: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 60 + 0.1], dim=1)


@given(st.integers(0, 10**6), st.integers(0, 20), st.integers(0, 20))
def test_it_gives_torchvisions_numbers(seed: int, first: int, second: int) -> None:
    a, b = _boxes(seed, first), _boxes(seed + 1, second)
    assert torch.equal(pairwise_iou(a, b), box_iou(a, b))


def test_shared_areas_are_right() -> None:
    a, b = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[2.0, 1, 9, 3], [4.0, 0, 5, 4]])
    assert intersections(a, b).tolist() == [[4.0, 0.0]]


def test_detectors_compare_boxes_with_it() -> None:
    model = build_detector(DetectorConfig(short_side=64, max_side=96), pretrained=False)
    assert model.rpn.box_similarity is model.roi_heads.box_similarity is pairwise_iou
