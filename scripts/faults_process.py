"""A `cellloop` command as the fault harness runs it: the command itself, in a process that obeys a control file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# What commands import before they have anything to do: imported once, for all processes that are forked from it.
MODULES = ("scripts.faults_process", "scripts.composition", "backend.api.app", "uvicorn", "al_loop.import_images")


def run(arguments: Sequence[str], environment: Mapping[str, str], log: str, control: str) -> None:
    """Run the command with these settings and no others, and log into this file."""
    from al_loop.faults import hooks
    from scripts import cli

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(output, descriptor)
    for name in [name for name in os.environ if name.startswith("CELLLOOP_")]:
        del os.environ[name]
    os.environ.update(environment)
    hooks.install(Path(control))
    cli.main(arguments)
