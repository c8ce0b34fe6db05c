from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from al_loop import crossval_score
from al_loop.compare_table import shown
from al_loop.crossval_pairs import write_pairs
from al_loop.crossval_score import ALL, NOT_FITTED, read_folds, score
from al_loop.crossval_views import SeenImage, load_views, save_views
from al_loop.judge import FUSED
from al_loop.judge_numbers import Number
from al_loop.train import WEIGHTS
from backend.detect import DetectorConfig, build_detector, save_detector
from backend.errors import NotEnoughData, SettingRefused, StoredFileCorrupt
from backend.fuse import FusionConfig
from backend.instances import Instances
from backend.pairs import load_pair, read_card
from scripts import cli
from scripts.crossval import Fit
from tests.backend.views import SIZE, view

SPOTS = [(60.0 * k, 100.0, 60.0 * k + 40, 140.0) for k in range(1, 7)]
NO_BOX = np.zeros((0, 4), dtype=np.float32)


def image(name: str, source: str) -> dict[str, SeenImage]:
    """Five red cells, a ring that `all_cells` calls red and `infected` knows, and a cell nobody could decide."""
    truth = view(*((spot, {"red blood cell": 1.0}) for spot in SPOTS[:5]), (SPOTS[5], {"ring": 1.0}))
    difficult = (60.0, 300.0, 100.0, 340.0)
    red = [(spot, {"red blood cell": 0.9}) for spot in SPOTS]
    seen = {
        "all_cells": view(*red, (difficult, {"schizont": 0.9})),
        "infected": view((SPOTS[5], {"ring": 0.8})),
    }
    ignore = np.array([difficult], dtype=np.float32)
    return {role: SeenImage(name, source, truth, ignore, found) for role, found in seen.items()}


def write_folds(out: Path, folds: int = 2) -> Path:
    for number in range(folds):
        held_out = [image(f"{number}-{k}", "blocks" if k else "loose") for k in range(3)]
        for role in ("all_cells", "infected"):
            about = {"recipe": {"folds": folds}}
            save_views(out / f"fold-{number}" / f"{role}.npz", [views[role] for views in held_out], about)
            kept = [image(f"{number}-kept", "loose")[role]]
            save_views(out / f"fold-{number}" / f"{role}-validation.npz", kept, about)
    return out


def test_views_come_back_as_they_were(tmp_path: Path) -> None:
    views = [image("a", "x")["all_cells"], SeenImage("b", "y", Instances.empty(SIZE), NO_BOX, Instances.empty(SIZE))]
    save_views(tmp_path / "deep" / "views.npz", views, {"a": 1})
    again, about = load_views(tmp_path / "deep" / "views.npz")
    assert about["a"] == 1
    for before, after in zip(views, again, strict=True):
        assert (before.sha256, before.source) == (after.sha256, after.source)
        assert np.array_equal(before.ignore, after.ignore)
        for one, other in ((before.truth, after.truth), (before.seen, after.seen)):
            for name in ("boxes", "labels", "scores", "probabilities"):
                assert np.array_equal(getattr(one, name), getattr(other, name))
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(StoredFileCorrupt, match="delete the file"):
        load_views(tmp_path / "bad.npz")


def test_known_detections_give_known_numbers(tmp_path: Path) -> None:
    comparison = score(write_folds(tmp_path), resamples=20)
    assert list(comparison.tables) == ["blocks", "loose", ALL]
    assert [table.images for table in comparison.tables.values()] == [4, 2, 6]
    verdicts = comparison.tables[ALL].verdicts
    assert list(verdicts)[-2:] == [NOT_FITTED, FUSED]
    # all_cells alone: the red boxes are 5 right, 1 wrong and all alike; it finds no ring, and its schizont counts not.
    assert verdicts["all_cells"].value("ap50", "ring") == 0
    assert verdicts["all_cells"].value("pooled_infected_ap50") == 0
    # With infected: found.
    assert verdicts["infected"].value("pooled_infected_ap50") == 1
    assert verdicts[FUSED].value("ap50", "ring") == 1
    assert verdicts[FUSED].value("macro_f1_stages") == 1
    assert verdicts[FUSED].value("parasitaemia", "mae") == pytest.approx(0, abs=1e-6)
    # Plain NMS lets the surer red box swallow the ring.
    assert verdicts["NMS"].value("pooled_infected_ap50") == 0
    assert verdicts["WBF by class"].value("ap50", "ring") == 1
    differences = comparison.differences(ALL)
    assert differences["pooled_infected_ap50",]["all_cells"].value == 1
    assert differences["pooled_infected_ap50",]["all_cells"].interval() == (1, 1)
    assert differences["pooled_infected_ap50",]["infected"].value == 0


