"""The detector as a training begins with it: its own pretrained trunk, or another detector's, frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from al_loop.dataset import TrainingSample
from al_loop.train_batches import Shown, as_tensors
from al_loop.train_config import TrainingConfig, class_weights
from al_loop.train_step import Losses
from al_loop.trunk_features import TrunkFeatures, losses_from_features
from backend.backbones import TRUNKS, LiteBackbone
from backend.checkpoints import load_strictly, load_weights
from backend.detect import build_detector
from backend.detector_model import CellMaskRCNN
from backend.errors import WeightsCorrupt
from backend.fused_convolutions import available, fuse_convolutions

FEATURES = "trunk-features"
FEATURE_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class FrozenTrunk:
    """Where the weight file that `TrainingConfig.trunk` names is, and where its maps are kept (None: with the run)."""

    weights: Path
    features: Path | None = None
    limit_bytes: int = FEATURE_BYTES

    def cache(self, out: Path) -> TrunkFeatures:
        """The maps that are kept; `out` is the run's folder."""
        return TrunkFeatures(self.features or out / FEATURES, self.limit_bytes)


def start_model(
    config: TrainingConfig,
    samples: Sequence[TrainingSample],
    trunk: FrozenTrunk | None,
    device: torch.device,
    base: Path | None = None,
) -> CellMaskRCNN:
    """The detector as it is before the first step, in training mode. base: the weights that `config.base` names."""
    torch.manual_seed(config.seed)
    model = build_detector(config.detector, pretrained=config.base is None)
    if config.base is not None:
        if base is None:
            raise ValueError("a configuration with a base: expected where its weights are, got None")
        load_strictly(model, load_weights(base, config.base)[0], base.name)
    if config.trunk is not None:
        if trunk is None:
            raise ValueError("a configuration with a trunk: expected where its weights are, got None")
        take_trunk(model, config, trunk.weights)
    model.roi_heads.class_weights = class_weights(config, samples)
    if model.roi_heads.class_weights is not None:
        model.roi_heads.class_weights = model.roi_heads.class_weights.to(device)
    model = model.to(device, memory_format=torch.channels_last).train()
    if isinstance(model.backbone, LiteBackbone):
        model.backbone.front = _front(model.backbone, device, computes_bf16(config, device))
    return model


def computes_bf16(config: TrainingConfig, device: torch.device) -> bool:
    """Whether a training computes in bfloat16."""
    return device.type == "cuda" if config.bf16 is None else config.bf16


def _front(backbone: LiteBackbone, device: torch.device, bf16: bool) -> Callable[[Tensor], Tensor]:
    """The stages that stay as they are, computed as when serving: a fifth of a step's time otherwise."""
    front = backbone.frozen_front()
    if device.type == "cpu" and not bf16 and available():
        fuse_convolutions(front)
    return torch.no_grad()(front.forward)


def take_trunk(model: CellMaskRCNN, config: TrainingConfig, weights: Path) -> None:
    """Give the model the trunk of a weight file, and freeze it. Raises WeightsCorrupt when it is not a fitting one."""
    state, metadata = load_weights(weights, config.trunk)
    preset = metadata.get("detector", {}).get("preset")
    if preset != config.detector.preset:
        raise WeightsCorrupt(
            f"{weights.name}: expected the trunk of a {config.detector.preset} detector, got {preset}; train all_cells "
            "with the same preset, or infected with a trunk of its own (CELLLOOP_INFECTED_TRUNK=own)"
        )
    own = model.state_dict()
    model.load_state_dict({name: state[name] if name.startswith(TRUNKS) else value for name, value in own.items()})
    for name, parameter in model.named_parameters():
        if name.startswith(TRUNKS):
            parameter.requires_grad_(False)


def losses_on(model: CellMaskRCNN, config: TrainingConfig, trunk: FrozenTrunk | None, out: Path) -> Losses:
    """The detector's losses on some crops: mean over them, in bfloat16 where that pays."""
    device = next(model.parameters()).device
    use_bf16 = computes_bf16(config, device)
    cache = None if trunk is None or config.trunk is None else trunk.cache(out)

    def losses_of(crops: Sequence[Shown]) -> dict[str, Tensor]:
        images, targets = as_tensors(crops, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            if cache is not None:
                return losses_from_features(model, cache, crops, targets)
            losses: dict[str, Tensor] = model(images, targets)
        return losses

    return losses_of
