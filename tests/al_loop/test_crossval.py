from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from al_loop import crossval
from al_loop.crossval import CrossValidation, read_sources, rendered_fields, train_folds
from al_loop.crossval_folds import make_fold
from al_loop.crossval_views import load_views
from al_loop.rendered import write_coco_folder
from al_loop.train import CHECKPOINT, WEIGHTS
from backend.checkpoints import load_weights
from backend.detect import load_detector
from backend.errors import NoTrainedModel, SettingRefused
from backend.fuse import FusionConfig
from backend.pairs import save_pair
from tests.threads import one_thread

SETTINGS = (
    *("short_side=96", "max_side=128", "crop=64", "detections_per_image=20", "proposals=40"),
    *("batch_size=1", "warmup_steps=1", "checkpoint_steps=2"),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tiny fields of three slides."""
    folder = tmp_path_factory.mktemp("data") / "smears"
    return write_coco_folder(folder, 12, 3, size=(128, 160), cells=12, infected=0.4)


def plan_of(smears: Path, out: Path, **changes: object) -> CrossValidation:
    values: dict = {"folds": 3, "steps": 2, "settings": SETTINGS, "validation_share": 0.5, "device": "cpu"}
    return CrossValidation((smears,), out, **(values | changes))


def test_a_fold_is_trained_without_the_images_it_is_measured_on(
    smears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[str] = []
    real = crossval.train

    def watched(config, samples, **rest):  # type: ignore[no-untyped-def]
        taught.extend(sample.sha256 for sample in samples)
        return real(config, samples, **rest)

    monkeypatch.setattr(crossval, "train", watched)
    plan = plan_of(smears, tmp_path, rendered=1)
    (written,) = train_folds(plan, [1], ["infected"])
    held_out, about = load_views(written)
    validation, _ = load_views(plan.views(1, "infected", validation=True))
    assert written == tmp_path / "fold-1" / "infected.npz"
    assert len(held_out) == 4
    assert len(validation) == 4
    assert len(taught) == 4 + 1  # and the rendered field
    assert not {view.sha256 for view in held_out} & {*taught, *(view.sha256 for view in validation)}
    assert not {view.sha256 for view in validation} & {*taught}
    (source,) = read_sources([smears])
    truth = {file.labelled.sha256: file.labelled for file in source.files}
    for view in held_out:
        assert view.source == "smears"
        assert np.array_equal(view.truth.boxes, truth[view.sha256].truth().boxes)
        assert np.array_equal(view.ignore, truth[view.sha256].ignore_boxes())
    assert about["recipe"]["images"]["training"] == {"smears": 4}
    assert (plan.folder(1, "infected") / WEIGHTS).exists()
    assert not (plan.folder(1, "infected") / CHECKPOINT).exists()


def test_a_killed_fold_goes_on_and_a_finished_one_is_kept(smears: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill_in_step_three(done: int, total: int, note: str) -> None:
        if "step 3 of 4" in note:
            raise Killed

    plan = plan_of(smears, tmp_path, steps=4)
    with pytest.raises(Killed):
        train_folds(plan, [0], ["infected"], kill_in_step_three)
    notes: list[str] = []
    train_folds(plan, [0], ["infected"], lambda done, total, note: notes.append(note))
    assert [note.split(",")[0] for note in notes if " step " in note] == [
        f"fold 0 infected: step {step} of 4" for step in (3, 4)
    ]
    notes.clear()
    train_folds(plan, [0], ["infected"], lambda done, total, note: notes.append(note))
    assert notes == ["fold 0 infected: done before"]
    with pytest.raises(SettingRefused, match=r"config\.crop was 64, now 48; take another --out"):
        train_folds(plan_of(smears, tmp_path, steps=4, settings=(*SETTINGS, "crop=48")), [0], ["infected"])


def test_training_can_be_confined_to_some_folders(smears: Path, tmp_path: Path) -> None:
    other = write_coco_folder(tmp_path / "other", 3, 4, size=(128, 160), cells=4)
    sources = read_sources([smears, other])
    assert [source.name for source in sources] == ["smears", "other"]
    fold = make_fold(sources, 0, 3, train_on=["smears"], validation_share=0.5)
    assert set(fold.training) == set(fold.validation) == {"smears"}
    assert {name: len(files) for name, files in fold.held_out.items()} == {"smears": 4, "other": 1}
    plan = CrossValidation((smears,), tmp_path / "out", folds=3, train_on=(other,))
    with pytest.raises(SettingRefused, match="one of the folders given with --data"):
        train_folds(plan, [0], ["infected"])


def test_the_same_image_in_two_folders_counts_once(smears: Path) -> None:
    first, again = read_sources([smears, smears])
    assert (first.name, again.name) == ("smears", "smears-2")
    assert (len(first.files), len(again.files)) == (12, 0)


def test_what_cannot_be_meant_is_said(smears: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingRefused, match="--fold: expected numbers from 0 to 2, got 3"):
        train_folds(plan_of(smears, tmp_path), [3], ["infected"])
    with pytest.raises(NoTrainedModel, match=r"--shared-trunk: expected .* train all_cells of this fold first"):
        train_folds(plan_of(smears, tmp_path, shared_trunk=True), [0], ["infected"])


def test_training_can_begin_with_a_pair_that_never_saw_these_images(smears: Path, tmp_path: Path) -> None:
    plan = plan_of(smears, tmp_path / "first", steps=1)
    train_folds(plan, [0], ["all_cells", "infected"])
    weights = [plan.folder(0, role) / WEIGHTS for role in ("all_cells", "infected")]
    unseen, seen = tmp_path / "unseen", tmp_path / "seen"
    card = save_pair(unseen, *weights, FusionConfig(), "unseen", {"trained_on": ["0" * 64]})
    known = load_views(plan.views(0, "all_cells"))[0][0].sha256
    save_pair(seen, *weights, FusionConfig(), "seen", {"trained_on": [known]})

    still = plan_of(smears, tmp_path / "out", steps=1, base=unseen, settings=(*SETTINGS, "learning_rate=1e-12"))
    (written,) = train_folds(still, [0], ["infected"])
    assert load_views(written)[1]["recipe"]["config"]["base"] == card.infected_sha256
    begun, first = (load_weights(p.folder(0, "infected") / WEIGHTS)[0] for p in (still, plan))
    assert all(torch.allclose(value, first[name], atol=1e-3) for name, value in begun.items())
    with pytest.raises(SettingRefused, match="learned from 1 of them"):
        train_folds(plan_of(smears, tmp_path / "other", base=seen), [0], ["infected"])
    with pytest.raises(SettingRefused, match="no --shared-trunk beside it"):
        train_folds(plan_of(smears, tmp_path / "other", base=unseen, shared_trunk=True), [0], ["infected"])


def test_rendered_fields_are_made_once(tmp_path: Path) -> None:
    first = rendered_fields(tmp_path, 1)
    stamp = (first / "annotations.json").stat().st_mtime_ns
    assert rendered_fields(tmp_path, 1) == first
    assert (first / "annotations.json").stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == ["rendered-1"]


def test_infected_can_keep_the_trunk_of_its_folds_all_cells(smears: Path, tmp_path: Path) -> None:
    plan = plan_of(smears, tmp_path, steps=1, shared_trunk=True)
    train_folds(plan, [2], ["all_cells", "infected"])
    first, second = (load_detector(plan.folder(2, role) / WEIGHTS) for role in ("all_cells", "infected"))
    assert first.trunk_sha256 == second.trunk_sha256
    assert sorted(path.name for path in plan.folder(2, "infected").iterdir()) == [WEIGHTS]
