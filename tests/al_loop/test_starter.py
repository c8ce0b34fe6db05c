"""Starter weights, trained for a moment: what is kept apart, what the pair's folder says, and that a rerun agrees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from al_loop import starter as module
from al_loop.crossval_views import load_views
from al_loop.labelled_files import read_labelled
from al_loop.render import render_smear
from al_loop.rendered import write_coco_folder
from al_loop.starter import PAIR, StarterPlan, starter_config, train_starter
from al_loop.train import WEIGHTS
from backend.errors import SettingRefused
from backend.instances import ROLES
from backend.pairs import CARD, load_pair, read_card
from tests.threads import one_thread

FIELDS = 4
TINY = ("short_side=96", "batch_size=1", "crop=64", "warmup_steps=1", "class_balance=0")


def write_bbbc041(root: Path) -> Path:
    """A BBBC041 folder whose images are rendered fields: boxes only, as the real one has."""
    records = []
    (root / "images").mkdir(parents=True)
    for index in range(FIELDS):
        smear = render_smear(index, (96, 128), cells=8, infected=0.4)
        cv2.imwrite(str(root / "images" / f"{index}.png"), smear.image[..., ::-1])
        objects = [
            {
                "bounding_box": {
                    "minimum": {"r": float(y1), "c": float(x1)},
                    "maximum": {"r": float(y2), "c": float(x2)},
                },
                "category": name,
            }
            for name, (x1, y1, x2, y2) in zip(smear.cells.class_names(), smear.cells.boxes.tolist(), strict=True)
        ]
        shape = {"r": 96, "c": 128, "channels": 3}
        records.append({"image": {"pathname": f"/images/{index}.png", "shape": shape}, "objects": objects})
    (root / "training.json").write_text(json.dumps(records))
    return root


@pytest.fixture(scope="module")
def bbbc041(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bbbc041(tmp_path_factory.mktemp("data") / "BBBC041")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rendered fields as small as the others, and torch on one thread."""

    def fields(out: Path, count: int, seed: int, on_progress: object = None) -> Path:
        return write_coco_folder(out, count, seed, size=(96, 128), cells=8)

    monkeypatch.setattr(module, "write_training_fields", fields)
    with one_thread():
        yield


@pytest.fixture
def plan(bbbc041: Path, tmp_path: Path) -> StarterPlan:
    return StarterPlan(
        bbbc041, tmp_path / "out", rendered=1, steps=2, folds=2, validation_share=0.5, settings=TINY, device="cpu"
    )


def test_the_pair_says_what_it_is_made_of_and_a_rerun_gives_the_same(plan: StarterPlan) -> None:
    said: list[str] = []
    folder = train_starter(plan, report=lambda done, total, note: said.append(note))
    assert folder == plan.out / PAIR
    card = read_card(folder)
    images = {file.labelled.sha256 for file in read_labelled(plan.bbbc041)[0]}
    assert set(card.about["trained_on"]) == images
    assert card.about["rendered"] == 1
    kept = {view.sha256 for view in load_views(plan.folder / "infected-validation.npz")[0]}
    assert len(kept) == FIELDS // 2 < len(images), "the fusion is fitted on images no detector has learned from"
    assert card.about["fusion_fitted_on"] == f"{len(kept)} images kept for it"
    text = (folder / "CARD.md").read_text()
    for what in ("CC BY-NC-SA 3.0", "Ljosa", "1804.09548", "diagnose", plan.command(), card.infected_sha256):
        assert what in text
    assert str(plan.out) not in text + (folder / CARD).read_text()
    pair = load_pair(folder)
    assert pair.all_cells.trunk_sha256 != pair.infected.trunk_sha256
    assert [pair.all_cells.config.role, pair.infected.config.role] == list(ROLES)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert train_starter(plan) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert any(note.startswith("all_cells: step") for note in said)


def test_with_all_folds_trained_the_fusion_is_fitted_on_images_held_out(plan: StarterPlan) -> None:
    for number in range(plan.folds):
        assert train_starter(replace(plan, fold=number), ["all_cells"]) == plan.out / f"fold-{number}"
    one = train_starter(plan, ["all_cells"])
    assert not (one / "all_cells-validation.npz").exists(), "its folds are through: it learns from all images"
    for number in range(plan.folds):
        train_starter(replace(plan, fold=number), ["infected"])
    held_out = [{v.sha256 for v in load_views(plan.out / f"fold-{k}" / "all_cells.npz")[0]} for k in range(2)]
    assert held_out[0] & held_out[1] == set()
    assert len(held_out[0] | held_out[1]) == FIELDS
    other = replace(plan, steps=1)
    with pytest.raises(SettingRefused, match="steps was 2, now 1"):
        train_starter(other)
    assert not (plan.out / PAIR / CARD).exists(), "the other role is still missing"
    card = read_card(train_starter(plan, ["infected"]))
    assert f"all {FIELDS} images" in card.about["fusion_fitted_on"]
    assert not (plan.folder / "infected-validation.npz").exists()


def test_infected_may_keep_the_trunk_of_all_cells(plan: StarterPlan) -> None:
    shared = replace(plan, shared_trunk=True, rendered=0)
    pair = load_pair(train_starter(shared))
    assert pair.all_cells.trunk_sha256 == pair.infected.trunk_sha256
    assert not (plan.out / "rendered-0-0").exists()
    assert (shared.folder / "infected" / WEIGHTS).exists()


def test_rendered_fields_make_up_their_share(plan: StarterPlan) -> None:
    by_share = replace(plan, rendered=None, rendered_share=0.25)
    assert by_share.fields(60) == 20
    assert replace(by_share, rendered_share=0.0).fields(60) == 0
    assert plan.fields(60) == 1
    with pytest.raises(SettingRefused, match="rendered-share"):
        replace(plan, rendered_share=1.0)
    with pytest.raises(SettingRefused, match="--fold"):
        replace(plan, fold=2)


def test_there_is_a_recipe_for_each_role() -> None:
    for role in ROLES:
        config = starter_config(role)
        assert config.detector.role == role
        assert config.steps >= 500
