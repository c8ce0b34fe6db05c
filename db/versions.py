"""Model versions, the pairs that predict, and the decisions about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.errors import IllegalTransition, NotFound, RecordError
from db.images import ids_by_sha256
from db.models import (
    VERSION_TRANSITIONS,
    ModelPair,
    ModelVersion,
    Prediction,
    PromotionDecision,
    TrainingImage,
    VersionStatus,
)


def add_version(
    session: Session,
    *,
    role: str,
    weights_sha256: str,
    config: dict[str, Any],
    manifest: dict[str, Any],
    manifest_sha256: str,
    environment: dict[str, Any],
) -> ModelVersion:
    """Record a trained detector as a candidate, with the images it was trained on as its manifest lists them."""
    version = ModelVersion(
        role=role,
        status=VersionStatus.candidate,
        weights_sha256=weights_sha256,
        config=config,
        manifest=manifest,
        manifest_sha256=manifest_sha256,
        newest_revision_id=manifest.get("newest_revision_id"),
        environment=environment,
    )
    session.add(version)
    session.flush()
    listed = {image["sha256"]: image.get("partial") is None for image in manifest.get("images", ())}
    known = ids_by_sha256(session, listed)
    session.add_all(
        TrainingImage(version_id=version.id, image_id=image_id, complete=listed[sha256])
        for sha256, image_id in known.items()
    )
    session.flush()
    return version


def get(session: Session, version_id: int) -> ModelVersion:
    """The version with this id. Raises NotFound."""
    version = session.get(ModelVersion, version_id)
    if version is None:
        known = ", ".join(f"{row.id} ({row.role}, {row.status.value})" for row in versions(session)[-10:])
        raise NotFound(f"expected the id of a model version, got {version_id}; there are: {known or 'none, train one'}")
    return version


def ids(session: Session) -> Sequence[int]:
    """Ids of all versions, oldest first."""
    return session.scalars(select(ModelVersion.id).order_by(ModelVersion.id)).all()


def versions(session: Session, role: str | None = None) -> Sequence[ModelVersion]:
    """All versions, oldest first; of one role when given."""
    query = select(ModelVersion).order_by(ModelVersion.id)
    return session.scalars(query if role is None else query.where(ModelVersion.role == role)).all()


def with_weights(session: Session, role: str, weights_sha256: str, manifest_sha256: str) -> ModelVersion | None:
    """The version with these weights trained on these labels: a repeated job step must not record it twice."""
    query = select(ModelVersion).where(
        ModelVersion.role == role,
        ModelVersion.weights_sha256 == weights_sha256,
        ModelVersion.manifest_sha256 == manifest_sha256,
    )
    return session.scalar(query.order_by(ModelVersion.id).limit(1))


def active(session: Session, role: str) -> ModelVersion | None:
    """The version of this role that serves."""
    query = select(ModelVersion).where(ModelVersion.role == role, ModelVersion.status == VersionStatus.active)
    return session.scalar(query)


def active_ids(session: Session) -> dict[str, int]:
    """The version that serves by role, without what is long in its row."""
    rows = session.execute(
        select(ModelVersion.role, ModelVersion.id).where(ModelVersion.status == VersionStatus.active)
    )
    return {role: version_id for role, version_id in rows}


def _locked(session: Session, version_id: int) -> ModelVersion:
    """The version, with all versions of its role held against other writers and freshly read."""
    role = get(session, version_id).role
    query = select(ModelVersion).where(ModelVersion.role == role).order_by(ModelVersion.id)
    session.scalars(query.with_for_update(key_share=True).execution_options(populate_existing=True)).all()
    return get(session, version_id)


def _set_status(session: Session, version: ModelVersion, status: VersionStatus) -> None:
    allowed = VERSION_TRANSITIONS[version.status]
    if status not in allowed:
        raise IllegalTransition(
            f"{version.role} version {version.id} is {version.status.value}: expected a step to "
            f"{' or '.join(sorted(s.value for s in allowed)) or 'nothing'}, got {status.value}"
        )
    version.status = status
    session.flush()  # one at a time: the engine allows one active version per role at every moment


def _decided(session: Session, version_id: int, run_id: int | None, promote: bool) -> PromotionDecision | None:
    """The decision this run already took about this version: a repeated step must not take it twice."""
    if run_id is None:
        return None
    return session.scalar(
        select(PromotionDecision).where(
            PromotionDecision.version_id == version_id,
            PromotionDecision.run_id == run_id,
            PromotionDecision.promote == promote,
        )
    )


def activate(
    session: Session,
    version_id: int,
    *,
    kind: str,
    reasons: Sequence[str],
    evaluation_id: int | None = None,
    run_id: int | None = None,
) -> PromotionDecision:
    """Let this version serve, retire the one that did, and record why. `kind`: gate | first | person | rollback.

    A repeated call for the same run returns its decision. Raises IllegalTransition when it serves already.
    """
    version = _locked(session, version_id)
    decision = _decided(session, version_id, run_id, True)
    if decision is not None:
        return decision
    incumbent = active(session, version.role)
    if incumbent is version:
        raise IllegalTransition(f"{version.role} version {version.id} is active: it serves already, nothing changed")
    if incumbent is not None:
        _set_status(session, incumbent, VersionStatus.retired)
    _set_status(session, version, VersionStatus.active)
    decision = PromotionDecision(
        version_id=version_id,
        replaced_id=None if incumbent is None else incumbent.id,
        kind=kind,
        promote=True,
        reasons=list(reasons),
        evaluation_id=evaluation_id,
        run_id=run_id,
    )
    session.add(decision)
    session.flush()
    return decision


def reject(
    session: Session,
    version_id: int,
    *,
    reasons: Sequence[str],
    kind: str = "gate",
    evaluation_id: int | None = None,
    run_id: int | None = None,
) -> PromotionDecision:
    """Turn a candidate down and record why. A repeated call for the same run returns its decision."""
    version = _locked(session, version_id)
    decision = _decided(session, version_id, run_id, False)
    if decision is not None:
        return decision
    _set_status(session, version, VersionStatus.rejected)
    decision = PromotionDecision(
        version_id=version_id,
        kind=kind,
        promote=False,
        reasons=list(reasons),
        evaluation_id=evaluation_id,
        run_id=run_id,
    )
    session.add(decision)
    session.flush()
    return decision


def decisions(session: Session, version_id: int | None = None) -> Sequence[PromotionDecision]:
    """All decisions, oldest first; about one version when given."""
    query = select(PromotionDecision).order_by(PromotionDecision.id)
    if version_id is not None:
        query = query.where(PromotionDecision.version_id == version_id)
    return session.scalars(query).all()


def newest_decision_id(session: Session) -> int:
    """Id of the last decision about any version, 0 when there is none."""
    return session.scalar(select(func.max(PromotionDecision.id))) or 0


def previous(session: Session, role: str) -> ModelVersion | None:
    """What a rollback would bring back: the version that the active one replaced when it was promoted.

    Rollbacks themselves are not counted as promotions, so a second rollback goes one further back.
    """
    serving = active_ids(session).get(role)
    replaced = None if serving is None else replaced_by(session, serving)
    return None if replaced is None else get(session, replaced)


def replaced_by(session: Session, version_id: int) -> int | None:
    """Which version this one replaced when it was last promoted."""
    decision, back = PromotionDecision, ("rollback", "canary")
    promoted = (decision.version_id == version_id, decision.promote.is_(True), decision.kind.not_in(back))
    return session.scalar(select(decision.replaced_id).where(*promoted).order_by(decision.id.desc()).limit(1))


def roll_back(
    session: Session,
    role: str,
    reasons: Sequence[str],
    check: Callable[[ModelVersion], object],
    kind: str = "rollback",
) -> PromotionDecision:
    """Let the version serve again that the active one replaced; repeated, one further back.

    kind: rollback (a person wants it) or canary (experts correct the active one too much). check: looks whether that
    version could serve, and raises an error where it could not; then nothing changes.
    Raises NotFound when the active version replaced nothing.
    """
    before = previous(session, role)
    if before is None:
        raise NotFound(f"{role}: expected a version that the active one replaced, found none; nothing changed")
    check(before)
    return activate(session, before.id, kind=kind, reasons=reasons)


def pair_of(session: Session, all_cells_id: int, infected_id: int, fusion: dict[str, Any] | None = None) -> ModelPair:
    """The pair of these two versions, made where there is none.

    A pair keeps the fusion settings it was made with; only one without any, that has predicted nothing yet,
    takes those given here.
    """
    query = select(ModelPair).where(ModelPair.all_cells_id == all_cells_id, ModelPair.infected_id == infected_id)
    pair = session.scalar(query)
    if pair is None:
        for version_id, role in ((all_cells_id, "all_cells"), (infected_id, "infected")):
            version = get(session, version_id)
            if version.role != role:
                raise RecordError(f"expected a version of role {role}, got {version.role} version {version_id}")
        pair = ModelPair(
            name=f"cellloop-{all_cells_id}.{infected_id}",
            all_cells_id=all_cells_id,
            infected_id=infected_id,
            fusion=fusion or {},
        )
        try:
            with session.begin_nested():
                session.add(pair)
        except IntegrityError:  # another process made it a moment ago
            pair = session.scalars(query).one()
    if fusion and not pair.fusion:
        used = session.scalar(select(Prediction.id).where(Prediction.pair_id == pair.id).limit(1))
        if used is None:
            pair.fusion = fusion
            session.flush()
    return pair


def pair_named(session: Session, name: str) -> ModelPair | None:
    """The pair with this name, which is Label Studio's model_version; None for somebody else's."""
    return session.scalar(select(ModelPair).where(ModelPair.name == name))


def active_pair(session: Session, fusion: dict[str, Any] | None = None) -> ModelPair | None:
    """The pair of the two serving versions; None until both roles have one."""
    all_cells, infected = active(session, "all_cells"), active(session, "infected")
    if all_cells is None or infected is None:
        return None
    return pair_of(session, all_cells.id, infected.id, fusion)


def pair(session: Session, pair_id: int) -> ModelPair:
    """The pair with this id. Raises NotFound."""
    found = session.get(ModelPair, pair_id)
    if found is None:
        raise NotFound(f"expected a model pair with id {pair_id}, found none")
    return found
