"""Fusion settings of a pair, fitted on the validation split and stored with the pair."""

from __future__ import annotations

from al_loop.bench import Bench
from al_loop.context import Loop
from al_loop.dataset import truth
from backend.calibrate import fit_fusion
from backend.fuse import FusionConfig
from backend.instances import ROLES
from backend.store import weights_file
from db import labels, versions
from db.models import ModelPair, Split


def fit_pair(loop: Loop, all_cells_id: int, infected_id: int, bench: Bench | None = None) -> ModelPair:
    """The pair of these versions, with fusion fitted on the labelled validation images when it is new.

    A pair that has predicted already keeps the fusion it predicted with.
    """
    with loop.database.session() as session:
        pair = versions.pair_of(session, all_cells_id, infected_id)
        weights = [versions.get(session, version_id).weights_sha256 for version_id in (all_cells_id, infected_id)]
        validation = [image.id for image in labels.labelled_images(session, Split.validation)]
        known = truth(session, validation)
    if pair.fusion:
        return pair
    fusion = FusionConfig()
    if known:
        bench = bench or Bench(loop.store, loop.settings.device)
        all_cells, infected = (bench.see(sha256, known) for sha256 in weights)
        fusion = fit_fusion(list(zip(all_cells, infected, [image.truth() for image in known], strict=True)))
    with loop.database.session() as session:
        return versions.pair_of(session, all_cells_id, infected_id, fusion.to_json())


def fit_future_pair(loop: Loop, version_id: int) -> None:
    """Fit the pair that this version would serve in, so that its first prediction is made by it.

    Raises NotFound, StoredFileCorrupt.
    """
    with loop.database.session(read_only=True) as session:
        version = versions.get(session, version_id)
        ids = {role: active.id for role in ROLES if (active := versions.active(session, role)) is not None}
    loop.store.verify(weights_file(version.weights_sha256), version.weights_sha256)
    ids[version.role] = version_id
    if len(ids) == len(ROLES):
        fit_pair(loop, ids["all_cells"], ids["infected"])


def ensure_pair(loop: Loop) -> ModelPair | None:
    """The serving pair with its fusion settings; None until both roles have a version."""
    with loop.database.session(read_only=True) as session:
        active = [versions.active(session, role) for role in ("all_cells", "infected")]
    if active[0] is None or active[1] is None:
        return None
    return fit_pair(loop, active[0].id, active[1].id)
