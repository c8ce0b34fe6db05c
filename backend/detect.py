"""Find the cells of one image with one detector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.backbones import TRUNKS, fold_batch_norm
from backend.checkpoints import load_strictly, load_weights, save_weights
from backend.detector_model import CellMaskRCNN, Limits
from backend.embed import EMBEDDING_SIZE, embed
from backend.errors import DeviceUnavailable, WeightsCorrupt
from backend.fused_convolutions import available, fuse_convolutions
from backend.instances import CLASS_INDEX, CLASSES, ROLES, Instances, Rle, role_classes
from backend.look import Sight, find_cells, mask_probabilities, middle_features, prefers_bf16, run_trunk
from backend.masks import paste
from backend.presets import PRESETS
from backend.unknown_truth import TruthRules

_BATCH = {"cuda": 8, "mps": 4, "cpu": 1}
# A place where a cell is less probable than this proposes nothing: such places are thousands, and cost time only.
PROPOSAL_FLOOR = 0.01


@dataclass(frozen=True)
class DetectorConfig:
    """Everything that decides what a detector computes, beside its weights; stored with them as JSON.

    Sizes are px after scaling to `short_side`, which keeps a cell of a 100x field at 40 to 110 px; `max_side` limits
    panoramas. detections_per_image, proposals: crowded fields hold 300 cells. ignore_share, border: see TruthRules.
    nms_sigma: of soft-NMS (see `backend.suppress`); 0: plain non-maximum suppression at nms_iou.
    """

    role: str = "all_cells"
    preset: str = "lite"
    short_side: int = 640
    max_side: int = 1280
    detections_per_image: int = 400
    proposals: int = 800
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    nms_sigma: float = 0.5
    ignore_share: float = 0.5
    border: float = 2.0

    def __post_init__(self) -> None:
        if self.role not in ROLES or self.preset not in PRESETS:
            raise ValueError(
                f"expected a role of {ROLES} and a preset of {tuple(PRESETS)}, got {self.role!r}, {self.preset!r}"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values, as stored in metadata and rows."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DetectorConfig:
        """The configuration `to_json` gave. Raises ValueError for settings this release does not know."""
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"detector configuration: expected {[f.name for f in fields(cls)]}, got also {unknown}")
        return cls(**values)


def build_detector(config: DetectorConfig, pretrained: bool = True) -> CellMaskRCNN:
    """An untrained detector: trunk as pre-trained (ImageNet for lite, COCO for resnet50), new heads.

    pretrained=False skips the trunk's weights, for callers that load a whole checkpoint next.
    """
    limits = Limits(
        config.proposals, config.detections_per_image, config.score_threshold, config.nms_iou, config.nms_sigma
    )
    rules = TruthRules(config.ignore_share, config.border)
    parts = PRESETS[config.preset](pretrained)
    return CellMaskRCNN(parts, len(role_classes(config.role)), limits, rules)


def resize_image(image: NDArray[np.uint8], config: DetectorConfig) -> NDArray[np.uint8]:
    """Image (h, w, 3) uint8 at the detector's size: shorter side `short_side`, longer at most `max_side` px.

    Training and serving both go through here. Averages areas when shrinking: bilinear would skip pixels of a ring.
    """
    height, width = image.shape[:2]
    scale = min(config.short_side / min(height, width), config.max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return image
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on: "auto" takes CUDA, else Apple's MPS, else the CPU; other names are used as they are.

    Raises DeviceUnavailable when this machine has no such device.
    """
    if name != "auto":
        kind = name.partition(":")[0]
        absent = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
        if absent.get(kind, False):
            raise DeviceUnavailable(f"expected a device {name}, this machine has none; set CELLLOOP_DEVICE=auto")
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class Detector:
    """A trained detector, ready to look at images. Not for training: it puts the model into evaluation mode.

    trunk_sha256: of the trunk's weights (see `trunk_sha256`); two detectors with the same one can share its work.
    bf16: compute in bfloat16; None: where that is faster. Coordinates stay float32.
    """

    def __init__(
        self,
        config: DetectorConfig,
        model: CellMaskRCNN,
        device: torch.device | str = "cpu",
        trunk_sha256: str | None = None,
        bf16: bool | None = None,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.trunk_sha256 = trunk_sha256
        self.bf16 = prefers_bf16(self.device) if bf16 is None else bf16
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()
        self.model.rpn.score_thresh = PROPOSAL_FLOOR
        self._columns = np.array([CLASS_INDEX[name] for name in role_classes(config.role)])

    def detect(self, image: NDArray[np.uint8], masks: bool = False) -> Instances:
        """The cells of image (h, w, 3) uint8 RGB, surest first, in its own px; masks only when asked for.

        The score is the probability that there is a cell (for `infected`: an infected one); the label is the most
        probable class of this role; every class of the role has its probability.
        """
        sight = self.look(image)
        return replace(sight.cells, masks=sight.masks(sight.cells.boxes)) if masks else sight.cells

    def look(self, image: NDArray[np.uint8], beside: Sight | None = None) -> Sight:
        """The cells of image (h, w, 3) uint8 RGB, and ways to the mask and to the embedding of any box in it.

        beside: what another detector saw in the same image; its trunk's maps are used where the trunk is the same.
        """
        check_image(image)
        full = (image.shape[0], image.shape[1])
        eyes = None
        if self.trunk_sha256 is not None:
            config = self.config
            eyes = (self.trunk_sha256, config.short_side, config.max_side, self.device, self.bf16)
        with self._computing():
            if beside is not None and beside.trunk is not None and beside.eyes == eyes is not None:
                trunk = beside.trunk
            else:
                trunk = run_trunk(self.model, [resize_image(image, self.config)], self.device)
            features, found = find_cells(self.model, trunk)
        cells = self._instances(found[0], trunk.sizes[0], full)
        masks = partial(self._masks, features, trunk.sizes[0], full)
        return Sight(cells, masks, partial(self._embeddings, features, trunk.sizes[0], full), eyes, trunk)

    def detect_many(self, images: Sequence[NDArray[np.uint8]], masks: bool = False) -> Iterator[Instances]:
        """`detect` for many images, in order, several at a time where the device gains by it."""
        size = 1 if masks else _BATCH.get(self.device.type, 1)
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            if size == 1:
                yield from (self.detect(image, masks) for image in batch)
                continue
            for image in batch:
                check_image(image)
            with self._computing():
                trunk = run_trunk(self.model, [resize_image(image, self.config) for image in batch], self.device)
                _, found = find_cells(self.model, trunk)
            for image, answer, scaled in zip(batch, found, trunk.sizes, strict=True):
                yield self._instances(answer, scaled, (image.shape[0], image.shape[1]))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            yield

    def _instances(self, answer: dict[str, Tensor], scaled: tuple[int, int], full: tuple[int, int]) -> Instances:
        height, width = full
        found = {name: value.float().cpu().numpy() for name, value in answer.items()}
        boxes = np.clip(found["boxes"] * _factors(scaled, full), 0, np.array([width, height] * 2, dtype=np.float32))
        keep = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
        boxes = boxes[keep].astype(np.float32)
        probabilities = np.zeros((len(boxes), len(CLASSES)), dtype=np.float32)
        probabilities[:, self._columns] = found["probabilities"][keep]
        return Instances(
            image_size=(height, width),
            boxes=boxes,
            labels=self._columns[probabilities[:, self._columns].argmax(axis=1)].astype(np.int64),
            scores=np.clip(found["scores"][keep], 0, 1),
            probabilities=probabilities,
        )

    def _masks(
        self, features: dict[str, Tensor], scaled: tuple[int, int], full: tuple[int, int], boxes: NDArray[np.float32]
    ) -> list[Rle]:
        if not len(boxes):
            return []
        small = torch.from_numpy(boxes / _factors(scaled, full)).to(self.device)
        with self._computing():
            masks = mask_probabilities(self.model, features, small, scaled)
        return [paste(mask, box, full) for mask, box in zip(masks, boxes, strict=True)]

    def _embeddings(
        self, features: dict[str, Tensor], scaled: tuple[int, int], full: tuple[int, int], boxes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        if not len(boxes):
            return np.zeros((0, EMBEDDING_SIZE), dtype=np.float32)
        small = torch.from_numpy(boxes / _factors(scaled, full)).to(self.device)
        with self._computing():
            described = middle_features(features, small, scaled)
        return embed(described)


def check_image(image: NDArray[np.uint8]) -> None:
    """Raise ValueError unless this is an image (h, w, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image: expected (h, w, 3) uint8 RGB, got {image.shape} {image.dtype}")


def _factors(scaled: tuple[int, int], full: tuple[int, int]) -> NDArray[np.float32]:
    """From px of the scaled image (h, w) to px of the full one, for boxes xyxy."""
    return np.array([full[1] / scaled[1], full[0] / scaled[0]] * 2, dtype=np.float32)


def trunk_sha256(state: Mapping[str, Tensor], *, half: bool = True) -> str:
    """sha256 over the names and values of the trunk's tensors, as a weight file stores them (half: as float16).

    Two detectors with the same one make the same maps of the same image.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in state if name.startswith(TRUNKS)):
        value = state[name].detach().to("cpu")
        stored = value.to(torch.float16) if half and value.is_floating_point() else value
        digest.update(name.encode())
        digest.update((stored + 0).contiguous().numpy().tobytes())  # an average makes 0.0 of -0.0: the same number
    return digest.hexdigest()


def save_detector(
    path: Path,
    config: DetectorConfig,
    state: Mapping[str, Tensor],
    *,
    half: bool = True,
    training: Mapping[str, Any] | None = None,
) -> str:
    """Write a detector's weights with its configuration; gives the sha256 of the file.

    training: where the weights come from, JSON-able, kept in the file's metadata.
    """
    metadata = {
        "detector": config.to_json(),
        "classes": list(role_classes(config.role)),
        "training": training or {},
        "trunk": trunk_sha256(state, half=half),
    }
    return save_weights(state, path, metadata, half=half)


def load_detector(path: Path, sha256: str | None = None, device: torch.device | str = "cpu") -> Detector:
    """The detector that `save_detector` wrote, after its bytes were checked against `sha256`.

    Raises WeightsCorrupt: other bytes, no configuration inside, or tensors that do not fit it.
    """
    state, metadata = load_weights(path, sha256)
    try:
        config = DetectorConfig.from_json(metadata["detector"])
        expected = list(role_classes(config.role))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsCorrupt(
            f"{Path(path).name}: expected a detector's configuration in the file, got {json.dumps(metadata)[:200]}"
        ) from error
    if metadata.get("classes") != expected:
        raise WeightsCorrupt(f"{Path(path).name}: expected classes {expected}, got {metadata.get('classes')}")
    model = build_detector(config, pretrained=False)
    load_strictly(model, state, Path(path).name)
    fold_batch_norm(model.backbone)
    device = torch.device(device)
    if device.type == "cpu" and not prefers_bf16(device) and available():
        fuse_convolutions(model.backbone)
    return Detector(config, model, device, metadata.get("trunk"))
