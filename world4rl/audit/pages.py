"""Answers as self-contained HTML pages, in the style of the report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from world4rl.audit.answers import MOST, Answer, Picture, Table, answer, cell, count, short
from world4rl.audit.book import Book
from world4rl.audit.picture import STATES, draw
from world4rl.audit.reach import starts_of
from world4rl.audit.stale import find_stale, tell_stale
from world4rl.audit.versions import History
from world4rl.files import write_text
from world4rl.pages import render

OPERATORS = 5  # that a page names a command for


def page(title: str, answers: Sequence[Answer], *, where: str, written: str) -> str:
    """A page of one answer or more.

    Args:
        title: Of the page.
        answers: At least one; all from the same book.
        where: Which repository this is about.
        written: When.
    """
    return render(
        "page.html",
        "world4rl.audit",
        "world4rl.evaluation",
        filters={"cell": cell},
        title=title,
        answers=answers,
        where=where,
        written=written,
        states=STATES,
        most=MOST,
    )


def write_page(book: Book, title: str, answers: Sequence[Answer], out: Path) -> None:
    """Writes a page, now."""
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    write_text(out, page(title, answers, where=str(book.paths.root.resolve()), written=written))


def further(book: Book, stage: str, path: str, operators: Sequence[str]) -> Answer:
    """What else can be asked about what a stage made, each with the command that answers.

    Args:
        book: The records.
        stage: The stage's name.
        path: Its first output.
        operators: Who recorded the episodes behind it.
    """
    file, page_again = shlex.quote(path), shlex.quote(f"reports/audit/{stage}-again.html")
    rows = [
        ("is it bit-identical to what was made", f"world4rl audit verify {file}"),
        ("is it stale, because of what, since when", "world4rl audit stale"),
        ("does it come out again", f"world4rl reproduce {shlex.quote(stage)} --html {page_again}"),
        ("which episodes made it, all of them", f"world4rl audit episodes {file} --json"),
        *(
            (f"what did {name} reach, and which robots", f"world4rl audit reach --operator {shlex.quote(name)}")
            for name in operators[:OPERATORS]
        ),
        ("what would a withdrawal remove", "world4rl withdraw --operator NAME"),
    ]
    headline = "Each of these commands answers, also as JSON (--json); `audit` and `reproduce` as a page (--html FILE)."
    return answer(book, "What else?", headline, "good", {}, blocks=[Table("Ask", ("question", "command"), rows)])


def overview(book: Book, history: History) -> list[Answer]:
    """The answers of the overview: what there is, and what is stale."""
    current = sorted(history.current.items())
    stale = find_stale(book, history)
    running = [one for one, end in book.deployments if end is None]
    beyond = history.beyond(starts_of(book, history, book.withdrawn))
    fouled = [path for path, version in current if history.newest(version) in beyond]
    digests = {one.version.digest for one in beyond}
    must_stop = [one for one in running if one.policy in digests]
    whole = (
        "The records are whole" if not book.faults else f"{count(len(book.faults), 'file')} of the records do not hold"
    )
    first = answer(
        book,
        "What has been made here?",
        f"{whole}: {count(len(book.runs), 'run')} made {count(len(history.made_by), 'version')} of "
        f"{count(len(current), 'artefact')}; {len(stale) or 'none'} of them stale, "
        f"{count(len({one.robot for one in running}), 'robot')} at work.",
        "bad" if book.faults or fouled or must_stop else "doubt" if stale else "good",
        {
            "from withdrawn episodes": fouled,
            "artefacts": [{"path": path, "sha256": one.digest, "stale": path in stale} for path, one in current],
            "champions": dict(book.champions),
            "deployments": [one.model_dump(mode="json", exclude={"previous"}) for one in running],
        },
        sentences=_about_withdrawn(fouled, [f"{one.robot} ({one.task})" for one in must_stop]),
        blocks=(
            Picture(
                "The lineage",
                draw(book, history, stale.keys()),
                "A box is a run, with the first digits of what it made; a line says what it was made from. Dotted "
                "lines: rollouts of a policy that became data of the next generation. Lines that follow from others "
                "are left out. Point at a box to read all about it.",
            ),
            Table(
                "Champions",
                ("task", "policy", "runs on"),
                [
                    (task, short(digest), ", ".join(one.robot for one in running if one.policy == digest))
                    for task, digest in sorted(book.champions.items())
                ],
            ),
            Table(
                "On robots",
                ("robot", "task", "policy", "since", "by", ""),
                [
                    (
                        one.robot,
                        one.task,
                        short(str(one.policy)),
                        one.at,
                        one.by,
                        "made from withdrawn episodes" if one in must_stop else "",
                    )
                    for one in running
                ],
            ),
            Table(
                "Artefacts",
                ("path", "SHA-256", "made by", "on", ""),
                [
                    (
                        path,
                        short(one.digest),
                        book.runs[history.made_by[one][-1]].predicate.stage,
                        book.runs[history.made_by[one][-1]].predicate.ended,
                        "stale" if path in stale else "current",
                    )
                    for path, one in current
                ],
            ),
        ),
    )
    return [first, tell_stale(book, history, stale)]


def _about_withdrawn(artefacts: Sequence[str], robots: Sequence[str]) -> list[str]:
    """What an overview says of what was made from withdrawn episodes."""
    made = [f"{count(len(artefacts), 'current artefact')} made from episodes that were withdrawn since."]
    run = [f"Robots that run what was made from withdrawn episodes: {', '.join(robots)}."]
    return (made if artefacts else []) + (run if robots else [])
