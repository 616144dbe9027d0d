"""`world4rl audit`: the questions of an auditor, each one command, one page and one JSON document."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from world4rl.commands.options import ROOT, HtmlOption, JsonOption, RootOption

if TYPE_CHECKING:
    from world4rl.audit.answers import Answer
    from world4rl.audit.book import Book
    from world4rl.audit.versions import History

PANEL = "Audit"
DiskOption = Annotated[bool, typer.Option("--disk", help="Read the artefacts too, not only what they were made from.")]
AskedArgument = Annotated[str, typer.Argument(metavar="FILE|FOLDER|DIGEST", help="Anywhere on the disk.")]


def add(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(audit, name="audit", rich_help_panel=PANEL)


audit = typer.Typer(
    help="What made this, what did that reach, is it what was trained, what is stale. Status 1: bad news, or records "
    "that do not hold.",
    no_args_is_help=True,
)


@audit.command()
def episodes(asked: AskedArgument, json: JsonOption = False, html: HtmlOption = None, root: RootOption = ROOT) -> None:
    """Which episodes, operators, licences, consents and robots made this file?"""
    from world4rl.audit.episodes import which_episodes

    _say(root, lambda book, history: which_episodes(book, history, asked), json, html)


@audit.command()
def reach(
    episode: Annotated[str | None, typer.Option(help="Its SHA-256, or the first digits.")] = None,
    operator: Annotated[str | None, typer.Option(help="As the datasets name them.")] = None,
    dataset: Annotated[str | None, typer.Option(help="The id or name of an accepted dataset.")] = None,
    json: JsonOption = False,
    html: HtmlOption = None,
    root: RootOption = ROOT,
) -> None:
    """Which artefacts and deployments did an episode, an operator or a dataset reach?"""
    from world4rl.audit.reach import reach as reached

    _say(
        root,
        lambda book, history: reached(book, history, episode=episode, operator=operator, dataset=dataset),
        json,
        html,
    )


@audit.command()
def verify(
    paths: Annotated[list[str] | None, typer.Argument(help="Files and folders; without any: everything.")] = None,
    json: JsonOption = False,
    html: HtmlOption = None,
    root: RootOption = ROOT,
) -> None:
    """Is this bit-identical to what was trained? Names every file that differs, is missing or is unknown.

    Without paths the answer is kept in reports/audit, where the pages of the stages find it.
    """
    from world4rl.audit.site import VERIFY
    from world4rl.audit.verify import verify as verified

    _say(root, lambda book, history: verified(book, history, paths or ()), json, html, None if paths else VERIFY)


@audit.command()
def stale(disk: DiskOption = False, json: JsonOption = False, html: HtmlOption = None, root: RootOption = ROOT) -> None:
    """What is stale now, also at second hand, because of what and since when?"""
    from world4rl.audit.stale import what_is_stale

    _say(root, lambda book, history: what_is_stale(book, history, look=disk), json, html)


@audit.command()
def who(asked: AskedArgument, json: JsonOption = False, html: HtmlOption = None, root: RootOption = ROOT) -> None:
    """Who made this, when, with which code, parameters, packages, hardware and seeds?"""
    from world4rl.audit.who import who as who_made

    _say(root, lambda book, history: who_made(book, history, asked), json, html)


@audit.command()
def page(
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write (default: reports/audit/index.html).")
    ] = None,
    root: RootOption = ROOT,
) -> None:
    """Write the overview: the state of the records, the lineage as a picture, champions, robots, what is stale.

    Without --out also the page of what each operator and dataset reached, and the pages link to each other.
    """
    from world4rl.audit.pages import overview, write_page
    from world4rl.audit.site import INDEX, write_shared
    from world4rl.audit.stale import find_stale

    book, history = _read(root)
    if out is None:
        answers = write_shared(book, history, find_stale(book, history))
    else:
        answers = overview(book, history)
        write_page(book, "Overview", answers, out)
    typer.echo(f"{answers[0].headline}\nThe page is {out or book.paths.audit(INDEX)}")
    if book.faults:
        raise typer.Exit(1)


def _read(root: Path) -> tuple[Book, History]:
    from world4rl.audit.book import read_book
    from world4rl.audit.versions import history_of
    from world4rl.paths import Paths

    gc.disable()  # a short life among many objects that all stay
    book = read_book(Paths(root))
    return book, history_of(book)


def _say(
    root: Path, ask: Callable[[Book, History], Answer], json: bool, html: Path | None, kept_as: str | None = None
) -> None:
    from world4rl.audit.pages import write_page
    from world4rl.audit.site import keep

    book, history = _read(root)
    answer = ask(book, history)
    typer.echo(answer.json() if json else answer.text())
    if kept_as is not None:
        keep(book, answer, kept_as)
    if html is not None:
        write_page(book, answer.question, [answer], html)
    if not answer.ok:
        raise typer.Exit(1)
