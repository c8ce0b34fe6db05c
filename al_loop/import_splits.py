"""The splits of what an import brings, and which of its images get their labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from al_loop.formats.records import Problem, SourceImage, SourceObject
from al_loop.splits import Group, assign_splits, choose_labelled, strongest
from backend.store import Stored
from db.models import Image, Split


@dataclass(frozen=True)
class Checked:
    """One image that was read and stored, or what kept it out (`stored` is None)."""

    source: SourceImage
    stored: Stored | None
    width: int
    height: int
    objects: tuple[SourceObject, ...]
    problems: tuple[Problem, ...]

    def dataset(self, default: str) -> str:
        """The data set it belongs to: that of an export's record, else that of the source."""
        return (self.source.dataset or default)[:32]

    def group(self, default: str) -> str:
        """Its group's name, which no other data set has."""
        return f"{self.dataset(default)}:{self.source.group or self.source.name}"[:255]


def assign(
    fresh: Sequence[Checked], dataset: str, known: Collection[Image], promised: Collection[str], seed: int
) -> dict[str, str]:
    """The split of every group of the new images, {group: split}; groups with known images stay where they are.

    promised: splits that the source keeps apart itself. A promise of test or validation is kept; an official train
    image may still be needed for the others, unless the source has all three.
    """
    kept = set(promised) if {split.value for split in Split} <= set(promised) else set(promised) - {"train"}
    images: Counter[str] = Counter()
    cells: dict[str, Counter[str]] = defaultdict(Counter)
    patients: dict[str, set[str]] = defaultdict(set)
    promises: dict[str, str | None] = {}
    datasets = {checked.dataset(dataset) for checked in fresh}
    for checked in fresh:
        group, promise = checked.group(dataset), checked.source.official_split
        images[group] += 1
        cells[group].update(thing.label for thing in checked.objects)
        patients[group] |= {checked.source.patient} if checked.source.patient else set()
        promises[group] = strongest((promises.get(group), promise if promise in kept else None))
    fixed: dict[str, str] = {}
    for image in known:
        ours = image.dataset in datasets
        if ours or image.patient:  # a patient of another data set is the same person, whose split is known
            images[image.group] += ours
            patients[image.group] |= {image.patient} if image.patient else set()
            fixed[image.group] = image.split.value
    groups = [
        Group(name, n, cells[name], fixed.get(name), promises.get(name), frozenset(patients[name]))
        for name, n in sorted(images.items())
    ]
    return assign_splits(groups, seed)


def choose(fresh: Sequence[Checked], dataset: str, splits: dict[str, str], share: float, seed: int) -> set[str]:
    """sha256 of the new images whose labels are imported: this share of the train images, and all others."""
    train, rest = [], set()
    for checked in fresh:
        assert checked.stored is not None
        if not checked.source.labelled:
            continue
        if splits[checked.group(dataset)] == "train":
            train.append(Group(checked.stored.sha256, 1, Counter(thing.label for thing in checked.objects)))
        else:
            rest.add(checked.stored.sha256)
    return rest | choose_labelled(train, share, seed)
