"""Which version serves: the verdict on a candidate, and the row change that follows from it.

`judge` asks the gate and changes nothing; a canary may speak after it (`al_loop/canary.py`); `settle` lets the
candidate serve, or turns it down, and records why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from al_loop.context import Loop
from al_loop.gate import GateConfig, Judged, Verdict, gate
from al_loop.ruler import load_ruler
from al_loop.seen_images import warnings_for
from backend.errors import NotEnoughData
from backend.store import FileStore, weights_file
from db.evaluations import evaluation_of, get_evaluation
from db.models import ModelVersion, PromotionDecision
from db.session import Database
from db.versions import activate, active, active_pair, decisions, get, reject


def judge(loop: Loop, version_id: int, evaluation_id: int | None) -> Verdict:
    """What the gate says of a candidate beside the pair that serves now. Nothing is recorded.

    evaluation_id: what `evaluate_candidate` gave. None, or no incumbent: there is nothing to compare, it may serve.
    Raises NotEnoughData when the incumbent pair was not evaluated on the same frozen images.
    """
    with loop.database.session() as session:
        role = get(session, version_id).role
        incumbent = active(session, role)
        serving = active_pair(session)
        if incumbent is None or serving is None or evaluation_id is None:
            return Verdict(True, [f"nothing to compare with: no pair with a version of {role} serves yet"], {})
        candidate = get_evaluation(session, evaluation_id)
        known = evaluation_of(session, serving.id, candidate.split_sha256)
        if known is None:
            raise NotEnoughData(
                f"promotion of version {version_id}: expected an evaluation of the serving pair {serving.name} on the "
                "same frozen images, found none; evaluate the candidate again"
            )
        verdict = gate(
            Judged.from_json(known.report),
            Judged.from_json(candidate.report),
            GateConfig(delta=loop.settings.gate_delta, most_wrong=loop.settings.gate_most_wrong),
        )
        compared = {serving.all_cells_id, serving.infected_id, version_id}
        warnings = warnings_for([get(session, number) for number in sorted(compared)], load_ruler(session).images)
        return replace(verdict, reasons=verdict.reasons + warnings, beside=incumbent.id)


def settle(
    loop: Loop, version_id: int, evaluation_id: int | None, run_id: int | None, verdicts: Sequence[Verdict]
) -> Verdict:
    """Let the candidate serve if every verdict (the gate's, then the canary's) is for it; else turn it down.

    Recorded with all reasons, those against it first. Repeated for the same run, it answers the same.
    Raises NotEnoughData when meanwhile another version serves than the one it was compared with.
    """
    against = next((number for number, verdict in enumerate(verdicts) if not verdict.promote), None)
    with loop.database.session() as session:
        for decision in decisions(session, version_id):
            if run_id is not None and decision.run_id == run_id:
                return Verdict(decision.promote, list(decision.reasons), {})
        role = get(session, version_id).role
        serving = active(session, role)
        if against is None and (serving.id if serving is not None else None) != verdicts[0].beside:
            raise NotEnoughData(
                f"promotion of version {version_id}: expected version {verdicts[0].beside} to serve, which it was "
                f"compared with, got {serving.id if serving is not None else 'none'}; retrain, or promote it by hand"
            )
        reasons = [reason for verdict in sorted(verdicts, key=lambda each: each.promote) for reason in verdict.reasons]
        if against is None:
            kind = "first" if serving is None else "gate"
            activate(session, version_id, kind=kind, reasons=reasons, evaluation_id=evaluation_id, run_id=run_id)
        else:
            kind = "gate" if against == 0 else "canary"
            reject(session, version_id, kind=kind, reasons=reasons, evaluation_id=evaluation_id, run_id=run_id)
    numbers = {name: value for verdict in verdicts for name, value in verdict.numbers.items()}
    return Verdict(against is None, reasons, numbers)


def promote(
    database: Database, version_id: int, *, reason: str = "a person decided", store: FileStore | None = None
) -> PromotionDecision:
    """A person lets a version serve, whatever the gate said. Raises NotFound, IllegalTransition.

    store: where its weights must be whole, or StoredFileCorrupt is raised and nothing changes.
    """
    with database.session() as session:
        check_weights(store, get(session, version_id))
        return activate(session, version_id, kind="person", reasons=[reason])


def check_weights(store: FileStore | None, version: ModelVersion) -> None:
    """Raises StoredFileCorrupt when the version could not be loaded: whoever serves now must go on serving."""
    if store is not None:
        store.verify(weights_file(version.weights_sha256), version.weights_sha256)
