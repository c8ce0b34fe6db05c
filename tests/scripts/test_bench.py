"""`cellloop bench`: numbers as JSON on tiny settings, and a plain word when there is nothing to measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backend.detect import DetectorConfig, build_detector, save_detector
from backend.fuse import FusionConfig
from backend.pairs import save_pair
from scripts import cli

TINY = ["--fields", "1", "--size", "64x96", "--cells", "4", "--device", "cpu", "--json"]


def run(*arguments: str) -> int:
    threads = torch.get_num_threads()
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", *arguments])
    torch.set_num_threads(threads)
    return int(left.value.code or 0)


def test_detecting_answers_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for role in ("all_cells", "infected"):
        config = DetectorConfig(role=role, short_side=64, max_side=96, proposals=20, detections_per_image=5)
        save_detector(tmp_path / role, config, build_detector(config).state_dict())
    save_pair(tmp_path / "pair", tmp_path / "all_cells", tmp_path / "infected", FusionConfig(), "tiny")
    assert run("detect", "--weights", str(tmp_path / "pair"), *TINY) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"speedup", "speedup_rectangles", "ap50_delta", "device"} <= report.keys()
    assert report["threads"] == 1


def test_without_weights_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("detect", "--weights", str(tmp_path), *TINY) == 1
    assert "pair.json" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["detect", "train"])
def test_a_wrong_size_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--size", "big") == 1
    assert "error: " in capsys.readouterr().err


def test_ranking_answers_for_every_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("rank", "--cells", "1000", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert {"cells", "seconds", "peak_mb", "one_label_ms"} <= report.keys()
    assert [each["cells"] for each in report["sizes"]] == [1000]
    assert report["peak_mb"] > 50


def test_experts_at_the_real_server_lose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for role in ("all_cells", "infected"):
        config = DetectorConfig(role=role, short_side=64, max_side=96, proposals=20, detections_per_image=12)
        save_detector(tmp_path / role, config, build_detector(config, pretrained=False).state_dict())
    save_pair(tmp_path / "pair", tmp_path / "all_cells", tmp_path / "infected", FusionConfig(), "tiny")
    shape = ["--weights", str(tmp_path / "pair"), "--fields", "3", "--size", "64x96", "--cells", "4"]
    assert run("serve", *shape, "--experts", "4", "--seconds", "2", "--compared", "0", "--hurry", "4", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["errors"], report["lost"], report["what_went_wrong"]) == (0, 0, [])
    assert all(report[name] > 0 for name in ("predict_p99_ms", "webhook_p99_ms", "crop_p99_ms"))
    assert report["ratio_vs_tuned"] is report["ratio_vs_per_request"] is None, "nothing was compared"
    assert report["submitted"] == report["requests"]["webhook"]["n"] > 0


def test_no_two_experts_get_the_same(
    new_postgres_database: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("queue", "--database", new_postgres_database(), "--experts", "8", "--rounds", "2", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["asked"], report["double"]) == (16, 0)
