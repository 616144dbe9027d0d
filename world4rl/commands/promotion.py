"""Commands around champions: challenge, look, roll back, deploy, and the key that signs it all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from world4rl.commands.options import PARAMS, ROOT, JsonOption, ParamsOption, RootOption

if TYPE_CHECKING:
    from world4rl.promotion.fleet import Running
    from world4rl.promotion.history import Reign

PANEL = "Champions and robots"
Task = Annotated[str, typer.Option("--task", help="The task.")]
Robot = Annotated[str, typer.Option("--robot", help="The robot's name.")]
By = Annotated[str, typer.Option("--by", help="Who answers for it.")]
Because = Annotated[str, typer.Option("--because", help="Why, in a sentence.")]


def add(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (challenge, champions, rollback, deploy, undeploy, fleet, keys):
        app.command(rich_help_panel=PANEL)(command)


def challenge(task: Task, params: ParamsOption = PARAMS, root: RootOption = ROOT) -> None:
    """Try the refined policy of a task against its champion, and promote it where it is better."""
    from world4rl.paths import Paths
    from world4rl.promotion import challenge as promotion
    from world4rl.provenance.keys import ensure_key
    from world4rl.runner import prepared

    with prepared("challenge", root, params, task) as loaded:
        promotion.challenge(loaded, Paths(root), task, ensure_key(Paths(root)))


def champions(
    everything: Annotated[bool, typer.Option("--all", help="Also those of the past.")] = False,
    as_json: JsonOption = False,
    root: RootOption = ROOT,
) -> None:
    """List the champion of every task: since when, and why."""
    from world4rl.paths import Paths
    from world4rl.promotion.history import read_history

    history = read_history(Paths(root))
    reigns = {task: history.reigns(task) for task in history.tasks}
    shown = [reign for task in reigns for reign in (reversed(reigns[task]) if everything else reigns[task][-1:])]
    withdrawn = {
        reign.policy: withdrawal.at for reign in shown if (withdrawal := history.withdrawal(reign.policy)) is not None
    }
    if as_json:
        _print_json(
            {
                **asdict(reign),
                "champion": reign is reigns[reign.task][-1],
                "withdrawn": withdrawn.get(reign.policy),
            }
            for reign in shown
        )
        return
    for reign in shown:
        _print_reign(reign, reign is reigns[reign.task][-1], withdrawn.get(reign.policy))
    if not shown:
        typer.echo("no task has a champion yet: `world4rl challenge --task TASK` tries for one")


def rollback(
    task: Task,
    by: By,
    because: Because,
    to: Annotated[
        str | None, typer.Option("--to", help="Digits that its digest begins with (default: the one before).")
    ] = None,
    root: RootOption = ROOT,
) -> None:
    """Make an earlier champion the champion again; nothing is trained."""
    from world4rl.paths import Paths
    from world4rl.promotion import champions as kept
    from world4rl.provenance.keys import ensure_key

    paths = Paths(root)
    _print_reign(kept.rollback(paths, ensure_key(paths), task, to=to, by=by, because=because), True, None)


def deploy(
    task: Task,
    robot: Robot,
    by: By,
    because: Because,
    policy: Annotated[
        str | None, typer.Option("--policy", help="Digits that its digest begins with (default: the champion).")
    ] = None,
    unpromoted: Annotated[
        bool, typer.Option("--unpromoted", help="Allow the task's cloned or refined policy; --because says why.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Copy the policy there.")] = None,
    root: RootOption = ROOT,
) -> None:
    """Verify a policy and note that a robot runs it from now on."""
    from world4rl.paths import Paths
    from world4rl.promotion import fleet as ledger
    from world4rl.provenance.keys import ensure_key

    paths = Paths(root)
    running, new = ledger.deploy(
        paths,
        ensure_key(paths),
        robot=robot,
        task=task,
        by=by,
        because=because,
        policy=policy,
        unpromoted=unpromoted,
        out=out,
    )
    _print_running(running)
    if not new:
        typer.echo("  it ran there already: nothing was recorded")
    if out is not None:
        typer.echo(f"  the policy lies in {out}")


def undeploy(task: Task, robot: Robot, by: By, because: Because, root: RootOption = ROOT) -> None:
    """Note that a robot no longer runs a policy for a task."""
    from world4rl.paths import Paths
    from world4rl.promotion import fleet as ledger
    from world4rl.provenance.keys import ensure_key

    paths = Paths(root)
    ledger.undeploy(paths, ensure_key(paths), robot=robot, task=task, by=by, because=because)
    typer.echo(f"{robot} runs no policy for {task}")


def fleet(as_json: JsonOption = False, root: RootOption = ROOT) -> None:
    """List which robot runs which policy since when, and how that policy stands."""
    from world4rl.paths import Paths
    from world4rl.promotion import fleet as ledger

    running = ledger.fleet(Paths(root))
    if as_json:
        _print_json(asdict(one) for one in running)
        return
    if running:
        _print_fleet(running)
    else:
        typer.echo("no robot runs a policy: `world4rl deploy --task TASK --robot NAME …` notes that one does")


def keys(
    name: Annotated[
        str | None, typer.Option("--name", help="Of the signer, as in keys/NAME.pem (default: user and host).")
    ] = None,
    root: RootOption = ROOT,
) -> None:
    """Make this machine's signing key where it has none, and have this repository trust it."""
    from world4rl.paths import Paths
    from world4rl.provenance.keys import introduce, signer

    private, public = introduce(Paths(root), name or signer())
    typer.echo(f"private key: {private} (keep it to yourself)")
    typer.echo(f"public key: {public} (commit it, so that others trust what is signed here)")


def _print_json(rows: Iterable[dict[str, Any]]) -> None:
    typer.echo(json.dumps(list(rows), indent=2, sort_keys=True))


def _print_reign(reign: Reign, now: bool, withdrawn: str | None) -> None:
    from world4rl.promotion.history import DIGITS, evidence_line

    past = "" if now else " (earlier)"
    typer.echo(f"{reign.task}: {reign.policy[:DIGITS]} since {reign.since}{past}, {reign.how} by {reign.by}")
    typer.echo(f"  why: {reign.because}")
    if reign.evidence:
        typer.echo(f"  evidence: {evidence_line(reign.evidence)}")
    if withdrawn is not None:
        typer.echo(f"  made from episodes that were withdrawn at {withdrawn}")


def _print_fleet(running: Sequence[Running]) -> None:
    """A line each in columns, so that what stands out does, among many."""
    from world4rl.promotion.history import DIGITS

    titles = ("robot", "task", "policy", "since", "standing", "by", "why")
    rows = [titles] + [
        (one.robot, one.task, one.policy[:DIGITS], one.since, _standing(one), one.by, one.because) for one in running
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_running(running: Running) -> None:
    from world4rl.promotion.history import DIGITS

    typer.echo(
        f"{running.robot}: {running.task} {running.policy[:DIGITS]} since {running.since} by {running.by} "
        f"({_standing(running)})"
    )
    typer.echo(f"  why: {running.because}")


def _standing(running: Running) -> str:
    return running.standing if running.withdrawn is None else f"WITHDRAWN at {running.withdrawn}"
