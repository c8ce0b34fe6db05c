"""What an import found, what it left out, and why: counted while it runs, stored beside its row."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from al_loop.formats.records import PROBLEMS, Problem

EXAMPLES = 20  # per kind of problem; the counts are complete


@dataclass(frozen=True)
class ImportReport:
    """One import. added, labelled: images per split. cells: labels recorded per class. already_there: images, `learned`
    of which now know their patient or day.

    problems: {kind: count}, examples: {kind: up to 20 details}, unknown_categories: {name: boxes}.
    ruler_sha256: of the frozen test split, None while there is none.
    """

    source: str
    dataset: str
    listed: int
    already_there: int
    learned: int
    added: dict[str, int]
    labelled: dict[str, int]
    cells: dict[str, int]
    problems: dict[str, int]
    examples: dict[str, list[str]]
    unknown_categories: dict[str, int]
    ruler_sha256: str | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the row and for programs."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for a person, a line each."""
        added = ", ".join(f"{n} {split}" for split, n in self.added.items()) or "none"
        found = [
            f"{self.listed} images listed in {self.source} ({self.dataset})",
            f"{sum(self.added.values())} images added ({added}), {self.already_there} were there already"
            + (f", {self.learned} of which now know their patient or day" if self.learned else ""),
            f"{sum(self.cells.values())} labels recorded on {sum(self.labelled.values())} images: "
            + (", ".join(f"{n} {label}" for label, n in self.cells.items()) or "none"),
        ]
        for kind, count in self.problems.items():
            found.append(f"{count} x {kind}: {PROBLEMS[kind]}, e.g. {self.examples[kind][0]}")
        if self.unknown_categories:
            names = ", ".join(f"{name!r} ({n})" for name, n in self.unknown_categories.items())
            found.append(f"unknown categories: {names}")
        return found


@dataclass
class Tally:
    """Counts while an import runs."""

    listed: int = 0
    already_there: int = 0
    learned: int = 0
    added: Counter[str] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)
    cells: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, *problems: Problem) -> None:
        """Count problems, and keep the first of each kind as examples."""
        for problem in problems:
            self.problems[problem.kind] += 1
            examples = self.examples.setdefault(problem.kind, [])
            if len(examples) < EXAMPLES and problem.detail not in examples:
                examples.append(problem.detail)
            if problem.kind == "unknown category":
                self.unknown[problem.detail] += 1

    def report(self, source: str, dataset: str, ruler_sha256: str | None, seconds: float) -> ImportReport:
        """The finished report."""
        return ImportReport(
            source=source,
            dataset=dataset,
            listed=self.listed,
            already_there=self.already_there,
            learned=self.learned,
            added=dict(self.added),
            labelled=dict(self.labelled),
            cells=dict(self.cells.most_common()),
            problems=dict(self.problems.most_common()),
            examples=self.examples,
            unknown_categories=dict(self.unknown.most_common()),
            ruler_sha256=ruler_sha256,
            seconds=round(seconds, 2),
        )
