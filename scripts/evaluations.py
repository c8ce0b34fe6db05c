"""The two kinds of `cellloop evaluate`, from what was asked to what is shown."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from scripts import console

# Shown in the terminal for each view; the JSON holds all.
HEADLINES = (
    ("pooled_infected_ap50",),
    ("infected_recall_at_0.5fp",),
    ("stages_ap50",),
    ("macro_f1_stages",),
    ("calibration_error", "infected"),
    ("parasitaemia", "mae"),
)


def of_version(version: int | None, json_file: str) -> None:
    """A version with the other role's active one on the frozen test split, kept in the record."""
    from al_loop.evaluate import evaluate_candidate
    from al_loop.seen_images import warnings_of_version
    from db import evaluations, versions
    from scripts.composition import open_loop

    loop = open_loop()
    with loop.database.session(read_only=True) as session:
        chosen = versions.active(session, "infected") if version is None else versions.get(session, version)
    if chosen is None:
        console.fail("expected an active version of infected, found none; run: cellloop train --role infected")
    with console.progress("evaluating") as advance:
        evaluation = evaluate_candidate(loop, chosen.id, advance)
    if evaluation is None:
        console.fail("expected a frozen test split and an active version of the other role; see: cellloop doctor")
    with loop.database.session(read_only=True) as session:
        metrics = list(evaluations.metrics_of(session, evaluation).values())
    warnings = warnings_of_version(loop.database, chosen.id)
    print(*warnings, sep="\n", end="\n" if warnings else "", file=sys.stderr)
    metrics_shown = [asdict(m) for m in metrics]
    numbers = {"version": chosen.id, "evaluation": evaluation, "metrics": metrics_shown, "warnings": warnings}
    if console.write_json(numbers, json_file):
        return
    print(f"{chosen.role} version {chosen.id} on the frozen test split (evaluation {evaluation})")
    for m in metrics:
        print(f"  {m.name:<26} {m.class_name:<16} {_shown(m.value, (m.low, m.high))}  n = {m.n}")


def of_files(
    images: Path,
    annotations: Path | None,
    dataset: str | None,
    views: Sequence[str],
    weights: Path | None,
    json_file: str,
    report: Path | None,
) -> None:
    """A pair of weights on labelled images in a folder; needs neither a home nor a database."""
    from al_loop.formats.records import PROBLEMS
    from al_loop.judge_files import judge_files, look
    from al_loop.labelled_files import read_labelled
    from al_loop.seen_images import warning
    from backend.detect import pick_device
    from backend.pairs import STARTER, load_pair, read_card
    from scripts.composition import read_settings

    folder = weights or STARTER
    card = read_card(folder)
    files, problems = read_labelled(images, annotations, dataset)
    seen = warning(card.name, card.about.get("trained_on", ()), [file.labelled for file in files])
    if seen is not None:
        print(seen, file=sys.stderr)
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)  # better found impossible now than after the work
    pair = load_pair(folder, pick_device(read_settings().device))
    for kind, count in Counter(problem.kind for problem in problems).most_common():
        example = next(problem.detail for problem in problems if problem.kind == kind)
        print(f"{count} x {kind} ({PROBLEMS[kind]}), such as {example}", file=sys.stderr)
    with console.progress("evaluating") as advance:
        judged = judge_files(pair, files, views, on_progress=advance)
    shas = {"all_cells_sha256": card.all_cells_sha256, "infected_sha256": card.infected_sha256}
    numbers = {**judged.to_json(), "weights": {"name": card.name, **shas}, "problems": len(problems)}
    numbers |= {"warnings": [seen] if seen else []}
    if report is not None:
        from al_loop.report import Subject, write_report

        names = [file.name for file in files]
        closer = partial(look, pair, views=views, masks=True)
        subject = Subject(names, judged.truths(), judged.views, judged.judgement, judged.read, closer)
        with console.progress("drawing") as advance:
            page = write_report(report, subject, card.name, on_progress=advance)
        print(f"report: {page}", file=sys.stderr)
    if not console.write_json(numbers, json_file):
        _show(judged.judgement.verdicts, len(files))


def _show(verdicts: Mapping[str, Any], images: int) -> None:
    for view, verdict in verdicts.items():
        print(f"{view} on {images} images")
        rows = [key for key in verdict.numbers if key[0] == "ap50"]
        for key in [*rows, *HEADLINES]:
            number = verdict.numbers.get(key)
            if number is not None and number.value is not None:
                print(f"  {' '.join(key):<28} {_shown(number.value, number.interval() or (None, None))}")


def _shown(value: float | None, interval: Sequence[float | None]) -> str:
    low, middle, high = ("-" if x is None else f"{x:.3f}" for x in (interval[0], value, interval[1]))
    return f"{middle:>6}  [{low}, {high}]"
