"""Which images a fold holds back, which it calibrates on, and which it trains on. Pure: images in, folds out.

Neighbouring fields of one slide look alike, so where slides or blocks are known a fold is a run of consecutive ones;
where none are known (BBBC041), images are dealt out so that each fold gets some of every stage.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from al_loop.labelled_files import LabelledFile
from al_loop.splits import Group, choose_labelled
from backend.errors import NotEnoughData
from backend.instances import INFECTED

VALIDATION_SHARE = 0.12  # of the training images: the fusion is fitted on them, no detector ever sees them


@dataclass(frozen=True)
class Source:
    """One labelled data set. name: unique among those of one cross-validation."""

    name: str
    files: tuple[LabelledFile, ...]


@dataclass(frozen=True)
class Fold:
    """One turn: the images of each source, by its name, in three parts that share no image."""

    number: int
    training: dict[str, tuple[LabelledFile, ...]]
    validation: dict[str, tuple[LabelledFile, ...]]
    held_out: dict[str, tuple[LabelledFile, ...]]


def folds_of(files: Sequence[LabelledFile], count: int, seed: int = 0) -> list[int]:
    """The fold, 0 to count - 1, of each file. The same images give the same folds, in whatever order they come.

    Files with groups: contiguous blocks by group and name, cut where a group ends if that is possible.
    Files without: the rarest stages are dealt out first, one image to each fold in turn.
    Raises NotEnoughData with fewer files than folds.
    """
    if not 2 <= count <= len(files):
        raise NotEnoughData(
            f"cross-validation: expected from 2 folds to as many as a source has images, got {count} folds of "
            f"{len(files)} images; choose other --folds"
        )
    if all(file.group is not None for file in files):
        return _blocks(files, count)
    return _dealt(files, count, seed)


def _blocks(files: Sequence[LabelledFile], count: int) -> list[int]:
    order = sorted(range(len(files)), key=lambda index: (str(files[index].group), files[index].name))
    groups = [files[index].group for index in order]
    ends = [position for position in range(1, len(order)) if groups[position] != groups[position - 1]]
    wanted = [round(len(order) * k / count) for k in range(1, count)]
    cuts = [min(ends, key=lambda end, want=want: abs(end - want)) for want in wanted] if ends else wanted  # type: ignore[misc]
    if len(set(cuts)) < len(cuts):  # groups as large as folds: neighbours are parted rather than folds left empty
        cuts = wanted
    folds = [0] * len(order)
    for position, index in enumerate(order):
        folds[index] = sum(cut <= position for cut in cuts)
    return folds


def _dealt(files: Sequence[LabelledFile], count: int, seed: int) -> list[int]:
    stages = [{cell.label for cell in file.labelled.cells} & set(INFECTED) for file in files]
    images_with = Counter(stage for found in stages for stage in found)

    def key(index: int) -> tuple[int, str, str]:
        rarest = min(((images_with[stage], stage) for stage in stages[index]), default=(len(files) + 1, ""))
        return (*rarest, hashlib.sha256(f"{seed}/{files[index].labelled.sha256}".encode()).hexdigest())

    folds = [0] * len(files)
    for position, index in enumerate(sorted(range(len(files)), key=key)):
        folds[index] = position % count
    return folds


def make_fold(
    sources: Sequence[Source],
    number: int,
    count: int,
    *,
    train_on: Sequence[str] | None = None,
    validation_share: float = VALIDATION_SHARE,
    seed: int = 0,
) -> Fold:
    """Fold `number` of `count`, held out of every source at once.

    train_on: names of the sources that training and validation are taken from (default: all).
    """
    training, validation, held_out = {}, {}, {}
    for source in sources:
        folds = folds_of(source.files, count, seed)
        held_out[source.name] = tuple(f for f, k in zip(source.files, folds, strict=True) if k == number)
        rest = [f for f, k in zip(source.files, folds, strict=True) if k != number]
        if train_on is not None and source.name not in train_on:
            continue
        chosen = choose_labelled(_groups(rest), validation_share, seed + number)
        validation[source.name] = tuple(file for file in rest if _group(file) in chosen)
        training[source.name] = tuple(file for file in rest if _group(file) not in chosen)
    return Fold(number, training, validation, held_out)


def _group(file: LabelledFile) -> str:
    return file.group or file.labelled.sha256


def _groups(files: Sequence[LabelledFile]) -> list[Group]:
    members = defaultdict(list)
    for file in files:
        members[_group(file)].append(file)
    return [
        Group(name, len(found), Counter(cell.label for file in found for cell in file.labelled.cells))
        for name, found in members.items()
    ]
