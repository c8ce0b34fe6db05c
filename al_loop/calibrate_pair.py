"""Fusion settings of a pair, fitted on the validation split and stored with the pair."""

from __future__ import annotations

from typing import Any

from al_loop.context import Loop
from al_loop.dataset import truth
from backend.calibrate import fit_fusion
from backend.detect import load_detector, pick_device
from backend.fuse import FusionConfig
from backend.images import read_image
from db import labels, versions
from db.models import ModelPair, Split


def fit_pair(loop: Loop, all_cells_id: int, infected_id: int) -> ModelPair:
    """The pair of these versions, with fusion fitted on the labelled validation images when it is new."""
    with loop.database.session() as session:
        pair = versions.pair_of(session, all_cells_id, infected_id)
        sha256 = {role: versions.get(session, id_).weights_sha256 for role, id_ in _roles(pair).items()}
        validation = [image.id for image in labels.labelled_images(session, Split.validation)]
        known = truth(session, validation)
    if pair.fusion:
        return pair
    fusion = _fit(loop, sha256, known) if known else FusionConfig()
    with loop.database.session() as session:
        return versions.pair_of(session, all_cells_id, infected_id, fusion.to_json())


def ensure_pair(loop: Loop) -> ModelPair | None:
    """The serving pair with its fusion settings; None until both roles have a version."""
    with loop.database.session(read_only=True) as session:
        active = [versions.active(session, role) for role in ("all_cells", "infected")]
    if active[0] is None or active[1] is None:
        return None
    return fit_pair(loop, active[0].id, active[1].id)


def _roles(pair: ModelPair) -> dict[str, int]:
    return {"all_cells": pair.all_cells_id, "infected": pair.infected_id}


def _fit(loop: Loop, sha256: dict[str, str], known: list[Any]) -> FusionConfig:
    device = pick_device(loop.settings.device)
    detectors = {
        role: load_detector(loop.store.path(f"weights/{sha[:2]}/{sha}.safetensors"), sha, device)
        for role, sha in sha256.items()
    }
    seen = []
    for image in known:
        pixels = read_image(loop.store.read(image.file, image.sha256))
        seen.append((detectors["all_cells"].detect(pixels), detectors["infected"].detect(pixels), image.truth()))
    return fit_fusion(seen)
