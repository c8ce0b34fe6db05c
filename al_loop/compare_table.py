"""Tables of a comparison, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from al_loop.crossval_score import ALL, COMPARED, Comparison
from al_loop.judge import FUSED
from al_loop.judge_numbers import Key, Number
from backend.instances import CLASSES, INFECTED

COLUMNS: tuple[tuple[str, Key], ...] = (
    ("RBC", ("ap50", CLASSES[0])),
    *((stage, ("ap50", stage)) for stage in INFECTED),
    ("stage mean", ("stages_ap50",)),
    ("infected", ("pooled_infected_ap50",)),
    ("recall at .5 FP", ("infected_recall_at_0.5fp",)),
    ("macro F1", ("macro_f1_stages",)),
    ("best macro F1", ("best_macro_f1_stages",)),
    ("calibration error", ("calibration_error", "infected")),
    ("parasitaemia MAE", ("parasitaemia", "mae")),
    ("expected MAE", ("parasitaemia_expected", "mae")),
)
TITLES: dict[Key, str] = {
    **{key: title for title, key in COLUMNS},
    ("pooled_infected_ap50",): "pooled infected AP50",
    ("stages_ap50",): "stage mean AP50",
}
LEGEND = (
    "AP50 of red blood cells (RBC), of each stage, their mean, and of all infected cells as one class; infected recall "
    "at 0.5 false positives per image; F1 of the stages, called where P(cell) reaches .5, and at each row's own best "
    "threshold; calibration error of P(infected); mean absolute error of parasitaemia per image in percentage points, "
    "by counting and by summing probabilities."
)


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if round(abs(value), 3) < 1 else f"{value:.2f}"


def shown(number: Number | None, intervals: bool) -> str:
    """A number as a table shows it: .912 [.870, .950]; "-" where there is none."""
    if number is None or number.value is None:
        return "-"
    interval = number.interval() if intervals else None
    return _short(number.value) + (f" [{_short(interval[0])}, {_short(interval[1])}]" if interval else "")


def tell(comparison: Comparison, intervals: bool = True) -> str:
    """All tables of a comparison: sources first, then all images pooled."""
    scored, folds = len(comparison.scored()), comparison.folds
    lines = [
        f"{scored} of {folds} folds; fusion fitted on: {comparison.fit}. 95 % intervals from resampling images.",
        "",
        LEGEND,
        "",
    ]
    for name in comparison.tables:
        lines += _about(comparison, name, intervals)
    return "\n".join(lines)


def _about(comparison: Comparison, name: str, intervals: bool) -> list[str]:
    judgement = comparison.tables[name]
    cells = ", ".join(f"{count} {label}" for label, count in judgement.cells.items() if count)
    title = "All sources pooled" if name == ALL else name
    lines = [f"## {title}", "", f"{judgement.images} images: {cells}.", ""]
    rows = [["", *(title for title, _ in COLUMNS)]]
    for view, verdict in judgement.verdicts.items():
        values = [shown(verdict.numbers.get(key), intervals) for _, key in COLUMNS]
        rows.append([f"**{view}**" if view == FUSED else view, *values])
    lines += [*_table(rows), "", "Fused minus each other row (paired; * the interval excludes zero):", ""]
    differences = comparison.differences(name)
    rows = [["", *(TITLES[key] for key in COMPARED)]]
    for other in next(iter(differences.values())):
        rows.append([other, *(_difference(differences[key][other]) for key in COMPARED)])
    return [*lines, *_table(rows), ""]


def _difference(number: Number) -> str:
    interval = number.interval()
    sure = interval is not None and (interval[0] > 0 or interval[1] < 0)
    signed = f"{'+' if number.value is not None and number.value > 0 else ''}{shown(number, True)}"
    return signed + (" *" if sure else "")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns also line up on a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
