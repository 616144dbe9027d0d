"""Dagster's web server, which also shows the files that the assets' metadata links to: reports, audit pages, records.

`python -m pipelines.webserver`, in the project's folder, takes the options of `dagster-webserver`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dagster_webserver import app, cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from assets.showing import FILES, SHOWN

# A page says what people wrote into their datasets. Should one ever hold a script, it does not run, and is a stranger
# to the server that can launch runs.
HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "media-src 'self' data:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class ProjectFiles(StaticFiles):
    """Files of one folder, to look at; no listing, and no link that leads out of it. The folder need not exist yet."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder, check_dir=False)

    async def check_config(self) -> None:
        """Nothing: what is not there is not found."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """As its parent's, with `HEADERS`."""
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


def file_routes(root: Path) -> list[BaseRoute]:
    """The folders of a project that are shown, below `FILES`."""
    return [Mount(f"{FILES}/{folder}", ProjectFiles(root / folder)) for folder in SHOWN]


class Webserver(DagsterWebserver):
    """Dagster's own, with the files of the project in the current folder."""

    def build_routes(self) -> list[BaseRoute]:
        """The files first: Dagster's last route takes whatever is left."""
        return [*file_routes(Path.cwd()), *super().build_routes()]


def main() -> None:
    """Runs `dagster-webserver`; its command line has no option for another server."""
    app.DagsterWebserver = Webserver  # type: ignore[misc]  # a class is no variable to mypy
    cli.main()


if __name__ == "__main__":
    main()
