"""The card of the starter weights: scores come in from a file of numbers, and a wrong file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from al_loop.starter_card import CARD_TEXT, add_scores, write_card
from backend.errors import UnusableAnnotations
from backend.fuse import FusionConfig
from backend.pairs import read_card, save_pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for role in ("a", "b"):
        (tmp_path / role).write_bytes(role.encode())
    config = {"batch_size": 2, "crop": 384, "steps": 9, "detector": {"preset": "lite", "short_side": 640}}
    about = {
        "images": 60,
        "rendered": 26,
        "command": "cellloop starter train",
        "training": {"infected": {"config": config}},
    }
    save_pair(tmp_path / "pair", tmp_path / "a", tmp_path / "b", FusionConfig(), "starter", about)
    return tmp_path / "pair"


def test_scores_are_put_into_card_and_pair(folder: Path, tmp_path: Path) -> None:
    text = write_card(folder).read_text()
    assert "Not measured yet" in text
    assert "60 images" in text
    assert "9 steps of 2 crops of 384 px" in text
    view = {"ap50": {"ring": 0.5, "leukocyte": None}, "pooled_infected_ap50": 0.81, "intervals": {"much": "else"}}
    (tmp_path / "scores.json").write_text(json.dumps({"images": 7, "fused": view, "infected": {"ap50": {}}}))
    text = add_scores(folder, tmp_path / "scores.json", "seven images").read_text()
    assert "Measured on seven images." in text
    assert "| AP50 ring | 0.500 | - |" in text
    assert "| pooled infected AP50 | 0.810 | - |" in text
    assert "leukocyte" not in text
    assert read_card(folder).about["scores"]["fused"]["pooled_infected_ap50"] == 0.81
    assert read_card(folder).about["images"] == 60


@pytest.mark.parametrize("content", ["no json", "[]", "{}", '{"fused": 3}', '{"fused": {"ap50": 1}}'])
def test_other_files_are_refused_and_change_nothing(folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(UnusableAnnotations, match="evaluate --json"):
        add_scores(folder, tmp_path / "scores.json", "nothing")
    assert "scores" not in read_card(folder).about
    assert not (folder / CARD_TEXT).exists()
