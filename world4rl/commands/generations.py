"""Commands around generations of the world model: refresh it, compare them."""

from __future__ import annotations

import json as json_
from typing import Annotated, Literal

import typer

from world4rl.commands.options import PARAMS, ROOT, JsonOption, ParamsOption, RootOption

PANEL = "World-model generations"


def add(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=PANEL)(refresh)
    app.command(rich_help_panel=PANEL)(generations)


def refresh(
    task: Annotated[str, typer.Option(help="One of the parameter file's tasks.")],
    episodes: Annotated[int | None, typer.Option(min=1, help="How many (default: rollouts.policy).")] = None,
    policy: Annotated[Literal["refined", "champion"], typer.Option(help="Whose rollouts.")] = "refined",
    params: ParamsOption = PARAMS,
    root: RootOption = ROOT,
) -> None:
    """Record rollouts of the refined policy in the simulator and land them: the world model's next generation."""
    from world4rl import machine
    from world4rl.landing.inbox import open_inbox
    from world4rl.paths import Paths
    from world4rl.runner import prepared

    with prepared("refresh", root, params, task) as loaded:
        machine.use_rendering_backend()  # before anything imports MuJoCo
        from world4rl.generations.refreshing import refresh as refreshed

        inbox = open_inbox(loaded.landing.address, root)
        name = refreshed(loaded, Paths(root), inbox, task, which=policy, episodes=episodes)
    typer.echo(f"landed as {inbox.address}/{name}")


def generations(json: JsonOption = False, params: ParamsOption = PARAMS, root: RootOption = ROOT) -> None:
    """Compare every generation of the world model with the one before it, on the same held-out episodes."""
    from world4rl.config import load_params
    from world4rl.generations.comparing import as_json, compare_generations, lines
    from world4rl.paths import Paths

    found = compare_generations(Paths(root), load_params(root / params).evaluation.confidence)
    typer.echo(json_.dumps(as_json(found), indent=1) if json else "\n".join(lines(found)))
