"""`cellloop serve`: the ML backend that Label Studio calls, and the dashboard."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default CELLLOOP_HOST, loopback.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default CELLLOOP_PORT, 9090.")] = None,
) -> None:
    """Answer Label Studio from SQL, and show the dashboard, until Ctrl-C or SIGTERM. A new model needs no restart.

    Example: cellloop serve --port 9090
    """
    from backend.api.app import create_app
    from backend.api.process import run
    from backend.logs import set_up
    from backend.ports import require_free_port
    from scripts.composition import read_settings

    settings = read_settings()
    set_up(settings.log_format)
    host, port = host or settings.host, port or settings.port
    require_free_port(host, port)
    app = create_app(settings)
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}/dashboard"
    print(f"dashboard  {where}  (sign in with a token of: cellloop token create)", flush=True)
    run(app, host, port, settings)
