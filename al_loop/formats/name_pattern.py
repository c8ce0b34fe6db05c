"""What file names say of images: patient, slide and day, found by a pattern that whoever named the files knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from al_loop.formats.records import Problem, SourceImage
from al_loop.formats.values import read_moment, read_name
from backend.errors import SettingRefused

GROUPS = ("patient", "slide", "taken")


@dataclass(frozen=True)
class NamePattern:
    """A regular expression with some of the named groups patient, slide and taken (YYYYMMDD or an ISO date)."""

    expression: re.Pattern[str]

    @classmethod
    def of(cls, text: str) -> NamePattern:
        """The pattern as a person writes it. Raises SettingRefused for one that says nothing or does not compile."""
        example = r"such as '(?P<patient>P\d+)_(?P<slide>S\d+)_(?P<taken>\d{8})'"
        try:
            expression = re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise SettingRefused(
                f"--name-pattern: expected a regular expression {example}, got {text!r} ({error})"
            ) from error
        strange = [name for name in expression.groupindex if name not in GROUPS]
        if strange or not expression.groupindex:
            found = ", ".join(strange) or "none"
            raise SettingRefused(
                f"--name-pattern: expected named groups of {', '.join(GROUPS)}, got {found} in {text!r}; "
                f"write it {example}"
            )
        return cls(expression)

    def tell(self, images: Sequence[SourceImage]) -> tuple[list[SourceImage], list[Problem]]:
        """The images with what their names say, which overrules their records, and what names do not say."""
        told: list[SourceImage] = []
        problems: list[Problem] = []
        for image in images:
            found = self.expression.search(image.name) if image.name else None
            if image.name and found is None:
                problems.append(Problem("name that does not fit", image.name))
            said = {name: read_name(value) for name, value in (found.groupdict() if found else {}).items()}
            patient, slide, taken = (said.get(name) for name in GROUPS)
            taken_at = read_moment(taken)
            if taken and taken_at is None:
                problems.append(Problem("unreadable moment", f"{image.name}: {taken}"))
            # Slides are often numbered within a patient: without it, everybody's first slide would be one.
            group = f"{patient}/{slide}" if patient and slide else slide
            told.append(
                replace(
                    image,
                    patient=patient or image.patient,
                    group=group or image.group,
                    taken_at=taken_at or image.taken_at,
                )
            )
        return told, problems
