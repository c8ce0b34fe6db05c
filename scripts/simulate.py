"""`cellloop simulate`: how many labels the ranking saves, with the truth of labelled smears as the expert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console

DEFAULT = "ours,entropy,margin,random,whole-fields"


def simulate(
    data: Annotated[Path, typer.Option(help="Folder of labelled smears, or of several such folders.")],
    strategies: Annotated[str, typer.Option(help="Names, separated by commas.")] = DEFAULT,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions; intervals are over them.")] = 5,
    deals: Annotated[int, typer.Option(min=1, help="Assignments of images to pool and exam in each.")] = 6,
    error_rate: Annotated[float, typer.Option(help="Share of the expert's answers that are wrong.")] = 0.0,
    weights: Annotated[
        Path | None, typer.Option(help="A detector that never saw these smears; default: one of rendered smears.")
    ] = None,
    as_json: Annotated[str, typer.Option("--json", help="Write every number to this file; - for stdout.")] = "",
    report: Annotated[Path | None, typer.Option(help="Folder for report.md and its curves.")] = None,
) -> None:
    """Replay the loop cell by cell, strategy by strategy: infected AP50 against cells reviewed and expert seconds.

    Example: cellloop simulate --data ../shared/data --strategies ours,entropy,random --json saved.json --report saved
    """
    from al_loop.simulate import Simulation
    from al_loop.simulate_expert import Expert
    from al_loop.simulate_report import write_report
    from al_loop.simulate_study import Study
    from al_loop.simulate_study import simulate as run
    from backend.home import prepare_home
    from scripts.composition import read_settings

    names = tuple(name.strip() for name in strategies.split(",") if name.strip())
    study = Study(data, names, seeds, deals, Simulation(expert=Expert(error_rate=error_rate)), weights)
    home = read_settings().home
    prepare_home(home)
    with console.progress("simulating") as advance:
        answer = run(study, home / "simulate", console.reporter(advance))
    if report is not None:
        write_report(report, answer)
    if not console.write_json(answer, as_json):
        console.emit(answer["summary"], as_json=False)
