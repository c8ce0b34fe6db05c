"""A pair of detectors as a folder: it comes back as it was saved, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend import pairs
from backend.detect import Detector, DetectorConfig, build_detector, save_detector
from backend.errors import NoTrainedModel, WeightsCorrupt
from backend.fuse import FusionConfig, Platt
from backend.instances import ROLES
from backend.pairs import load_pair, read_card, save_pair, weights_name

SMALL = DetectorConfig(short_side=96, max_side=128, proposals=50, score_threshold=0.0)
FUSION = FusionConfig(keep_threshold=0.3, infected=Platt(1.5, -0.2))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained detectors of both roles on disk."""
    folder = tmp_path_factory.mktemp("weights")
    files = {role: folder / f"{role}.bin" for role in ROLES}
    for role, file in files.items():
        config = replace(SMALL, role=role)
        save_detector(file, config, build_detector(config).state_dict())
    return files


@pytest.fixture
def folder(tmp_path: Path, weights: dict[str, Path]) -> Path:
    save_pair(tmp_path / "pair", *weights.values(), FUSION, "starter 1", {"licence": "CC BY-NC-SA 3.0"})
    return tmp_path / "pair"


def test_a_pair_comes_back_as_it_was_saved(folder: Path, weights: dict[str, Path]) -> None:
    pair = load_pair(folder)
    assert (pair.name, pair.fusion) == ("starter 1", FUSION)
    assert [pair.all_cells.config.role, pair.infected.config.role] == list(ROLES)
    assert read_card(folder).about == {"licence": "CC BY-NC-SA 3.0"}
    assert sorted(path.name for path in folder.iterdir()) == sorted([*map(weights_name, ROLES), "pair.json"])
    assert (folder / "infected.safetensors").read_bytes() == weights["infected"].read_bytes()
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    config = replace(SMALL, role="all_cells")
    assert isinstance(pair.all_cells, Detector)
    assert pair.all_cells.config == config
    assert pair.all_cells.detect(image).image_size == (96, 128)


def test_saving_over_itself_keeps_a_pair(folder: Path) -> None:
    card = read_card(folder)
    again = save_pair(folder, folder / "all_cells.safetensors", folder / "infected.safetensors", FUSION, "renamed")
    assert (again.all_cells_sha256, again.infected_sha256) == (card.all_cells_sha256, card.infected_sha256)
    assert load_pair(folder).name == "renamed"


def test_a_folder_without_a_pair_says_what_belongs_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoTrainedModel, match=r"found no pair\.json"):
        load_pair(tmp_path / "nowhere")
    monkeypatch.setattr(pairs, "STARTER", tmp_path / "starter")
    with pytest.raises(NoTrainedModel, match="--weights FOLDER"):
        load_pair(tmp_path / "starter")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 3}', "\xff", "[" * 100_000])
def test_a_damaged_card_is_refused(folder: Path, text: str) -> None:
    (folder / "pair.json").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsCorrupt, match="expected the card of a pair"):
        load_pair(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("name", 3), ("fusion", {"unheard": 1}), ("fusion", {"cell": {"a": -1}}), ("surplus", 1)]
)
def test_a_card_with_a_wrong_entry_is_refused(folder: Path, key: str, value: object) -> None:
    card = json.loads((folder / "pair.json").read_text())
    (folder / "pair.json").write_text(json.dumps({**card, key: value}))
    with pytest.raises(WeightsCorrupt, match="expected the card of a pair"):
        load_pair(folder)


def test_changed_missing_and_exchanged_weights_are_refused(folder: Path, weights: dict[str, Path]) -> None:
    file = folder / "infected.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsCorrupt, match=r"infected\.safetensors: expected sha256"):
        load_pair(folder)
    file.unlink()
    with pytest.raises(WeightsCorrupt, match=r"infected\.safetensors: expected a weight file"):
        load_pair(folder)
    save_pair(folder, weights["infected"], weights["all_cells"], FUSION, "exchanged")
    with pytest.raises(WeightsCorrupt, match=r"expected a detector of all_cells in .*, got one of infected"):
        load_pair(folder)
    with pytest.raises(WeightsCorrupt, match="cannot read it"):
        save_pair(folder, weights["all_cells"], folder / "none", FUSION, "x")
