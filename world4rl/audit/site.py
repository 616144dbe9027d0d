"""The pages below `reports/audit`, which link to each other: a stage's, the overview, and what people's data reached.

They rest on the records alone. What only reading or training can tell, whether the bytes are still the same and come
out again, is what the last `world4rl audit verify` and `world4rl reproduce` said: both leave their answer here.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from world4rl.audit.answers import Answer, Link, Table, Verdict, answer, count
from world4rl.audit.book import Book
from world4rl.audit.episodes import episodes_behind
from world4rl.audit.find import on_record
from world4rl.audit.pages import now, overview, write_page
from world4rl.audit.reach import everyone, reached_from
from world4rl.audit.stale import moment
from world4rl.audit.versions import History, Version
from world4rl.audit.who import who_made
from world4rl.files import read_json, write_json
from world4rl.provenance.graph import Stale

INDEX, REACH, VERIFY = "index", "reach", "verify"
SHARED = {
    INDEX: "the lineage, and what is stale",
    REACH: "what each operator and dataset reached",
    VERIFY: "the last verification",
}
REPRODUCED: dict[str, Verdict] = {"bit-equal": "good", "metric-equal": "doubt", "different": "bad"}


def keep(book: Book, told: Answer, name: str) -> None:
    """Leaves an answer as a page and as JSON, where the other pages find it and say what came of it and when.

    A repository that nobody may write to is left as it is.
    """
    if os.access(book.paths.root, os.W_OK):
        out = book.paths.audit(name)
        write_page(book, told.question, [told], out, _links(book, name))
        write_json(out.with_suffix(".json"), {"written": now(), "ok": told.ok, "answer": told.headline, **told.data})


def again(stage: str) -> str:
    """The name of the page that says whether a stage came out again."""
    return f"{stage}-again"


def write_shared(book: Book, history: History, stale: Mapping[str, Stale]) -> list[Answer]:
    """Writes the pages that are about everything; returns the answers of the overview.

    Args:
        book: The records.
        history: Their history.
        stale: What `find_stale` found.
    """
    write_page(
        book, "What people's data reached", everyone(book, history), book.paths.audit(REACH), _links(book, REACH)
    )
    stages = {record.predicate.stage for record in book.runs}
    pages = {stage for stage in stages if book.paths.audit(stage).is_file()}
    answers = overview(book, history, pages, stale)
    write_page(book, "Overview", answers, book.paths.audit(INDEX), _links(book, INDEX))
    return answers


def write_stage(book: Book, history: History, stage: str, outputs: Sequence[str], stale: Mapping[str, Stale]) -> bool:
    """Writes the page of a stage: an answer to each question about what it made.

    Args:
        book: The records.
        history: Their history.
        stage: Its name.
        outputs: What it makes.
        stale: What `find_stale` found.

    Returns:
        Whether anything that it makes is on record; else there is no page.
    """
    made = [path for path in outputs if path in history.current]
    if not made:
        return False
    found = on_record(history, made[0])
    versions = [history.current[path] for path in made]
    answers = [
        who_made(book, history, found),
        episodes_behind(book, history, found, listed=False),
        reached_from(book, history, found),
        _identical(book, stage, versions),
        _stale(book, versions, stale),
        _reproduced(book, history, stage, versions[0]),
    ]
    write_page(book, stage, answers, book.paths.audit(stage), _links(book, stage))
    return True


def _links(book: Book, own: str) -> list[Link]:
    """Links to the shared pages that there are."""
    pages = {name: book.paths.audit(name) for name in SHARED if name != own}
    return [Link(SHARED[name], f"{name}.html") for name, page in pages.items() if name != VERIFY or page.is_file()]


def _kept(book: Book, name: str) -> Mapping[str, Any] | None:
    """What `keep` left; None where there is nothing, or nothing that can be used."""
    try:
        values = read_json(book.paths.audit(name).with_suffix(".json"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _identical(book: Book, stage: str, versions: Sequence[Version]) -> Answer:
    """What the last verification said of what a stage made."""
    last = _kept(book, VERIFY)
    command = f"world4rl audit verify {' '.join(shlex.quote(one.path) for one in versions)}"
    question = f"Is what {stage} made bit-identical to what was made?"
    if last is None:
        headline = "Not known: nobody has verified it here, and a page reads no artefact."
        return answer(book, question, headline, "doubt", {}, blocks=[_ask(("verify it now", command))])
    paths = {one.path for one in versions}
    compared = {(one["path"], one["sha256"]) for each in last["compared"] for one in each["with"]}
    differing = [one["file"] for one in last["differences"] if _belongs(one["file"], paths)]
    told: tuple[str, Verdict] = (f"Yes: bit-identical, as of {last['written']}.", "good")
    if not {(one.path, one.digest) for one in versions} <= compared:
        differing = []  # of an earlier version
        told = f"Not known: the last verification, of {last['written']}, was of other versions.", "doubt"
    elif differing:
        are = "is" if len(differing) == 1 else "are"
        told = f"No: {count(len(differing), 'file')} {are} not as made, as of {last['written']}.", "bad"
    return answer(
        book,
        question,
        *told,
        {},
        blocks=(
            Table("Files that are not as made", ("file",), [(file,) for file in differing]),
            _ask(("verify it now", command), ("the whole answer", Link("the last verification", f"{VERIFY}.html"))),
        ),
    )


def _belongs(file: str, paths: set[str]) -> bool:
    return any(f"{file}/".startswith(f"{path}/") for path in paths)


def _stale(book: Book, versions: Sequence[Version], stale: Mapping[str, Stale]) -> Answer:
    """Whether what a stage made is stale."""
    rows = [
        (one.path, moment(stale[one.path].since), ", ".join(stale[one.path].causes))
        for one in versions
        if one.path in stale
    ]
    headline = f"Yes: since {min(row[1] for row in rows)}." if rows else "No: it has every change."
    return answer(
        book,
        "Is it stale, because of what, since when?",
        headline,
        "doubt" if rows else "good",
        {},
        sentences=("That was so when this page was written.",),
        blocks=(
            Table("Stale", ("artefact", "since", "because of"), rows),
            _ask(
                ("now", "world4rl audit stale"),
                ("after the last run of anything", Link("what is stale", f"{INDEX}.html")),
            ),
        ),
    )


def _reproduced(book: Book, history: History, stage: str, version: Version) -> Answer:
    """What came of running a stage again."""
    last, question = _kept(book, again(stage)), f"Does {stage} come out again?"
    command = ("run it again and compare", f"world4rl reproduce {shlex.quote(stage)}")
    if last is None:
        headline = "Not known: nobody has run it again here."
        return answer(book, question, headline, "doubt", {}, blocks=[_ask(command)])
    verdict = str(last["comparison"]["verdict"])
    current = last["record"] == book.run_files[history.made_by[version][-1]].name
    headline = f"{verdict}, as of {last['written']}" + ("." if current else ": that was an earlier version.")
    page = ("the whole answer", Link("what came out", f"{again(stage)}.html"))
    return answer(
        book,
        question,
        headline[0].upper() + headline[1:],
        REPRODUCED[verdict] if current else "doubt",
        {},
        blocks=[_ask(command, page)],
    )


def _ask(*rows: tuple[str, object]) -> Table:
    return Table("Ask", ("", ""), rows)
