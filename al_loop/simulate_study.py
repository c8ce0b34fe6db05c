"""A whole simulation: every strategy on the same assignments of images, and what the comparison comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from al_loop.crossval import read_sources
from al_loop.metrics import POOLED
from al_loop.simulate import NAMES, RARE, Curve, Simulation, measure, replay
from al_loop.simulate_detector import RenderedTraining, rendered_weights
from al_loop.simulate_errors import errors_found
from al_loop.simulate_features import propose_all
from al_loop.simulate_heads import fit_heads
from al_loop.simulate_numbers import EARLY, TARGET_SHARE, at_share, by_seed, mean_of, needed, summarise
from al_loop.simulate_pool import Round, Scene, deal, make_scene
from backend.errors import SettingRefused, UnusableAnnotations
from backend.instances import CLASSES
from backend.store import sha256_of

Report = Callable[[int, int, str], None]

LEFT_OUT = (
    "The trunk and the pyramid are frozen; only two linear heads over cached features learn. Full retraining moves "
    "boxes and features too: the order of strategies is measured here, not the product's AP.",
    "Cells that no proposal stands for are never reviewed, nor drawn by the expert.",
    "Experts review single cells here; the product queues images and shows their best cells first.",
    "The truth of both data sets is one expert's, and some of it is wrong; the simulated expert repeats that.",
    "Outlines: nobody corrects a box, and the two models never differ in where a cell is.",
)


@dataclass(frozen=True)
class Study:
    """What is to be compared. deals: assignments of images to pool and exam for each seed; one alone says little, as
    its exam holds some hundred infected cells. weights: another detector than the one trained on rendered fields,
    which must not have learned from these images.
    """

    data: Path
    strategies: tuple[str, ...]
    seeds: int = 5
    deals: int = 6
    plan: Simulation = field(default_factory=Simulation)
    weights: Path | None = None

    def __post_init__(self) -> None:
        if strange := [name for name in self.strategies if name not in NAMES]:
            raise SettingRefused(f"--strategies: expected some of {', '.join(NAMES)}, got {strange[0]!r}")
        if not self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise SettingRefused("--strategies: expected different names, separated by commas, at least one")
        if min(self.seeds, self.deals) < 1 or not 0 <= self.plan.expert.error_rate < 1:
            raise SettingRefused(
                f"expected --seeds and --deals from 1 and --error-rate from 0 to below 1, got {self.seeds}, "
                f"{self.deals} and {self.plan.expert.error_rate}"
            )


@dataclass(frozen=True)
class Replayed:
    """All curves on one assignment of images. full: AP50 by channel of heads that know every answer of the pool.

    pool: its cells. rare: schizonts and gametocytes among them. found: per strategy, the share of wrong answers in the
    first second readings, after EARLY of the reviews; None where nothing was wrong.
    """

    seed: int
    deal: int
    full: dict[str, float]
    pool: int
    rare: int
    curves: dict[str, Curve]
    found: dict[str, float | None]


def simulate(study: Study, cache: Path, report: Report) -> dict[str, Any]:
    """The answer as JSON. Weights and features are kept below `cache`.

    Raises UnusableAnnotations without labelled images below the folder, NotEnoughData with too few of them.
    """
    sources = read_sources(source_folders(study.data))
    weights = study.weights or rendered_weights(cache, RenderedTraining(), report)
    images = [file.labelled for source in sources for file in source.files]
    scene = make_scene(sources, propose_all(images, weights, cache, report))
    settings = {
        "sources": {source.name: len(source.files) for source in sources},
        "weights_sha256": sha256_of(weights),
        "rendered_training": None if study.weights else asdict(RenderedTraining()),
        "seeds": study.seeds,
        "deals": study.deals,
        "plan": asdict(study.plan),
    }
    return to_json(scene, study, run(scene, study, report), settings)


def source_folders(data: Path) -> list[Path]:
    """The data sets below a folder: those folders in it that hold annotations, or the folder itself."""
    if not data.is_dir():
        raise UnusableAnnotations(f"{data}: expected a folder of labelled smears, found none; check --data")
    inside = sorted(each for each in data.iterdir() if each.is_dir() and any(each.glob("*.json")))
    return inside or [data]


def run(scene: Scene, study: Study, report: Report) -> list[Replayed]:
    """Every strategy on every assignment."""
    total, done = study.seeds * study.deals * len(study.strategies), 0
    found = []
    for number in range(study.seeds * study.deals):
        seed, part = divmod(number, study.deals)
        dealt = deal(scene, number)
        full = measure(dealt, fit_heads(dealt.inputs, dealt.answers, study.plan.decay))
        curves: dict[str, Curve] = {}
        errors: dict[str, float | None] = {}
        for name in study.strategies:
            report(done, total, f"seed {seed}, deal {part}: {name}")
            curves[name] = replay(dealt, name, number, study.plan, TARGET_SHARE * full[POOLED])
            errors[name] = _errors(dealt, curves[name], study)
            done += 1
        rare = int(np.isin(dealt.answers, [CLASSES.index(stage) for stage in RARE]).sum())
        found.append(Replayed(seed, part, full, len(dealt), rare, curves, errors))
    report(total, total, "done")
    return found


def _errors(dealt: Round, curve: Curve, study: Study) -> float | None:
    if not study.plan.expert.error_rate:
        return None
    count = round(EARLY * len(dealt))
    rows = curve.order[:count]
    return errors_found(
        dealt.inputs[rows], curve.answers[:count], dealt.answers[rows], dealt.slide[rows], study.plan.decay
    )


def to_json(scene: Scene, study: Study, replayed: Sequence[Replayed], settings: dict[str, Any]) -> dict[str, Any]:
    """The whole answer: summary, every curve, settings, and what the proxy leaves out."""
    names = study.strategies
    targets = [TARGET_SHARE * each.full[POOLED] for each in replayed]
    seeds = [each.seed for each in replayed]

    def needs(name: str, column: str) -> list[Any]:
        curves = [each.curves[name] for each in replayed]
        found = [needed(getattr(c, column), c.infected_ap50, goal) for c, goal in zip(curves, targets, strict=True)]
        return by_seed(seeds, found)

    strategies = summarise({name: needs(name, "reviews") for name in names})
    in_seconds = summarise({name: needs(name, "seconds") for name in names})
    for name in names:
        curves = [each.curves[name] for each in replayed]
        shown = [
            at_share(c.reviews, c.rare_shown, r.pool) / max(1, r.rare) for c, r in zip(curves, replayed, strict=True)
        ]
        strategies[name] |= {
            "seconds_needed": in_seconds[name]["reviews_needed"],
            "seconds_over_ours": in_seconds[name].get("over_ours"),
            "seconds_over_ours_interval": in_seconds[name].get("over_ours_interval"),
            "rare_shown_at_10_percent": _estimate(seeds, shown),
            "errors_found_in_first_fifth": _estimate(seeds, [each.found[name] for each in replayed]),
            "curves": [curve.to_json() for curve in curves],
        }
    summary: dict[str, Any] = {}
    for name in (each for each in names if each != "ours" and "ours" in names):
        key = name.replace("-", "_")
        summary[f"{key}_over_ours"] = strategies[name]["over_ours"]
        summary[f"{key}_over_ours_interval"] = strategies[name]["over_ours_interval"]
    main = "ours" if "ours" in names else names[0]
    summary |= {
        "target_ap50": mean_of(targets).value,
        "full_ap50": mean_of([each.full[POOLED] for each in replayed]).value,
        "first_ap50": mean_of([float(each.curves[main].infected_ap50[0]) for each in replayed]).value,
        "rare_shown_at_10_percent": {name: strategies[name]["rare_shown_at_10_percent"]["value"] for name in names},
        "errors_found_in_first_fifth": strategies[main]["errors_found_in_first_fifth"],
        "pool_cells": mean_of([float(each.pool) for each in replayed]).value,
        "infected_recall_of_proposals": scene.infected_recall(),
    }
    exams = [{"seed": r.seed, "deal": r.deal, "full": r.full, "pool": r.pool, "rare": r.rare} for r in replayed]
    return {
        "summary": summary,
        "strategies": strategies,
        "exams": exams,
        "settings": settings,
        "left_out": list(LEFT_OUT),
    }


def _estimate(seeds: Sequence[int], values: Sequence[float | None]) -> Any:
    """{"value", "interval"} over seeds, of the means of their deals; None where one has no value."""
    known = np.array([np.nan if value is None else value for value in values])
    if np.isnan(known).any():
        return None
    found = mean_of([float(known[np.equal(seeds, seed)].mean()) for seed in sorted(set(seeds))])
    return {"value": found.value, "interval": found.interval()}
