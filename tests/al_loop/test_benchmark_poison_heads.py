"""Many turns of the gate by heads that learn in a second: clean labels are let through, each kind of poison is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from al_loop.benchmark_poison import Shares
from al_loop.benchmark_poison_heads import benchmark_heads
from al_loop.labelled_files import read_labelled
from al_loop.rendered import write_coco_folder
from backend.errors import NotEnoughData
from backend.pairs import STARTER, weights_name
from tests.threads import one_thread

WEIGHTS = STARTER / weights_name("all_cells")


def test_the_gate_refuses_each_poison_and_lets_as_many_clean_labels_pass(tmp_path: Path) -> None:
    """One deal of rendered fields. How often, on real smears: docs/results/gate.md."""
    folder = write_coco_folder(tmp_path / "fields", 12, 77, size=(400, 600), cells=32, infected=0.5, difficult=0)
    with one_thread():
        found = benchmark_heads(
            read_labelled(folder)[0],
            WEIGHTS,
            tmp_path / "cache",
            [0],
            Shares(0.3, 0.0, 0.3),
            arms=("clean", "flipped", "stages", "rings"),
        )
    turns = {turn["labels"]: turn for turn in found["arms"]}
    assert {arm: turn["promote"] for arm, turn in turns.items() if arm != "equal"} == {
        "clean": True,
        "flipped": False,
        "stages": False,
        "rings": False,
        "worse": False,
    }
    assert turns["clean"]["changed"] == 0 < min(turns["flipped"]["changed"], turns["rings"]["changed"])
    assert turns["stages"]["ruler"], "the test split alone does not see it: the candidate is no worse all the same"
    assert turns["stages"]["reasons"][0].startswith("new labels")
    assert found["promoted"]["clean"] == {
        "promoted": 1,
        "of": 1,
        "interval": [pytest.approx(0.207, abs=0.001), 1.0],
        "by_the_ruler_alone": 1,
    }


def test_without_images_there_is_nothing_to_judge(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughData, match="the detector proposes none in 0"):
        benchmark_heads([], WEIGHTS, tmp_path, [0])
