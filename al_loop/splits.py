"""Which images the models learn from and which they are measured on. Pure: groups in, splits out.

A group (slide, block of neighbouring fields) is never divided: its images look alike, and a model that learnt one
would be praised for knowing the other. The groups of one patient stay together for the same reason. Among 64
pseudo-random orders, the one is taken that spreads the rare stages best, because a ruler without a schizont cannot
measure schizonts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backend.instances import INFECTED

SHARES = {"test": 0.25, "validation": 0.15}  # of a small data set; the rest is train
LARGE_SHARES = {"test": 0.15, "validation": 0.10}
LARGE = 1000  # images from which smaller shares are enough
ENOUGH_TEST_IMAGES = 100  # an official test split this large stays as its authors made it
ENOUGH_TEST_SHARE = 0.10
ORDERS = 64
_SPLITS = ("test", "validation", "train")  # the first one counts where those who belong together disagree


@dataclass(frozen=True)
class Group:
    """Images that must share a split. cells: number of cells per class. patients: whose they are, where it is known.

    fixed: the split it already has. promised: the one its source gives, kept unless its patient's images are elsewhere.
    """

    name: str
    images: int
    cells: Mapping[str, int] = field(default_factory=dict)
    fixed: str | None = None
    promised: str | None = None
    patients: frozenset[str] = frozenset()


def assign_splits(groups: Sequence[Group], seed: int = 0) -> dict[str, str]:
    """A split for every group: {name: train | validation | test}. The same input gives the same answer.

    Fixed groups keep theirs and count towards the shares; all others of a patient share one, that of the patient's
    fixed groups where there are any. About 60/15/25 % of the images go to train, validation and test (75/10/15 % from
    a thousand images on); fixed and promised test groups suffice when they are 100 images or 10 %.
    """
    people = _people(groups)
    splits = _assign([_joined(members) for members in people], seed)
    return {group.name: group.fixed or splits[members[0].name] for members in people for group in members}


def _people(groups: Sequence[Group]) -> list[list[Group]]:
    """The groups that belong together, by name: those that share a patient, directly or through others."""
    same: dict[str, str] = {}  # a patient -> another one of the same groups, or itself at the end of the chain

    def last(patient: str) -> str:
        while same[patient] != patient:
            patient = same[patient]
        return patient

    for group in groups:
        patients = sorted(group.patients)
        for patient in patients:
            same.setdefault(patient, patient)
            same[last(patient)] = last(patients[0])
    together: dict[tuple[str, str], list[Group]] = {}
    for group in sorted(groups, key=lambda group: group.name):
        who = ("patient", last(min(group.patients))) if group.patients else ("group", group.name)
        together.setdefault(who, []).append(group)
    return list(together.values())


def _joined(members: Sequence[Group]) -> Group:
    """One group of all these, under the first one's name."""
    cells: Counter[str] = Counter()
    for group in members:
        cells.update(group.cells)
    fixed = strongest(group.fixed for group in members) or strongest(group.promised for group in members)
    return Group(members[0].name, sum(group.images for group in members), cells, fixed)


def strongest(splits: Iterable[str | None]) -> str | None:
    """The split of images that belong together and disagree: test before validation before train; None for none.

    Nobody trains on a test image, so this never makes a test image a known one.
    """
    return min((split for split in splits if split), key=_SPLITS.index, default=None)


def _assign(groups: Sequence[Group], seed: int) -> dict[str, str]:
    """A split for every group, whatever its patients."""
    fixed = {group.name: group.fixed for group in groups if group.fixed}
    free = [group for group in groups if not group.fixed]
    total = sum(group.images for group in groups)
    shares = dict(LARGE_SHARES if total >= LARGE else SHARES)
    already = Counter({split: 0 for split in _SPLITS})
    for group in groups:
        if group.fixed:
            already[group.fixed] += group.images
    if already["test"] >= min(ENOUGH_TEST_IMAGES, ENOUGH_TEST_SHARE * total):
        shares["test"] = 0.0
    if not free:
        return fixed
    candidates = [
        fixed | _fill(sorted(free, key=lambda g, k=k: _draw(seed, k, g.name)), shares, already, total)  # type: ignore[misc]
        for k in range(ORDERS)
    ]
    return min(candidates, key=lambda splits: _imbalance(groups, splits))


def _draw(seed: int, order: int, name: str) -> str:
    """A pseudo-random sort key that depends on nothing but its arguments."""
    return hashlib.sha256(f"{seed}/{order}/{name}".encode()).hexdigest()


def _fill(order: Sequence[Group], shares: Mapping[str, float], already: Counter[str], total: int) -> dict[str, str]:
    """Hand out groups in this order: to test until its share is reached, then to validation, the rest to train.

    A group goes where it leaves the smaller error, so that one large group cannot double a split; an empty split
    with a share gets its first group in any case, as long as one is left for train.
    """
    chosen: dict[str, str] = {}
    left = list(order)
    for split in ("test", "validation"):
        want, have = shares[split] * total, already[split]
        for group in list(left):
            if len(left) <= 1 and not already["train"]:
                break
            if have < want and (have == 0 or abs(have + group.images - want) <= want - have):
                chosen[group.name] = split
                have += group.images
                left.remove(group)
    return chosen | {group.name: "train" for group in left}


def _imbalance(groups: Sequence[Group], splits: Mapping[str, str]) -> float:
    """How unequally images and infected stages are spread: squared errors relative to the shares of SHARES."""
    images, cells = Counter[str](), {split: Counter[str]() for split in _SPLITS}
    for group in groups:
        images[splits[group.name]] += group.images
        cells[splits[group.name]].update(group.cells)
    total = sum(images.values())
    error = 0.0
    for split in _SPLITS:
        share = images[split] / total
        for stage in INFECTED:
            known = sum(cells[s][stage] for s in _SPLITS)
            if known:
                error += (cells[split][stage] / known - share) ** 2 / max(share, 0.05)
    wanted = {"train": 1 - sum(SHARES.values())} | SHARES
    return error + sum((images[split] / total - wanted[split]) ** 2 for split in _SPLITS)


def choose_labelled(groups: Sequence[Group], share: float, seed: int = 0) -> set[str]:
    """Names of about `share` of the groups (by images), chosen to hold each stage in proportion.

    For the part of the training images whose labels are imported; the rest is the pool. 0 gives none, 1 gives all.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share: expected a number from 0 to 1, got {share}")
    if share == 1.0 or not groups:
        return {group.name for group in groups}
    total = sum(group.images for group in groups)
    best: tuple[float, set[str]] = (float("inf"), set())
    for k in range(ORDERS):
        chosen: set[str] = set()
        have, cells = 0, Counter[str]()
        for group in sorted(groups, key=lambda g: _draw(seed, k, "labelled/" + g.name)):
            if have + group.images / 2 <= share * total:
                chosen.add(group.name)
                have += group.images
                cells.update(group.cells)
        known = {stage: sum(group.cells.get(stage, 0) for group in groups) for stage in INFECTED}
        error = sum((cells[stage] / n - share) ** 2 for stage, n in known.items() if n)
        best = min(best, (error, chosen), key=lambda pair: pair[0])
    return best[1]
