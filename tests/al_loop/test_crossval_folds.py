from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from al_loop.crossval_folds import Source, folds_of, make_fold
from al_loop.dataset import LabelledCell, LabelledImage
from al_loop.labelled_files import LabelledFile
from backend.errors import NotEnoughData

BOX = (1.0, 1.0, 9.0, 9.0)


def file_of(number: int, group: str | None = None, *labels: str) -> LabelledFile:
    cells = tuple(LabelledCell(label, BOX) for label in ("red blood cell", *labels))
    name = f"field-{number:03d}.png"
    return LabelledFile(name, group, LabelledImage(f"{number:064x}", str(Path("images") / name), 20, 20, cells))


BLOCKS = [file_of(n, f"block-{n // 10:02d}", *(["ring"] if n % 3 else [])) for n in range(97)]
LOOSE = [file_of(100 + n, None, *(["gametocyte"] if n < 5 else []), *(["ring"] if n < 12 else [])) for n in range(23)]


def test_fields_in_order_are_divided_into_blocks_where_a_group_ends() -> None:
    folds = folds_of(BLOCKS, 5)
    assert folds == sorted(folds)
    assert Counter(folds) == {0: 20, 1: 20, 2: 20, 3: 20, 4: 17}
    groups = [{k for k, file in zip(folds, BLOCKS, strict=True) if file.group == name} for name in {"block-03"}]
    assert [len(found) for found in groups] == [1]


def test_folds_do_not_depend_on_the_order_of_the_files() -> None:
    for files in (BLOCKS, LOOSE):
        by_name = dict(zip([f.name for f in files], folds_of(files, 5), strict=True))
        again = dict(zip([f.name for f in files[::-1]], folds_of(files[::-1], 5), strict=True))
        assert by_name == again


def test_groups_larger_than_folds_leave_no_fold_empty() -> None:
    files = [file_of(n, "a slide" if n < 8 else "another") for n in range(10)]
    assert folds_of(files, 5) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_loose_images_give_each_fold_some_of_the_rarest() -> None:
    folds = folds_of(LOOSE, 5)
    assert sorted(folds[:5]) == [0, 1, 2, 3, 4]  # the five gametocytes
    assert set(folds[5:12]) == {0, 1, 2, 3, 4}
    assert sorted(Counter(folds).values()) == [4, 4, 5, 5, 5]
    assert folds_of(LOOSE, 5, seed=1) != folds


def test_every_image_is_held_out_once_and_never_seen_before() -> None:
    sources = [Source("blocks", tuple(BLOCKS)), Source("loose", tuple(LOOSE))]
    held_out: list[str] = []
    for number in range(5):
        fold = make_fold(sources, number, 5)
        parts = [
            {f.labelled.sha256: name for name, files in part.items() for f in files}
            for part in (fold.training, fold.validation, fold.held_out)
        ]
        assert sum(len(part) for part in parts) == len(parts[0] | parts[1] | parts[2]) == 120
        assert 0.08 <= len(parts[1]) / (len(parts[0]) + len(parts[1])) <= 0.16
        training, validation = ({f.group for f in part["blocks"]} for part in (fold.training, fold.validation))
        assert not training & validation  # neighbours of a calibration image are not trained on
        assert {f.group for f in fold.held_out["blocks"]}.isdisjoint(training | validation)
        held_out += parts[2]
    assert sorted(held_out) == sorted(f.labelled.sha256 for f in [*BLOCKS, *LOOSE])


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="got 5 folds of 3 images"):
        folds_of(LOOSE[:3], 5)
