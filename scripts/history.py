"""`cellloop history`: questions to the record, answered as a table, JSON, CSV or Parquet."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from scripts import console
from scripts.history_output import Output, write

if TYPE_CHECKING:
    from db.history import Filter, Question

ROWS = 50  # of a table for people

Limit = Annotated[int | None, typer.Option(help=f"Most rows; default: {ROWS} in a table, else all.", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Answer in CSV.")]
Parquet = Annotated[Path | None, typer.Option(help="Write the answer to this Parquet file.")]


class Questions(TyperGroup):
    """One command per question of the record, made when somebody asks: the record is slow to load."""

    def list_commands(self, ctx: Any) -> list[str]:
        from backend.history.questions import QUESTIONS

        return [question.name for question in QUESTIONS] + super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from backend.history.questions import QUESTIONS

        asked = [question for question in QUESTIONS if question.name == cmd_name]
        return _command(asked[0]) if asked else super().get_command(ctx, cmd_name)


app = typer.Typer(cls=Questions, no_args_is_help=True)


@app.callback()
def history() -> None:
    """Every label and every number, answerable: the life of a cell, labels of any moment, metrics, experts' work.

    Example: cellloop history labels --slide S12 --as-of 2026-11-20T12:00:00+00:00 --csv
    """


@app.command("manifest")
def manifest(
    version: Annotated[int, typer.Argument(help="Model version.", show_default=False)],
    verify: Annotated[bool, typer.Option("--verify", help="Compare it with what the record gives today.")] = False,
) -> None:
    """Print exactly what a version was trained on, as canonical JSON: the same bytes every time.

    Example: cellloop history manifest 7 --verify > manifest.json
    """
    from al_loop.snapshot import reproduced
    from db import versions
    from scripts.composition import open_loop

    with open_loop().database.session(read_only=True) as session:
        found = versions.get(session, version)
        if verify and not reproduced(session, version):
            console.fail(
                f"version {version}: expected the record to give its training set again, got another; was a patient "
                "forgotten since (cellloop forget-patient --list), or the database changed by hand?"
            )
    print(json.dumps(found.manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    if verify:
        print(f"the record gives the same images and labels, sha256 {found.manifest_sha256}", file=sys.stderr)


def _command(question: Question) -> Any:
    """The command of one question, with an option per filter."""

    def answer(limit: int | None, as_json: bool, as_csv: bool, parquet: Path | None, **given: Any) -> None:
        from scripts.composition import open_loop

        output = Output(as_json, as_csv, parquet)
        most = ROWS if limit is None and output.for_people else limit
        with open_loop().database.session(read_only=True) as session:
            write(question, question.pages(session, _read(question, given), most), output)

    shared = {"limit": (Limit, None), "as_json": (AsJson, False), "as_csv": (AsCsv, False), "parquet": (Parquet, None)}
    parameters = [_parameter(each) for each in question.filters]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, (kind, default) in shared.items()
    ]
    answer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    answer.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    answer.__doc__ = f"{question.about}\n\nExample: cellloop history {question.example}"
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(question.name)(answer)
    return typer.main.get_command(single)


def _parameter(each: Filter) -> inspect.Parameter:
    from datetime import datetime

    kind: Any = str if each.kind is datetime else each.kind  # read by ourselves: with a zone, and days alone
    about = f"{each.about[0].upper()}{each.about[1:]}."
    if each.required:
        annotation: Any = Annotated[kind, typer.Argument(help=about, show_default=False)]
        return inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    annotation = Annotated[kind | None, typer.Option(f"--{each.name.replace('_', '-')}", help=about)]
    return inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None)


def _read(question: Question, given: dict[str, Any]) -> dict[str, Any]:
    from datetime import datetime

    from db.history import moment

    moments = {each.name for each in question.filters if each.kind is datetime}
    return {n: moment(value) if n in moments and value is not None else value for n, value in given.items()}
