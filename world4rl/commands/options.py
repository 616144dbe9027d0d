"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ParamsOption = Annotated[Path, typer.Option("--params", help="Parameter file, below --root unless absolute.")]
RootOption = Annotated[Path, typer.Option("--root", help="Folder that holds data/, models/ and reports/.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page there as well.")]
PARAMS = Path("params.yaml")
ROOT = Path()
