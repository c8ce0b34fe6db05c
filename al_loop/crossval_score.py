"""Scores of a cross-validation from the detections it kept: no image and no weights are needed any more.

For each fold the fusion is fitted on images of that fold that were neither trained on nor held out; then the held-out
detections are fused, and all folds are judged together: a fold alone has too few of the rare stages to say anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from al_loop.compare_fusion import COMPETITORS, ours
from al_loop.crossval_views import SeenImage, load_views
from al_loop.judge import DEFAULT_THRESHOLD, FUSED, judge
from al_loop.judge_numbers import Judgement, Key, Number
from backend.calibrate import View, fit_fusion
from backend.errors import NotEnoughData
from backend.fuse import FusionConfig
from backend.instances import ROLES, Instances

ALL = "all"  # the table over every source
NOT_FITTED = "fused, not fitted"
FITS = ("validation", "other-folds", "none")
COMPARED: tuple[Key, ...] = (
    ("pooled_infected_ap50",),
    ("stages_ap50",),
    ("macro_f1_stages",),
    ("best_macro_f1_stages",),
)

Looks = list[tuple[SeenImage, SeenImage]]  # of all_cells and of infected at the same image


@dataclass(frozen=True)
class FoldViews:
    """What both detectors of one fold saw."""

    number: int
    validation: Looks
    held_out: Looks


@dataclass(frozen=True)
class Comparison:
    """All rows on all tables. fusions: by fold and source, or `ALL` where one serves every source.

    tables: by source, and `ALL` when there are several.
    """

    folds: int  # of the protocol
    fit: str
    fusions: Mapping[tuple[int, str], FusionConfig]
    tables: Mapping[str, Judgement]

    def differences(self, table: str) -> dict[Key, dict[str, Number]]:
        """Ours minus each other row, paired by image, for the numbers of COMPARED."""
        verdicts = self.tables[table].verdicts
        return {
            key: {
                name: verdicts[FUSED].numbers[key].minus(v.numbers[key])
                for name, v in verdicts.items()
                if name != FUSED
            }
            for key in COMPARED
        }

    def scored(self) -> list[int]:
        """The folds that were."""
        return sorted({number for number, _ in self.fusions})

    def to_json(self) -> dict[str, Any]:
        return {
            "folds": self.folds,
            "folds_scored": self.scored(),
            "fit": self.fit,
            "fusions": {
                str(number) if source == ALL else f"{number} {source}": config.to_json()
                for (number, source), config in self.fusions.items()
            },
            "tables": {
                name: {
                    **judgement.to_json(),
                    "fused_minus": {
                        key[0]: {
                            other: {"value": number.value, "interval": number.interval()}
                            for other, number in row.items()
                        }
                        for key, row in self.differences(name).items()
                    },
                }
                for name, judgement in self.tables.items()
            },
        }


def read_folds(out: Path) -> tuple[list[FoldViews], int]:
    """Every fold below `out` of which both roles are finished, and how many the protocol has.

    Raises NotEnoughData when there is none, or the two roles of a fold did not look at the same images.
    """
    found, counts = [], set()
    for folder in sorted(out.glob("fold-*"), key=lambda path: int(path.name.partition("-")[2])):
        if not all((folder / f"{role}.npz").exists() for role in ROLES):
            continue
        sides = []
        for role in ROLES:
            held_out, about = load_views(folder / f"{role}.npz")
            inner = folder / f"{role}-validation.npz"
            validation = load_views(inner)[0] if inner.exists() else []
            counts.add(int(about["recipe"]["folds"]))
            sides.append((validation, held_out))
        paired = [_paired(folder, *parts) for parts in zip(*sides, strict=True)]
        found.append(FoldViews(int(folder.name.partition("-")[2]), *paired))
    if not found:
        raise NotEnoughData(
            f"{out}: expected fold-K/all_cells.npz and fold-K/infected.npz of at least one fold, found none; "
            f"run: cellloop crossval train"
        )
    if len(counts) > 1:
        raise NotEnoughData(f"{out}: expected folds of one protocol, got some of {sorted(counts)} folds; delete either")
    return found, counts.pop()


def _paired(folder: Path, all_cells: list[SeenImage], infected: list[SeenImage]) -> Looks:
    def content(view: SeenImage) -> tuple[str, bytes, bytes]:
        return view.sha256, view.truth.boxes.tobytes(), view.truth.labels.tobytes()

    if [content(view) for view in all_cells] != [content(view) for view in infected]:
        raise NotEnoughData(
            f"{folder}: expected both roles to have looked at the same images with the same labels, they did not; "
            f"delete one of them and run cellloop crossval train again"
        )
    return list(zip(all_cells, infected, strict=True))


def score(
    out: Path, *, fit: str = "validation", by_source: bool = False, resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Judge our fusion and its competitors on all folds that are finished.

    fit: where the fusion of a fold is fitted: on its validation images, on what the other folds' detectors saw in the
    images held out from them, or nowhere. by_source: one fusion for each source, as each laboratory fits its own.
    Raises NotEnoughData.
    """
    folds, count = read_folds(out)
    sources = sorted({first.source for fold in folds for first, _ in fold.held_out})
    fusions = {
        (fold.number, part): _fitted(fold, folds, fit, part)
        for fold in folds
        for part in (sources if by_source else [ALL])
    }
    images = [
        (first, second, fusions[fold.number, first.source if by_source else ALL])
        for fold in folds
        for first, second in fold.held_out
    ]
    parts = {name: [row for row in images if row[0].source == name] for name in sources}
    if len(sources) > 1:
        parts[ALL] = images
    tables = {}
    for name, rows in parts.items():
        views = rows_of(rows)
        truths, ignore = [first.truth for first, _, _ in rows], [first.ignore for first, _, _ in rows]
        thresholds = dict.fromkeys(views, DEFAULT_THRESHOLD)  # like with like: `evaluate` calls fused cells as shown
        tables[name] = judge(
            truths, ignore, views, thresholds=thresholds, resamples=resamples, seed=seed, every_interval=False
        )
    return Comparison(count, f"{fit}, each source by itself" if by_source else fit, fusions, tables)


def rows_of(images: Sequence[tuple[SeenImage, SeenImage, FusionConfig]]) -> dict[str, list[Instances]]:
    """What each way to fuse makes of these images, ours last."""
    found = {name: [way(a.seen, b.seen) for a, b, _ in images] for name, way in COMPETITORS.items()}
    found[NOT_FITTED] = [ours(FusionConfig())(a.seen, b.seen) for a, b, _ in images]
    found[FUSED] = [ours(config)(a.seen, b.seen) for a, b, config in images]
    return found


def _fitted(fold: FoldViews, folds: Sequence[FoldViews], fit: str, source: str) -> FusionConfig:
    if fit not in FITS:
        raise ValueError(f"fit: expected one of {FITS}, got {fit!r}")
    looks = fold.validation
    if fit == "other-folds":
        looks = [look for other in folds if other.number != fold.number for look in other.held_out]
    if fit == "validation" and not looks:
        raise NotEnoughData(
            f"fold {fold.number}: expected detections of validation images, it was trained without any; "
            "fit on the other folds instead: --fit other-folds"
        )
    views: list[View] = [
        (first.seen, second.seen, first.truth) for first, second in looks if source in (ALL, first.source)
    ]
    return FusionConfig() if fit == "none" else fit_fusion(views)
