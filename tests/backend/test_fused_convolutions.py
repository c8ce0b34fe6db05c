import copy

import pytest
import torch
from torch import nn

from backend.backbones import LiteBackbone, fold_batch_norm
from backend.fused_convolutions import FusedConvolution, available, fuse_convolutions

pytestmark = pytest.mark.skipif(not available(), reason="this PyTorch has no oneDNN")


@pytest.mark.parametrize("size", [(64, 96), (96, 32)])
def test_a_fused_trunk_makes_the_same_maps(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    backbone = LiteBackbone(64, pretrained=True).eval()
    fold_batch_norm(backbone)
    fused = copy.deepcopy(backbone)
    fuse_convolutions(fused)
    image = (torch.rand(2, 3, *size) * 2 - 1).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        before, after = backbone.trunk_levels(image), fused.trunk_levels(image)
    for ours, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_every_convolution_and_activation_is_fused() -> None:
    backbone = LiteBackbone(64, pretrained=False).eval()
    fold_batch_norm(backbone)
    convolutions = sum(isinstance(part, nn.Conv2d) for part in backbone.modules())
    fuse_convolutions(backbone)
    assert not any(isinstance(part, nn.Conv2d | nn.ReLU6) for part in backbone.modules())
    assert sum(isinstance(part, FusedConvolution) for part in backbone.modules()) == convolutions > 40


def test_what_no_training_changes_gives_the_same_maps_and_takes_no_gradient() -> None:
    torch.manual_seed(0)
    backbone = LiteBackbone(64, pretrained=True).train()
    names = set(backbone.state_dict())
    image = (torch.rand(2, 3, 64, 96) * 2 - 1).contiguous(memory_format=torch.channels_last)
    before = backbone.trunk_levels(image)
    front = backbone.frozen_front()
    fuse_convolutions(front)
    backbone.front = torch.no_grad()(front.forward)
    after = backbone.trunk_levels(image)
    for ours, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert set(backbone.state_dict()) == names
    after[-1].sum().backward()
    learned = {name for name, value in backbone.trunk.named_parameters() if value.grad is not None}
    assert learned == {name for name, value in backbone.trunk.named_parameters() if value.requires_grad}
    assert not any(name.startswith(("conv_stem", "blocks.0", "blocks.1")) for name in learned)
