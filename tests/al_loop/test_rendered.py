"""The rendered COCO folder: the same bytes for the same seed, and read back exactly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from al_loop.formats.detect import detect_format, read_source
from al_loop.render import render_smear
from al_loop.rendered import FIELDS_PER_SLIDE, write_coco_folder
from backend.images import read_image
from backend.instances import DIFFICULT

SMALL = {"size": (150, 200), "cells": 8}


def test_the_folder_reads_back_as_it_was_rendered(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    out = write_coco_folder(tmp_path / "r", 5, seed=2, on_progress=lambda a, b: steps.append((a, b)), **SMALL)
    assert steps == [(n, 5) for n in range(1, 6)]
    assert detect_format(out) == "rendered"
    images = read_source(out)
    assert len(images) == 5
    for index, image in enumerate(images):
        slide = 20_000 + index // FIELDS_PER_SLIDE
        smear = render_smear(20_000 + index, (150, 200), 8, slide_seed=slide)
        with image.open() as handle:
            np.testing.assert_array_equal(read_image(handle.read()), smear.image)
        objects, problems = image.usable_objects(200, 150)
        assert not problems + list(image.problems)
        known = [thing for thing in objects if thing.label != DIFFICULT]
        assert [thing.label for thing in known] == smear.cells.class_names()
        np.testing.assert_array_equal([thing.box for thing in known], smear.cells.boxes)
        assert [t.mask["counts"] for t in known if t.mask] == [m["counts"] for m in smear.cells.masks]
        assert len(objects) - len(known) == len(smear.difficult)
    assert sorted(Counter(image.group for image in images).values()) == [1, 4]


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_coco_folder(tmp_path / name, 2, seed=1, **SMALL) for name in "ab")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 3
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()
