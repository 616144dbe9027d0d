"""Commands of `world4rl` that need DVC or Dagster: found through the entry points `world4rl.commands`.

What is heavy is imported inside the commands, so that `world4rl --help` answers at once.
"""

from __future__ import annotations

import typer

PANEL = "Lineage"


def add(app: typer.Typer) -> None:
    """Adds the commands."""
