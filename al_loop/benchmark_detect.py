"""How fast a pair pre-annotates, beside the plain torchvision way on the same weights and the same fields.

Both sides take turns on every field, so that whatever else the machine does slows both, and only their ratio is
believed. Detections are compared after the same fusion; `ap50_delta` is against torchvision on the same pixels, so that
it says what our short cuts cost (torchvision's own shrinking skips pixels, which costs it a lot by itself).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from al_loop.benchmark_reference import cells_of_same_pixels, detect_plainly, one_per_cell, with_weights
from al_loop.labelled_files import read_labelled
from al_loop.metrics import CHANNELS, POOLED, average_precision, match_images
from al_loop.render import render_smear
from backend.checkpoints import load_weights
from backend.errors import CellloopError
from backend.fuse import fuse
from backend.images import read_image
from backend.instances import ROLES, Instances
from backend.pairs import load_pair, weights_name
from backend.preannotate import look_twice, preannotate

SIDES = ("torchvision", "ours", "ours_rectangles")
# Whose detections are compared: torchvision's with its own way to shrink a field and with ours, and ours.
COMPARED = ("torchvision", "torchvision_same_pixels", "ours")


class Field(NamedTuple):
    """What is measured on. image: (h, w, 3) uint8 RGB; truth: its cells; ignore: (M, 4) xyxy px, undecidable cells."""

    image: NDArray[np.uint8]
    truth: Instances
    ignore: NDArray[np.float32]


def rendered_fields(count: int, seed: int, size: tuple[int, int] = (1200, 1600), cells: int = 100) -> list[Field]:
    """Rendered smears of `size` (h, w) px with `cells` cells each."""
    smears = [render_smear(seed + index, size, cells) for index in range(count)]
    return [Field(smear.image, smear.cells, smear.difficult) for smear in smears]


def labelled_fields(images: Path, annotations: Path | None, count: int) -> list[Field]:
    """The first `count` labelled smears of a folder. Raises UnusableAnnotations."""
    files, _ = read_labelled(images, annotations)
    labelled = [file.labelled for file in files[:count]]
    return [Field(read_image(Path(each.file)), each.truth(), each.ignore_boxes()) for each in labelled]


@dataclass(frozen=True)
class Seconds:
    """What each side took per field, (F,) float64: by the clock on the wall, and of this process's processor time."""

    wall: dict[str, NDArray[np.float64]]
    processor: dict[str, NDArray[np.float64]]

    def ratio(self, side: str) -> NDArray[np.float64]:
        """(F,) how many times faster than torchvision."""
        return self.wall["torchvision"] / self.wall[side]

    def to_json(self) -> dict[str, Any]:
        """Medians per side, and the ratios with their quartiles."""
        told: dict[str, Any] = {}
        for name, clock in (("seconds", self.wall), ("processor_seconds", self.processor)):
            told[name] = {side: round(float(np.median(values)), 4) for side, values in clock.items()}
        for name, side in (("speedup", "ours"), ("speedup_rectangles", "ours_rectangles")):
            low, middle, high = np.percentile(self.ratio(side), (25, 50, 75))
            told[name] = round(float(middle), 2)
            told[f"{name}_quartiles"] = [round(float(low), 2), round(float(high), 2)]
            processor = self.processor["torchvision"] / self.processor[side]
            told[f"{name}_processor"] = round(float(np.median(processor)), 2)
        return told


