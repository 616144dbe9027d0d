"""Answers as self-contained HTML pages, in the style of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path

from world4rl.audit.answers import MOST, Answer, Link, Picture, Table, answer, cell, count, short
from world4rl.audit.book import Book
from world4rl.audit.picture import STATES, draw
from world4rl.audit.reach import starts_of
from world4rl.audit.stale import find_stale, tell_stale
from world4rl.audit.versions import History
from world4rl.files import write_text
from world4rl.pages import render
from world4rl.provenance.graph import Stale

COLOURS = {"good": "better", "doubt": "unclear", "bad": "worse"}  # classes of the report's style, by verdict


def page(title: str, answers: Sequence[Answer], *, where: str, written: str, links: Sequence[Link] = ()) -> str:
    """A page of one answer or more.

    Args:
        title: Of the page.
        answers: At least one; all from the same book.
        where: Which repository this is about.
        written: When.
        links: To other pages of the same folder.
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
        links=links,
        colours=COLOURS,
        states=STATES,
        most=MOST,
    )


def write_page(book: Book, title: str, answers: Sequence[Answer], out: Path, links: Sequence[Link] = ()) -> None:
    """Writes a page, now."""
    where = str(book.paths.root.resolve())
    write_text(out, page(title, answers, where=where, written=now(), links=links))


def now() -> str:
    """The time, for people."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def overview(
    book: Book, history: History, pages: Set[str] = frozenset(), stale: Mapping[str, Stale] | None = None
) -> list[Answer]:
    """The answers of the overview: what there is, and what is stale.

    Args:
        book: The records.
        history: Their history.
        pages: Stages that have a page beside this one.
        stale: What `find_stale` found; None: it is asked.
    """
    current = sorted(history.current.items())
    stale = find_stale(book, history) if stale is None else stale
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
                        _linked(book.runs[history.made_by[one][-1]].predicate.stage, pages),
                        book.runs[history.made_by[one][-1]].predicate.ended,
                        "stale" if path in stale else "current",
                    )
                    for path, one in current
                ],
            ),
        ),
    )
    return [first, tell_stale(book, history, stale)]


def _linked(stage: str, pages: Set[str]) -> Link | str:
    return Link(stage, f"{stage}.html") if stage in pages else stage


def _about_withdrawn(artefacts: Sequence[str], robots: Sequence[str]) -> list[str]:
    """What an overview says of what was made from withdrawn episodes."""
    made = [f"{count(len(artefacts), 'current artefact')} made from episodes that were withdrawn since."]
    run = [f"Robots that run what was made from withdrawn episodes: {', '.join(robots)}."]
    return (made if artefacts else []) + (run if robots else [])