def test_the_tables_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = write_folds(tmp_path / "out")
    files = tmp_path / "t.json", tmp_path / "t.md"
    with pytest.raises(SystemExit) as left:
        cli.main(
            ["crossval", "score", str(out), "--json", str(files[0]), "--markdown", str(files[1]), "--resamples", "9"]
        )
    assert not left.value.code
    printed = capsys.readouterr().out
    assert "2 of 2 folds; fusion fitted on: validation." in printed
    assert "## All sources pooled\n\n6 images: 30 red blood cell, 6 ring." in printed
    row = next(line for line in printed.splitlines() if line.startswith("| **fused** "))
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["1.00", "-", "1.00"]
    told = files[1].read_text()
    assert "1.00 [1.00, 1.00]" in told
    assert "+1.00 [1.00, 1.00] *" in told
    stored = json.loads(files[0].read_text())
    assert stored["tables"]["all"]["fused"]["ap50"]["ring"] == 1
    assert stored["tables"]["all"]["fused_minus"]["pooled_infected_ap50"]["NMS"] == {"value": 1, "interval": [1, 1]}
    assert (
        FusionConfig.from_json(stored["fusions"]["0"]) == FusionConfig()
    )  # one validation image: too few to fit anything


def test_the_fusion_of_a_fold_is_never_fitted_on_its_held_out_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_folds(tmp_path, folds=3)
    shown_to: list[int] = []

    def watched(views):  # type: ignore[no-untyped-def]
        shown_to.append(len(views))
        return FusionConfig(keep_threshold=0.123)

    monkeypatch.setattr(crossval_score, "fit_fusion", watched)
    assert score(out, fit="other-folds", resamples=2).fusions[1, ALL].keep_threshold == 0.123
    assert shown_to == [6, 6, 6]  # of nine images, three are held out each time
    shown_to.clear()
    apart = score(out, fit="other-folds", by_source=True, resamples=2)
    assert sorted(apart.fusions) == [(fold, source) for fold in range(3) for source in ("blocks", "loose")]
    assert shown_to == [4, 2] * 3  # of each source by itself
    assert sorted(apart.to_json()["fusions"])[:2] == ["0 blocks", "0 loose"]
    with pytest.raises(SettingRefused, match="leave out --by-source"):
        write_pairs(out, apart)
    shown_to.clear()
    score(out, resamples=2)
    assert shown_to == [1, 1, 1]
    assert score(out, fit="none", resamples=2).fusions[0, ALL] == FusionConfig()
    assert tuple(Fit) == crossval_score.FITS
    for path in out.glob("fold-*/*-validation.npz"):
        path.unlink()
    with pytest.raises(NotEnoughData, match="--fit other-folds"):
        score(out, resamples=2)


def test_a_folds_detectors_become_a_pair_that_says_what_it_has_seen(tmp_path: Path) -> None:
    out = write_folds(tmp_path / "out", folds=3)
    small = {"short_side": 96, "max_side": 128, "detections_per_image": 5, "proposals": 10}
    for role in ("all_cells", "infected"):
        config = DetectorConfig(role=role, **small)
        state = build_detector(config, pretrained=False).state_dict()
        for number in range(3):
            save_detector(out / f"fold-{number}" / role / WEIGHTS, config, state)
    first, *_ = write_pairs(out, score(out, resamples=2))
    pair, card = load_pair(first), read_card(first)
    assert (pair.name, pair.fusion) == ("out-fold-0", FusionConfig())
    assert card.about["trained_on"] == sorted(f"{fold}-{k}" for fold in (1, 2) for k in range(3))


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughData, match="run: cellloop crossval train"):
        read_folds(tmp_path)
    out = write_folds(tmp_path)
    save_views(out / "fold-1" / "infected.npz", [image("other", "x")["infected"]], {"recipe": {"folds": 2}})
    with pytest.raises(NotEnoughData, match="the same images with the same labels"):
        read_folds(out)
    (out / "fold-1" / "infected.npz").unlink()
    folds, count = read_folds(out)
    assert ([fold.number for fold in folds], count) == ([0], 2)


def test_numbers_are_short() -> None:
    nothing = np.full(3, np.nan)
    assert shown(None, True) == shown(Number.at(float("nan"), nothing), True) == "-"
    assert shown(Number.at(0.9126, np.array([0.9, 0.92])), False) == ".913"
    assert shown(Number.at(-0.05, nothing), True) == "-.050"
    assert shown(Number.at(0.9996, nothing), True) == "1.00"
