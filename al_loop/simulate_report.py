"""The report of a simulation, from its JSON alone: a page in Markdown and its curves as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from al_loop.metrics import POOLED
from al_loop.simulate_plots import figures
from backend.store import replace_atomically

PAGE = "report.md"
Answer = Mapping[str, Any]


def write_report(folder: Path, answer: Answer) -> Path:
    """Write `report.md` and its PNGs into `folder` (made when missing); the page's path."""
    for name, figure in figures(answer).items():
        replace_atomically(folder / f"{name}.png", (_png(figure),))
    replace_atomically(folder / PAGE, (page(answer).encode("utf-8"),))
    return folder / PAGE


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def page(answer: Answer) -> str:
    """The page's Markdown."""
    summary, sources = answer["summary"], answer["settings"]["sources"]
    images = ", ".join(f"{count} images of {name}" for name, count in sources.items())
    rate = answer["settings"]["plan"]["expert"]["error_rate"]
    expert = "who knows the truth" if not rate else f"{rate:.0%} of whose answers are wrong"
    return "\n".join(
        [
            "# Labels saved",
            "",
            f"{images}; {answer['settings']['seeds']} seeds with {answer['settings']['deals']} "
            f"assignments of slides to pool and exam each; an expert {expert}. The pool "
            f"holds {summary['pool_cells']:.0f} proposals, which stand for "
            f"{summary['infected_recall_of_proposals']:.1%} of the true infected cells.",
            "",
            f"Pooled infected AP50 on images nobody reviews: {summary['first_ap50']:.3f} before the first answer, "
            f"{summary['full_ap50']:.3f} with every answer of the pool, target {summary['target_ap50']:.3f} "
            "(95 %, of each assignment by itself). In brackets: 95 % intervals over seeds.",
            "",
            table(answer),
            "",
            "![AP50 against cells reviewed](ap50_by_reviews.png)",
            "![AP50 against the expert's time](ap50_by_seconds.png)",
            "![reviews needed](reviews_needed.png)",
            "![rare cells shown](rare_shown.png)",
            "",
            "What this proxy leaves out:",
            "",
            *(f"* {text}" for text in answer["left_out"]),
            "",
        ]
    )


def table(answer: Answer) -> str:
    """One row per strategy: reviews and time needed, ratios to ours, rare cells shown, wrong answers found."""
    head = ["strategy", "reviews to the target", "over ours", "expert hours", "hours over ours", "rare shown at 10 %"]
    wrong = any(row["errors_found_in_first_fifth"] for row in answer["strategies"].values())
    head += ["wrong answers in the first fifth"] if wrong else []
    rows = []
    for name, row in answer["strategies"].items():
        never = f" ({row['censored']} of {answer['settings']['seeds']} never)" if row["censored"] else ""
        hours = [seconds / 3600 for seconds in row["seconds_needed"]]
        cells = [
            name,
            f"{row['mean']:.0f} {_span(row['interval'], '.0f')}{never}",
            "" if "over_ours" not in row else f"{row['over_ours']:.2f} {_span(row['over_ours_interval'], '.2f')}",
            f"{sum(hours) / len(hours):.2f}",
            "" if row["seconds_over_ours"] is None else f"{row['seconds_over_ours']:.2f}",
            _of(row["rare_shown_at_10_percent"]),
        ]
        if wrong:
            cells += [_of(row["errors_found_in_first_fifth"])]
        rows.append(cells)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _span(interval: Sequence[float | None], form: str) -> str:
    low, high = interval
    return "" if low is None or high is None else f"[{max(low, 0):{form}}, {high:{form}}]"


def _of(estimate: Mapping[str, Any] | None) -> str:
    return "" if estimate is None else f"{estimate['value']:.2f} {_span(estimate['interval'], '.2f')}".strip()


def full_ap50(answer: Answer) -> list[float]:
    """By assignment: what all labels give."""
    return [float(exam["full"][POOLED]) for exam in answer["exams"]]
