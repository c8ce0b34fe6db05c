"""The two sizes a detector comes in, as the parts that `CellMaskRCNN` is put together from.

Anchors were measured on BBBC041 and IML, scaled to short side 640 px (square root of the box's area):
red cells 42-73 px (median 57 and 54), infected ones 43-104 (median 54-76), leukocytes 39-108; height / width 0.65-1.5.
Sizes a factor of the square root of 2 apart always leave one anchor with an IoU of at least 0.7 to a square cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from backend.backbones import Float32Outputs, LiteBackbone, resnet50_mask_rcnn
from backend.detector_model import Parts

RATIOS = (0.67, 1.0, 1.5)
# Sizes per level, finest first. Smaller and larger ones than measured are there for other magnifications.
LITE_ANCHORS = ((40.0, 56.0), (80.0, 112.0), (160.0, 224.0))
# One size per level, so that the COCO weights of the proposal head fit.
RESNET50_ANCHORS = ((28.0,), (40.0,), (57.0,), (80.0,), (113.0,))
LITE_CHANNELS = 128
LITE_HIDDEN = 512


def _mask_predictor(channels: int) -> MaskRCNNPredictor:
    """One mask for all classes; its first answers are "don't know" instead of large random logits."""
    predictor = MaskRCNNPredictor(channels, channels, 1)
    nn.init.normal_(predictor.mask_fcn_logits.weight, std=0.001)
    return predictor


def _lite(pretrained: bool) -> Parts:
    anchors = AnchorGenerator(LITE_ANCHORS, (RATIOS,) * len(LITE_ANCHORS))
    return Parts(
        backbone=LiteBackbone(LITE_CHANNELS, pretrained),
        rpn_head=RPNHead(LITE_CHANNELS, anchors.num_anchors_per_location()[0]),
        box_head=TwoMLPHead(LITE_CHANNELS * 7 * 7, LITE_HIDDEN),
        box_channels=LITE_HIDDEN,
        mask_head=MaskRCNNHeads(LITE_CHANNELS, [LITE_CHANNELS, LITE_CHANNELS], 1),
        mask_predictor=_mask_predictor(LITE_CHANNELS),
        anchors=anchors,
        levels=("0", "1", "2"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def _resnet50(pretrained: bool) -> Parts:
    model = resnet50_mask_rcnn(pretrained)
    return Parts(
        backbone=Float32Outputs(model.backbone, model.backbone.out_channels),
        rpn_head=model.rpn.head,
        box_head=model.roi_heads.box_head,
        box_channels=1024,
        mask_head=model.roi_heads.mask_head,
        mask_predictor=_mask_predictor(256),
        anchors=AnchorGenerator(RESNET50_ANCHORS, (RATIOS,) * len(RESNET50_ANCHORS)),
        levels=("0", "1", "2", "3"),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


PRESETS: Mapping[str, Callable[[bool], Parts]] = {"lite": _lite, "resnet50": _resnet50}
