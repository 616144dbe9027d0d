"""Commands around the landing folder: land a dataset, make manifests, look into the quarantine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from world4rl.commands.options import PARAMS, ROOT, JsonOption, ParamsOption, RootOption

PANEL = "Landing"


def add(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=PANEL)(land)
    app.command(rich_help_panel=PANEL)(manifests)
    app.add_typer(quarantine, name="quarantine", rich_help_panel=PANEL)


def land(
    dataset: Annotated[Path, typer.Argument(help="Folder of a LeRobot v3 dataset; it is not changed.")],
    task: Annotated[str | None, typer.Option(help="The task of every episode, whatever the dataset calls it.")] = None,
    role: Annotated[
        Literal["expert", "policy", "random", "evaluation"] | None,
        typer.Option(help="What the episodes are (default: what the dataset says, else expert)."),
    ] = None,
    operator: Annotated[str | None, typer.Option(help="Who recorded it: a name or a pseudonym.")] = None,
    robot: Annotated[str | None, typer.Option(help="Which robot moved.")] = None,
    session: Annotated[str | None, typer.Option(help="What the recordings of one sitting have in common.")] = None,
    licence: Annotated[str | None, typer.Option(help="An SPDX identifier, or where the terms stand.")] = None,
    consent: Annotated[str | None, typer.Option(help="To which use the operator agreed.")] = None,
    policy: Annotated[str | None, typer.Option(help="Digest of the policy that acted.")] = None,
    name: Annotated[str | None, typer.Option(help="Of its folder there (default: the dataset's).")] = None,
    to: Annotated[str | None, typer.Option(help="The landing folder (default: landing.address).")] = None,
    params: ParamsOption = PARAMS,
    root: RootOption = ROOT,
) -> None:
    """Copy a dataset into the landing folder, with who recorded it and a marker that says it is whole."""
    from world4rl import progress
    from world4rl.config import load_params
    from world4rl.landing.deposit import land as deposit
    from world4rl.landing.inbox import open_inbox

    inbox = open_inbox(to or load_params(root / params).landing.address, root)
    said = {
        "source": role,
        "task": task,
        "operator": operator,
        "robot_id": robot,
        "session": session,
        "licence": licence,
        "consent": consent,
        "policy": policy,
    }
    with progress.session(f"land {dataset}"):
        landed = deposit(dataset, inbox, name=name, said=said)
    typer.echo(f"landed as {inbox.address}/{landed}")


def manifests(params: ParamsOption = PARAMS, root: RootOption = ROOT) -> None:
    """Make the tasks' manifests from the records of accepted datasets."""
    from world4rl.config import load_params
    from world4rl.paths import Paths
    from world4rl.provenance.manifests import write_manifests

    changed = write_manifests(load_params(root / params).tasks, Paths(root))
    typer.echo(f"changed: {', '.join(changed)}" if changed else "up to date")


quarantine = typer.Typer(help="Episodes that are kept out of training, and why.", no_args_is_help=True)


@quarantine.command("list")
def list_quarantine(
    everything: Annotated[bool, typer.Option("--all", help="Also what was released, or replaced.")] = False,
    as_json: JsonOption = False,
    root: RootOption = ROOT,
) -> None:
    """List what is kept out, a line an episode."""
    from world4rl.landing.quarantine import lines, listed

    if as_json:
        typer.echo(json.dumps(listed(root, everything=everything), indent=2))
        return
    for text in lines(root, everything=everything):
        typer.echo(text)


@quarantine.command("show")
def show_quarantine(
    number: Annotated[int, typer.Argument(help="Of the entry, as `list` prints it.")],
    as_json: JsonOption = False,
    root: RootOption = ROOT,
) -> None:
    """Show an entry: what was found, where, by which checker, and what became of it."""
    from world4rl.landing.quarantine import entry_of, show

    typer.echo(json.dumps(entry_of(root, number), indent=2) if as_json else show(root, number))


@quarantine.command("page")
def quarantine_page(
    out: Annotated[Path | None, typer.Option(help="Where to write it (default: reports/quarantine.html).")] = None,
    root: RootOption = ROOT,
) -> None:
    """Write what is kept out, and what was released, as an HTML page with pictures."""
    from world4rl.landing.page import write_page

    typer.echo(f"written to {write_page(root, out)}")


@quarantine.command("release")
def release_quarantine(
    number: Annotated[int, typer.Argument(help="Of the entry, as `list` prints it.")],
    by: Annotated[str, typer.Option(help="Who answers for it.")],
    because: Annotated[str, typer.Option(help="Why the finding does not matter.")],
    root: RootOption = ROOT,
) -> None:
    """Let an episode in, on somebody's word; its dataset is taken again."""
    from world4rl.landing.quarantine import release

    typer.echo(release(root, number, by=by, because=because))
