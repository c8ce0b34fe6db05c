"""A pair of detectors as a folder: two weight files and `pair.json`, which says how to fuse them and vouches for both.

Such a folder needs no database: starter weights are shipped as one, and `cellloop evaluate` judges one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from backend.detect import Detector, load_detector
from backend.errors import NoTrainedModel, WeightsCorrupt
from backend.fuse import FusionConfig
from backend.instances import ROLES
from backend.preannotate import Pair
from backend.store import replace_atomically

STARTER = Path(__file__).resolve().parent / "starter"
CARD = "pair.json"


def weights_name(role: str) -> str:
    """The weight file of this role inside a pair's folder."""
    return f"{role}.safetensors"


@dataclass(frozen=True)
class PairCard:
    """What `pair.json` says. about: anything worth knowing (data, licence, recipe, scores), as JSON."""

    name: str
    all_cells_sha256: str
    infected_sha256: str
    fusion: FusionConfig
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> dict[str, str]:
        """Of the weight file of each role, `all_cells` first."""
        return dict(zip(ROLES, (self.all_cells_sha256, self.infected_sha256), strict=True))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "fusion": self.fusion.to_json(), "about": dict(self.about)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PairCard:
        """The card `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        card = cls(**{**values, "fusion": FusionConfig.from_json(values["fusion"])})
        if not all(isinstance(text, str) for text in (card.name, card.all_cells_sha256, card.infected_sha256)):
            raise ValueError("expected a name and two sha256 as text")
        return card


def save_pair(
    folder: Path,
    all_cells: Path,
    infected: Path,
    fusion: FusionConfig,
    name: str,
    about: Mapping[str, Any] | None = None,
) -> PairCard:
    """Copy two weight files into `folder` and write their card, last: a folder with a card is whole.

    Raises WeightsCorrupt when a file cannot be read.
    """
    sha256 = {}
    for role, path in zip(ROLES, (all_cells, infected), strict=True):
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise WeightsCorrupt(
                f"{path}: expected the weights of {role}, cannot read it ({error.strerror})"
            ) from error
        sha256[role] = replace_atomically(Path(folder) / weights_name(role), (data,))
    card = PairCard(name, sha256["all_cells"], sha256["infected"], fusion, dict(about or {}))
    text = json.dumps(card.to_json(), indent=2, ensure_ascii=False) + "\n"
    replace_atomically(Path(folder) / CARD, (text.encode("utf-8"),))
    return card


def read_card(folder: Path = STARTER) -> PairCard:
    """The card of a pair's folder. Raises NoTrainedModel when there is none, WeightsCorrupt when it is damaged."""
    path = Path(folder) / CARD
    files = f"{weights_name('all_cells')}, {weights_name('infected')} and {CARD}"
    if not path.is_file():
        if Path(folder) == STARTER:
            raise NoTrainedModel(
                f"starter weights: expected {files} inside the package, they are not part of this installation; "
                f"pass a folder with these files (--weights FOLDER)"
            )
        raise NoTrainedModel(f"{folder}: expected the folder of a pair with {files}, found no {CARD}; check the path")
    try:
        return PairCard.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsCorrupt(
            f"{path}: expected the card of a pair as `save_pair` writes it, got {type(error).__name__}: {error}; "
            "restore the folder from where it came"
        ) from error


def load_pair(folder: Path = STARTER, device: torch.device | str = "cpu") -> Pair:
    """The pair in this folder, ready to look at images; its bytes are checked against its card.

    Raises NoTrainedModel when there is no pair, WeightsCorrupt when a file is missing, changed, or of another role.
    """
    card = read_card(folder)
    detectors: dict[str, Detector] = {}
    for role, sha256 in card.sha256.items():
        detectors[role] = load_detector(Path(folder) / weights_name(role), sha256, device)
        found = detectors[role].config.role
        if found != role:
            raise WeightsCorrupt(f"{folder}: expected a detector of {role} in {weights_name(role)}, got one of {found}")
    return Pair(card.name, detectors["all_cells"], detectors["infected"], card.fusion)
