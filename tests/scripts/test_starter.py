"""`cellloop starter`: options reach the training, scores the card, and a folder that is none is told in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from al_loop import calibrate_pair, preannotate_pool, rank, starter, starter_install
from al_loop.starter import StarterPlan
from backend.fuse import FusionConfig
from backend.pairs import CARD, save_pair
from db import migrate
from scripts import cli, demonstration
from scripts.composition import open_loop, read_settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process on an empty home: exit status, stdout, stderr."""
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "home"))

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(["starter", *arguments])
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return command


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    (tmp_path / "w").write_bytes(b"weights")
    save_pair(tmp_path / "pair", tmp_path / "w", tmp_path / "w", FusionConfig(), "starter")
    return tmp_path / "pair"


def test_options_reach_the_training(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def train(plan: StarterPlan, roles: Sequence[str], report: Callable[..., None]) -> Path:
        report(1, 1, "infected: step 1")
        asked.extend([plan, list(roles)])
        return tmp_path / "there"

    monkeypatch.setattr(starter, "train_starter", train)
    words = [
        "--fold",
        "2",
        "--folds",
        "4",
        "--rendered",
        "7",
        "--steps",
        "9",
        "--seed",
        "3",
        "--role",
        "infected",
        "--shared-trunk",
        "--set",
        "crop=96",
    ]
    status, said, told = run("train", "--bbbc041", "data", "--out", "out", *words)
    assert (status, said.strip()) == (0, str(tmp_path / "there"))
    assert "infected: step 1 (1 of 1)" in told
    plan, roles = asked
    assert roles == ["infected"]
    assert (plan.fold, plan.folds, plan.rendered, plan.steps, plan.seed, plan.shared_trunk) == (2, 4, 7, 9, 3, True)
    assert plan.config("infected", None).crop == 96
    assert "--rendered 7 --steps 9 --shared-trunk --set crop=96" in plan.command()


def test_a_share_of_one_is_refused(run: Run) -> None:
    status, _, told = run("train", "--bbbc041", "data", "--out", "out", "--rendered-share", "1")
    assert status == 1
    assert "--rendered-share" in told


def test_scores_reach_the_card(run: Run, pair: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps({"fused": {"ap50": {"ring": 0.4}}}))
    status, said, _ = run("card", str(pair), "--scores", str(tmp_path / "scores.json"), "--on", "five folds")
    assert status == 0
    assert "| AP50 ring | 0.400 |" in Path(said.strip()).read_text()


def test_a_folder_that_is_no_pair_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        cli.main(["migrate"])
    status, _, told = run("install", "--weights", str(tmp_path))
    assert status == 1
    assert CARD in told
    assert len(told.strip().splitlines()) == 1


@pytest.mark.parametrize("train_first", [False, True])
def test_the_demonstration_trains_only_without_starter_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pair: Path, train_first: bool
) -> None:
    done: list[str] = []
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(demonstration, "STARTER", pair)
    monkeypatch.setattr(starter_install, "install_starter", lambda loop: done.append("installed"))
    monkeypatch.setattr(demonstration, "_child", lambda stack, loop, *words: done.append(" ".join(words)))
    monkeypatch.setattr(demonstration, "_watch_training", lambda loop, children: None)
    for module, name in ((calibrate_pair, "ensure_pair"), (preannotate_pool, "preannotate_pool"), (rank, "rank")):
        monkeypatch.setattr(module, name, lambda *arguments: None)
    migrate.upgrade(read_settings().database_url)
    loop = open_loop()
    wishes = demonstration.Wishes(None, False, False, None, None, None, train_first=train_first)
    demonstration._first_models(loop, wishes)
    assert done == (["train --role all_cells", "train --role infected"] if train_first else ["installed"])
