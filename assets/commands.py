"""Commands of `world4rl` that need DVC or Dagster: found through the entry points `world4rl.commands`.

What is heavy is imported inside the commands, so that `world4rl --help` answers at once.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from importlib.util import find_spec
from typing import Annotated

import typer

from world4rl.commands.options import PARAMS, ROOT, HtmlOption, JsonOption, ParamsOption, RootOption

PANEL = "Lineage"
NEEDED = ("dagster", "dvc")


def add(app: typer.Typer) -> None:
    """Adds the commands; none where only the method is installed, which comes without an orchestrator."""
    if not all(map(find_spec, NEEDED)):
        return
    app.command(rich_help_panel=PANEL)(record)
    app.command(rich_help_panel=PANEL)(lineage)
    app.command(rich_help_panel=PANEL)(reproduce)
    app.command("plan", rich_help_panel=PANEL)(show_plan)
    app.command(rich_help_panel=PANEL)(withdraw)


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
    html: HtmlOption = None,
    root: RootOption = ROOT,
) -> None:
    """Run a recorded stage again in a fresh working tree and compare; status 1 when the outcome is different.

    The answer is kept in reports/audit, where the page of the stage finds it.
    """
    from assets.reproducing import reproduce as run_again
    from assets.reproducing import tell
    from world4rl import progress
    from world4rl.audit.book import read_book
    from world4rl.audit.pages import write_page
    from world4rl.audit.site import again, keep
    from world4rl.paths import Paths

    with progress.session(f"reproduce {what}"):
        found = run_again(root, what, tolerance)
    book = read_book(Paths(root))
    answer = tell(book, what, found)
    typer.echo(answer.json() if json_ else answer.text())
    keep(book, answer, again(found.stage))
    if html is not None:
        write_page(book, answer.question, [answer], html)
    if not answer.ok:
        raise typer.Exit(1)


def show_plan(
    task: Annotated[
        list[str] | None,
        typer.Option(help="What a batch of this task's episodes would run; may be repeated (default: everything)."),
    ] = None,
    as_json: JsonOption = False,
    root: RootOption = ROOT,
) -> None:
    """Say what would run now and why, in order, and what would not; runs nothing."""
    from assets.dvc_project import DvcProject
    from assets.plan import gathered, make_plan, plan_json, plan_text
    from world4rl.config import load_params
    from world4rl.errors import ConfigError
    from world4rl.paths import Paths

    params = load_params(Paths(root).params)
    for name in task or ():
        if name not in params.tasks:
            raise ConfigError(f"no task {name!r}", where="--task", remedy=f"use one of {', '.join(params.tasks)}")
    project = DvcProject(root)
    plan = make_plan(project, tasks=task or None)
    waiting = {name: gathered(project, name, Paths(project.root)) for name in params.tasks}
    if as_json:
        typer.echo(json.dumps(plan_json(plan, waiting, params.retraining, time.time()), indent=2))
    else:
        typer.echo(plan_text(plan, waiting, params.retraining, time.time()))


def withdraw(
    episode: Annotated[
        list[str] | None, typer.Option(help="Its digest (8 digits or more), or DATASET-ID:INDEX; repeatable.")
    ] = None,
    operator: Annotated[str | None, typer.Option(help="All that this person recorded.")] = None,
    dataset: Annotated[str | None, typer.Option(help="All of the accepted dataset with this id.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Carry it out; without it nothing is changed.")] = False,
    by: Annotated[str | None, typer.Option(help="Who answers for it.")] = None,
    because: Annotated[str | None, typer.Option(help="Why; it is kept for good, so no names here.")] = None,
    models: Annotated[
        bool, typer.Option("--models", help="Remove affected models and rollouts from cache and remotes too.")
    ] = False,
    also_landing: Annotated[
        bool, typer.Option("--also-landing", help="Remove the datasets from the landing folder too.")
    ] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Run `dvc repro` at the end.")] = False,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS,
    root: RootOption = ROOT,
) -> None:
    """Withdraw episodes: show what goes and what runs again, or (--yes) carry it out. None named: finish what began."""
    from assets.withdrawing import Request, Withdrawals
    from world4rl import progress
    from world4rl.errors import ConfigError

    request = Request(tuple(episode or ()), operator, dataset, models, also_landing)
    named = bool(request.episodes or operator or dataset)
    if yes and named and not (by and because):
        raise ConfigError(
            "who withdraws, and why?", where="--by, --because", remedy="say both: the decision names them"
        )
    with progress.session("withdraw"), closing(Withdrawals(root, params)) as withdrawals:
        plan = withdrawals.plan(request)
        typer.echo(json.dumps(plan.json(), indent=1) if as_json else "\n".join(plan.lines(request)))
        if yes:
            withdrawals.carry_out(request, plan, by=by or "", because=because or "")
            if retrain:
                withdrawals.retrain()
            withdrawals.keep()
    if not as_json:
        typer.echo("done" if yes else "nothing was changed: --yes carries it out")
