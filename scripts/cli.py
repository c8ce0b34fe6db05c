"""`cellloop <verb>`: one file of this folder per verb, listed here in the order a newcomer meets them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import typer

from scripts import console

# Each verb lives in scripts/<verb>.py as a function (or, for a family of verbs, an `app`) of the same name.
VERBS: tuple[str, ...] = (
    "migrate",
    "label-studio",
    "import",
    "export",
    "train",
    "preannotate",
    "rank",
    "push",
    "serve",
    "token",
    "worker",
    "sync",
    "retrain",
    "runs",
    "schedule",
    "evaluate",
    "history",
    "agreement",
    "difficult",
    "suspicious",
    "stopping",
    "crossval",
    "simulate",
    "promote",
    "rollback",
    "forget-patient",
    "demo",
    "render",
    "starter",
    "bench",
    "backup",
    "restore",
    "doctor",
)

app = typer.Typer(
    name="cellloop",
    help="Annotation-in-the-loop malaria microscopy: two fused Mask R-CNNs beside the expert in Label Studio.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def verb_module(verb: str) -> ModuleType:
    """The module that holds a verb. Two verbs are names of Python's own, so their files are called a little more."""
    other = {"import": "import_images", "token": "tokens"}
    return importlib.import_module("scripts." + other.get(verb, verb.replace("-", "_")))


def _register(verb: str) -> None:
    module = verb_module(verb)
    family: typer.Typer | None = getattr(module, "app", None)
    if family is not None:
        app.add_typer(family, name=verb)
        return
    function: Callable[..., None] = getattr(module, module.__name__.rpartition(".")[2])
    app.command(verb)(function)


for _verb in VERBS:
    _register(_verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. An expected error is one line on stderr and exit code 1; anything else is a bug and shows."""
    try:
        app(args=list(sys.argv[1:] if arguments is None else arguments), prog_name="cellloop")
    except BrokenPipeError:
        # `cellloop ... | head`: the reader has what it wants; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        message = console.expected(error)
        if message is None:
            raise
        console.fail(message)


if __name__ == "__main__":
    main()