def benchmark_detect(
    weights: Path,
    fields: Sequence[Field],
    device: torch.device,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Pre-annotate the fields both ways with the pair in the folder `weights`; plain values, for JSON.

    Raises NoTrainedModel and WeightsCorrupt when there is no such pair.
    """
    if not fields:
        raise CellloopError("bench detect: expected at least one field to measure on, got none")
    pair = load_pair(weights, device)
    detectors = (pair.all_cells, pair.infected)
    plain = [
        with_weights(detector.config, load_weights(weights / weights_name(role))[0], device)
        for role, detector in zip(ROLES, detectors, strict=True)
    ]
    ways: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
        "torchvision": lambda image: [detect_plainly(model, image) for model in plain],
        "ours": lambda image: preannotate(image, pair, masks=True),
        "ours_rectangles": lambda image: preannotate(image, pair),
    }
    for way in ways.values():
        way(fields[0].image)  # the first time is another one's: caches, kernels, memory
    clocks: list[dict[str, tuple[float, float]]] = []
    seen: dict[str, list[Instances]] = {f"{side}/{view}": [] for side in COMPARED for view in (*ROLES, "fused")}
    counts: dict[str, list[int]] = {"torchvision_masks": [], "masks": []}
    for done, field in enumerate(fields, start=1):
        timed = {side: _timed(ways[side], field.image, device) for side in (SIDES if done % 2 else SIDES[::-1])}
        clocks.append({side: timed[side][1] for side in SIDES})
        answers: dict[str, list[Instances]] = {side: [] for side in COMPARED}
        for model, detector, (own, _) in zip(plain, detectors, timed["torchvision"][0], strict=True):
            answers[COMPARED[0]].append(one_per_cell(own, detector.config, field.truth.image_size))
            answers[COMPARED[1]].append(cells_of_same_pixels(model, field.image, detector.config))
        answers["ours"] = [sight.cells for sight in look_twice(field.image, pair)]
        for side, (all_cells, infected) in answers.items():
            views = (all_cells, infected, fuse(all_cells, infected, pair.fusion).cells)
            for view, cells in zip((*ROLES, "fused"), views, strict=True):
                seen[f"{side}/{view}"].append(cells)
        counts["torchvision_masks"].append(sum(len(masks) for _, masks in timed["torchvision"][0]))
        counts["masks"].append(len(timed["ours"][0].fused))
        on_progress(done, len(fields))
    clock = Seconds(*({side: np.array([c[side][i] for c in clocks]) for side in SIDES} for i in (0, 1)))
    ap50 = {name: average_precisions(fields, detections) for name, detections in seen.items()}
    first, second = look_twice(fields[0].image, pair)
    return {
        **clock.to_json(),
        "ap50_delta": _gain(ap50, "torchvision_same_pixels"),
        "ap50_delta_own_resize": _gain(ap50, "torchvision"),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "fields": len(fields),
        "field_px": list(fields[0].truth.image_size),
        "cells": float(np.median([len(field.truth) for field in fields])),
        "shared_trunk": second.trunk is first.trunk,
        **{name: float(np.median(values)) for name, values in counts.items()},
        "ap50": ap50,
    }


def _gain(ap50: dict[str, dict[str, float]], over: str) -> float:
    return round(ap50["ours/fused"]["mean"] - ap50[f"{over}/fused"]["mean"], 4)


def _timed(
    way: Callable[[NDArray[np.uint8]], Any], image: NDArray[np.uint8], device: torch.device
) -> tuple[Any, tuple[float, float]]:
    """What it answers, and the seconds it took: by the wall's clock, and of processor time."""
    wait_for(device)
    wall, processor = time.perf_counter(), time.process_time()
    answer = way(image)
    wait_for(device)
    return answer, (time.perf_counter() - wall, time.process_time() - processor)


def wait_for(device: torch.device) -> None:
    """Return when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """The device as a person knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def average_precisions(fields: Sequence[Field], detections: Sequence[Instances]) -> dict[str, float]:
    """AP50 per class that occurs, of the infected stages pooled, and the mean over classes."""
    truths, ignore = [field.truth for field in fields], [field.ignore for field in fields]
    once = np.ones((1, len(fields)), dtype=np.int64)
    matches = match_images(truths, detections, ignore)
    found = {name: float(average_precision(matches[name], once)[0]) for name in CHANNELS}
    told = {name: round(value, 4) for name, value in found.items() if not np.isnan(value)}
    classes = [value for name, value in told.items() if name != POOLED]
    return {**told, "mean": round(float(np.mean(classes)), 4) if classes else 0.0}
