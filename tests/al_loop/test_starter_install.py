"""Starter weights as the first versions: installed once, compared by the gate, and warned of where they flatter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from al_loop.calibrate_pair import ensure_pair
from al_loop.context import Loop
from al_loop.evaluate import evaluate_candidate
from al_loop.ruler import freeze_ruler
from al_loop.seen_images import trained_on, warnings_for, warnings_of_version
from al_loop.starter_install import install_starter
from backend.credentials import load_credentials
from backend.detect import DetectorConfig, build_detector, save_detector
from backend.errors import NoTrainedModel, WeightsCorrupt
from backend.fuse import FusionConfig
from backend.instances import ROLES
from backend.pairs import save_pair
from backend.settings import Settings
from backend.store import FileStore, weights_file
from db import images, versions
from db.cells import add_cell
from db.models import VersionStatus
from db.session import Database
from tests import builders
from tests.al_loop.deciding import decide
from tests.backend.smears import HEIGHT, WIDTH, png

FUSION = replace(FusionConfig(), keep_threshold=0.37)


@pytest.fixture
def loop(tmp_path: Path, database: Database) -> Loop:
    settings = Settings(
        home=tmp_path, database_url=str(database.engine.url.render_as_string(hide_password=False)), device="cpu"
    )
    return Loop(settings, database, FileStore(settings.files), load_credentials(tmp_path))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Detectors that have learned nothing, and a second `infected`."""
    folder = tmp_path_factory.mktemp("weights")
    training = {"config": {"steps": 0}, "data_sha256": "d" * 64, "environment": {"device": "cpu"}}
    for role, name in (*zip(ROLES, ROLES, strict=True), ("infected", "other")):
        config = DetectorConfig(role=role, short_side=64, detections_per_image=5)
        state = build_detector(config, pretrained=False).state_dict()
        save_detector(folder / f"{name}.safetensors", config, state, training={**training, "name": name})
    return {name: folder / f"{name}.safetensors" for name in (*ROLES, "other")}


def starter(weights: dict[str, Path], folder: Path, trained: list[str]) -> Path:
    save_pair(folder, weights["all_cells"], weights["infected"], FUSION, "starter", {"trained_on": trained})
    return folder


def test_both_roles_serve_with_the_pairs_own_fusion_and_twice_is_once(
    loop: Loop, weights: dict[str, Path], tmp_path: Path
) -> None:
    folder = starter(weights, tmp_path / "starter", ["a" * 64])
    first, second = (install_starter(loop, folder) for _ in range(2))
    assert [version.role for version in first] == list(ROLES)
    assert [version.id for version in first] == [version.id for version in second]
    with loop.database.session(read_only=True) as session:
        assert [version.status for version in versions.versions(session)] == [VersionStatus.active] * 2
        assert [decision.kind for decision in versions.decisions(session)] == ["first"] * 2
        version = versions.active(session, "infected")
        assert version is not None
        assert trained_on(version) == {"a" * 64}
        assert version.environment["origin"] == "starter"
        loop.store.verify(weights_file(version.weights_sha256), version.weights_sha256)
    pair = ensure_pair(loop)
    assert pair is not None
    assert FusionConfig.from_json(pair.fusion) == FUSION


def test_a_role_that_serves_already_is_left_alone(loop: Loop, weights: dict[str, Path], tmp_path: Path) -> None:
    with loop.database.session() as session:
        own = builders.add_version(session, "all_cells").id
        versions.activate(session, own, kind="first", reasons=["trained here"])
    serving = install_starter(loop, starter(weights, tmp_path / "starter", []))
    assert serving[0].id == own
    with loop.database.session() as session:
        pair = versions.active_pair(session)
        assert pair is not None
        assert pair.fusion == {}, "a fusion of other detectors does not fit"


def test_folders_that_are_no_pair_install_nothing(loop: Loop, weights: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(NoTrainedModel):
        install_starter(loop, tmp_path / "nothing")
    folder = starter(weights, tmp_path / "starter", [])
    (folder / "infected.safetensors").write_bytes(b"other bytes")
    with pytest.raises(WeightsCorrupt):
        install_starter(loop, folder)
    with loop.database.session(read_only=True) as session:
        assert not versions.versions(session)


def test_a_retrained_candidate_meets_the_starter_at_the_gate_which_warns(
    loop: Loop, weights: dict[str, Path], tmp_path: Path
) -> None:
    with loop.database.session() as session:
        tested = []
        for seed in range(3):
            stored = loop.store.put_bytes("images", png(seed), ".png")
            image, _ = images.add_image(
                session, sha256=stored.sha256, file=stored.file, name=f"{seed}.png", width=WIDTH, height=HEIGHT,
                group=str(seed), split="test", dataset="rendered",
            )  # fmt: skip
            builders.say(session, add_cell(session, image.id), "ring", thread=f"import:{seed}", box=(5, 5, 20, 20))
            tested.append(stored.sha256)
        freeze_ruler(session)
    incumbent = install_starter(loop, starter(weights, tmp_path / "starter", [*tested[:2], "f" * 64]))[1]
    stored_weights = loop.store.put_file("weights", weights["other"])
    with loop.database.session() as session:
        candidate = builders.add_version(session, "infected", weights_sha256=stored_weights.sha256).id
    evaluation = evaluate_candidate(loop, candidate)
    [told] = warnings_of_version(loop.database, candidate)
    assert told.startswith("warning: all_cells version")
    verdict = decide(loop, candidate, evaluation)
    said = [reason for reason in verdict.reasons if reason.startswith("warning")]
    assert len(said) == 2, "both starter detectors have seen them"
    assert f"infected version {incumbent.id} was trained on 2 of the 3 test images" in said[1]
    with loop.database.session(read_only=True) as session:
        [decision] = versions.decisions(session, candidate)
        assert decision.kind == "gate"
        assert decision.reasons == verdict.reasons
        assert warnings_for([versions.get(session, candidate)], ()) == []
