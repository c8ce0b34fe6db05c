"""The pair cache: one load per promotion, shared by all threads, and never a mixture of two pairs."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.detect import DetectorConfig, build_detector, save_detector
from backend.embed import EMBEDDING_SIZE, codes
from backend.errors import NoTrainedModel, StoredFileCorrupt, WeightsCorrupt
from backend.fuse import FusionConfig
from backend.instances import CLASSES
from backend.preannotate import Pair, preannotate
from backend.serving import PairCache, active_pair, cell_rows, predict_and_store, region_cells, spare_the_collector
from db import predictions, versions
from db.answers import ServingPair
from db.errors import NotFound
from db.packed import embeddings
from tests import builders
from tests.backend.server import Bench
from tests.backend.smears import DiscDetector, smear


def test_no_model_says_what_to_do(bench: Bench) -> None:
    cache = PairCache(bench.database, bench.store, loader=bench.pairs)
    with pytest.raises(NoTrainedModel, match="cellloop train"):
        cache.current()
    assert active_pair(bench.database) is None


def test_a_pair_that_no_row_names_yet_is_named(bench: Bench) -> None:
    bench.activate_pair()
    with bench.database.session() as session:
        version = builders.add_version(session, "infected")
        versions.activate(session, version.id, kind="gate", reasons=["better"])
    row = active_pair(bench.database)
    assert row is not None
    assert row.infected_id == version.id


def test_loaded_once_for_all_threads_and_again_after_a_promotion(bench: Bench) -> None:
    first = bench.activate_pair()
    inside = threading.Barrier(8)
    cache = PairCache(bench.database, bench.store, loader=bench.pairs)

    def ask(_: int) -> str:
        inside.wait(30)
        served = cache.current()
        assert served.row.name == served.pair.name
        return served.pair.name

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {first.name}
        assert bench.pairs.loaded == [first.name]
        second = bench.promote_infected()
        assert set(pool.map(ask, range(8))) == {second.name}
    assert bench.pairs.loaded == [first.name, second.name]


def test_a_process_that_serves_for_long_spares_the_collector_and_forgets_the_pair_before(bench: Bench) -> None:
    class Ring:
        """Only the collector finds it, when nobody has it any more."""

        def __init__(self) -> None:
            self.itself = self

    def frozen(ring: Ring) -> bool:
        return not any(ring is other for other in gc.get_objects())

    bench.activate_pair()
    cache = PairCache(bench.database, bench.store, loader=bench.pairs)
    try:
        cache.current()
        before = Ring()
        assert not frozen(before), "nobody asked for it"
        spare_the_collector()
        assert frozen(before)
        gone, since = weakref.ref(before), Ring()
        del before
        bench.promote_infected()
        cache.current()
        assert gone() is None
        assert frozen(since)
    finally:
        gc.unfreeze()


def test_a_failed_load_is_tried_again(bench: Bench) -> None:
    row = bench.activate_pair()
    failures = [WeightsCorrupt("weights: expected sha256 ab, got cd")]

    def load(wanted: ServingPair) -> Pair:
        if failures:
            raise failures.pop()
        return bench.pairs(wanted)

    cache = PairCache(bench.database, bench.store, loader=load)
    with pytest.raises(WeightsCorrupt):
        cache.current()
    assert cache.current().pair.name == row.name


def test_missing_weights_are_named(bench: Bench) -> None:
    bench.activate_pair()  # rows only: there is no such file
    with pytest.raises(StoredFileCorrupt, match=r"weights/.*missing"):
        PairCache(bench.database, bench.store, "cpu").current()


def test_our_own_weights_are_loaded_and_the_unchanged_detector_is_kept(bench: Bench, tmp_path: Path) -> None:
    detector = DetectorConfig(short_side=64, max_side=128, proposals=20, detections_per_image=10)
    files = {}
    for name, role in (("cells", "all_cells"), ("first", "infected"), ("second", "infected")):
        config = replace(detector, role=role)
        if name != "second":
            state = build_detector(config, pretrained=False).state_dict()
        save_detector(tmp_path / f"{name}.safetensors", config, state, half=name != "second")
        files[name] = bench.store.put_file("weights", tmp_path / f"{name}.safetensors").sha256
    with bench.database.session() as session:
        for role, name in (("all_cells", "cells"), ("infected", "first")):
            version = builders.add_version(session, role, weights_sha256=files[name])
            versions.activate(session, version.id, kind="first", reasons=["for a test"])
        versions.active_pair(session, FusionConfig(match_iou=0.6).to_json())
    cache = PairCache(bench.database, bench.store, "cpu")
    first = cache.current().pair
    with bench.database.session() as session:
        version = builders.add_version(session, "infected", weights_sha256=files["second"])
        versions.activate(session, version.id, kind="gate", reasons=["better"])
    second = cache.current().pair
    assert first.fusion.match_iou == 0.6
    assert second.all_cells is first.all_cells
    assert second.infected is not first.infected
    assert second.infected.config.role == "infected"


def test_rows_hold_what_fusion_found() -> None:
    pair = Pair("p", DiscDetector("all_cells"), DiscDetector("infected"), FusionConfig())  # type: ignore[arg-type]
    found = preannotate(smear(3, cells=3), pair)
    fused, rows = found.fused, cell_rows(found)
    assert len(rows) == 3
    for index, row in enumerate(rows):
        assert row.box == pytest.approx(fused.cells.boxes[index])
        assert row.label == fused.cells.class_names()[index]
        assert len(row.probabilities) == len(CLASSES)
        assert row.key is None
        np.testing.assert_array_equal(row.embedding, found.embeddings[index])
        assert row.code == codes(found.embeddings)[index] + 1
    alone = [row for row in rows if row.source == "all_cells"]
    assert len(alone) == 2
    assert all(row.score_infected is None and row.pair_iou is None for row in alone)
    assert not any(isinstance(value, np.generic) for row in rows for value in (row.score, *row.box))


def test_stored_once_and_read_back_for_label_studio(bench: Bench) -> None:
    image = bench.add_image(3, cells=3)
    bench.activate_pair()
    served = PairCache(bench.database, bench.store, loader=bench.pairs).current()
    first = predict_and_store(bench.database, bench.store, served, image)
    assert predict_and_store(bench.database, bench.store, served, image) == first
    with bench.database.session(read_only=True) as session:
        stored = predictions.predicted_cells(session, first)
        cells = region_cells(session, first)
        looks = embeddings(session, [first])[first]
        with pytest.raises(NotFound):
            region_cells(session, first + 1)
    assert looks.shape == (len(stored), EMBEDDING_SIZE)
    np.testing.assert_allclose(np.linalg.norm(looks, axis=1), 1, atol=1e-3)
    assert [(c.key, c.label, c.score) for c in cells] == [(key, row.label, row.score) for row, key in stored]
