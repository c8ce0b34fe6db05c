"""Questions whose answers are computed from a view's rows: parasitaemia of groups, and how far experts agree."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Double, Integer, String
from sqlalchemy.orm import Session

from backend.history.agreement import Estimate, Readings, agreement
from backend.history.parasitaemia import BY, STAGES, Parasitaemia, by_group
from backend.history.periods import PERIODS
from backend.instances import INFECTED
from db.double_readings import double_readings
from db.errors import UnusableQuestion
from db.history import NO_CURSOR, Filter, Page, Question
from db.models import Json
from db.parasitaemia import counted_images
from db.questions import IMAGE, PATIENT, SLIDE, find_image

By: Any = StrEnum("By", list(BY))  # type: ignore[misc]
Every: Any = StrEnum("Every", list(PERIODS))  # type: ignore[misc]


@dataclass(frozen=True)
class Computed(Question):
    """A question whose rows are computed anew for each page: a page begins after so many rows."""

    @abstractmethod
    def rows(self, session: Session, chosen: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """All rows of the answer."""

    def _page(self, session: Session, chosen: Mapping[str, Any], limit: int, after: list[Any] | None) -> Page:
        start = 0 if after is None else after[0] if after else -1
        if not isinstance(start, int) or start < 0:
            raise UnusableQuestion(NO_CURSOR)
        found = self.rows(session, chosen)
        more = start + limit < len(found)
        return found[start : start + limit], [start + limit] if more else None


class ParasitaemiaQuestion(Computed):
    """Counts and shares per group; `stages` has the share of each stage with its interval."""

    view_name = "v_parasitaemia"

    def types(self) -> Mapping[str, Any]:
        counts: dict[str, Any] = dict.fromkeys(("fields", "cells", "infected", *STAGES, "leukocytes"), Integer())
        shares: dict[str, Any] = dict.fromkeys(("percent", "low", "high"), Double())
        return {
            "group": String(),
            "source": String(),
            **counts,
            **shares,
            "method": String(),
            "per_microlitre": Double(),
            "stages": Json,
            "image_id": Integer(),
        }

    def rows(self, session: Session, chosen: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        image = chosen.get("image")
        counted = counted_images(
            session,
            chosen.get("source", "labels"),
            slide=chosen.get("slide"),
            patient=chosen.get("patient"),
            image_id=None if image is None else find_image(session, image),
            since=chosen.get("since"),
            until=chosen.get("until"),
        )
        return [self._row(each) for each in by_group(counted, str(chosen.get("by", "slide")))]

    def _row(self, found: Parasitaemia) -> tuple[Any, ...]:
        stages = {name: found.stages[stage].count for name, stage in zip(STAGES, INFECTED, strict=True)}
        values = asdict(found) | stages
        return tuple(values[name] for name in self.types())


class AgreementQuestion(Computed):
    """One row per pair of experts, and one for all of them by each measure (first and second are NULL)."""

    view_name = "v_revisions"

    def types(self) -> Mapping[str, Any]:
        return {
            "period": String(),
            "measure": String(),
            "first": String(),
            "second": String(),
            "cells": Integer(),
            "same": Double(),
            "value": Double(),
            "low": Double(),
            "high": Double(),
        }

    def rows(self, session: Session, chosen: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        read = double_readings(session, bool(chosen.get("imports")))
        columns: Sequence[Any] = [(r.cell_id, r.expert, r.label, r.decided_at) for r in read]
        given = Readings(*zip(*columns, strict=True)) if columns else Readings([], [], [], [])
        found: list[tuple[Any, ...]] = []

        def add(measure: str, first: str | None, second: str | None, cells: int, same: float, e: Estimate) -> None:
            found.append((each.period, measure, first, second, cells, same, e.value, e.low, e.high))

        for each in agreement(given, str(chosen.get("by", "all"))):
            for pair in each.pairs:
                add("Cohen's kappa", pair.first, pair.second, pair.cells, pair.same, pair.kappa)
            for measure, estimate in (
                ("Cohen's kappa", each.cohen),
                ("Fleiss' kappa", each.fleiss),
                ("Krippendorff's alpha", each.alpha),
            ):
                add(measure, None, None, each.cells, each.same, estimate)
        return found


PARASITAEMIA = ParasitaemiaQuestion(
    "parasitaemia",
    "Counts, stages and parasitaemia in percent with 95 % intervals, by current labels or by any model pair.",
    (
        Filter("by", "what is counted together; default: slide", By),
        Filter("source", "labels, or a model pair's name; default: labels"),
        IMAGE,
        SLIDE,
        PATIENT,
        Filter("since", "images taken (or imported) at this moment or later", datetime),
        Filter("until", "images taken (or imported) before this moment", datetime),
    ),
    "parasitaemia --by patient --since 2026-11-01",
)

AGREEMENT = AgreementQuestion(
    "agreement",
    "How far experts agree on the cells that several of them read, with 95 % intervals.",
    (
        Filter("by", "one answer for each; default: all", Every),
        Filter("imports", "imported labels are the answers of one more", bool),
    ),
    "agreement --by month",
)
