"""One run's training: on the labels it was opened with, recorded once, its checkpoints kept until it succeeded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from al_loop.context import Loop
from al_loop.import_images import import_images
from al_loop.rendered import write_coco_folder
from al_loop.retrain import (
    RunCancelled,
    chosen_base,
    chosen_trunk,
    clean_up,
    retrain,
    take_snapshot,
    training_config,
)
from al_loop.seen_images import trained_on
from al_loop.train import WEIGHTS, Progress
from al_loop.train_model import start_model
from backend.checkpoints import load_weights
from backend.detect import build_detector, load_detector, save_detector
from backend.pairs import read_card
from backend.store import weights_file
from db import images, predictions, runs, versions
from db.migrate import upgrade
from db.models import Cell, RunStatus, Way
from tests import builders
from tests.al_loop.dying_worker import open_loop
from tests.threads import one_thread


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """A home with some labelled rendered smears and a pool, and one thread to train on."""
    sizes = {"short_side": 96, "train_crop": 64, "train_batch": 1, "train_steps": 3}
    loop = open_loop(tmp_path, device="cpu", **sizes)
    upgrade(loop.settings.database_url)
    write_coco_folder(tmp_path / "source", 12, size=(96, 128), cells=6, infected=0.5)
    import_images(loop.database, loop.store, tmp_path / "source", label_share=0.5)
    with one_thread():
        yield loop
    loop.database.dispose()


def open_run(loop: Loop) -> int:
    with loop.database.session() as session:
        run = runs.open_run(session, "infected", "person", {}, {})
        assert run is not None
        runs.start_run(session, run.id)
        return run.id


def test_settings_become_the_trainings_configuration(loop: Loop) -> None:
    shares = {role: training_config(loop.settings, role).rare_share for role in ("all_cells", "infected")}
    assert shares == {"all_cells": 0.5, "infected": 0.65}
    config = training_config(loop.settings, "infected")
    assert (config.steps, config.crop, config.batch_size) == (3, 64, 1)
    assert (config.detector.role, config.detector.short_side) == ("infected", 96)


def test_labels_that_come_while_it_trains_are_not_among_its_own(loop: Loop) -> None:
    run_id = open_run(loop)
    before = take_snapshot(loop, run_id)
    with loop.database.session() as session:
        builders.say(session, builders.add_cell(session, images.pool(session)[0]), "gametocyte")
    assert take_snapshot(loop, run_id).sha256 == before.sha256
    with loop.database.session() as session:
        runs.fail(session, run_id, "over")
    after = take_snapshot(loop, open_run(loop))
    assert len(after.to_json()["images"]) == len(before.to_json()["images"]) + 1


def test_repeated_after_its_end_it_gives_the_same_version_and_only_success_tidies_up(loop: Loop) -> None:
    run_id = open_run(loop)
    seen: list[Progress] = []
    version_id = retrain(loop, run_id, seen.append)
    assert [progress.step for progress in seen] == [1, 2, 3]
    assert retrain(loop, run_id) == version_id
    with loop.database.session(read_only=True) as session:
        [version] = versions.versions(session)
        run = runs.get(session, run_id)
    assert version.status == "candidate"
    config, base = chosen_base(loop, training_config(loop.settings, "infected"))
    assert base is not None
    assert version.config == json.loads(json.dumps(config.to_json()))
    assert version.config["base"] == read_card().infected_sha256
    assert trained_on(version) > set(read_card().about["trained_on"])
    assert version.manifest_sha256 == take_snapshot(loop, run_id).sha256
    used = {"device", "threads", "processes", "python", "cellloop", "torch", "seed", "loss", "seconds"}
    assert used <= set(version.environment)
    assert (run.step, run.steps) == (3, 3)
    assert "step 3 of 3, loss" in run.message
    _, said = load_weights(loop.store.path(weights_file(version.weights_sha256)), version.weights_sha256)
    assert said["training"]["manifest_sha256"] == version.manifest_sha256

    clean_up(loop, run_id)
    assert (loop.run_folder(run_id) / WEIGHTS).is_file(), "not over yet"
    with loop.database.session() as session:
        runs.finish(session, run_id, version_id)
    clean_up(loop, run_id)
    assert not loop.run_folder(run_id).exists()
    clean_up(loop, run_id)


def test_training_begins_with_the_starter_weights_where_they_fit(loop: Loop) -> None:
    for role, sha256 in (("all_cells", read_card().all_cells_sha256), ("infected", read_card().infected_sha256)):
        config, base = chosen_base(loop, training_config(loop.settings, role))
        assert config.base == sha256
        assert base is not None
        model = start_model(config, [], None, torch.device("cpu"), base)
        stored, _ = load_weights(base)
        assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    plain = training_config(loop.settings, "infected")
    scratch = replace(loop, settings=loop.settings.model_copy(update={"train_from": "scratch"}))
    assert chosen_base(scratch, plain) == (plain, None)
    large = replace(plain, detector=replace(plain.detector, preset="resnet50"))
    assert chosen_base(loop, large) == (large, None)
    sharing = replace(plain, trunk="0" * 64)
    assert chosen_base(loop, sharing) == (sharing, None), "heads of another trunk"


def test_without_starter_weights_training_begins_with_the_pretrained_trunk(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("al_loop.retrain.STARTER", tmp_path / "none")
    plain = training_config(loop.settings, "infected")
    assert chosen_base(loop, plain) == (plain, None)


def test_a_shared_trunk_is_that_of_the_all_cells_version_that_serves(loop: Loop) -> None:
    sharing = replace(loop, settings=loop.settings.model_copy(update={"infected_trunk": "shared", "train_steps": 1}))
    config = training_config(sharing.settings, "infected")
    assert chosen_trunk(sharing, config) == (config, None), "nobody serves yet"
    detector = training_config(sharing.settings, "all_cells").detector
    weights = loop.settings.home / "all_cells.safetensors"
    save_detector(weights, detector, build_detector(detector).state_dict())
    stored = loop.store.put_file("weights", weights)
    with loop.database.session() as session:
        serving = builders.add_version(session, "all_cells", weights_sha256=stored.sha256)
        versions.activate(session, serving.id, kind="first", reasons=["the first"])
    chosen, trunk = chosen_trunk(sharing, config)
    assert chosen.trunk == stored.sha256
    assert trunk is not None
    assert chosen_trunk(loop, config) == (config, None), "the settings ask for an own one"
    assert chosen_trunk(sharing, training_config(sharing.settings, "all_cells"))[1] is None

    version_id = retrain(sharing, open_run(sharing))
    with loop.database.session(read_only=True) as session:
        version = versions.get(session, version_id)
    assert version.config["trunk"] == stored.sha256
    both = [load_detector(loop.store.path(weights_file(sha256))) for sha256 in (stored.sha256, version.weights_sha256)]
    assert both[0].trunk_sha256 == both[1].trunk_sha256 is not None
    assert trunk.features is not None
    assert list(trunk.features.glob("??/*.safetensors"))


def test_a_cancelled_run_goes_no_further(loop: Loop) -> None:
    run_id = open_run(loop)

    def cancel(progress: Progress) -> None:
        with loop.database.session() as session:
            runs.cancel(session, run_id)

    with pytest.raises(RunCancelled, match=f"run {run_id} was cancelled"):
        retrain(loop, run_id, cancel)
    with loop.database.session(read_only=True) as session:
        run = runs.get(session, run_id)
        assert (run.status, run.step) == (RunStatus.cancelled, 1)
        assert versions.versions(session) == []
    clean_up(loop, run_id)
    assert loop.run_folder(run_id).is_dir()


def test_a_pool_reviewed_cell_by_cell_is_enough_to_train_on(tmp_path: Path) -> None:
    loop = open_loop(tmp_path, device="cpu", short_side=96, train_crop=64, train_batch=1, train_steps=3)
    upgrade(loop.settings.database_url)
    write_coco_folder(tmp_path / "source", 3, size=(96, 128), cells=6, infected=0.5)
    import_images(loop.database, loop.store, tmp_path / "source", label_share=0.0)
    boxes = [(10.0 + 30 * i, 30.0, 35.0 + 30 * i, 60.0) for i in range(4)]
    with loop.database.session() as session:
        pair = builders.add_active_pair(session)
        for image in images.pool(session):
            stored = builders.add_prediction(session, image, pair, boxes)
            cells = [session.get_one(Cell, cell.cell_id) for cell, _ in predictions.predicted_cells(session, stored.id)]
            for cell, box, label in zip(cells, boxes, ("ring", None), strict=False):
                builders.say(session, cell, label, f"ls:2:{cell.id}", box=box, way=Way.cell)
        waiting = len(images.pool(session))
    run_id = open_run(loop)
    with one_thread():
        version_id = retrain(loop, run_id)
    manifest = take_snapshot(loop, run_id)
    assert [len(image.partial.unreviewed) for image in manifest.images if image.partial] == [2] * waiting
    with loop.database.session(read_only=True) as session:
        assert versions.get(session, version_id).manifest_sha256 == manifest.sha256
        assert len(images.pool(session)) == waiting > 0
    loop.database.dispose()
