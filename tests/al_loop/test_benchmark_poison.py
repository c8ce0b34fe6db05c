"""Poisoned labels arrive as reviews, real trainings learn from them, and the real gate is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from al_loop.benchmark_poison import ARMS, Shares, benchmark_poison, deal, poisoned
from al_loop.dataset import LabelledCell, LabelledImage
from al_loop.labelled_files import LabelledFile, read_labelled
from al_loop.rendered import write_coco_folder
from backend.errors import NotEnoughData
from backend.instances import INFECTED
from tests.threads import one_thread

IMAGE = LabelledImage(
    "0", "0.png", 100, 100, tuple(LabelledCell(name, (0.0, 0.0, 9.0, 9.0)) for name in (*INFECTED, "red blood cell"))
)


def test_each_poison_changes_what_it_says() -> None:
    rng = np.random.default_rng(0)
    assert poisoned(IMAGE, "clean", rng) == IMAGE
    called = [cell.label for cell in poisoned(IMAGE, "rings", rng).cells]
    assert called == ["schizont" if cell.label == "ring" else cell.label for cell in IMAGE.cells]
    flipped = [poisoned(IMAGE, "flipped", rng).cells for _ in range(500)]
    changed = np.mean(
        [[a.label != b.label for a, b in zip(IMAGE.cells, cells, strict=True)] for cells in flipped], axis=0
    )
    assert changed[:4] == pytest.approx(0.3, abs=0.08)
    assert changed[4] == 0, "infected labels only"
    others = [b.label for cells in flipped for a, b in zip(IMAGE.cells, cells, strict=True) if a.label != b.label]
    assert np.mean([label == "red blood cell" for label in others]) == pytest.approx(0.5, abs=0.1)


def test_groups_are_dealt_whole_and_every_seed_deals_anew() -> None:
    files = [LabelledFile(str(n), f"slide {n // 4}", replace(IMAGE, sha256=str(n))) for n in range(40)]
    dealt = deal(files, Shares(), 1)
    parts = [{file.group for file in part} for part in (dealt.test, dealt.validation, dealt.known, dealt.new)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10
    assert [len(part) for part in parts] == [4, 1, 2, 3]
    assert deal(files, Shares(), 1) == dealt != deal(files, Shares(), 2)
    with pytest.raises(NotEnoughData, match="got 1 in all"):
        deal(files[:1], Shares(), 1)


def test_poisoned_labels_take_the_whole_path_to_the_gates_reasons(tmp_path: Path) -> None:
    """From labelled files to a verdict. Few steps on few fields show the path, not what the gate can tell apart: a
    candidate of clean labels may be refused here, too. How often each is, on real smears: docs/results/gate.md.
    """
    folder = write_coco_folder(tmp_path / "fields", 16, 77, size=(300, 400), cells=16, infected=0.5, difficult=0)
    with one_thread():
        found = benchmark_poison(
            read_labelled(folder)[0],
            tmp_path / "homes",
            [1],
            {"device": "cpu", "train_steps": 6, "train_crop": 160},
            Shares(0.45, 0.25, 0.0),
            arms=("rings",),
        )
    [arm] = found["arms"]
    assert arm["labels"] == "rings"
    assert arm["changed"] > 5
    assert not arm["promote"]
    assert {"pooled infected AP50", "AP50 of infected cells by stage", "new labels"} <= set(arm["numbers"])
    assert arm["reasons"]
    assert found["promoted"] == {"rings": 0}
    assert set(ARMS) == {"clean", "flipped", "rings"}
