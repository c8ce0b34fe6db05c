import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import MultiScaleRoIAlign

from backend.roi_pool import BagRoIAlign

LEVELS = ("0", "1", "2")


def _maps(seed: int, images: int, height: int, width: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(images, 6, height // 8 >> index, width // 8 >> index, generator=generator)
        for index, name in enumerate(LEVELS)
    }


def _boxes(seed: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 300 - 40  # some begin outside of the image
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator) ** 2 * 250], dim=1)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 5), st.sampled_from([7, 14]))
def test_it_gives_torchvisions_numbers(seed: int, first: int, second: int, size: int) -> None:
    maps, sizes = _maps(seed, 2, 192, 256), [(192, 256), (180, 250)]
    boxes = [_boxes(seed, first), _boxes(seed + 1, second)]
    theirs = MultiScaleRoIAlign(list(LEVELS), size, 2, canonical_scale=112)(maps, boxes, sizes)
    ours = BagRoIAlign(LEVELS, size, 112)(maps, boxes, sizes)
    assert ours.shape == theirs.shape == (first + second, 6, size, size)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_it_teaches_the_maps_what_torchvisions_teaches_them() -> None:
    boxes, sizes = [_boxes(1, 8), _boxes(2, 3)], [(192, 256)] * 2
    gradients = []
    for pool in (MultiScaleRoIAlign(list(LEVELS), 7, 2, canonical_scale=112), BagRoIAlign(LEVELS, 7, 112)):
        maps = {name: value.requires_grad_() for name, value in _maps(0, 2, 192, 256).items()}
        (pool(maps, boxes, sizes) ** 2).sum().backward()
        gradients.append([value.grad for value in maps.values()])
    for theirs, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", [40, 56, 111, 113, 223, 225, 600])
def test_boxes_of_all_sizes_are_read_from_the_level_torchvision_takes(side: int) -> None:
    maps, sizes = _maps(3, 1, 640, 640), [(640, 640)]
    box = [torch.tensor([[10.0, 10.0, 10.0 + side, 10.0 + side]])]
    theirs = MultiScaleRoIAlign(list(LEVELS), 7, 2, canonical_scale=112)(maps, box, sizes)
    torch.testing.assert_close(BagRoIAlign(LEVELS, 7, 112)(maps, box, sizes), theirs, rtol=1e-4, atol=1e-4)
