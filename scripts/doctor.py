"""`cellloop doctor`: what is missing or misconfigured, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from scripts import console

MARKS = {"ok": "  ok     ", "notice": "  notice ", "broken": "  BROKEN "}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """Look at everything this installation needs and say how to mend what is wrong. Exit code 1 when something is.

    Example: cellloop doctor --json | jq '.findings[] | select(.state != "ok")'
    """
    from backend.doctor import diagnose
    from scripts.composition import label_studio_program, read_settings

    findings = []
    for finding in diagnose(read_settings(), label_studio_program()):
        findings.append(finding)
        if not as_json:
            print(f"{MARKS[finding.state]}{finding.about:<20} {finding.found}")
            if finding.mend:
                print(f"{'':<30}-> {finding.mend}")
    broken = sum(finding.state == "broken" for finding in findings)
    if as_json:
        console.emit({"healthy": not broken, "findings": [asdict(f) for f in findings]}, as_json=True)
    else:
        print(f"\n{broken} broken, {sum(f.state == 'notice' for f in findings)} to know, of {len(findings)} looked at")
    if broken:
        raise typer.Exit(1)
