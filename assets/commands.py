"""Commands of `world4rl` that need DVC or Dagster: found through the entry points `world4rl.commands`.

What is heavy is imported inside the commands, so that `world4rl --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from world4rl.commands.options import ROOT, JsonOption, RootOption

PANEL = "Lineage"


def add(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=PANEL)(record)
    app.command(rich_help_panel=PANEL)(lineage)
    app.command(rich_help_panel=PANEL)(reproduce)


def record(root: RootOption = ROOT) -> None:
    """Write run records of all that DVC made and nobody recorded yet, as after a plain `dvc repro`."""
    from assets.dvc_project import DvcProject
    from assets.recording import record_project
    from world4rl import progress

    counts = {"recorded": 0, "known": 0, "not up to date": 0}
    with progress.session("record"):
        for stage, kept in record_project(DvcProject(root)):
            what = "not up to date" if kept is None else "recorded" if kept.new else "known"
            counts[what] += 1
            if what != "known":
                progress.log(f"{stage.name}: {what}")
    typer.echo(", ".join(f"{count} {what}" for what, count in counts.items()))


def lineage(
    push: Annotated[bool, typer.Option(help="Also push the files to DVC's default remote, if there is one.")] = True,
    root: RootOption = ROOT,
) -> None:
    """Commit the present state to refs/world4rl/lineage; branch, index and files stay as they are."""
    from assets.lineage_ref import commit_lineage, push_lineage
    from world4rl import progress

    with progress.session("lineage"):
        found = commit_lineage(root.resolve())
        pushed = push and push_lineage(root.resolve())
    typer.echo("nothing has changed" if found is None else f"{found.commit}: {len(found.changed)} changes")
    if pushed:
        typer.echo("pushed to DVC's remote")


def reproduce(
    what: Annotated[str, typer.Argument(help="A file or folder, a stage such as bc@TASK, or a SHA-256.")],
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Figures agree when |a - b| <= TOLERANCE x max(1, |a|).")
    ] = 0.05,
    json_: JsonOption = False,
    root: RootOption = ROOT,
) -> None:
    """Run a recorded stage again in a fresh working tree and compare; status 1 when the outcome is different."""
    import dataclasses
    import json

    from assets.reproducing import reproduce as run_again
    from world4rl import progress

    with progress.session(f"reproduce {what}"):
        found = run_again(root, what, tolerance)
    if json_:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        comparison = found.comparison
        typer.echo(f"{found.stage} is {comparison.verdict} (record {found.record}, tree {found.commit[:12]})")
        for name in comparison.files:
            typer.echo(f"  other bytes: {name}")
        for pair in comparison.figures:
            typer.echo(f"  {pair.name}: {pair.recorded} then, {pair.again} now")
        typer.echo(f"  {comparison.compared} figures compared, tolerance {comparison.tolerance:g}")
        if found.otherwise:
            typer.echo(f"  not as it was then: {', '.join(found.otherwise)}")
    if found.comparison.verdict == "different":
        raise typer.Exit(1)
