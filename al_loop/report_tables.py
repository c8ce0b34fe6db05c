"""The report's numbers as rows of text, and its curves in words for those who cannot see them."""

from __future__ import annotations

from collections.abc import Mapping

from al_loop.judge_numbers import Key, Number, Verdict
from backend.instances import CLASSES, INFECTED

Row = tuple[str, list[str]]

HEADLINES: Mapping[Key, str] = {
    ("pooled_infected_ap50",): "AP50, infected stages pooled",
    ("pooled_infected_ap",): "AP50:95, infected stages pooled",
    ("infected_recall_at_0.5fp",): "infected recall at 0.5 false positives per image",
    ("stages_ap50",): "mean AP50 of the stages",
    ("macro_f1_stages",): "macro F1 of the stages",
    ("best_macro_f1_stages",): "the same at its best threshold",
    ("f1", "infected"): "F1, infected or not",
    ("calibration_error", "infected"): "calibration error of P(infected)",
    ("calibration_error", "suspected"): "the same where P(infected) >= .05",
    ("calibration_error", "cell"): "calibration error of P(there is a cell)",
    ("parasitaemia", "mae"): "parasitaemia, mean absolute error (points)",
    ("parasitaemia", "bias"): "parasitaemia, bias (points)",
    ("parasitaemia_expected", "mae"): "parasitaemia from probabilities, mean absolute error",
}


def shown(number: Number | None) -> str:
    """A number with its interval, or a dash."""
    if number is None or number.value is None:
        return "–"
    interval = number.interval()
    return f"{number.value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def headline_table(verdicts: Mapping[str, Verdict]) -> list[Row]:
    """One row per headline that any view has, one column per view."""
    rows = [(title, [shown(v.numbers.get(key)) for v in verdicts.values()]) for key, title in HEADLINES.items()]
    return [(title, cells) for title, cells in rows if set(cells) != {"–"}]


def class_table(verdicts: Mapping[str, Verdict]) -> list[Row]:
    """AP50, AP50:95 and F1 of every class that any view is judged by."""
    rows = []
    for name in CLASSES:
        for key, title in (("ap50", "AP50"), ("ap", "AP50:95"), ("f1", "F1")):
            cells = [shown(verdict.numbers.get((key, name))) for verdict in verdicts.values()]
            if set(cells) != {"–"}:
                rows.append((f"{name}, {title}", cells))
    return rows


def alt_texts(verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """What each plot shows, in words."""

    def each(title: str, *key: str) -> str:
        values = {view: verdict.numbers.get(key) for view, verdict in verdicts.items()}
        known = [f"{view} {n.value:.3f}" for view, n in values.items() if n is not None and n.value is not None]
        return f"{title}: {', '.join(known) or 'undefined'}."

    confusions = []
    for view, verdict in verdicts.items():
        table = verdict.decisions.confusion()
        stages = [CLASSES.index(name) for name in INFECTED]
        right, whole = int(sum(table[i, i] for i in stages)), int(table[stages].sum())
        confusions.append(f"{view} names the stage of {right} of {whole} infected cells rightly.")
    return {
        "precision-recall": "Precision against recall per class. "
        + each("Pooled infected AP50", "pooled_infected_ap50"),
        "froc": "Infected recall against false positives per image. "
        + each("At 0.5 per image", "infected_recall_at_0.5fp"),
        "calibration": "Observed frequency against claimed probability. "
        + each("Calibration error of P(infected)", "calibration_error", "infected"),
        "confusion": "Confusion matrices. " + " ".join(confusions),
        "parasitaemia": "Counted against true parasitaemia per image. "
        + each("Mean absolute error in points", "parasitaemia", "mae"),
    }
