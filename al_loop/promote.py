"""Which version serves: the gate's verdict on a candidate, and the row change that follows from it.

A candidate must be shown not to be worse: the lower bound of the paired bootstrap of its difference to the incumbent
has to clear -delta on both infected numbers, and no class with enough cells may fall.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from al_loop.context import Loop
from al_loop.metrics import (
    POOLED,
    EvaluationReport,
    Matches,
    average_precision,
    paired_differences,
    recall_at_false_positives,
)
from al_loop.ruler import load_ruler
from al_loop.seen_images import warnings_for
from backend.errors import NotEnoughData
from backend.instances import CLASSES
from backend.store import FileStore, weights_file
from db.evaluations import evaluation_of, get_evaluation
from db.models import ModelVersion, PromotionDecision
from db.session import Database
from db.versions import activate, active, active_pair, decisions, get, reject, roll_back


@dataclass(frozen=True)
class GateConfig:
    """delta: how much worse a candidate may be without counting as worse. confidence: of each one-sided bound.

    min_class_n: a class with fewer true cells in the split is reported, not judged.
    """

    delta: float = 0.02
    resamples: int = 1000
    min_class_n: int = 30
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Verdict:
    """The gate's answer, with reasons in words (failures first) and every number it looked at."""

    promote: bool
    reasons: list[str]
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Candidate minus incumbent: the observed difference with its one-sided bounds, on n true cells."""

    name: str
    incumbent: float
    candidate: float
    difference: float
    low: float
    high: float
    n: int

    def in_words(self) -> str:
        return (
            f"{self.name} {self.incumbent:.3f} -> {self.candidate:.3f} "
            f"(difference {self.difference:+.3f}, between {self.low:+.3f} and {self.high:+.3f}, n = {self.n})"
        )


def compare(name: str, metric: Any, incumbent: Matches, candidate: Matches, config: GateConfig) -> Comparison | None:
    """One number of both, compared by paired image bootstrap; None where there is no true cell to compare on."""
    observed, samples = paired_differences(metric, candidate, incumbent, resamples=config.resamples, seed=config.seed)
    if math.isnan(observed):
        return None
    whole = np.ones((1, len(candidate.truths)), dtype=np.int64)
    low, high = np.quantile(samples, [1 - config.confidence, config.confidence])
    return Comparison(
        name=name,
        incumbent=float(metric(incumbent, whole)[0]),
        candidate=float(metric(candidate, whole)[0]),
        difference=observed,
        low=float(low),
        high=float(high),
        n=int(candidate.truths.sum()),
    )


def gate(incumbent: EvaluationReport, candidate: EvaluationReport, config: GateConfig | None = None) -> Verdict:
    """May the candidate replace the incumbent? Both reports must stem from the same frozen images.

    Raises NotEnoughData when they do not.
    """
    config = config or GateConfig()
    failures, passes, numbers = [], [], {}
    for name, metric in (
        ("infected recall at 0.5 false positives per image", recall_at_false_positives),
        ("pooled infected AP50", average_precision),
    ):
        result = compare(name, metric, incumbent.matches[POOLED], candidate.matches[POOLED], config)
        if result is None:
            failures.append(
                f"{name}: no infected cell in the test split, so nothing can be shown; a person may promote"
            )
            continue
        numbers[name] = asdict(result)
        if result.low >= -config.delta:
            passes.append(f"{result.in_words()}: not worse by more than {config.delta}")
        else:
            failures.append(f"{result.in_words()}: it may be worse by more than {config.delta}")
    for name in CLASSES:
        result = compare(f"{name} AP50", average_precision, incumbent.matches[name], candidate.matches[name], config)
        if result is None:
            continue
        numbers[result.name] = asdict(result)
        if result.n < config.min_class_n:
            passes.append(f"{result.in_words()}: too few cells to judge, reported only")
        elif result.difference < -config.delta and result.high < 0:
            failures.append(f"{result.in_words()}: falls")
    return Verdict(promote=not failures, reasons=failures + passes, numbers=numbers)


def decide(loop: Loop, version_id: int, evaluation_id: int | None, run_id: int | None = None) -> Verdict:
    """Let the candidate serve or turn it down, and record why. Repeated for the same run, it answers the same.

    evaluation_id: what `evaluate_candidate` gave. None, or no incumbent: there is nothing to compare, it serves.
    Raises NotEnoughData when the incumbent pair was not evaluated on the same frozen images.
    """
    with loop.database.session() as session:
        for decision in decisions(session, version_id):
            if run_id is not None and decision.run_id == run_id:
                return Verdict(decision.promote, list(decision.reasons), {})
        role = get(session, version_id).role
        incumbent = active(session, role)
        serving = active_pair(session)
        if incumbent is None or serving is None or evaluation_id is None:
            verdict = Verdict(True, [f"nothing to compare with: no pair with a version of {role} serves yet"], {})
            activate(
                session, version_id, kind="first", reasons=verdict.reasons, evaluation_id=evaluation_id, run_id=run_id
            )
            return verdict
        candidate = get_evaluation(session, evaluation_id)
        known = evaluation_of(session, serving.id, candidate.split_sha256)
        if known is None:
            raise NotEnoughData(
                f"promotion of version {version_id}: expected an evaluation of the serving pair {serving.name} on the "
                "same frozen images, found none; evaluate the candidate again"
            )
        verdict = gate(
            EvaluationReport.from_json(known.report),
            EvaluationReport.from_json(candidate.report),
            GateConfig(delta=loop.settings.gate_delta),
        )
        compared = {serving.all_cells_id, serving.infected_id, version_id}
        warnings = warnings_for([get(session, number) for number in sorted(compared)], load_ruler(session).images)
        verdict = replace(verdict, reasons=verdict.reasons + warnings)
        record = activate if verdict.promote else reject
        record(session, version_id, kind="gate", reasons=verdict.reasons, evaluation_id=evaluation_id, run_id=run_id)
    return verdict


def promote(
    database: Database, version_id: int, *, reason: str = "a person decided", store: FileStore | None = None
) -> PromotionDecision:
    """A person lets a version serve, whatever the gate said. Raises NotFound, IllegalTransition.

    store: where its weights must be whole, or StoredFileCorrupt is raised and nothing changes.
    """
    with database.session() as session:
        check_weights(store, get(session, version_id))
        return activate(session, version_id, kind="person", reasons=[reason])


def rollback(
    database: Database, role: str, *, reason: str = "rolled back by a person", store: FileStore | None = None
) -> PromotionDecision:
    """Let the version serve again that the active one replaced; repeated, one further back.

    Raises NotFound when the active version replaced nothing. store: as for `promote`.
    """
    with database.session() as session:
        return roll_back(session, role, [reason], lambda before: check_weights(store, before))


def check_weights(store: FileStore | None, version: ModelVersion) -> None:
    """Raises StoredFileCorrupt when the version could not be loaded: whoever serves now must go on serving."""
    if store is not None:
        store.verify(weights_file(version.weights_sha256), version.weights_sha256)
