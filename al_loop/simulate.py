"""Replay the loop with the truth as the expert: how good the heads are after so many reviews, strategy by strategy."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.acquisition import AcquisitionConfig, PoolCells, rarity_weights
from al_loop.diversity import diverse
from al_loop.metrics import POOLED
from al_loop.simulate_expert import Expert
from al_loop.simulate_heads import Heads, Views, fit_heads, prior
from al_loop.simulate_numbers import EARLY, smoothed
from al_loop.simulate_pool import Round
from al_loop.strategies import STRATEGIES, Pool, strategy_named
from backend.instances import CLASSES, INFECTED, INFECTED_INDEX

RARE = ("schizont", "gametocyte")
FIELDS = "whole-fields"  # no strategy: every cell of one image after another, as people read smears without us
NAMES = (*STRATEGIES, FIELDS)
SILENCE = 0.05  # a head that says less says nothing, as a detector below its score threshold


@dataclass(frozen=True)
class Simulation:
    """What is held equal between strategies. first, growth: cells reviewed before the first fit, and how many times as
    many before each next one, up to `fine` of all cells; then twice as many. decay: of the heads. per_slide: share of
    a batch that one slide may take, for `ours`, whose batches up to `diverse` cells are made different from each other;
    larger ones hold some of everything anyway.
    """

    first: int = 20
    growth: float = 1.3
    fine: float = 0.3
    decay: float = 30.0
    per_slide: float = 0.25
    diverse: int = 500
    expert: Expert = field(default_factory=Expert)
    acquisition: AcquisitionConfig = field(default_factory=AcquisitionConfig)

    def stops(self, cells: int) -> list[int]:
        """Cumulative numbers of reviews at which the heads are fitted and measured, 0 and all among them."""
        stops, step = [0], float(self.first)
        while stops[-1] + step < cells:
            stops.append(stops[-1] + round(step))
            growth = self.growth if stops[-1] < self.fine * cells else 2.0
            step = max(step, stops[-1] * (growth - 1))
        return [*stops, cells]


@dataclass(frozen=True)
class Curve:
    """One replay. Columns by stop: reviews, the expert's seconds, metrics on the exam, and what had been shown.

    order: rows of the pool as they were reviewed. answers: what was answered, in that order.
    """

    strategy: str
    seed: int
    reviews: NDArray[np.int64]
    seconds: NDArray[np.float64]
    infected_ap50: NDArray[np.float64]
    stage_ap50: NDArray[np.float64]
    rare_shown: NDArray[np.int64]
    infected_shown: NDArray[np.int64]
    order: NDArray[np.int64]
    answers: NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """Plain values by column; the order of thirty thousand cells is left out."""
        columns = ("reviews", "seconds", "infected_ap50", "stage_ap50", "rare_shown", "infected_shown")
        return {"seed": self.seed} | {name: getattr(self, name).tolist() for name in columns}


def replay(dealt: Round, strategy: str, seed: int, plan: Simulation, target: float | None = None) -> Curve:
    """Rank, review, fit, measure, until every cell of the pool is reviewed. Only answers given teach anything.

    target: infected AP50 after which nothing more is asked, once EARLY of the cells are reviewed.
    """
    rng = np.random.default_rng([seed, zlib.crc32(strategy.encode())])
    given = plan.expert.answers(dealt.answers, np.random.default_rng([seed, 1]))
    order: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    heads = prior(dealt.inputs)
    measured = []
    stops = plan.stops(len(dealt))
    for stop, goal in zip(stops, [*stops[1:], stops[-1]], strict=True):
        if stop:
            heads = fit_heads(dealt.inputs[order], given[order], plan.decay, heads)
        measured.append(measure(dealt, heads))
        seen = smoothed(np.array([score[POOLED] for score in measured]))[:-1]
        if target is not None and stop >= EARLY * len(dealt) and (seen >= target).any():
            stops = stops[: len(measured)]
            break
        if goal > stop:
            chosen = choose(dealt, strategy, heads, order, given, goal - stop, rng, plan)
            order = np.concatenate([order, chosen])
    spent = plan.expert.seconds(given[order])
    if strategy == FIELDS:
        spent = plan.expert.seconds_in_fields(dealt.image[order])
    rare = np.isin(dealt.answers[order], [CLASSES.index(name) for name in RARE])
    infected = np.isin(dealt.answers[order], INFECTED_INDEX)
    reviews = np.array(stops, dtype=np.int64)
    return Curve(
        strategy=strategy,
        seed=seed,
        reviews=reviews,
        seconds=_until(spent, reviews),
        infected_ap50=np.array([score[POOLED] for score in measured]),
        stage_ap50=np.array([_stage_mean(score) for score in measured]),
        rare_shown=_until(rare, reviews).astype(np.int64),
        infected_shown=_until(infected, reviews).astype(np.int64),
        order=order,
        answers=given[order],
    )


def _until(values: NDArray[Any], reviews: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])[reviews]


def _stage_mean(score: dict[str, float]) -> float:
    return float(np.mean([score[name] for name in INFECTED if name in score]))


def measure(dealt: Round, heads: Heads) -> dict[str, float]:
    """AP50 of each stage and of the infected ones pooled, on the images nobody reviews."""
    return dealt.exam.score(heads.look(dealt.exam.inputs).probabilities)


def choose(
    dealt: Round,
    strategy: str,
    heads: Heads,
    order: NDArray[np.int64],
    given: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
    plan: Simulation,
) -> NDArray[np.int64]:
    """The next `count` rows of the pool. order: rows reviewed so far; of `given`, only their answers are looked at."""
    waiting = np.setdiff1d(np.arange(len(dealt)), order)
    if strategy == FIELDS:
        images = rng.permutation(int(dealt.image.max()) + 1)
        begun = np.isin(dealt.image[waiting], dealt.image[order])
        return waiting[np.lexsort((images[dealt.image[waiting]], ~begun))[:count]]
    if count >= len(waiting):
        return waiting
    views = heads.look(dealt.inputs[waiting])
    counts = Counter(CLASSES[answer] for answer in given[order].tolist() if answer < len(CLASSES))
    pool = Pool(
        cells=pool_cells(dealt, waiting, views, order),
        weights=rarity_weights(counts, plan.acquisition),
        embeddings=dealt.embeddings[waiting],
        reviewed=dealt.embeddings[order],
        config=plan.acquisition,
    )
    utilities = strategy_named(strategy)(pool, count, rng)
    if strategy == "ours" and count <= plan.diverse:
        cap = max(1, int(np.ceil(plan.per_slide * count)))
        label = views.probabilities.argmax(axis=1)
        best = diverse(utilities, label, pool.embeddings, count, dealt.slide[waiting], cap)
        chosen = np.array(best, dtype=np.int64)
        left = np.setdiff1d(np.argsort(-utilities, kind="stable"), chosen, assume_unique=True)
        chosen = np.concatenate([chosen, left[: count - len(chosen)]])
    else:
        chosen = np.argsort(-utilities, kind="stable")[:count]
    return waiting[chosen]


def pool_cells(dealt: Round, rows: NDArray[np.int64], views: Views, order: NDArray[np.int64]) -> PoolCells:
    """These cells as the product ranks them: a head that says less than SILENCE of a cell is silent about it."""
    best = views.all_cells[:, :-1].max(axis=1)
    stage = views.all_cells[:, INFECTED_INDEX].sum(axis=1)
    heard = np.bincount(dealt.bucket[order], minlength=int(dealt.bucket.max()) + 1)
    return PoolCells(
        image=dealt.image[rows],
        probabilities=views.probabilities,
        score_all_cells=np.where(best >= SILENCE, best, np.nan),
        score_infected=np.where(views.infected >= SILENCE, views.infected, np.nan),
        pair_iou=np.full(len(rows), np.nan),
        disputed=(views.infected >= 0.5) & (stage < 0.5),
        novelty=np.exp(-heard[dealt.bucket[rows]].astype(np.float64)),
    )
