"""The starter weights as the first versions of both roles: pre-annotations without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from al_loop.context import Loop
from backend.checkpoints import load_weights
from backend.instances import ROLES
from backend.pairs import STARTER, PairCard, read_card, weights_name
from backend.store import weights_file
from db import versions
from db.models import ModelVersion


def install_starter(loop: Loop, folder: Path = STARTER) -> list[ModelVersion]:
    """Let the pair in `folder` serve in every role that nobody serves in; the versions that do now, `all_cells` first.

    Repeated, it changes nothing. The pair serves with its own fusion where both versions are its own. Raises
    NoTrainedModel without such a folder, WeightsCorrupt when its bytes are not those of its card.
    """
    card = read_card(folder)
    expected = card.sha256
    rows = {role: _row(folder, card, role, sha256) for role, sha256 in expected.items()}
    for role in ROLES:
        loop.store.put_file("weights", folder / weights_name(role))
        loop.store.verify(weights_file(expected[role]), expected[role])
    with loop.database.session() as session:
        for role in ROLES:
            if versions.active(session, role) is not None:
                continue
            known = versions.with_weights(session, role, expected[role], rows[role]["manifest_sha256"])
            version = known or versions.add_version(session, **rows[role])
            versions.activate(
                session, version.id, kind="first", reasons=[f"starter weights {card.name}: no training yet"]
            )
        serving = [versions.active(session, role) for role in ROLES]
        found = [version for version in serving if version is not None]
        if [version.weights_sha256 for version in found] == list(expected.values()):
            versions.pair_of(session, found[0].id, found[1].id, card.fusion.to_json())
    return found


def _row(folder: Path, card: PairCard, role: str, sha256: str) -> dict[str, Any]:
    """What is known of a detector that was trained elsewhere. The manifest names its images, which are not here."""
    _, metadata = load_weights(folder / weights_name(role), sha256)
    training = metadata.get("training") or {}
    data_sha256 = str(training.get("data_sha256", ""))
    manifest = {
        "role": role,
        "newest_revision_id": 0,
        "images": [],
        "sha256": data_sha256,
        "trained_on": list(card.about.get("trained_on", [])),
    }
    return {
        "role": role,
        "weights_sha256": sha256,
        "config": training.get("config") or {"detector": metadata["detector"]},
        "manifest": manifest,
        "manifest_sha256": data_sha256,
        "environment": {**training.get("environment", {}), "origin": card.name},
    }
