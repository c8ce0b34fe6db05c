"""Let a pair look at labelled images where they lie, and judge each detector alone and the pair fused. No database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.judge import FUSED, judge
from al_loop.judge_counts import parasitaemia
from al_loop.judge_numbers import Judgement
from al_loop.labelled_files import LabelledFile
from backend.fuse import fuse
from backend.images import read_image
from backend.instances import INFECTED_INDEX, ROLES, Instances
from backend.preannotate import Pair

Report = Callable[[int, int, str], None]


def _silent(done: int, total: int, note: str) -> None:
    """Nobody is watching."""


def look(pair: Pair, image: NDArray[np.uint8], views: Sequence[str], masks: bool = False) -> dict[str, Instances]:
    """What these views (of judge.VIEWS) see in an image (h, w, 3) uint8 RGB; a detector nobody asks about is idle."""
    detectors = {"all_cells": pair.all_cells, "infected": pair.infected}
    wanted = ROLES if FUSED in views else [role for role in ROLES if role in views]
    seen = {role: detectors[role].detect(image, masks) for role in wanted}
    if FUSED in views:
        seen[FUSED] = fuse(seen["all_cells"], seen["infected"], pair.fusion).cells
    return {view: seen[view] for view in views}


@dataclass(frozen=True)
class JudgedFiles:
    """Labelled files, what the views saw in them (per view, per file), and the judgement on it."""

    files: Sequence[LabelledFile]
    views: Mapping[str, Sequence[Instances]]
    judgement: Judgement

    def truths(self) -> list[Instances]:
        """The true cells per file."""
        return [file.labelled.truth() for file in self.files]

    def read(self, index: int) -> NDArray[np.uint8]:
        """Pixels (h, w, 3) uint8 RGB of the file at this index."""
        return read_image(self.files[index].labelled.file)

    def to_json(self) -> dict[str, Any]:
        """The judgement, and counts and parasitaemia (percent) of each image: true, and as each view counts them."""
        return {**self.judgement.to_json(), "per_image": self._per_image()}

    def _per_image(self) -> list[dict[str, Any]]:
        rows = []
        for index, (file, truth) in enumerate(zip(self.files, self.truths(), strict=True)):
            sick = np.isin(truth.labels, INFECTED_INDEX).sum()
            row: dict[str, Any] = {"image": file.name, "true": _counted(sick, (truth.labels == 0).sum())}
            for name, verdict in self.judgement.verdicts.items():
                counts = verdict.counts
                row[name] = _counted(counts.infected[index], counts.red[index])
                if name == "infected":
                    row[name] = {"infected": row[name]["infected"]}
            rows.append(row)
        return rows


def _counted(infected: Any, red: Any) -> dict[str, Any]:
    percent = float(parasitaemia(np.asarray([float(infected)]), np.asarray([float(red)]))[0])
    return {"infected": int(infected), "red blood cell": int(red), "parasitaemia": percent}


def judge_files(
    pair: Pair,
    files: Sequence[LabelledFile],
    views: Sequence[str],
    *,
    on_progress: Report = _silent,
    resamples: int = 1000,
    seed: int = 0,
) -> JudgedFiles:
    """Look at every file once and judge these views (of judge.VIEWS); fused cells as the pair shows them.

    Raises NotEnoughData without a file, ImageRefused when one cannot be read after all.
    """
    seen: dict[str, list[Instances]] = {view: [] for view in views}
    for done, file in enumerate(files, start=1):
        for view, cells in look(pair, read_image(file.labelled.file), views).items():
            seen[view].append(cells)
        on_progress(done, len(files), file.name)
    labelled = [file.labelled for file in files]
    judgement = judge(
        [image.truth() for image in labelled],
        [image.ignore_boxes() for image in labelled],
        seen,
        thresholds={FUSED: pair.fusion.show_threshold},
        resamples=resamples,
        seed=seed,
    )
    return JudgedFiles(files, seen, judgement)
