"""An ML backend in HumanSignal's way, to compare with: Flask under gunicorn, a model object per request, the detector
run in it. Written for the comparison after their documentation of the protocol; the way is theirs, the code is not.

As their template does it, the detector runs at each request. Tuned, answers are kept by image and given again: what a
careful user of the template would do. Weights are loaded once per process in both, which the template leaves open.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from backend.errors import ComparisonUnavailable

THREADS, WORKERS = 8, 1  # as the template's container starts gunicorn
MISSING = "expected flask and gunicorn for the comparison; install them: .venv/bin/pip install -e '.[dev]'"


class PlainModel:
    """One request's model object."""

    kept: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - shared by all objects, as the template's cache
    lock = threading.Lock()

    def __init__(self, pair: Any, files: Path, label_config: str, tuned: bool) -> None:
        from backend.label_studio.label_config import parse

        self.pair = pair
        self.files = files
        self.config = parse(label_config)
        self.tuned = tuned

    def predict(self, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One prediction per task."""
        return [self._predict(parse_qs(urlsplit(task["data"]["image"]).query)["d"][0]) for task in tasks]

    def _predict(self, file: str) -> dict[str, Any]:
        if self.tuned and file in self.kept:
            return self.kept[file]
        found = self._detect(file)
        if self.tuned:
            with self.lock:
                self.kept[file] = found
        return found

    def _detect(self, file: str) -> dict[str, Any]:
        from backend.images import read_image
        from backend.instances import CLASSES
        from backend.label_studio.regions import RegionCell, to_regions
        from backend.preannotate import preannotate

        seen = preannotate(read_image((self.files / file).read_bytes()), self.pair).fused.cells
        cells = [
            RegionCell(f"{file[-8:]}{n}", tuple(map(float, box)), CLASSES[label], float(score))  # type: ignore[arg-type]
            for n, (box, label, score) in enumerate(zip(seen.boxes, seen.labels, seen.scores, strict=True))
        ]
        regions = to_regions(cells, self.config, seen.image_size)
        return {"model_version": "plain", "score": float(seen.scores.mean()) if len(cells) else 0.0, "result": regions}

    def fit(self, event: str, data: dict[str, Any]) -> None:
        """What the template does with a webhook: it keeps the last one."""
        with self.lock:
            self.kept[f"last {event}"] = {"annotation": data.get("annotation", {}).get("id")}


def create(weights: str, files: str, tuned: bool) -> Any:
    """The Flask application, for gunicorn. Raises ComparisonUnavailable without flask."""
    import torch

    from backend.pairs import load_pair

    try:
        from flask import Flask, jsonify, request
    except ImportError as error:
        raise ComparisonUnavailable(MISSING) from error
    torch.set_num_threads(1)
    pair = load_pair(Path(weights))
    app = Flask("plain")

    @app.post("/predict")
    def predict() -> Any:
        body = request.get_json()
        model = PlainModel(pair, Path(files), body["label_config"], tuned)
        return jsonify({"results": model.predict(body["tasks"])})

    @app.post("/webhook")
    def webhook() -> Any:
        body = json.loads(request.data)
        PlainModel(pair, Path(files), body.get("label_config") or _config(), tuned).fit(body["action"], body)
        return jsonify({"status": "ok"}), 201

    @app.get("/health")
    def health() -> Any:
        return jsonify({"status": "UP"})

    return app


def _config() -> str:
    from backend.label_studio.label_config import default_config

    return default_config()
