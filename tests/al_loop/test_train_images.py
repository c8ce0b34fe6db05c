"""Images decoded once, and mapped from a file by whoever goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from al_loop.crops import CachedImage
from al_loop.dataset import TrainingSample
from al_loop.train_images import image_files, load_images
from tests.al_loop.tiny_training import TINY, two_fields


@pytest.fixture
def samples(tmp_path: Path) -> list[TrainingSample]:
    return two_fields(tmp_path)


def same(one: CachedImage, other: CachedImage) -> bool:
    arrays = zip((one.pixels, *one.chips), (other.pixels, *other.chips), strict=True)
    numbers = [(one.boxes, other.boxes), (one.labels, other.labels), (one.ignore, other.ignore)]
    if one.reviewed is None or other.reviewed is None:
        assert one.reviewed is other.reviewed
    else:
        numbers.append((one.reviewed, other.reviewed))
    return one.known == other.known and all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in (*arrays, *numbers))


def test_mapped_images_are_the_decoded_ones_and_are_not_decoded_again(
    samples: list[TrainingSample], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    plain = load_images(TINY, samples)
    mapped = load_images(TINY, samples, tmp_path, lambda done, total: seen.append((done, total)))
    again = load_images(TINY, samples, tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert all(same(a, b) and same(a, c) for a, b, c in zip(plain, mapped, again, strict=True))
    assert again[0].pixels.base is not None
    assert not again[0].pixels.flags.writeable


def test_what_was_reviewed_of_an_image_is_mapped_too(samples: list[TrainingSample], tmp_path: Path) -> None:
    partly = [replace(samples[0], reviewed=samples[0].boxes[:2], known=0.25), samples[1]]
    plain, mapped = load_images(TINY, partly), load_images(TINY, partly, tmp_path)
    assert all(same(a, b) for a, b in zip(plain, mapped, strict=True))
    assert [image.known for image in mapped] == [0.25, 1.0]
    assert image_files(TINY, partly, tmp_path) != image_files(TINY, samples, tmp_path)


def test_other_labels_or_another_size_are_other_files(samples: list[TrainingSample], tmp_path: Path) -> None:
    fewer = [replace(samples[0], labels=("ring", *samples[0].labels[1:])), samples[1]]
    smaller = replace(TINY, detector=replace(TINY.detector, short_side=96))
    files = [image_files(*each, tmp_path) for each in ((TINY, samples), (TINY, fewer), (smaller, samples))]
    assert len(set(files)) == 3


def test_a_half_written_file_is_written_again(samples: list[TrainingSample], tmp_path: Path) -> None:
    pixels, index = image_files(TINY, samples, tmp_path)
    pixels.write_bytes(b"half")  # killed before the index was written
    assert same(load_images(TINY, samples, tmp_path)[1], load_images(TINY, samples)[1])
    assert index.is_file()
