"""Parasitaemia and stages per image, slide, patient and period, with 95 % intervals. Pure: rows in, numbers out.

Parasitaemia is the share of infected cells among all red cells that were counted, in percent. An interval speaks of
more than was looked at, and rests on what differs there: of a slide, on its fields; of a patient or a period with
several slides, on these; of a period with several patients, on the patients (a slide of nobody known counts as one).
So two weeks differ only if their patients do. Of an image, it is Wilson's for its cells, as in the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.history.intervals import Shares, clustered, independent
from backend.history.periods import PERIODS, period_of
from backend.instances import INFECTED

Row = Mapping[str, Any]  # of the view v_parasitaemia: source, image_id, image, slide, patient, at, and counts

BY: tuple[str, ...] = ("image", "slide", "patient", *PERIODS)
STAGES: tuple[str, ...] = tuple(f"{stage}s" for stage in INFECTED)  # the columns of their counts
COUNTS: tuple[str, ...] = ("cells", "infected", "leukocytes", *STAGES)
SHARES: Mapping[str, str] = {"infected": "cells", **dict.fromkeys(STAGES, "infected")}  # what is a share of what
# What cells may be alike in, from the largest; a slide stands for its patient when nobody knows whose it is.
UNITS: Mapping[str, Callable[[Row], Any]] = {
    "patient": lambda row: (row["patient"], row["slide"] if row["patient"] is None else None),
    "slide": itemgetter("slide"),
    "field": itemgetter("image_id"),
}
LEUKOCYTES_PER_MICROLITRE = 8000  # assumed of everybody: WHO, Basic malaria microscopy, part I, 2nd edition, 2010


@dataclass(frozen=True)
class Share:
    """How many, and in percent with a 95 % interval; None where nothing was counted."""

    count: int
    percent: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Parasitaemia:
    """One group by one source ("labels", or a model pair's name).

    percent, low, high: None without any red cell. method: "wilson", or what the interval rests on, as in "clustered
    by 12 fields"; "correlation assumed" where too little was seen to tell how alike the cells of a field are.
    stages: share of each among the infected cells. per_microlitre: infected cells / leukocytes x 8000, None
    without a leukocyte. It is WHO's rule for thick films and 200 leukocytes or more; in the few of a thin film's fields
    it is a rough guess, and it counts gametocytes and a cell with two parasites once. image_id: of by="image" only.
    """

    group: str
    source: str
    fields: int
    cells: int
    infected: int
    percent: float | None
    low: float | None
    high: float | None
    method: str
    stages: Mapping[str, Share]
    leukocytes: int
    per_microlitre: float | None
    image_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def by_group(rows: Iterable[Row], by: str) -> list[Parasitaemia]:
    """One Parasitaemia per source and group (one of BY, periods in UTC), in order of both.

    rows: of the view v_parasitaemia. Images of nobody known are no patient's. Raises ValueError for an unknown `by`.
    """
    if by not in BY:
        raise ValueError(f"expected by to be one of {', '.join(BY)}, got {by!r}")
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        if by != "patient" or row["patient"] is not None:
            name = period_of(row["at"], by) if by in PERIODS else row[by]
            groups.setdefault((row["source"], name, row["image_id"] if by == "image" else 0), []).append(row)
    if not groups:
        return []
    keys = sorted(groups)
    units, parts = zip(*(_clusters(groups[key]) for key in keys), strict=True)
    counts, group = np.concatenate(parts), np.repeat(np.arange(len(keys)), [len(part) for part in parts])
    totals = np.stack([part.sum(axis=0) for part in parts])
    shares = []
    for hits, among in ((COUNTS.index(hits), COUNTS.index(among)) for hits, among in SHARES.items()):
        if by == "image":
            shares.append(independent(totals[:, hits], totals[:, among]))
        else:
            shares.append(clustered(counts[:, hits], counts[:, among], group, len(keys)))
    found = []
    for index, (key, unit) in enumerate(zip(keys, units, strict=True)):
        numbers = dict(zip(COUNTS, totals[index].tolist(), strict=True))
        of = {hits: _share(share, index, numbers[hits]) for hits, share in zip(SHARES, shares, strict=True)}
        method = "wilson" if by == "image" else _method(shares[0], index, unit)
        found.append(_parasitaemia(key, len(groups[key]), numbers, of, method))
    return found


def _clusters(rows: Sequence[Row]) -> tuple[str, NDArray[np.int64]]:
    """The largest unit of which these rows hold several (else "field"), and the COUNTS of each, (C, 7) int64."""
    several = (unit for unit, part_of in UNITS.items() if len({part_of(row) for row in rows}) > 1)
    unit = next(several, "field")
    places: dict[Any, int] = {}
    index = [places.setdefault(UNITS[unit](row), len(places)) for row in rows]
    counts = np.zeros((len(places), len(COUNTS)), dtype=np.int64)
    np.add.at(counts, index, [[row[name] for name in COUNTS] for row in rows])
    nobody = unit == "patient" and all(row["patient"] is None for row in rows)
    return "slide" if nobody else unit, counts


def _parasitaemia(
    key: tuple[str, str, int], fields: int, numbers: Mapping[str, int], of: Mapping[str, Share], method: str
) -> Parasitaemia:
    source, name, image_id = key
    infected, leukocytes = numbers["infected"], numbers["leukocytes"]
    return Parasitaemia(
        group=name,
        source=source,
        fields=fields,
        cells=numbers["cells"],
        infected=infected,
        percent=of["infected"].percent,
        low=of["infected"].low,
        high=of["infected"].high,
        method=method,
        stages={stage: of[column] for stage, column in zip(INFECTED, STAGES, strict=True)},
        leukocytes=leukocytes,
        per_microlitre=LEUKOCYTES_PER_MICROLITRE * infected / leukocytes if leukocytes else None,
        image_id=image_id or None,
    )


def _method(shares: Shares, index: int, unit: str) -> str:
    count = int(shares.clusters[index])
    said = f"clustered by {count} {unit}" + ("" if count == 1 else "s")
    return said + (", correlation assumed" if shares.assumed[index] else "")


def _share(shares: Shares, index: int, count: int) -> Share:
    value, low, high = (100 * float(column[index]) for column in (shares.value, shares.low, shares.high))
    return Share(count, value, low, high) if np.isfinite(value) else Share(count, None, None, None)
