"""How pages are made: templates, and how moments and numbers are written in them. Everything is escaped."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import Path as Param
from fastapi import Query, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from backend.api.dashboard.assets import address
from backend.api.dashboard.charts import Point
from backend.history.agreement import NO_CELL, Estimate
from backend.label_studio.label_config import COLOURS

NAVIGATION = (
    ("/dashboard", "Overview"),
    ("/dashboard/models", "Models"),
    ("/dashboard/experts", "Experts"),
    ("/dashboard/queue", "Queue"),
    ("/dashboard/images", "Images"),
    ("/dashboard/smears", "Smears"),
)
NOTHING = "–"

Id = Annotated[int, Param(ge=1, le=2**31 - 1)]  # as both engines have it
Later = Annotated[int, Query(ge=0, le=2**31 - 1)]  # an id, or 0: before the first


def moment(value: datetime | None) -> Markup | str:
    """A moment in UTC, for people and machines."""
    if value is None:
        return NOTHING
    utc = value.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(utc.isoformat(timespec="seconds"), f"{utc:%d %b %Y, %H:%M}")


def age(value: datetime, present: datetime | None = None) -> str:
    """How long ago that was, in the largest whole unit: "5 min"."""
    seconds = ((present or datetime.now(UTC)) - value).total_seconds()
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)}\u00a0{unit}"
    return "less than a minute"


def number(value: float | None, digits: int = 2) -> str:
    """A number as people read it; whole numbers with thousands set apart."""
    if value is None:
        return NOTHING
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share as a percentage."""
    return NOTHING if value is None else f"{100 * value:.{digits}f}\u202f%"


def interval(point: Point | Estimate, digits: int = 2) -> str:
    """A number with its 95 % interval, where it has one."""
    if point.low is None or point.high is None:
        return number(point.value, digits)
    return f"{number(point.value, digits)} ({number(point.low, digits)} to {number(point.high, digits)})"


def kind_of(label: str | None) -> str:
    """The style class of a label: what it is called in the stylesheet; `other` for a label that has no colour."""
    known = label is None or label == NO_CELL or label in COLOURS
    return re.sub(r"[^a-z]+", "-", label or NO_CELL) if known else "other"


def letter_of(label: str | None) -> str:
    """What stands for a label in a picture, beside its colour."""
    return {"red blood cell": "", "difficult": "?", None: "×"}.get(label, str(label)[:1].upper())


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "moment": moment, "age": age, "number": number, "percent": percent, "interval": interval,
        "kind_of": kind_of, "letter_of": letter_of,
    }  # fmt: skip
    environment.globals |= {"address": address, "navigation": NAVIGATION, "colours": COLOURS}
    return environment


ENVIRONMENT = _environment()


def render(request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """The page made from a template of ours."""
    visit = getattr(request.state, "visit", None)  # None: nobody is signed in
    html = ENVIRONMENT.get_template(template).render(path=request.url.path, visit=visit, **values)
    return HTMLResponse(html, status)
