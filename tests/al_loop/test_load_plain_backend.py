"""The backend we compare with: the same detector, run at each request, or once per image where answers are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from al_loop import load_plain_backend
from backend.detect import DetectorConfig, build_detector, save_detector
from backend.fuse import FusionConfig
from backend.label_studio.label_config import default_config
from backend.pairs import save_pair
from tests.backend.smears import png
from tests.threads import one_thread


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    for role in ("all_cells", "infected"):
        config = DetectorConfig(role=role, short_side=64, max_side=96, proposals=20, detections_per_image=5)
        save_detector(tmp_path / role, config, build_detector(config, pretrained=False).state_dict())
    save_pair(tmp_path / "pair", tmp_path / "all_cells", tmp_path / "infected", FusionConfig(), "tiny")
    return tmp_path / "pair"


def test_it_detects_at_each_request_or_once(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    detected: list[str] = []
    detect = load_plain_backend.PlainModel._detect

    def counted(model: load_plain_backend.PlainModel, file: str) -> dict[str, Any]:
        detected.append(file)
        return detect(model, file)

    monkeypatch.setattr(load_plain_backend.PlainModel, "_detect", counted)
    monkeypatch.setattr(load_plain_backend.PlainModel, "kept", {})
    task = {"id": 1, "data": {"image": "/data/local-files/?d=a.png"}}
    body = {"tasks": [task], "label_config": default_config()}
    with one_thread():
        for tuned, runs in ((False, 2), (True, 1)):
            detected.clear()
            client = load_plain_backend.create(str(weights), str(tmp_path), tuned).test_client()
            first, second = (client.post("/predict", json=body).get_json()["results"] for _ in range(2))
            assert first == second
            assert first[0]["model_version"] == "plain"
            assert len(detected) == runs
            hook = client.post("/webhook", json={"action": "ANNOTATION_CREATED", "annotation": {"id": 3}})
            assert hook.status_code == 201
