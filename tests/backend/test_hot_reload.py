"""Versions are promoted and rolled back while experts ask: no request fails, and each answer is one pair's alone."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from backend.api.app import create_app
from backend.detect import DetectorConfig, build_detector, save_detector
from backend.fuse import FusionConfig
from backend.preannotate import Pair
from db import predictions, versions
from db.answers import ServingPair, answers
from db.models import Image
from tests import builders
from tests.backend.server import Bench, running
from tests.backend.smears import DiscDetector
from tests.threads import one_thread

TINY = DetectorConfig(short_side=96, max_side=160, proposals=40, detections_per_image=10)
THREADS = 4
CHANGES = 12
STORED = 4  # images of the pool that every pair has predicted when it begins to serve; the others are detected
Told = tuple[int, list[int], list[dict[str, Any]]]  # status, images asked for, items


def add_versions(bench: Bench, folder: Path) -> dict[str, list[int]]:
    """Three untrained detectors per role, no two alike; ids by role. The first of each serves."""
    made: dict[str, list[int]] = {"all_cells": [], "infected": []}
    for seed, role in itertools.product(range(3), made):
        torch.manual_seed(seed)
        config, file = replace(TINY, role=role), folder / f"{role}-{seed}.safetensors"
        save_detector(file, config, build_detector(config, pretrained=False).state_dict())
        stored = bench.store.put_file("weights", file)
        with bench.database.session() as session:
            made[role].append(builders.add_version(session, role, weights_sha256=stored.sha256).id)
    with bench.database.session() as session:
        for ids in made.values():
            versions.activate(session, ids[0], kind="first", reasons=["for a test"])
        versions.active_pair(session)
    return made


def change(bench: Bench, made: dict[str, list[int]], stored: list[Image], told: list[Told]) -> None:
    """Other versions serve, one role or both at once, forth and back; half of the pool is predicted by then."""
    for number in range(1, CHANGES + 1):
        deadline = time.monotonic() + 60
        while len(told) < number * 3:
            assert time.monotonic() < deadline, "nobody is answered any more"
            time.sleep(0.005)
        with bench.database.session() as session:
            for role in ("all_cells", "infected")[number % 3 == 0 :]:
                wanted = made[role][(number // (2 if role == "all_cells" else 1)) % 3]
                serving = versions.active(session, role)
                assert serving is not None
                if serving.id != wanted:
                    kind = "rollback" if wanted < serving.id else "gate"
                    versions.activate(session, wanted, kind=kind, reasons=["for a test"])
            pair = versions.active_pair(session)
            assert pair is not None
            for image in stored:
                if predictions.get_prediction(session, image.id, pair.id) is None:
                    builders.add_prediction(session, image, pair, score=0.5 + pair.id / 100)


def ask(url: str, bench: Bench, pool: list[Image], told: list[Told], over: threading.Event, seed: int) -> None:
    """Ask for a few images again and again until it is over, and note what was answered."""
    turns = itertools.count(seed)
    with httpx.Client(base_url=url, auth=bench.basic, timeout=60) as http:
        while not over.is_set():
            turn = next(turns)
            asked = [pool[(turn * 5 + step) % len(pool)] for step in range(4)]
            response = http.post("/predict", json=bench.body(*asked))
            told.append((response.status_code, [image.id for image in asked], response.json()["results"]))


def test_every_answer_is_one_pairs_and_none_fails(bench: Bench, tmp_path: Path) -> None:
    made = add_versions(bench, tmp_path)
    pool = [bench.add_image(seed, cells=3) for seed in range(STORED + 2)]
    told: list[Told] = []
    over = threading.Event()
    with one_thread(), running(create_app(bench.settings)) as url, ThreadPoolExecutor(THREADS) as threads:
        asking = [threads.submit(ask, url, bench, pool, told, over, seed) for seed in range(THREADS)]
        try:
            change(bench, made, pool[:STORED], told)
        finally:
            over.set()
        for future in asking:
            future.result()

    assert {status for status, _, _ in told} == {200}
    names = {items[0]["model_version"] for _, _, items in told}
    assert len(names) > 3, "several pairs served meanwhile"
    detected = 0
    with bench.database.session(read_only=True) as session:
        ids = [image.id for image in pool]
        truth = {}
        for name in names:
            pair = versions.pair_named(session, name)
            assert pair is not None
            truth[name] = answers(session, pair.id, ids)
    for _, asked, items in told:
        assert len({item["model_version"] for item in items}) == 1, "one pair per answer"
        for image_id, item in zip(asked, items, strict=True):
            if "result" not in item:
                assert "waits for the worker" in item["reason"]
                continue
            stored = truth[item["model_version"]][image_id]
            shown = {region["id"]: region["score"] for region in item["result"]}
            assert shown == pytest.approx({cell.key: cell.score for cell in stored.cells}, abs=1e-3)
            detected += image_id in ids[STORED:]
    assert detected > 0, "real detectors looked at some"


def test_stored_answers_do_not_wait_for_a_pair_that_loads(bench: Bench) -> None:
    stored, missing = bench.add_image(1), bench.add_image(2)
    bench.activate_pair()
    bench.predict(stored)
    loading, go_on = threading.Event(), threading.Event()

    def load(row: ServingPair) -> Pair:
        loading.set()
        assert go_on.wait(60)
        return Pair(row.name, DiscDetector("all_cells"), DiscDetector("infected"), FusionConfig())  # type: ignore[arg-type]

    bench.pairs = load  # type: ignore[assignment]
    with bench.client() as client, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.post, "/predict", json=bench.body(missing))
        assert loading.wait(60)
        (item,) = client.post("/predict", json=bench.body(stored)).json()["results"]
        assert len(item["result"]) == 2
        assert not waiting.done()
        go_on.set()
        (item,) = waiting.result(60).json()["results"]
        assert len(item["result"]) == 2
